//! The operations: each reads a snapshot, decides, and leaves one transaction.
//!
//! An operation is a function from what it reads to a [`Change`], without I/O; only
//! [`IamService::change`] commits. When a row was changed meanwhile, the operation is decided
//! again on the newer rows, so callers never see a conflict that trying again would solve.

mod instance_profiles;
mod permissions_boundaries;
mod policies;
mod policy_versions;
mod role_policies;
mod roles;
mod sts;
mod tags;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::iam::{self, Iam, IamError};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{AccountId, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{Snapshot, Store, Transaction, Versioned};

use crate::credentials::{ATTEMPTS, Credentials};
use crate::model::ids::{IdKind, unique_id};
use crate::page_token;
use crate::tables::{PolicyRow, RoleRow, Roles, row_name};

/// IAM and STS over a store. Cloning shares it.
#[derive(Clone)]
pub struct IamService {
    store: Arc<dyn Store>,
    env: Env,
    credentials: Credentials,
}

/// What an operation decided.
pub(crate) struct Change<T> {
    pub transaction: Transaction,
    pub output: T,
}

impl<T> Change<T> {
    pub fn new(transaction: Transaction, output: T) -> Self {
        Self {
            transaction,
            output,
        }
    }
}

/// What an operation decides on.
pub(crate) struct View<'a> {
    pub snapshot: Snapshot,
    pub account: &'a AccountId,
    pub region: Region,
    pub now: Timestamp,
    pub env: &'a Env,
    marker_key: String,
}

impl IamService {
    pub fn new(store: Arc<dyn Store>, env: Env) -> Self {
        Self {
            credentials: Credentials::new(store.clone(), env.clone()),
            store,
            env,
        }
    }

    /// The keys: what the server verifies signatures with, and what issues sessions to tasks.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn view<'a>(&'a self, ctx: &'a RequestContext) -> View<'a> {
        View {
            snapshot: self.store.snapshot(),
            account: &ctx.account,
            region: Region::global(),
            now: ctx.now,
            env: &self.env,
            marker_key: self.store.incarnation(),
        }
    }

    async fn change<T>(
        &self,
        ctx: &RequestContext,
        decide: impl Fn(&View<'_>) -> Result<Change<T>, IamError> + Send + Sync,
    ) -> Result<T, IamError>
    where
        T: Send,
    {
        for _ in 0..ATTEMPTS {
            let change = decide(&self.view(ctx))?;
            if !change.transaction.has_writes() {
                return Ok(change.output);
            }
            match self.store.commit(change.transaction).await {
                Ok(_) => return Ok(change.output),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
        Err(IamError::concurrent_modification_exception(
            "The request was rejected because multiple requests to change this object were \
             submitted simultaneously. Wait a few minutes and submit your request again.",
        ))
    }
}

impl View<'_> {
    pub fn role(&self, name: &str) -> Result<Versioned<RoleRow>, IamError> {
        self.find_role(name).ok_or_else(|| {
            IamError::no_such_entity_exception(format!(
                "The role with name {name} cannot be found."
            ))
        })
    }

    pub fn find_role(&self, name: &str) -> Option<Versioned<RoleRow>> {
        self.snapshot
            .read::<Roles>(self.account, &self.region, &row_name(name))
    }

    /// A role that its owner may change: any but a service-linked one.
    pub fn changeable_role(&self, name: &str) -> Result<Versioned<RoleRow>, IamError> {
        let role = self.role(name)?;
        if role.linked_to.is_some() {
            return Err(IamError::unmodifiable_entity_exception(format!(
                "Cannot perform the operation on the protected role '{}' - this role is only \
                 modifiable by AWS",
                role.name
            )));
        }
        Ok(role)
    }

    pub fn new_id(&self, kind: IdKind) -> String {
        let mut random = [0; 32];
        self.env.entropy.fill(&mut random);
        unique_id(kind, random)
    }

    /// One page of `items`, which are named and in the order of their names. `scope` tells this
    /// list from every other.
    pub fn page<T>(
        &self,
        items: Vec<(String, T)>,
        marker: Option<&str>,
        max_items: Option<i32>,
        scope: &str,
    ) -> Result<Page<T>, IamError> {
        let scope = format!("{}/{scope}", self.account);
        let key = self.marker_key.as_bytes();
        let after = match marker {
            Some(marker) => Some(
                page_token::open(key, &scope, marker)
                    .ok_or_else(|| ApiError::sender("ValidationError", "Invalid Marker."))?,
            ),
            None => None,
        };
        let max_items = usize::try_from(max_items.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);
        let mut rest = items
            .into_iter()
            .skip_while(|(name, _)| after.as_ref().is_some_and(|after| name <= after));
        let mut page = Page {
            items: Vec::new(),
            marker: None,
        };
        let mut last = String::new();
        for (name, item) in rest.by_ref().take(max_items) {
            page.items.push(item);
            last = name;
        }
        if rest.next().is_some() {
            page.marker = Some(page_token::seal(key, &scope, &last));
        }
        Ok(page)
    }
}

/// As many items as IAM returns when nobody says how many.
const DEFAULT_PAGE: i32 = 100;

pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub marker: Option<String>,
}

impl<T> Page<T> {
    pub fn is_truncated(&self) -> Option<bool> {
        Some(self.marker.is_some())
    }
}

