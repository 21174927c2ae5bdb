//! Managed and embedded policies from outside.

mod desk;

use desk::{DOCUMENT, Desk, EXECUTION, refusal};
use gantry_api::iam::{self, Iam, PolicyScopeType};

fn get(desk: &Desk, arn: &str) -> Result<iam::Policy, iam::IamError> {
    let input = iam::GetPolicyRequest {
        policy_arn: arn.into(),
    };
    desk.wait(desk.iam.get_policy(&desk.ctx, input))
        .map(|output| output.policy.unwrap())
}

fn list(desk: &Desk, input: iam::ListPoliciesRequest) -> Vec<String> {
    let mut names = Vec::new();
    let mut marker = None;
    loop {
        let page = desk
            .wait(desk.iam.list_policies(
                &desk.ctx,
                iam::ListPoliciesRequest {
                    marker,
                    ..input.clone()
                },
            ))
            .unwrap();
        names.extend(
            page.policies
                .unwrap()
                .into_iter()
                .map(|policy| policy.policy_name.unwrap()),
        );
        match page.marker {
            Some(next) => marker = Some(next),
            None => return names,
        }
    }
}

fn add_version(desk: &Desk, arn: &str, default: bool) -> Result<String, iam::IamError> {
    desk.wait(desk.iam.create_policy_version(
        &desk.ctx,
        iam::CreatePolicyVersionRequest {
            policy_arn: arn.into(),
            policy_document: DOCUMENT.into(),
            set_as_default: Some(default),
        },
    ))
    .map(|output| output.policy_version.unwrap().version_id.unwrap())
}

fn drop_version(desk: &Desk, arn: &str, version: &str) -> Result<(), iam::IamError> {
    desk.wait(desk.iam.delete_policy_version(
        &desk.ctx,
        iam::DeletePolicyVersionRequest {
            policy_arn: arn.into(),
            version_id: version.into(),
        },
    ))
}

#[test]
fn versions_come_and_go_and_their_numbers_are_not_used_again() {
    let desk = Desk::new();
    let arn = desk.policy("read");
    assert_eq!(arn, "arn:aws:iam::000000000000:policy/read");
    let made = get(&desk, &arn).unwrap();
    assert!(made.policy_id.unwrap().starts_with("ANPA"));
    assert_eq!(made.default_version_id.as_deref(), Some("v1"));
    assert_eq!(add_version(&desk, &arn, true).unwrap(), "v2");
    drop_version(&desk, &arn, "v1").unwrap();
    for expected in ["v3", "v4", "v5", "v6"] {
        assert_eq!(add_version(&desk, &arn, false).unwrap(), expected);
    }
    assert_eq!(refusal(add_version(&desk, &arn, false)).0, "LimitExceeded");
    assert_eq!(
        get(&desk, &arn).unwrap().default_version_id.as_deref(),
        Some("v2")
    );
    assert_eq!(
        refusal(drop_version(&desk, &arn, "v2")),
        (
            "DeleteConflict".into(),
            "Cannot delete the default version of a policy.".into()
        )
    );
    assert_eq!(refusal(drop_version(&desk, &arn, "v1")).0, "NoSuchEntity");
    desk.wait(desk.iam.set_default_policy_version(
        &desk.ctx,
        iam::SetDefaultPolicyVersionRequest {
            policy_arn: arn.clone(),
            version_id: "v6".into(),
        },
    ))
    .unwrap();
    let versions = desk
        .wait(desk.iam.list_policy_versions(
            &desk.ctx,
            iam::ListPolicyVersionsRequest {
                policy_arn: arn.clone(),
                max_items: Some(2),
                ..Default::default()
            },
        ))
        .unwrap();
    let newest: Vec<_> = versions.versions.unwrap();
    assert_eq!(newest[0].version_id.as_deref(), Some("v6"));
    assert_eq!(newest[0].is_default_version, Some(true));
    assert_eq!((newest.len(), versions.is_truncated), (2, Some(true)));
    let version = desk
        .wait(desk.iam.get_policy_version(
            &desk.ctx,
            iam::GetPolicyVersionRequest {
                policy_arn: arn.clone(),
                version_id: "v6".into(),
            },
        ))
        .unwrap();
    let document = version.policy_version.unwrap().document.unwrap();
    assert!(document.starts_with("%7B%22Version%22"));
}

