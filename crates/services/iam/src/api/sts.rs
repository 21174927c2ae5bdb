//! STS: who the caller is, and sessions of roles, users and those whom they vouch for.
//!
//! What always holds: a session is never longer than AWS would make it, and one that was begun by a
//! role's session lasts an hour at most. Policies and tags of a session are checked and kept with it;
//! like every policy but a role's trust policy they are not evaluated (`docs/security.md`). Whoever becomes a
//! role is let in by that role's trust policy, but for the root user of its own account, who may write it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::sts::{self, Sts, StsError};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{Arn, Region};

use super::IamService;
use super::session_terms::{check_policies, check_transitive, inherit, policy_arns, refuse, tags};
use super::trusting::{Facts, lets_in};
use crate::credentials::{RoleSession, RoleSessionError, RoleSessionRequest, find_role};
use crate::model::trust::{Caller, TrustRequest};
use crate::sessions::{OwnSession, find_session, find_user};
use crate::tables::{RoleRow, Roles, SessionOwner, SessionRow, SessionTerms};

pub(super) const DEFAULT_SESSION_S: i32 = 3600;
/// How long a session may be that another role's session begins, and one of the root user.
const HOUR_S: i32 = 3600;
const DEFAULT_OWN_SESSION_S: i32 = 12 * 3600;

#[async_trait]
impl Sts for IamService {
    async fn get_caller_identity(
        &self,
        ctx: &RequestContext,
        _input: sts::GetCallerIdentityRequest,
    ) -> Result<sts::GetCallerIdentityResponse, StsError> {
        Ok(sts::GetCallerIdentityResponse {
            user_id: Some(ctx.principal.user_id.clone()),
            account: Some(ctx.account.to_string()),
            arn: Some(ctx.principal.arn.to_string()),
        })
    }

    async fn assume_role(
        &self,
        ctx: &RequestContext,
        input: sts::AssumeRoleRequest,
    ) -> Result<sts::AssumeRoleResponse, StsError> {
        // What would vouch for the caller is refused, because nothing here can look at it.
        for (member, given) in [
            ("SerialNumber", input.serial_number.is_some()),
            ("TokenCode", input.token_code.is_some()),
            ("ProvidedContexts", input.provided_contexts.is_some()),
            (
                "MinimumSessionTokenSize",
                input.minimum_session_token_size.is_some(),
            ),
        ] {
            refuse(given, &format!("AssumeRole with {member}"))?;
        }
        let caller = self.caller_session(ctx);
        if let Some(session) = &caller
            && matches!(
                session.owner,
                SessionOwner::User {
                    federated: true,
                    ..
                } | SessionOwner::Root { federated: true }
            )
        {
            return Err(may_not_assume(ctx, &input.role_arn));
        }
        let chained = caller.filter(|session| session.owner == SessionOwner::Role);
        let asked = input.duration_seconds.unwrap_or(DEFAULT_SESSION_S);
        if ctx.principal.arn.resource.starts_with("assumed-role/") && asked > HOUR_S {
            return Err(invalid(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed \
                 by role chaining",
            ));
        }
        let mut terms = SessionTerms {
            policy: input.policy.clone(),
            policy_arns: policy_arns(input.policy_arns.as_deref()),
            tags: tags(pairs(input.tags.as_deref()))?,
            transitive: input
                .transitive_tag_keys
                .iter()
                .flatten()
                .cloned()
                .collect(),
            source_identity: input.source_identity.clone(),
        };
        let packed = check_policies(&terms)?;
        check_transitive(&terms)?;
        let request = self.asking(ctx, &input, asked, &terms);
        if let Some(before) = chained {
            inherit(&mut terms, &before.terms)?;
        }
        let permit = |role: &RoleRow| {
            is_root_of(ctx, role) || lets_in(role, "sts:AssumeRole", &request, &terms)
        };
        // A role that would not let the caller in does not tell how long its sessions may be.
        if find_role(&self.store.snapshot(), &input.role_arn)
            .is_some_and(|role| permit(&role) && asked > role.max_session_duration_s)
        {
            return Err(invalid(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            ));
        }
        let session = RoleSessionRequest {
            role_arn: input.role_arn.clone(),
            session_name: input.role_session_name.clone(),
            duration: seconds(asked),
        };
        let session = self
            .credentials
            .issue_role_session_if(&session, &terms, permit)
            .await
            .map_err(|error| refused(ctx, &input.role_arn, error))?;
        Ok(sts::AssumeRoleResponse {
            assumed_role_user: Some(sts::AssumedRoleUser {
                assumed_role_id: session.assumed_role_id.clone(),
                arn: session.arn.to_string(),
            }),
            credentials: Some(shown(session)),
            source_identity: terms.source_identity,
            packed_policy_size: packed,
            ..Default::default()
        })
    }

