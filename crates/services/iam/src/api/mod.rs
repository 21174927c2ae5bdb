//! The operations: each reads a snapshot, decides, and leaves one transaction.
//!
//! An operation is a function from what it reads to a [`Change`], without I/O; only
//! [`IamService::change`] commits. When a row was changed meanwhile, the operation is decided
//! again on the newer rows, so callers never see a conflict that trying again would solve.

mod access_keys;
mod account;
mod authorization_details;
mod group_policies;
mod groups;
mod holder;
mod instance_profiles;
mod never_held;
mod oidc_providers;
mod permissions_boundaries;
mod policies;
mod policy_versions;
mod role_policies;
mod roles;
mod saml;
mod saml_providers;
mod service_linked_deletions;
mod session_terms;
mod sts;
mod tags;
mod trusting;
mod user_policies;
mod users;
mod web_identity;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::iam::{self, Iam, IamError};
use gantry_api::{ApiError, Principal, RequestContext};
use gantry_arn::{AccountId, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{Snapshot, Store, Transaction, Turns, Versioned};

use crate::credentials::{ATTEMPTS, Credentials};
use crate::federation::{Fetch, HttpsFetch, Issuers};
use crate::model::ids::{IdKind, unique_id};
use crate::page_token;
use crate::sessions::find_session;
use crate::tables::{PolicyRow, RoleRow, Roles, SessionOwner, row_name};

/// IAM and STS over a store. Cloning shares it.
#[derive(Clone)]
pub struct IamService {
    store: Arc<dyn Store>,
    env: Env,
    credentials: Credentials,
    issuers: Issuers,
    /// Changes of one row stand in line, in the order of coming.
    turns: Arc<Turns>,
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
    pub caller: &'a Principal,
    marker_key: String,
}

impl IamService {
    pub fn new(store: Arc<dyn Store>, env: Env) -> Self {
        let fetch = Arc::new(HttpsFetch::new(env.clone()));
        Self {
            credentials: Credentials::new(store.clone(), env.clone()),
            issuers: Issuers::new(fetch, env.clone()),
            store,
            env,
            turns: Arc::default(),
        }
    }

    /// Asks identity providers through `fetch` instead of the network.
    pub fn fetching_through(mut self, fetch: Arc<dyn Fetch>) -> Self {
        self.issuers = Issuers::new(fetch, self.env.clone());
        self
    }

    /// The keys: what the server verifies signatures with, and what issues sessions to tasks.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What the operations of IAM decide on, for callers that may call them at all: as at AWS,
    /// sessions of users and federated users may not, since nothing vouches for them twice.
    fn view<'a>(&'a self, ctx: &'a RequestContext) -> Result<View<'a>, IamError> {
        let view = View {
            snapshot: self.store.snapshot(),
            account: &ctx.account,
            region: Region::global(),
            now: ctx.now,
            env: &self.env,
            caller: &ctx.principal,
            marker_key: self.store.incarnation(),
        };
        match find_session(&view.snapshot, &ctx.principal.access_key_id) {
            Some(session) if session.owner != SessionOwner::Role => Err(ApiError::sender(
                "InvalidClientTokenId",
                "The security token included in the request is invalid",
            )
            .with_status(403)
            .into()),
            _ => Ok(view),
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
        let mut turn = self.turns.request();
        for _ in 0..ATTEMPTS {
            turn.come().await;
            let change = decide(&self.view(ctx)?)?;
            if !change.transaction.has_writes() {
                return Ok(change.output);
            }
            match turn.commit(&*self.store, change.transaction).await {
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

    /// A role that its owner may change: any but a service-linked one, of which only tags and the description are the owner's.
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
                $read_fn(&self.view(ctx)?, &input)
            })*

            // These have no input.
            async fn delete_account_password_policy(
                &self,
                ctx: &RequestContext,
            ) -> Result<(), IamError> {
                self.change(ctx, |view| account::delete_password_policy(view, &())).await
            }

            async fn get_account_password_policy(
                &self,
                ctx: &RequestContext,
            ) -> Result<iam::GetAccountPasswordPolicyResponse, IamError> {
                account::get_password_policy(&self.view(ctx)?, &())
            }

            async fn get_account_summary(
                &self,
                ctx: &RequestContext,
            ) -> Result<iam::GetAccountSummaryResponse, IamError> {
                account::summary(&self.view(ctx)?, &())
            }
        }
    };
}

operations! {
    change {
        add_client_id_to_open_id_connect_provider(AddClientIDToOpenIDConnectProviderRequest) -> () = oidc_providers::add_client_id;
        add_role_to_instance_profile(AddRoleToInstanceProfileRequest) -> () = instance_profiles::add_role;
        add_user_to_group(AddUserToGroupRequest) -> () = groups::add_user;
        attach_group_policy(AttachGroupPolicyRequest) -> () = group_policies::attach;
        attach_role_policy(AttachRolePolicyRequest) -> () = role_policies::attach;
        attach_user_policy(AttachUserPolicyRequest) -> () = user_policies::attach;
        create_access_key(CreateAccessKeyRequest) -> iam::CreateAccessKeyResponse = access_keys::create;
        create_account_alias(CreateAccountAliasRequest) -> () = account::create_alias;
        create_group(CreateGroupRequest) -> iam::CreateGroupResponse = groups::create;
        create_instance_profile(CreateInstanceProfileRequest) -> iam::CreateInstanceProfileResponse = instance_profiles::create;
        create_open_id_connect_provider(CreateOpenIDConnectProviderRequest) -> iam::CreateOpenIDConnectProviderResponse = oidc_providers::create;
        create_policy(CreatePolicyRequest) -> iam::CreatePolicyResponse = policies::create;
        create_policy_version(CreatePolicyVersionRequest) -> iam::CreatePolicyVersionResponse = policy_versions::create;
        create_role(CreateRoleRequest) -> iam::CreateRoleResponse = roles::create;
        create_saml_provider(CreateSAMLProviderRequest) -> iam::CreateSAMLProviderResponse = saml_providers::create;
        create_service_linked_role(CreateServiceLinkedRoleRequest) -> iam::CreateServiceLinkedRoleResponse = roles::create_service_linked;
        create_user(CreateUserRequest) -> iam::CreateUserResponse = users::create;
        delete_access_key(DeleteAccessKeyRequest) -> () = access_keys::delete;
        delete_account_alias(DeleteAccountAliasRequest) -> () = account::delete_alias;
        delete_group(DeleteGroupRequest) -> () = groups::delete;
        delete_group_policy(DeleteGroupPolicyRequest) -> () = group_policies::delete_inline;
        delete_instance_profile(DeleteInstanceProfileRequest) -> () = instance_profiles::delete;
        delete_login_profile(DeleteLoginProfileRequest) -> () = never_held::delete_login_profile;
        delete_open_id_connect_provider(DeleteOpenIDConnectProviderRequest) -> () = oidc_providers::delete;
        delete_policy(DeletePolicyRequest) -> () = policies::delete;
        delete_policy_version(DeletePolicyVersionRequest) -> () = policy_versions::delete;
        delete_role(DeleteRoleRequest) -> () = roles::delete;
        delete_role_permissions_boundary(DeleteRolePermissionsBoundaryRequest) -> () = permissions_boundaries::delete;
        delete_role_policy(DeleteRolePolicyRequest) -> () = role_policies::delete_inline;
        delete_saml_provider(DeleteSAMLProviderRequest) -> () = saml_providers::delete;
        delete_service_linked_role(DeleteServiceLinkedRoleRequest) -> iam::DeleteServiceLinkedRoleResponse = service_linked_deletions::delete;
        delete_user(DeleteUserRequest) -> () = users::delete;
        delete_user_permissions_boundary(DeleteUserPermissionsBoundaryRequest) -> () = permissions_boundaries::delete_of_user;
        delete_user_policy(DeleteUserPolicyRequest) -> () = user_policies::delete_inline;
        detach_group_policy(DetachGroupPolicyRequest) -> () = group_policies::detach;
        detach_role_policy(DetachRolePolicyRequest) -> () = role_policies::detach;
        detach_user_policy(DetachUserPolicyRequest) -> () = user_policies::detach;
        put_group_policy(PutGroupPolicyRequest) -> () = group_policies::put_inline;
        put_role_permissions_boundary(PutRolePermissionsBoundaryRequest) -> () = permissions_boundaries::put;
        put_role_policy(PutRolePolicyRequest) -> () = role_policies::put_inline;
        put_user_permissions_boundary(PutUserPermissionsBoundaryRequest) -> () = permissions_boundaries::put_of_user;
        put_user_policy(PutUserPolicyRequest) -> () = user_policies::put_inline;
        remove_client_id_from_open_id_connect_provider(RemoveClientIDFromOpenIDConnectProviderRequest) -> () = oidc_providers::remove_client_id;
        remove_role_from_instance_profile(RemoveRoleFromInstanceProfileRequest) -> () = instance_profiles::remove_role;
        remove_user_from_group(RemoveUserFromGroupRequest) -> () = groups::remove_user;
        set_default_policy_version(SetDefaultPolicyVersionRequest) -> () = policy_versions::set_default;
        tag_instance_profile(TagInstanceProfileRequest) -> () = instance_profiles::tag;
        tag_open_id_connect_provider(TagOpenIDConnectProviderRequest) -> () = oidc_providers::tag;
        tag_policy(TagPolicyRequest) -> () = tags::tag_policy;
        tag_role(TagRoleRequest) -> () = tags::tag_role;
        tag_saml_provider(TagSAMLProviderRequest) -> () = saml_providers::tag;
        tag_user(TagUserRequest) -> () = tags::tag_user;
        untag_instance_profile(UntagInstanceProfileRequest) -> () = instance_profiles::untag;
        untag_open_id_connect_provider(UntagOpenIDConnectProviderRequest) -> () = oidc_providers::untag;
        untag_policy(UntagPolicyRequest) -> () = tags::untag_policy;
        untag_role(UntagRoleRequest) -> () = tags::untag_role;
        untag_saml_provider(UntagSAMLProviderRequest) -> () = saml_providers::untag;
        untag_user(UntagUserRequest) -> () = tags::untag_user;
        update_access_key(UpdateAccessKeyRequest) -> () = access_keys::update;
        update_account_password_policy(UpdateAccountPasswordPolicyRequest) -> () = account::update_password_policy;
        update_assume_role_policy(UpdateAssumeRolePolicyRequest) -> () = roles::update_trust_policy;
        update_group(UpdateGroupRequest) -> () = groups::update;
        update_open_id_connect_provider_thumbprint(UpdateOpenIDConnectProviderThumbprintRequest) -> () = oidc_providers::update_thumbprints;
        update_role(UpdateRoleRequest) -> iam::UpdateRoleResponse = roles::update;
        update_role_description(UpdateRoleDescriptionRequest) -> iam::UpdateRoleDescriptionResponse = roles::update_description;
        update_saml_provider(UpdateSAMLProviderRequest) -> iam::UpdateSAMLProviderResponse = saml_providers::update;
        update_user(UpdateUserRequest) -> () = users::update;
    }
    read {
        get_access_key_last_used(GetAccessKeyLastUsedRequest) -> GetAccessKeyLastUsedResponse = access_keys::last_used;
        get_account_authorization_details(GetAccountAuthorizationDetailsRequest) -> GetAccountAuthorizationDetailsResponse = authorization_details::get;
        get_group(GetGroupRequest) -> GetGroupResponse = groups::get;
        get_group_policy(GetGroupPolicyRequest) -> GetGroupPolicyResponse = group_policies::get_inline;
        get_instance_profile(GetInstanceProfileRequest) -> GetInstanceProfileResponse = instance_profiles::get;
        get_login_profile(GetLoginProfileRequest) -> GetLoginProfileResponse = never_held::login_profile;
        get_open_id_connect_provider(GetOpenIDConnectProviderRequest) -> GetOpenIDConnectProviderResponse = oidc_providers::get;
        get_policy(GetPolicyRequest) -> GetPolicyResponse = policies::get;
        get_policy_version(GetPolicyVersionRequest) -> GetPolicyVersionResponse = policy_versions::get;
        get_role(GetRoleRequest) -> GetRoleResponse = roles::get;
        get_role_policy(GetRolePolicyRequest) -> GetRolePolicyResponse = role_policies::get_inline;
        get_saml_provider(GetSAMLProviderRequest) -> GetSAMLProviderResponse = saml_providers::get;
        get_service_linked_role_deletion_status(GetServiceLinkedRoleDeletionStatusRequest) -> GetServiceLinkedRoleDeletionStatusResponse = service_linked_deletions::status;
        get_user(GetUserRequest) -> GetUserResponse = users::get;
        get_user_policy(GetUserPolicyRequest) -> GetUserPolicyResponse = user_policies::get_inline;
        list_access_keys(ListAccessKeysRequest) -> ListAccessKeysResponse = access_keys::list;
        list_account_aliases(ListAccountAliasesRequest) -> ListAccountAliasesResponse = account::list_aliases;
        list_attached_group_policies(ListAttachedGroupPoliciesRequest) -> ListAttachedGroupPoliciesResponse = group_policies::list_attached;
        list_attached_role_policies(ListAttachedRolePoliciesRequest) -> ListAttachedRolePoliciesResponse = role_policies::list_attached;
        list_attached_user_policies(ListAttachedUserPoliciesRequest) -> ListAttachedUserPoliciesResponse = user_policies::list_attached;
        list_entities_for_policy(ListEntitiesForPolicyRequest) -> ListEntitiesForPolicyResponse = policies::list_entities;
        list_group_policies(ListGroupPoliciesRequest) -> ListGroupPoliciesResponse = group_policies::list_inline;
        list_groups(ListGroupsRequest) -> ListGroupsResponse = groups::list;
        list_groups_for_user(ListGroupsForUserRequest) -> ListGroupsForUserResponse = groups::list_for_user;
        list_instance_profile_tags(ListInstanceProfileTagsRequest) -> ListInstanceProfileTagsResponse = instance_profiles::list_tags;
        list_instance_profiles(ListInstanceProfilesRequest) -> ListInstanceProfilesResponse = instance_profiles::list;
        list_instance_profiles_for_role(ListInstanceProfilesForRoleRequest) -> ListInstanceProfilesForRoleResponse = instance_profiles::list_for_role;
        list_mfa_devices(ListMFADevicesRequest) -> ListMFADevicesResponse = never_held::mfa_devices;
        list_open_id_connect_provider_tags(ListOpenIDConnectProviderTagsRequest) -> ListOpenIDConnectProviderTagsResponse = oidc_providers::list_tags;
        list_open_id_connect_providers(ListOpenIDConnectProvidersRequest) -> ListOpenIDConnectProvidersResponse = oidc_providers::list;
        list_policies(ListPoliciesRequest) -> ListPoliciesResponse = policies::list;
        list_policy_tags(ListPolicyTagsRequest) -> ListPolicyTagsResponse = tags::list_policy_tags;
        list_policy_versions(ListPolicyVersionsRequest) -> ListPolicyVersionsResponse = policy_versions::list;
        list_role_policies(ListRolePoliciesRequest) -> ListRolePoliciesResponse = role_policies::list_inline;
        list_role_tags(ListRoleTagsRequest) -> ListRoleTagsResponse = tags::list_role_tags;
        list_roles(ListRolesRequest) -> ListRolesResponse = roles::list;
        list_saml_provider_tags(ListSAMLProviderTagsRequest) -> ListSAMLProviderTagsResponse = saml_providers::list_tags;
        list_saml_providers(ListSAMLProvidersRequest) -> ListSAMLProvidersResponse = saml_providers::list;
        list_service_specific_credentials(ListServiceSpecificCredentialsRequest) -> ListServiceSpecificCredentialsResponse = never_held::service_specific_credentials;
        list_signing_certificates(ListSigningCertificatesRequest) -> ListSigningCertificatesResponse = never_held::signing_certificates;
        list_ssh_public_keys(ListSSHPublicKeysRequest) -> ListSSHPublicKeysResponse = never_held::ssh_public_keys;
        list_user_policies(ListUserPoliciesRequest) -> ListUserPoliciesResponse = user_policies::list_inline;
        list_user_tags(ListUserTagsRequest) -> ListUserTagsResponse = tags::list_user_tags;
        list_users(ListUsersRequest) -> ListUsersResponse = users::list;
        list_virtual_mfa_devices(ListVirtualMFADevicesRequest) -> ListVirtualMFADevicesResponse = never_held::virtual_mfa_devices;
    }
}
