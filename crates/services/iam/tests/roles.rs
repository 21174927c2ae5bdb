//! Roles from outside: create, get, list, update, delete, tags, instance profiles.

mod desk;

use desk::{Desk, EXECUTION, TRUST, refusal};
use gantry_api::iam::{self, Iam};

fn list(
    desk: &Desk,
    prefix: Option<&str>,
    marker: Option<String>,
    max: i32,
) -> iam::ListRolesResponse {
    desk.wait(desk.iam.list_roles(
        &desk.ctx,
        iam::ListRolesRequest {
            path_prefix: prefix.map(str::to_owned),
            marker,
            max_items: Some(max),
        },
    ))
    .unwrap()
}

fn get(desk: &Desk, name: &str) -> Result<iam::Role, iam::IamError> {
    let input = iam::GetRoleRequest {
        role_name: name.into(),
    };
    desk.wait(desk.iam.get_role(&desk.ctx, input))
        .map(|output| output.role)
}

#[test]
fn a_role_is_returned_as_it_was_made() {
    let desk = Desk::new();
    let made = desk
        .wait(desk.iam.create_role(
            &desk.ctx,
            iam::CreateRoleRequest {
                role_name: "Web".into(),
                path: Some("/team/a/".into()),
                assume_role_policy_document: TRUST.into(),
                description: Some("serves".into()),
                max_session_duration: Some(7200),
                tags: Some(vec![iam::Tag {
                    key: "team".into(),
                    value: "a".into(),
                }]),
                ..Default::default()
            },
        ))
        .unwrap()
        .role;
    assert_eq!(made.arn, "arn:aws:iam::000000000000:role/team/a/Web");
    assert!(made.role_id.starts_with("AROA") && made.role_id.len() == 21);
    assert_eq!(made.max_session_duration, Some(7200));
    let document = made.assume_role_policy_document.clone().unwrap();
    assert!(
        document.starts_with("%7B%22Version%22%3A%20%222012-10-17%22"),
        "{document}"
    );
    assert_eq!(made.create_date, desk.ctx.now);
    // IAM tells names apart without regard to case, and gives back the case of the creation.
    for name in ["Web", "WEB"] {
        assert_eq!(get(&desk, name).unwrap(), made);
    }
    assert_eq!(
        refusal(desk.wait(desk.iam.create_role(
            &desk.ctx,
            iam::CreateRoleRequest {
                role_name: "web".into(),
                assume_role_policy_document: TRUST.into(),
                ..Default::default()
            }
        ))),
        (
            "EntityAlreadyExists".into(),
            "Role with name Web already exists.".into()
        )
    );
}

#[test]
fn what_does_not_exist_is_named() {
    let desk = Desk::new();
    let missing = (
        "NoSuchEntity".to_owned(),
        "The role with name ghost cannot be found.".to_owned(),
    );
    assert_eq!(refusal(get(&desk, "ghost")), missing);
    assert_eq!(refusal(desk.delete_role("ghost")), missing);
    assert_eq!(refusal(desk.attach("ghost", EXECUTION)), missing);
    assert_eq!(
        refusal(desk.wait(desk.iam.tag_role(
            &desk.ctx,
            iam::TagRoleRequest {
                role_name: "ghost".into(),
                tags: vec![],
            }
        ))),
        missing
    );
}