    async fn assume_role_with_web_identity(
        &self,
        ctx: &RequestContext,
        input: sts::AssumeRoleWithWebIdentityRequest,
    ) -> Result<sts::AssumeRoleWithWebIdentityResponse, StsError> {
        self.web_identity(ctx, input).await
    }

    async fn assume_role_with_saml(
        &self,
        ctx: &RequestContext,
        input: sts::AssumeRoleWithSAMLRequest,
    ) -> Result<sts::AssumeRoleWithSAMLResponse, StsError> {
        self.saml(ctx, input).await
    }

    async fn get_session_token(
        &self,
        ctx: &RequestContext,
        input: sts::GetSessionTokenRequest,
    ) -> Result<sts::GetSessionTokenResponse, StsError> {
        for (member, given) in [
            ("SerialNumber", input.serial_number.is_some()),
            ("TokenCode", input.token_code.is_some()),
            (
                "MinimumSessionTokenSize",
                input.minimum_session_token_size.is_some(),
            ),
        ] {
            refuse(given, &format!("GetSessionToken with {member}"))?;
        }
        let owner = self.own_name(ctx, "GetSessionToken", false)?;
        let session = OwnSession {
            duration: own_duration(&owner, input.duration_seconds),
            owner,
            account: ctx.account,
            arn: ctx.principal.arn.clone(),
            user_id: ctx.principal.user_id.clone(),
            terms: SessionTerms::default(),
        };
        let session = self.own_session(&session).await?;
        Ok(sts::GetSessionTokenResponse {
            credentials: Some(shown(session)),
            ..Default::default()
        })
    }

    async fn get_federation_token(
        &self,
        ctx: &RequestContext,
        input: sts::GetFederationTokenRequest,
    ) -> Result<sts::GetFederationTokenResponse, StsError> {
        refuse(
            input.minimum_session_token_size.is_some(),
            "GetFederationToken with MinimumSessionTokenSize",
        )?;
        let owner = self.own_name(ctx, "GetFederationToken", true)?;
        let terms = SessionTerms {
            policy: input.policy.clone(),
            policy_arns: policy_arns(input.policy_arns.as_deref()),
            tags: tags(pairs(input.tags.as_deref()))?,
            ..Default::default()
        };
        let packed_policy_size = check_policies(&terms)?;
        let resource = format!("federated-user/{}", input.name);
        let session = OwnSession {
            duration: own_duration(&owner, input.duration_seconds),
            owner,
            account: ctx.account,
            arn: Arn::global("sts", &ctx.account, resource),
            user_id: format!("{}:{}", ctx.account, input.name),
            terms,
        };
        let session = self.own_session(&session).await?;
        Ok(sts::GetFederationTokenResponse {
            federated_user: Some(sts::FederatedUser {
                federated_user_id: session.assumed_role_id.clone(),
                arn: session.arn.to_string(),
            }),
            credentials: Some(shown(session)),
            packed_policy_size,
            ..Default::default()
        })
    }

    async fn get_access_key_info(
        &self,
        _ctx: &RequestContext,
        input: sts::GetAccessKeyInfoRequest,
    ) -> Result<sts::GetAccessKeyInfoResponse, StsError> {
        let account = self
            .credentials
            .account_of(&input.access_key_id)
            .ok_or_else(|| invalid("Invalid Access Key ID"))?;
        Ok(sts::GetAccessKeyInfoResponse {
            account: Some(account.to_string()),
        })
    }

    async fn decode_authorization_message(
        &self,
        _ctx: &RequestContext,
        _input: sts::DecodeAuthorizationMessageRequest,
    ) -> Result<sts::DecodeAuthorizationMessageResponse, StsError> {
        Err(StsError::invalid_authorization_message_exception(
            "Message is not valid: Gantry does not evaluate policies, so it has never encoded an \
             authorization message that could be decoded.",
        ))
    }
}

impl IamService {
    fn caller_session(&self, ctx: &RequestContext) -> Option<Arc<SessionRow>> {
        find_session(&self.store.snapshot(), &ctx.principal.access_key_id)
    }