/// The path of a new resource, `/` where none is given.
pub(crate) fn path_of(path: Option<String>) -> String {
    path.unwrap_or_else(|| "/".to_owned())
}

pub(crate) fn policy_not_found(arn: &str) -> IamError {
    IamError::no_such_entity_exception(format!("Policy {arn} was not found."))
}

pub(crate) type ReadPolicy = Versioned<PolicyRow>;

macro_rules! operations {
    (
        change { $($change:ident($change_in:ident) -> $change_out:ty = $change_fn:path;)* }
        read { $($read:ident($read_in:ident) -> $read_out:ident = $read_fn:path;)* }
    ) => {
        #[async_trait]
        impl Iam for IamService {
            $(async fn $change(
                &self,
                ctx: &RequestContext,
                input: iam::$change_in,
            ) -> Result<$change_out, IamError> {
                self.change(ctx, |view| $change_fn(view, &input)).await
            })*
            $(async fn $read(
                &self,
                ctx: &RequestContext,
                input: iam::$read_in,
            ) -> Result<iam::$read_out, IamError> {
                $read_fn(&self.view(ctx), &input)
            })*
        }
    };
}

operations! {
    change {
        add_role_to_instance_profile(AddRoleToInstanceProfileRequest) -> () = instance_profiles::add_role;
        attach_role_policy(AttachRolePolicyRequest) -> () = role_policies::attach;
        create_instance_profile(CreateInstanceProfileRequest) -> iam::CreateInstanceProfileResponse = instance_profiles::create;
        create_policy(CreatePolicyRequest) -> iam::CreatePolicyResponse = policies::create;
        create_policy_version(CreatePolicyVersionRequest) -> iam::CreatePolicyVersionResponse = policy_versions::create;
        create_role(CreateRoleRequest) -> iam::CreateRoleResponse = roles::create;
        create_service_linked_role(CreateServiceLinkedRoleRequest) -> iam::CreateServiceLinkedRoleResponse = roles::create_service_linked;
        delete_instance_profile(DeleteInstanceProfileRequest) -> () = instance_profiles::delete;
        delete_policy(DeletePolicyRequest) -> () = policies::delete;
        delete_policy_version(DeletePolicyVersionRequest) -> () = policy_versions::delete;
        delete_role(DeleteRoleRequest) -> () = roles::delete;
        delete_role_permissions_boundary(DeleteRolePermissionsBoundaryRequest) -> () = permissions_boundaries::delete;
        delete_role_policy(DeleteRolePolicyRequest) -> () = role_policies::delete_inline;
        detach_role_policy(DetachRolePolicyRequest) -> () = role_policies::detach;
        put_role_permissions_boundary(PutRolePermissionsBoundaryRequest) -> () = permissions_boundaries::put;
        put_role_policy(PutRolePolicyRequest) -> () = role_policies::put_inline;
        remove_role_from_instance_profile(RemoveRoleFromInstanceProfileRequest) -> () = instance_profiles::remove_role;
        set_default_policy_version(SetDefaultPolicyVersionRequest) -> () = policy_versions::set_default;
        tag_policy(TagPolicyRequest) -> () = tags::tag_policy;
        tag_role(TagRoleRequest) -> () = tags::tag_role;
        untag_policy(UntagPolicyRequest) -> () = tags::untag_policy;
        untag_role(UntagRoleRequest) -> () = tags::untag_role;
        update_assume_role_policy(UpdateAssumeRolePolicyRequest) -> () = roles::update_trust_policy;
        update_role(UpdateRoleRequest) -> iam::UpdateRoleResponse = roles::update;
        update_role_description(UpdateRoleDescriptionRequest) -> iam::UpdateRoleDescriptionResponse = roles::update_description;
    }
    read {
        get_instance_profile(GetInstanceProfileRequest) -> GetInstanceProfileResponse = instance_profiles::get;
        get_policy(GetPolicyRequest) -> GetPolicyResponse = policies::get;
        get_policy_version(GetPolicyVersionRequest) -> GetPolicyVersionResponse = policy_versions::get;
        get_role(GetRoleRequest) -> GetRoleResponse = roles::get;
        get_role_policy(GetRolePolicyRequest) -> GetRolePolicyResponse = role_policies::get_inline;
        list_attached_role_policies(ListAttachedRolePoliciesRequest) -> ListAttachedRolePoliciesResponse = role_policies::list_attached;
        list_entities_for_policy(ListEntitiesForPolicyRequest) -> ListEntitiesForPolicyResponse = policies::list_entities;
        list_instance_profiles(ListInstanceProfilesRequest) -> ListInstanceProfilesResponse = instance_profiles::list;
        list_instance_profiles_for_role(ListInstanceProfilesForRoleRequest) -> ListInstanceProfilesForRoleResponse = instance_profiles::list_for_role;
        list_policies(ListPoliciesRequest) -> ListPoliciesResponse = policies::list;
        list_policy_tags(ListPolicyTagsRequest) -> ListPolicyTagsResponse = tags::list_policy_tags;
        list_policy_versions(ListPolicyVersionsRequest) -> ListPolicyVersionsResponse = policy_versions::list;
        list_role_policies(ListRolePoliciesRequest) -> ListRolePoliciesResponse = role_policies::list_inline;
        list_role_tags(ListRoleTagsRequest) -> ListRoleTagsResponse = tags::list_role_tags;
        list_roles(ListRolesRequest) -> ListRolesResponse = roles::list;
    }
}