#[test]
fn policies_of_aws_are_found_attached_counted_and_not_changed() {
    let desk = Desk::new();
    desk.role("web");
    desk.attach("web", EXECUTION).unwrap();
    desk.attach("web", EXECUTION).unwrap();
    let policy = get(&desk, EXECUTION).unwrap();
    assert_eq!(policy.attachment_count, Some(1));
    assert_eq!(policy.path.as_deref(), Some("/service-role/"));
    let attached = desk
        .wait(desk.iam.list_attached_role_policies(
            &desk.ctx,
            iam::ListAttachedRolePoliciesRequest {
                role_name: "web".into(),
                ..Default::default()
            },
        ))
        .unwrap();
    assert_eq!(
        attached.attached_policies.unwrap()[0]
            .policy_name
            .as_deref(),
        Some("AmazonECSTaskExecutionRolePolicy")
    );
    assert_eq!(
        refusal(add_version(&desk, EXECUTION, true)).0,
        "AccessDenied"
    );
    assert_eq!(
        refusal(desk.attach("web", "arn:aws:iam::aws:policy/NoSuchPolicy")),
        (
            "NoSuchEntity".into(),
            "Policy arn:aws:iam::aws:policy/NoSuchPolicy does not exist or is not attachable."
                .into()
        )
    );
    let only_attached = iam::ListPoliciesRequest {
        only_attached: Some(true),
        ..Default::default()
    };
    assert_eq!(
        list(&desk, only_attached),
        ["AmazonECSTaskExecutionRolePolicy"]
    );
}

#[test]
fn a_policy_in_use_is_not_deleted() {
    let desk = Desk::new();
    desk.role("web");
    let arn = desk.policy("read");
    let delete = || {
        desk.wait(desk.iam.delete_policy(
            &desk.ctx,
            iam::DeletePolicyRequest {
                policy_arn: arn.clone(),
            },
        ))
    };
    desk.attach("web", &arn).unwrap();
    assert_eq!(get(&desk, &arn).unwrap().attachment_count, Some(1));
    assert_eq!(
        refusal(delete()),
        (
            "DeleteConflict".into(),
            "Cannot delete a policy attached to entities.".into()
        )
    );
    desk.detach("web", &arn).unwrap();
    assert_eq!(
        refusal(desk.detach("web", &arn)),
        (
            "NoSuchEntity".into(),
            format!("Policy {arn} was not found.")
        )
    );

    desk.wait(desk.iam.put_role_permissions_boundary(
        &desk.ctx,
        iam::PutRolePermissionsBoundaryRequest {
            role_name: "web".into(),
            permissions_boundary: arn.clone(),
        },
    ))
    .unwrap();
    assert_eq!(
        get(&desk, &arn).unwrap().permissions_boundary_usage_count,
        Some(1)
    );
    assert_eq!(refusal(delete()).0, "DeleteConflict");
    desk.wait(desk.iam.delete_role_permissions_boundary(
        &desk.ctx,
        iam::DeleteRolePermissionsBoundaryRequest {
            role_name: "web".into(),
        },
    ))
    .unwrap();

    add_version(&desk, &arn, false).unwrap();
    assert!(
        refusal(delete())
            .1
            .starts_with("This policy has more than one version.")
    );
    drop_version(&desk, &arn, "v2").unwrap();
    delete().unwrap();
    assert_eq!(
        refusal(get(&desk, &arn)),
        (
            "NoSuchEntity".into(),
            format!("Policy {arn} was not found.")
        )
    );
}