    /// Who asks for a session of a role, and what a trust policy may want to know of it.
    fn asking(
        &self,
        ctx: &RequestContext,
        input: &sts::AssumeRoleRequest,
        duration_s: i32,
        terms: &SessionTerms,
    ) -> TrustRequest {
        let snapshot = self.store.snapshot();
        let session = find_session(&snapshot, &ctx.principal.access_key_id);
        let mut facts = Facts::of_session(ctx, &input.role_session_name, duration_s, terms);
        let own = &ctx.principal.arn;
        let mut names = vec![own.to_string()];
        let mut tags = BTreeMap::new();
        let role_of = |session: &SessionRow| {
            let role = &session.role_row;
            snapshot.read::<Roles>(&session.account, &Region::global(), role)
        };
        let kind = if let Some(role) = session.as_deref().and_then(role_of) {
            names.push(role.arn.to_string());
            tags.extend(role.tags.clone());
            "AssumedRole"
        } else if let Some(user) = find_user(&snapshot, &ctx.account, &ctx.principal.user_id) {
            facts.tell("aws:username", [user.name.clone()]);
            tags.extend(user.tags.clone());
            "User"
        } else {
            "Account"
        };
        if let Some(session) = &session {
            tags.extend(session.terms.tags.clone());
            // There are no devices here, so no session was begun with one. Keys of users do not say.
            facts.tell("aws:MultiFactorAuthPresent", ["false".to_owned()]);
        }
        for (key, value) in tags {
            facts.tell(&format!("aws:PrincipalTag/{key}"), [value]);
        }
        facts.tell("aws:PrincipalType", [kind.to_owned()]);
        facts.tell("aws:PrincipalArn", names.last().cloned());
        facts.tell("aws:PrincipalAccount", [ctx.account.to_string()]);
        facts.tell("aws:userid", [ctx.principal.user_id.clone()]);
        facts.tell("sts:ExternalId", input.external_id.clone());
        let account = ctx.account.to_string();
        let told = [
            "aws:username",
            "aws:MultiFactorAuthPresent",
            "aws:MultiFactorAuthAge",
            "aws:PrincipalTag/",
            "sts:ExternalId",
        ];
        facts.of(Caller::Key { names, account }, told.map(str::to_owned))
    }

    /// Whose session the caller gets: its own, if it has a key of its own.
    fn own_name(
        &self,
        ctx: &RequestContext,
        operation: &str,
        federated: bool,
    ) -> Result<SessionOwner, StsError> {
        let resource = &ctx.principal.arn.resource;
        if self.caller_session(ctx).is_none() {
            if resource == "root" {
                return Ok(SessionOwner::Root { federated });
            }
            if resource.starts_with("user/") {
                let id = ctx.principal.user_id.clone();
                return Ok(SessionOwner::User { id, federated });
            }
        }
        let message = format!("Cannot call {operation} with session credentials");
        Err(denied(message))
    }

    async fn own_session(&self, asked: &OwnSession) -> Result<RoleSession, StsError> {
        match self.credentials.issue_own_session(asked).await {
            Ok(Some(session)) => Ok(session),
            // It was deleted after it signed.
            Ok(None) => Err(ApiError::sender(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            )
            .with_status(403)
            .into()),
            Err(error) => Err(ApiError::internal(error).into()),
        }
    }
}

/// Sessions of the root user are cut to an hour, without a word, as at AWS.
fn own_duration(owner: &SessionOwner, asked: Option<i32>) -> Duration {
    let asked = asked.unwrap_or(DEFAULT_OWN_SESSION_S);
    match owner {
        SessionOwner::Root { .. } => seconds(asked.min(HOUR_S)),
        _ => seconds(asked),
    }
}

pub(super) fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn pairs(given: Option<&[sts::Tag]>) -> impl Iterator<Item = (&str, &str)> {
    let given = given.unwrap_or_default().iter();
    given.map(|tag| (tag.key.as_str(), tag.value.as_str()))
}

pub(super) fn shown(session: RoleSession) -> sts::Credentials {
    sts::Credentials {
        access_key_id: session.access_key_id,
        secret_access_key: session.secret_access_key,
        session_token: session.session_token,
        expiration: session.expiration,
    }
}

pub(super) fn invalid(message: &str) -> StsError {
    ApiError::sender("ValidationError", message).into()
}

pub(super) fn denied(message: String) -> StsError {
    ApiError::sender("AccessDenied", message)
        .with_status(403)
        .into()
}

/// The root user may write the trust policies of its account, so none keeps it out. AWS lets it assume no role at
/// all; here its key is what everything begins with.
fn is_root_of(ctx: &RequestContext, role: &RoleRow) -> bool {
    ctx.principal.arn.resource == "root" && role.arn.account_id() == Some(ctx.account)
}

/// AWS does not tell a role that is missing from one that may not be assumed.
fn may_not_assume(ctx: &RequestContext, role_arn: &str) -> StsError {
    denied(format!(
        "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
        ctx.principal.arn
    ))
}

fn refused(ctx: &RequestContext, role_arn: &str, error: RoleSessionError) -> StsError {
    match error {
        RoleSessionError::NoSuchRole(_) | RoleSessionError::NotTrusted(_) => {
            may_not_assume(ctx, role_arn)
        }
        RoleSessionError::NotARole(_) | RoleSessionError::SessionName(_) => {
            invalid(&error.to_string())
        }
        RoleSessionError::Store(cause) => ApiError::internal(cause).into(),
    }
}