#[test]
fn a_malformed_trust_policy_is_refused_and_nothing_is_made() {
    let desk = Desk::new();
    for (document, message) in [
        ("{", "This policy contains invalid Json"),
        (
            desk::DOCUMENT,
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
    ] {
        let refused = desk.wait(desk.iam.create_role(
            &desk.ctx,
            iam::CreateRoleRequest {
                role_name: "bad".into(),
                assume_role_policy_document: document.into(),
                ..Default::default()
            },
        ));
        assert_eq!(
            refusal(refused),
            ("MalformedPolicyDocument".into(), message.into())
        );
    }
    let long = TRUST.replace(
        "sts:AssumeRole\"",
        &format!("sts:AssumeRole\", \"Sid\": \"{}\"", "a".repeat(2100)),
    );
    let refused = desk.wait(desk.iam.create_role(
        &desk.ctx,
        iam::CreateRoleRequest {
            role_name: "bad".into(),
            assume_role_policy_document: long,
            ..Default::default()
        },
    ));
    assert_eq!(
        refusal(refused),
        (
            "LimitExceeded".into(),
            "Cannot exceed quota for ACLSizePerRole: 2048".into()
        )
    );
    assert!(get(&desk, "bad").is_err());
}

#[test]
fn lists_page_through_every_role_once_in_order() {
    let desk = Desk::new();
    let mut names: Vec<String> = (0..23).map(|n| format!("role-{n:02}")).collect();
    for name in names.iter().rev() {
        desk.role(name);
    }
    let mut seen = Vec::new();
    let mut marker = None;
    loop {
        let page = list(&desk, None, marker, 5);
        assert!(page.roles.len() <= 5);
        // Lists leave out what AWS leaves out.
        assert!(
            page.roles
                .iter()
                .all(|role| role.tags.is_none() && role.role_last_used.is_none())
        );
        seen.extend(page.roles.into_iter().map(|role| role.role_name));
        // A role made behind the marker's back changes neither page.
        if seen.len() == 5 {
            desk.role("aaa");
        }
        assert_eq!(page.is_truncated, Some(page.marker.is_some()));
        match page.marker {
            Some(next) => marker = Some(next),
            None => break,
        }
    }
    names.sort();
    assert_eq!(seen, names);

    assert!(list(&desk, Some("/none/"), None, 5).roles.is_empty());
    let bad = desk.wait(desk.iam.list_roles(
        &desk.ctx,
        iam::ListRolesRequest {
            marker: Some("made-up".into()),
            ..Default::default()
        },
    ));
    assert_eq!(
        refusal(bad),
        ("ValidationError".into(), "Invalid Marker.".into())
    );
    // A marker belongs to the list with its filter.
    let marker = list(&desk, None, None, 2).marker;
    let other = desk.wait(desk.iam.list_roles(
        &desk.ctx,
        iam::ListRolesRequest {
            path_prefix: Some("/x/".into()),
            marker,
            ..Default::default()
        },
    ));
    assert_eq!(refusal(other).0, "ValidationError");
}

#[test]
fn a_role_is_updated_in_each_of_its_parts() {
    let desk = Desk::new();
    desk.role("web");
    desk.wait(desk.iam.update_role(
        &desk.ctx,
        iam::UpdateRoleRequest {
            role_name: "web".into(),
            description: Some("new".into()),
            max_session_duration: Some(43200),
        },
    ))
    .unwrap();
    let newer = TRUST.replace("ecs-tasks", "ec2");
    desk.wait(desk.iam.update_assume_role_policy(
        &desk.ctx,
        iam::UpdateAssumeRolePolicyRequest {
            role_name: "web".into(),
            policy_document: newer,
        },
    ))
    .unwrap();
    let role = get(&desk, "web").unwrap();
    assert_eq!(role.description.as_deref(), Some("new"));
    assert_eq!(role.max_session_duration, Some(43200));
    assert!(
        role.assume_role_policy_document
            .unwrap()
            .contains("ec2.amazonaws.com")
    );
    let described = desk
        .wait(desk.iam.update_role_description(
            &desk.ctx,
            iam::UpdateRoleDescriptionRequest {
                role_name: "web".into(),
                description: "".into(),
            },
        ))
        .unwrap();
    assert_eq!(described.role.unwrap().description, None);
}

#[test]
fn a_role_with_anything_on_it_is_not_deleted() {
    let desk = Desk::new();
    desk.role("web");
    let conflict = |message: &str| ("DeleteConflict".to_owned(), message.to_owned());
    desk.attach("web", EXECUTION).unwrap();
    assert_eq!(
        refusal(desk.delete_role("web")),
        conflict("Cannot delete entity, must detach all policies first.")
    );
    desk.detach("web", EXECUTION).unwrap();

    let put = iam::PutRolePolicyRequest {
        role_name: "web".into(),
        policy_name: "read".into(),
        policy_document: desk::DOCUMENT.into(),
    };
    desk.wait(desk.iam.put_role_policy(&desk.ctx, put)).unwrap();
    assert_eq!(
        refusal(desk.delete_role("web")),
        conflict("Cannot delete entity, must delete policies first.")
    );
    desk.wait(desk.iam.delete_role_policy(
        &desk.ctx,
        iam::DeleteRolePolicyRequest {
            role_name: "web".into(),
            policy_name: "read".into(),
        },
    ))
    .unwrap();

    desk.wait(desk.iam.create_instance_profile(
        &desk.ctx,
        iam::CreateInstanceProfileRequest {
            instance_profile_name: "box".into(),
            ..Default::default()
        },
    ))
    .unwrap();
    let add = iam::AddRoleToInstanceProfileRequest {
        instance_profile_name: "box".into(),
        role_name: "web".into(),
    };
    desk.wait(
        desk.iam
            .add_role_to_instance_profile(&desk.ctx, add.clone()),
    )
    .unwrap();
    assert_eq!(
        refusal(desk.wait(desk.iam.add_role_to_instance_profile(&desk.ctx, add))).0,
        "LimitExceeded"
    );
    assert_eq!(
        refusal(desk.delete_role("web")),
        conflict("Cannot delete entity, must remove roles from instance profile first.")
    );
    let of_role = desk
        .wait(desk.iam.list_instance_profiles_for_role(
            &desk.ctx,
            iam::ListInstanceProfilesForRoleRequest {
                role_name: "web".into(),
                ..Default::default()
            },
        ))
        .unwrap();
    assert_eq!(of_role.instance_profiles.len(), 1);
    assert_eq!(of_role.instance_profiles[0].roles[0].role_name, "web");
    let drop_profile = iam::DeleteInstanceProfileRequest {
        instance_profile_name: "box".into(),
    };
    assert_eq!(
        refusal(
            desk.wait(
                desk.iam
                    .delete_instance_profile(&desk.ctx, drop_profile.clone())
            )
        )
        .0,
        "DeleteConflict"
    );
    desk.wait(desk.iam.remove_role_from_instance_profile(
        &desk.ctx,
        iam::RemoveRoleFromInstanceProfileRequest {
            instance_profile_name: "box".into(),
            role_name: "web".into(),
        },
    ))
    .unwrap();
    desk.wait(desk.iam.delete_instance_profile(&desk.ctx, drop_profile))
        .unwrap();
    desk.delete_role("web").unwrap();
    assert!(get(&desk, "web").is_err());
}

fn tag(key: &str, value: &str) -> iam::Tag {
    iam::Tag {
        key: key.into(),
        value: value.into(),
    }
}

#[test]
fn tags_are_added_replaced_listed_and_removed() {
    let desk = Desk::new();
    desk.role("web");
    let set = |tags| {
        desk.wait(desk.iam.tag_role(
            &desk.ctx,
            iam::TagRoleRequest {
                role_name: "web".into(),
                tags,
            },
        ))
    };
    set(vec![tag("a", "1"), tag("b", "2")]).unwrap();
    set(vec![tag("A", "3")]).unwrap();
    let listed = |marker, max| {
        desk.wait(desk.iam.list_role_tags(
            &desk.ctx,
            iam::ListRoleTagsRequest {
                role_name: "web".into(),
                marker,
                max_items: max,
            },
        ))
        .unwrap()
    };
    assert_eq!(listed(None, None).tags, [tag("A", "3"), tag("b", "2")]);
    let first = listed(None, Some(1));
    assert_eq!(first.tags, [tag("A", "3")]);
    assert_eq!(listed(first.marker, Some(1)).tags, [tag("b", "2")]);
    assert_eq!(
        refusal(set(vec![tag("c", ""), tag("C", "")])).0,
        "InvalidInput"
    );
    assert_eq!(refusal(set(vec![tag("aws:x", "")])).0, "InvalidInput");
    let many = (0..50).map(|n| tag(&format!("k{n}"), "")).collect();
    assert_eq!(refusal(set(many)).0, "LimitExceeded");
    desk.wait(desk.iam.untag_role(
        &desk.ctx,
        iam::UntagRoleRequest {
            role_name: "web".into(),
            tag_keys: vec!["a".into(), "ghost".into()],
        },
    ))
    .unwrap();
    assert_eq!(listed(None, None).tags, [tag("b", "2")]);
}

#[test]
fn service_linked_roles_are_there_and_belong_to_their_service() {
    let desk = Desk::new();
    desk.wait(desk.iam.credentials().bootstrap(&desk.ctx.account))
        .unwrap();
    let role = get(&desk, "AWSServiceRoleForECS").unwrap();
    assert_eq!(
        role.arn,
        "arn:aws:iam::000000000000:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"
    );
    let (code, message) = refusal(desk.delete_role("AWSServiceRoleForECS"));
    assert_eq!(code, "UnmodifiableEntity");
    assert!(message.contains("only modifiable by AWS"), "{message}");
    let create = |service: &str| {
        desk.wait(desk.iam.create_service_linked_role(
            &desk.ctx,
            iam::CreateServiceLinkedRoleRequest {
                aws_service_name: service.into(),
                ..Default::default()
            },
        ))
    };
    assert_eq!(
        refusal(create("ecs.amazonaws.com")),
        (
            "InvalidInput".into(),
            "Service role name AWSServiceRoleForECS has been taken in this account, please try a \
             different suffix."
                .into()
        )
    );
    assert!(create("autoscaling.amazonaws.com").is_ok());
    assert_eq!(refusal(create("nobody.amazonaws.com")).0, "InvalidInput");

    // Its description and its tags are the owner's, and nothing else.
    let made = "AWSServiceRoleForAutoScaling";
    assert_eq!(get(&desk, made).unwrap().description, None);
    desk.wait(desk.iam.tag_role(
        &desk.ctx,
        iam::TagRoleRequest {
            role_name: made.into(),
            tags: vec![tag("a", "1")],
        },
    ))
    .unwrap();
    let update = |description: Option<&str>, max_session_duration| {
        desk.wait(desk.iam.update_role(
            &desk.ctx,
            iam::UpdateRoleRequest {
                role_name: made.into(),
                description: description.map(str::to_owned),
                max_session_duration,
            },
        ))
    };
    update(Some("scales"), None).unwrap();
    assert_eq!(
        refusal(update(Some("longer"), Some(7200))).0,
        "UnmodifiableEntity"
    );
    let role = get(&desk, made).unwrap();
    assert_eq!(role.description.as_deref(), Some("scales"));
    assert_eq!(role.tags, Some(vec![tag("a", "1")]));
    let untag = iam::UntagRoleRequest {
        role_name: made.into(),
        tag_keys: vec!["a".into()],
    };
    desk.wait(desk.iam.untag_role(&desk.ctx, untag)).unwrap();
    assert_eq!(get(&desk, made).unwrap().tags, None);
}
