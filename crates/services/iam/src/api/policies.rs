//! Managed policies: the customer's own rows and the ones that AWS ships.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ApiError;
use gantry_api::iam::{self, EntityType, IamError, PolicyScopeType, PolicyUsageType};
use gantry_arn::Arn;
use gantry_store::Transaction;

use super::{Change, ReadPolicy, View, path_of, policy_not_found, tags};
use crate::model::document::{DocumentKind, counted_len, validate};
use crate::model::ids::IdKind;
use crate::model::managed::{self, ManagedPolicy};
use crate::tables::{Groups, Policies, PolicyRow, PolicyVersionRow, Roles, Users, row_name};

/// AWS's quota for the length of a managed policy.
const MAX_DOCUMENT: usize = 6144;

/// A policy, wherever it comes from.
pub(super) enum Found {
    Own(ReadPolicy),
    Aws(&'static ManagedPolicy),
}

/// The policy of exactly this ARN.
pub(super) fn find(view: &View<'_>, arn: &str) -> Result<Found, IamError> {
    if let Some(policy) = managed::find(arn) {
        return Ok(Found::Aws(policy));
    }
    find_own(view, arn)
        .map(Found::Own)
        .ok_or_else(|| policy_not_found(arn))
}

pub(super) fn find_own(view: &View<'_>, arn: &str) -> Option<ReadPolicy> {
    let name = arn.rsplit('/').next()?;
    view.snapshot
        .read::<Policies>(view.account, &view.region, &row_name(name))
        .filter(|policy| policy.arn.to_string() == arn)
}

/// A policy that its owner may change: AWS's own are nobody's to change.
pub(super) fn own(view: &View<'_>, arn: &str) -> Result<ReadPolicy, IamError> {
    match find(view, arn)? {
        Found::Own(policy) => Ok(policy),
        Found::Aws(_) => Err(ApiError::sender(
            "AccessDenied",
            "Policy is outside your own account.",
        )
        .with_status(403)
        .into()),
    }
}

pub(super) fn check_document(document: &str) -> Result<(), IamError> {
    validate(DocumentKind::Managed, document)
        .map_err(|fault| IamError::malformed_policy_document_exception(fault.0))?;
    if counted_len(document) > MAX_DOCUMENT {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for PolicySize: {MAX_DOCUMENT}"
        )));
    }
    Ok(())
}

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreatePolicyRequest,
) -> Result<Change<iam::CreatePolicyResponse>, IamError> {
    check_document(&input.policy_document)?;
    let tags = tags::new_tags(input.tags.as_deref().unwrap_or_default())?;
    let key = row_name(&input.policy_name);
    if view
        .snapshot
        .read::<Policies>(view.account, &view.region, &key)
        .is_some()
    {
        return Err(IamError::entity_already_exists_exception(format!(
            "A policy called {} already exists. Duplicate names are not allowed.",
            input.policy_name
        )));
    }
    let path = path_of(input.path.clone());
    let first = PolicyVersionRow {
        document: input.policy_document.clone(),
        created_at: view.now,
    };
    let row = PolicyRow {
        arn: Arn::global(
            "iam",
            view.account,
            format!("policy{path}{}", input.policy_name),
        ),
        name: input.policy_name.clone(),
        path,
        id: view.new_id(IdKind::ManagedPolicy),
        created_at: view.now,
        updated_at: view.now,
        description: input.description.clone().filter(|text| !text.is_empty()),
        tags,
        default_version: 1,
        next_version: 2,
        versions: [(1, first)].into(),
        attachments: 0,
        boundary_uses: 0,
    };
    let mut transaction = Transaction::new();
    transaction.create::<Policies>(view.account, &view.region, &key, &row);
    let output = iam::CreatePolicyResponse {
        policy: Some(shown_own(&row, true)),
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetPolicyRequest,
) -> Result<iam::GetPolicyResponse, IamError> {
    let policy = match find(view, &input.policy_arn)? {
        Found::Own(policy) => shown_own(&policy, true),
        Found::Aws(policy) => shown_aws(policy, &Uses::count(view)),
    };
    Ok(iam::GetPolicyResponse {
        policy: Some(policy),
    })
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListPoliciesRequest,
) -> Result<iam::ListPoliciesResponse, IamError> {
    let scope = input.scope.clone().unwrap_or(PolicyScopeType::All);
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let mut policies = Vec::new();
    if scope != PolicyScopeType::Aws {
        let own = view.snapshot.list::<Policies>(view.account, &view.region);
        policies.extend(
            own.iter()
                .map(|policy| (policy.name(), shown_own(policy, false)))
                .map(|(name, policy)| (format!("{name}/own"), policy)),
        );
    }
    if scope != PolicyScopeType::Local {
        let uses = Uses::count(view);
        policies.extend(managed::all().iter().map(|policy| {
            let name = format!("{}/aws", row_name(policy.name));
            (name, shown_aws(policy, &uses))
        }));
    }
    policies.retain(|(_, policy)| {
        let attached = match &input.policy_usage_filter {
            Some(PolicyUsageType::PermissionsBoundary) => policy.permissions_boundary_usage_count,
            _ => policy.attachment_count,
        };
        policy
            .path
            .as_deref()
            .is_some_and(|path| path.starts_with(prefix))
            && (input.only_attached != Some(true) || attached > Some(0))
            && (input.policy_usage_filter.is_none() || attached > Some(0))
    });
    policies.sort_by(|(a, _), (b, _)| a.cmp(b));
    let list = format!(
        "policies/{}/{:?}/{:?}{prefix}",
        scope.as_str(),
        input.only_attached,
        input.policy_usage_filter
    );
    let page = view.page(policies, input.marker.as_deref(), input.max_items, &list)?;
    Ok(iam::ListPoliciesResponse {
        is_truncated: Some(page.marker.is_some()),
        marker: page.marker,
        policies: Some(page.items),
    })
}

/// One holder of a policy.
enum Entity {
    Group(iam::PolicyGroup),
    User(iam::PolicyUser),
    Role(iam::PolicyRole),
}

pub(super) fn list_entities(
    view: &View<'_>,
    input: &iam::ListEntitiesForPolicyRequest,
) -> Result<iam::ListEntitiesForPolicyResponse, IamError> {
    find(view, &input.policy_arn)?;
    let wants = |kind: EntityType| {
        input
            .entity_filter
            .as_ref()
            .is_none_or(|want| *want == kind)
    };
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let uses = |path: &str, attached: &BTreeSet<String>, boundary: Option<&str>| {
        path.starts_with(prefix)
            && match &input.policy_usage_filter {
                Some(PolicyUsageType::PermissionsBoundary) => {
                    boundary == Some(input.policy_arn.as_str())
                }
                Some(_) => attached.contains(&input.policy_arn),
                None => {
                    attached.contains(&input.policy_arn)
                        || boundary == Some(input.policy_arn.as_str())
                }
            }
    };
    let mut entities = Vec::new();
    // The prefixes keep the kinds apart in the order of the list.
    if wants(EntityType::Group) {
        for group in view.snapshot.list::<Groups>(view.account, &view.region) {
            if uses(&group.path, &group.attached, None) {
                let shown = iam::PolicyGroup {
                    group_name: Some(group.name.clone()),
                    group_id: Some(group.id.clone()),
                };
                entities.push((format!("1/{}", group.name()), Entity::Group(shown)));
            }
        }
    }
    if wants(EntityType::User) {
        for user in view.snapshot.list::<Users>(view.account, &view.region) {
            let boundary = user.permissions_boundary.as_deref();
            if uses(&user.path, &user.attached, boundary) {
                let shown = iam::PolicyUser {
                    user_name: Some(user.name.clone()),
                    user_id: Some(user.id.clone()),
                };
                entities.push((format!("2/{}", user.name()), Entity::User(shown)));
            }
        }
    }
    if wants(EntityType::Role) {
        for role in view.snapshot.list::<Roles>(view.account, &view.region) {
            let boundary = role.permissions_boundary.as_deref();
            if uses(&role.path, &role.attached, boundary) {
                let shown = iam::PolicyRole {
                    role_name: Some(role.name.clone()),
                    role_id: Some(role.id.clone()),
                };
                entities.push((format!("3/{}", role.name()), Entity::Role(shown)));
            }
        }
    }
    let list = format!(
        "entities/{:?}/{:?}/{}{prefix}",
        input.entity_filter, input.policy_usage_filter, input.policy_arn
    );
    let page = view.page(entities, input.marker.as_deref(), input.max_items, &list)?;
    let is_truncated = page.is_truncated();
    let (mut groups, mut users, mut roles) = (vec![], vec![], vec![]);
    for entity in page.items {
        match entity {
            Entity::Group(group) => groups.push(group),
            Entity::User(user) => users.push(user),
            Entity::Role(role) => roles.push(role),
        }
    }
    Ok(iam::ListEntitiesForPolicyResponse {
        policy_groups: Some(groups),
        policy_users: Some(users),
        policy_roles: Some(roles),
        is_truncated,
        marker: page.marker,
    })
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeletePolicyRequest,
) -> Result<Change<()>, IamError> {
    let policy = own(view, &input.policy_arn)?;
    if policy.attachments > 0 || policy.boundary_uses > 0 {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete a policy attached to entities.",
        ));
    }
    if policy.versions.len() > 1 {
        return Err(IamError::delete_conflict_exception(
            "This policy has more than one version. Before you delete a policy, you must delete \
             the policy's versions. The default version is deleted with the policy.",
        ));
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(&policy);
    transaction.delete(policy.key.clone());
    Ok(Change::new(transaction, ()))
}

