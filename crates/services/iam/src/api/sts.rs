//! STS: who the caller is, and sessions of roles, users and those whom they vouch for.
//!
//! What always holds: a session is never longer than AWS would make it, and one that was begun by a
//! role's session lasts an hour at most. Policies and tags of a session are checked and kept with it;
//! like every policy they are not evaluated (`docs/security.md`). A role's trust policy is well
//! formed, and whether it lets the caller in is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::sts::{self, Sts, StsError};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::Arn;

use super::IamService;
use crate::credentials::{RoleSession, RoleSessionError, RoleSessionRequest, find_role};
use crate::model::document::{DocumentKind, validate};
use crate::sessions::{OwnSession, find_session};
use crate::tables::{SessionOwner, SessionRow, SessionTerms};

const DEFAULT_SESSION_S: i32 = 3600;
/// How long a session may be that another role's session begins, and one of the root user.
const HOUR_S: i32 = 3600;
const DEFAULT_OWN_SESSION_S: i32 = 12 * 3600;
/// AWS's limit for a session's policy and the ARNs of its managed policies together.
const POLICY_CHARACTERS: usize = 2048;
const MAX_TAGS: usize = 50;

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
        let role = find_role(&self.store.snapshot(), &input.role_arn);
        if role.is_some_and(|role| asked > role.max_session_duration_s) {
            return Err(invalid(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            ));
        }
        let mut terms = SessionTerms {
            policy: input.policy.clone(),
            policy_arns: policy_arns(input.policy_arns.as_deref()),
            tags: tags(input.tags.as_deref())?,
            transitive: input
                .transitive_tag_keys
                .iter()
                .flatten()
                .cloned()
                .collect(),
            source_identity: input.source_identity.clone(),
        };
        let packed = check_policies(&terms)?;
        if let Some(unknown) = terms
            .transitive
            .iter()
            .find(|key| !terms.tags.contains_key(*key))
        {
            return Err(invalid(&format!(
                "Transitive tag key {unknown} is not among the tags of the session."
            )));
        }
        if let Some(before) = chained {
            inherit(&mut terms, &before.terms)?;
        }
        let request = RoleSessionRequest {
            role_arn: input.role_arn.clone(),
            session_name: input.role_session_name.clone(),
            duration: seconds(asked),
        };
        let session = self
            .credentials
            .issue_role_session_on(&request, &terms)
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
        _ctx: &RequestContext,
        _input: sts::AssumeRoleWithWebIdentityRequest,
    ) -> Result<sts::AssumeRoleWithWebIdentityResponse, StsError> {
        Err(ApiError::not_built("sts", "AssumeRoleWithWebIdentity").into())
    }

    async fn get_session_token(
        &self,
        ctx: &RequestContext,
        input: sts::GetSessionTokenRequest,
    ) -> Result<sts::GetSessionTokenResponse, StsError> {
        for (member, given) in [
            ("SerialNumber", input.serial_number.is_some()),
            ("TokenCode", input.token_code.is_some()),
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
        let owner = self.own_name(ctx, "GetFederationToken", true)?;
        let terms = SessionTerms {
            policy: input.policy.clone(),
            policy_arns: policy_arns(input.policy_arns.as_deref()),
            tags: tags(input.tags.as_deref())?,
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

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn policy_arns(given: Option<&[sts::PolicyDescriptorType]>) -> Vec<String> {
    let given = given.unwrap_or_default().iter();
    given.filter_map(|policy| policy.arn.clone()).collect()
}

fn tags(given: Option<&[sts::Tag]>) -> Result<BTreeMap<String, String>, StsError> {
    let given = given.unwrap_or_default();
    let keys: BTreeSet<_> = given.iter().map(|tag| tag.key.to_lowercase()).collect();
    if keys.len() < given.len() {
        return Err(invalid(
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        ));
    }
    if keys.iter().any(|key| key.starts_with("aws:")) {
        return Err(invalid(
            "Tag keys starting with aws: are reserved for system use.",
        ));
    }
    if given.len() > MAX_TAGS {
        return Err(invalid(&format!(
            "A session can have at most {MAX_TAGS} tags."
        )));
    }
    let tags = given.iter();
    Ok(tags
        .map(|tag| (tag.key.clone(), tag.value.clone()))
        .collect())
}

/// How much of the room for policies a session takes, in percent; `None` where it brings none.
fn check_policies(terms: &SessionTerms) -> Result<Option<i32>, StsError> {
    if let Some(policy) = &terms.policy {
        validate(DocumentKind::Inline, policy)
            .map_err(|fault| StsError::malformed_policy_document_exception(fault.0))?;
    }
    let policy = terms.policy.iter().chain(&terms.policy_arns);
    let characters: usize = policy.map(|text| text.chars().count()).sum();
    if characters > POLICY_CHARACTERS {
        return Err(StsError::packed_policy_too_large_exception(format!(
            "The session policy and the ARNs of its managed policies have {characters} characters \
             together, and there is room for {POLICY_CHARACTERS}."
        )));
    }
    let percent = (characters * 100).div_ceil(POLICY_CHARACTERS);
    Ok((percent > 0).then(|| i32::try_from(percent).unwrap_or(100)))
}

/// What goes on from the session that begins another: its transitive tags, which cannot be given
/// anew, and its source identity, which cannot become another.
fn inherit(terms: &mut SessionTerms, before: &SessionTerms) -> Result<(), StsError> {
    for key in &before.transitive {
        if terms.tags.contains_key(key) {
            return Err(invalid(&format!(
                "One of the specified transitive tag keys can't be set because it conflicts with a \
                 transitive tag key from the calling session: {key}"
            )));
        }
        if let Some(value) = before.tags.get(key) {
            terms.tags.insert(key.clone(), value.clone());
            terms.transitive.insert(key.clone());
        }
    }
    if let Some(identity) = &before.source_identity {
        let given = terms
            .source_identity
            .get_or_insert_with(|| identity.clone());
        if given != identity {
            return Err(denied(
                "The source identity of a session cannot be changed by role chaining.".to_owned(),
            ));
        }
    }
    Ok(())
}

fn shown(session: RoleSession) -> sts::Credentials {
    sts::Credentials {
        access_key_id: session.access_key_id,
        secret_access_key: session.secret_access_key,
        session_token: session.session_token,
        expiration: session.expiration,
    }
}

fn refuse(given: bool, what: &str) -> Result<(), StsError> {
    match given {
        true => Err(ApiError::not_built("sts", what).into()),
        false => Ok(()),
    }
}

fn invalid(message: &str) -> StsError {
    ApiError::sender("ValidationError", message).into()
}

fn denied(message: String) -> StsError {
    ApiError::sender("AccessDenied", message)
        .with_status(403)
        .into()
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
        RoleSessionError::NoSuchRole(_) => may_not_assume(ctx, role_arn),
        RoleSessionError::NotARole(_) | RoleSessionError::SessionName(_) => {
            invalid(&error.to_string())
        }
        RoleSessionError::Store(cause) => ApiError::internal(cause).into(),
    }
}
