//! STS: who the caller is, and sessions of roles.

use std::time::Duration;

use async_trait::async_trait;
use gantry_api::sts::{self, Sts, StsError};
use gantry_api::{ApiError, RequestContext};

use super::IamService;
use crate::credentials::{RoleSessionError, find_role};

const DEFAULT_SESSION_S: i32 = 3600;

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
        // What would narrow or vouch for the session is refused, because dropping it in silence
        // would give more than was asked for.
        for (member, given) in [
            ("Policy", input.policy.is_some()),
            ("PolicyArns", input.policy_arns.is_some()),
            ("Tags", input.tags.is_some()),
            ("TransitiveTagKeys", input.transitive_tag_keys.is_some()),
            ("SerialNumber", input.serial_number.is_some()),
            ("TokenCode", input.token_code.is_some()),
            ("ProvidedContexts", input.provided_contexts.is_some()),
        ] {
            if given {
                return Err(
                    ApiError::not_built("sts", &format!("AssumeRole with {member}")).into(),
                );
            }
        }
        let asked = input.duration_seconds.unwrap_or(DEFAULT_SESSION_S);
        let role = find_role(&self.store.snapshot(), &input.role_arn);
        if let Some(role) = &role
            && asked > role.max_session_duration_s
        {
            return Err(ApiError::sender(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            )
            .into());
        }
        let duration = Duration::from_secs(u64::try_from(asked).unwrap_or_default());
        let session = self
            .credentials
            .issue_role_session(&input.role_arn, &input.role_session_name, duration)
            .await
            .map_err(|error| refused(ctx, &input, error))?;
        Ok(sts::AssumeRoleResponse {
            credentials: Some(sts::Credentials {
                access_key_id: session.access_key_id,
                secret_access_key: session.secret_access_key,
                session_token: session.session_token,
                expiration: session.expiration,
            }),
            assumed_role_user: Some(sts::AssumedRoleUser {
                assumed_role_id: session.assumed_role_id,
                arn: session.arn.to_string(),
            }),
            source_identity: input.source_identity,
            ..Default::default()
        })
    }
}

/// AWS does not tell a role that is missing from one that may not be assumed.
fn refused(
    ctx: &RequestContext,
    input: &sts::AssumeRoleRequest,
    error: RoleSessionError,
) -> StsError {
    match error {
        RoleSessionError::NoSuchRole(_) => ApiError::sender(
            "AccessDenied",
            format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
                ctx.principal.arn, input.role_arn
            ),
        )
        .with_status(403)
        .into(),
        RoleSessionError::NotARole(_) | RoleSessionError::SessionName(_) => {
            ApiError::sender("ValidationError", error.to_string()).into()
        }
        RoleSessionError::Store(cause) => ApiError::internal(cause).into(),
    }
}
