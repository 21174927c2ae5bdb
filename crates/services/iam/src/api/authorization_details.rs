//! GetAccountAuthorizationDetails: users, groups, roles and policies, whole, in one paged list.

use gantry_api::iam::{self, EntityType, IamError};

use super::policies::{self, Uses};
use super::{
    View, holder, instance_profiles, permissions_boundaries, policy_versions, roles, tags,
};
use crate::model::managed;
use crate::tables::{GroupRow, Groups, Policies, RoleRow, Roles, UserRow, Users};

/// One item of the list, of whichever kind.
enum Entity {
    User(iam::UserDetail),
    Group(iam::GroupDetail),
    Role(iam::RoleDetail),
    Policy(iam::ManagedPolicyDetail),
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetAccountAuthorizationDetailsRequest,
) -> Result<iam::GetAccountAuthorizationDetailsResponse, IamError> {
    let filter = input.filter.as_deref().unwrap_or_default();
    let wants = |kind: EntityType| filter.is_empty() || filter.contains(&kind);
    let mut entities = Vec::new();
    // The prefixes keep the kinds apart in the order of the list.
    if wants(EntityType::User) {
        let users = view.snapshot.list::<Users>(view.account, &view.region);
        entities.extend(users.iter().map(|user| {
            let name = format!("1/{}", user.name());
            (name, Entity::User(user_detail(view, user)))
        }));
    }
    if wants(EntityType::Group) {
        let groups = view.snapshot.list::<Groups>(view.account, &view.region);
        entities.extend(groups.iter().map(|group| {
            let name = format!("2/{}", group.name());
            (name, Entity::Group(group_detail(group)))
        }));
    }
    if wants(EntityType::Role) {
        let roles = view.snapshot.list::<Roles>(view.account, &view.region);
        entities.extend(roles.iter().map(|role| {
            let name = format!("3/{}", role.name());
            (name, Entity::Role(role_detail(view, role)))
        }));
    }
    if wants(EntityType::LocalManagedPolicy) {
        let own = view.snapshot.list::<Policies>(view.account, &view.region);
        entities.extend(own.iter().map(|policy| {
            let versions = policy_versions::all_whole(policy);
            let detail = policy_detail(policies::shown_own(policy, true), versions);
            (format!("4/{}", policy.name()), Entity::Policy(detail))
        }));
    }
    if wants(EntityType::AwsManagedPolicy) {
        let uses = Uses::count(view);
        // Those in use only, as at AWS.
        let used = managed::all()
            .iter()
            .filter(|policy| uses.any(&policy.arn()));
        entities.extend(used.map(|policy| {
            let version = policy_versions::shown_aws(policy);
            let detail = policy_detail(policies::shown_aws(policy, &uses), vec![version]);
            (format!("5/{}", policy.name), Entity::Policy(detail))
        }));
    }
    let mut kinds: Vec<_> = filter.iter().map(|kind| kind.as_str()).collect();
    kinds.sort_unstable();
    let scope = format!("authorization-details/{}", kinds.join("/"));
    let page = view.page(entities, input.marker.as_deref(), input.max_items, &scope)?;
    let is_truncated = page.is_truncated();
    let (mut users, mut groups, mut roles, mut policies) = (vec![], vec![], vec![], vec![]);
    for entity in page.items {
        match entity {
            Entity::User(user) => users.push(user),
            Entity::Group(group) => groups.push(group),
            Entity::Role(role) => roles.push(role),
            Entity::Policy(policy) => policies.push(policy),
        }
    }
    Ok(iam::GetAccountAuthorizationDetailsResponse {
        user_detail_list: Some(users),
        group_detail_list: Some(groups),
        role_detail_list: Some(roles),
        policies: Some(policies),
        is_truncated,
        marker: page.marker,
    })
}

fn user_detail(view: &View<'_>, user: &UserRow) -> iam::UserDetail {
    let groups = view.snapshot.list::<Groups>(view.account, &view.region);
    let group_list = groups
        .iter()
        .filter(|group| user.groups.contains(&group.id))
        .map(|group| group.name.clone())
        .collect();
    iam::UserDetail {
        path: Some(user.path.clone()),
        user_name: Some(user.name.clone()),
        user_id: Some(user.id.clone()),
        arn: Some(user.arn.to_string()),
        create_date: Some(user.created_at),
        user_policy_list: Some(holder::all_inline(user)),
        group_list: Some(group_list),
        attached_managed_policies: Some(holder::all_attached(user)),
        permissions_boundary: user
            .permissions_boundary
            .as_deref()
            .map(permissions_boundaries::shown),
        tags: Some(tags::shown(&user.tags)),
    }
}

fn group_detail(group: &GroupRow) -> iam::GroupDetail {
    iam::GroupDetail {
        path: Some(group.path.clone()),
        group_name: Some(group.name.clone()),
        group_id: Some(group.id.clone()),
        arn: Some(group.arn.to_string()),
        create_date: Some(group.created_at),
        group_policy_list: Some(holder::all_inline(group)),
        attached_managed_policies: Some(holder::all_attached(group)),
    }
}

fn role_detail(view: &View<'_>, role: &RoleRow) -> iam::RoleDetail {
    let shown = roles::shown(role, roles::Detail::Full);
    iam::RoleDetail {
        path: Some(shown.path),
        role_name: Some(shown.role_name),
        role_id: Some(shown.role_id),
        arn: Some(shown.arn),
        create_date: Some(shown.create_date),
        assume_role_policy_document: shown.assume_role_policy_document,
        instance_profile_list: Some(instance_profiles::of_role(view, &role.name)),
        role_policy_list: Some(holder::all_inline(role)),
        attached_managed_policies: Some(holder::all_attached(role)),
        permissions_boundary: shown.permissions_boundary,
        tags: Some(tags::shown(&role.tags)),
        role_last_used: shown.role_last_used,
    }
}

fn policy_detail(
    policy: iam::Policy,
    versions: Vec<iam::PolicyVersion>,
) -> iam::ManagedPolicyDetail {
    iam::ManagedPolicyDetail {
        policy_name: policy.policy_name,
        policy_id: policy.policy_id,
        arn: policy.arn,
        path: policy.path,
        default_version_id: policy.default_version_id,
        attachment_count: policy.attachment_count,
        permissions_boundary_usage_count: policy.permissions_boundary_usage_count,
        is_attachable: policy.is_attachable,
        description: policy.description,
        create_date: policy.create_date,
        update_date: policy.update_date,
        policy_version_list: Some(versions),
    }
}