#[test]
fn lists_are_filtered_by_scope_and_path_and_paged() {
    let desk = Desk::new();
    desk.policy("zeta");
    desk.policy("Alpha");
    let local = iam::ListPoliciesRequest {
        scope: Some(PolicyScopeType::Local),
        ..Default::default()
    };
    assert_eq!(list(&desk, local), ["Alpha", "zeta"]);
    let aws = list(
        &desk,
        iam::ListPoliciesRequest {
            scope: Some(PolicyScopeType::Aws),
            max_items: Some(3),
            ..Default::default()
        },
    );
    assert!(aws.contains(&"AdministratorAccess".to_owned()) && aws.len() >= 15);
    let all = list(
        &desk,
        iam::ListPoliciesRequest {
            max_items: Some(4),
            ..Default::default()
        },
    );
    assert_eq!(all.len(), aws.len() + 2);
    let service = list(
        &desk,
        iam::ListPoliciesRequest {
            path_prefix: Some("/service-role/".into()),
            ..Default::default()
        },
    );
    assert!(service.contains(&"AmazonEC2ContainerServiceforEC2Role".to_owned()));
    assert!(!service.contains(&"AdministratorAccess".to_owned()));
    assert_eq!(
        refusal(desk.wait(desk.iam.create_policy(
            &desk.ctx,
            iam::CreatePolicyRequest {
                policy_name: "ALPHA".into(),
                policy_document: DOCUMENT.into(),
                ..Default::default()
            }
        ))),
        (
            "EntityAlreadyExists".into(),
            "A policy called ALPHA already exists. Duplicate names are not allowed.".into()
        )
    );
    assert_eq!(
        refusal(desk.wait(desk.iam.create_policy(
            &desk.ctx,
            iam::CreatePolicyRequest {
                policy_name: "bad".into(),
                policy_document: "{}".into(),
                ..Default::default()
            }
        )))
        .0,
        "MalformedPolicyDocument"
    );
}

#[test]
fn embedded_policies_are_put_read_listed_and_bounded() {
    let desk = Desk::new();
    desk.role("web");
    let put = |name: &str, document: String| {
        desk.wait(desk.iam.put_role_policy(
            &desk.ctx,
            iam::PutRolePolicyRequest {
                role_name: "web".into(),
                policy_name: name.into(),
                policy_document: document,
            },
        ))
    };
    put("b", DOCUMENT.into()).unwrap();
    put("a", DOCUMENT.into()).unwrap();
    assert_eq!(refusal(put("c", "{}".into())).0, "MalformedPolicyDocument");
    let names = desk
        .wait(desk.iam.list_role_policies(
            &desk.ctx,
            iam::ListRolePoliciesRequest {
                role_name: "web".into(),
                ..Default::default()
            },
        ))
        .unwrap();
    assert_eq!(names.policy_names, ["a", "b"]);
    let get = |name: &str| {
        desk.wait(desk.iam.get_role_policy(
            &desk.ctx,
            iam::GetRolePolicyRequest {
                role_name: "web".into(),
                policy_name: name.into(),
            },
        ))
    };
    assert!(
        get("a")
            .unwrap()
            .policy_document
            .starts_with("%7B%22Version")
    );
    assert_eq!(
        refusal(get("ghost")),
        (
            "NoSuchEntity".into(),
            "The role policy with name ghost cannot be found.".into()
        )
    );
    let large = DOCUMENT.replace("s3:GetObject", &format!("s3:{}", "x".repeat(11_000)));
    assert_eq!(
        refusal(put("large", large)),
        (
            "LimitExceeded".into(),
            "Maximum policy size of 10240 bytes exceeded for role web".into()
        )
    );
}

#[test]
fn a_role_takes_ten_managed_policies_and_no_more() {
    let desk = Desk::new();
    desk.role("web");
    for n in 0..10 {
        let arn = desk.policy(&format!("p{n}"));
        desk.attach("web", &arn).unwrap();
    }
    assert_eq!(
        refusal(desk.attach("web", EXECUTION)),
        (
            "LimitExceeded".into(),
            "Cannot exceed quota for PoliciesPerRole: 10".into()
        )
    );
    let entities = desk
        .wait(desk.iam.list_entities_for_policy(
            &desk.ctx,
            iam::ListEntitiesForPolicyRequest {
                policy_arn: "arn:aws:iam::000000000000:policy/p3".into(),
                ..Default::default()
            },
        ))
        .unwrap();
    assert_eq!(
        entities.policy_roles.unwrap()[0].role_name.as_deref(),
        Some("web")
    );
}