/// Writes a policy on top of the one that was read; nothing if nothing changed.
pub(super) fn write<T>(read: &ReadPolicy, row: &PolicyRow, output: T) -> Change<T> {
    let mut transaction = Transaction::new();
    if *row != *read.row {
        transaction.update::<Policies>(read, row);
    }
    Change::new(transaction, output)
}

pub(super) fn shown_own(row: &PolicyRow, with_details: bool) -> iam::Policy {
    iam::Policy {
        policy_name: Some(row.name.clone()),
        policy_id: Some(row.id.clone()),
        arn: Some(row.arn.to_string()),
        path: Some(row.path.clone()),
        default_version_id: Some(format!("v{}", row.default_version)),
        attachment_count: i32::try_from(row.attachments).ok(),
        permissions_boundary_usage_count: i32::try_from(row.boundary_uses).ok(),
        is_attachable: Some(true),
        // Lists leave out description and tags, as at AWS.
        description: row.description.clone().filter(|_| with_details),
        create_date: Some(row.created_at),
        update_date: Some(row.updated_at),
        tags: with_details.then(|| tags::shown(&row.tags)),
    }
}

pub(super) fn shown_aws(policy: &ManagedPolicy, uses: &Uses) -> iam::Policy {
    let arn = policy.arn();
    iam::Policy {
        policy_name: Some(policy.name.to_owned()),
        policy_id: Some(policy.id()),
        path: Some(policy.path.to_owned()),
        default_version_id: Some(managed::VERSION.to_owned()),
        attachment_count: Some(uses.attached.get(&arn).copied().unwrap_or(0)),
        permissions_boundary_usage_count: Some(uses.bounding.get(&arn).copied().unwrap_or(0)),
        is_attachable: Some(true),
        description: None,
        create_date: Some(policy.created_at()),
        update_date: Some(policy.created_at()),
        tags: None,
        arn: Some(arn),
    }
}

/// How often each policy is used: AWS's own are no rows, so they cannot count themselves.
#[derive(Default)]
pub(super) struct Uses {
    attached: BTreeMap<String, i32>,
    bounding: BTreeMap<String, i32>,
}

impl Uses {
    pub fn count(view: &View<'_>) -> Self {
        let mut uses = Self::default();
        for group in view.snapshot.list::<Groups>(view.account, &view.region) {
            uses.add(&group.attached, None);
        }
        for user in view.snapshot.list::<Users>(view.account, &view.region) {
            uses.add(&user.attached, user.permissions_boundary.as_ref());
        }
        for role in view.snapshot.list::<Roles>(view.account, &view.region) {
            uses.add(&role.attached, role.permissions_boundary.as_ref());
        }
        uses
    }

    fn add(&mut self, attached: &BTreeSet<String>, boundary: Option<&String>) {
        for arn in attached {
            *self.attached.entry(arn.clone()).or_default() += 1;
        }
        if let Some(arn) = boundary {
            *self.bounding.entry(arn.clone()).or_default() += 1;
        }
    }

    pub fn any(&self, arn: &str) -> bool {
        self.attached.contains_key(arn) || self.bounding.contains_key(arn)
    }
}
