//! AssumeRoleWithWebIdentity: a session of a role for whoever an OpenID Connect provider vouches for.
//!
//! What always holds: nobody signed this call, so nothing that the caller says counts before the token was held
//! against the keys of a provider that is registered in the role's account, for an audience registered with it. Then
//! the role's trust policy decides, in the same transaction that issues the session. Every answer before that
//! is about the token alone: whether a role exists, only a verified token learns.

use std::time::Duration;

use gantry_api::sts::{self, StsError};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::Region;

use super::IamService;
use super::session_terms::{
    check_policies, check_transitive, is_source_identity, policy_arns, refuse, tags,
};
use super::sts::{DEFAULT_SESSION_S, denied, invalid, seconds, shown};
use super::trusting::{Facts, lets_in};
use crate::credentials::{RoleSessionError, RoleSessionRequest, find_role, role_of_arn};
use crate::federation::{FetchError, KeysError};
use crate::model::trust::{Caller, TrustRequest};
use crate::model::web_token::{self, Claims};
use crate::tables::{OidcProviderRow, OidcProviders, RoleRow, SessionTerms};

const ACTION: &str = "sts:AssumeRoleWithWebIdentity";
/// How far a provider's clock may be off, as IAM documents it.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

impl IamService {
    pub(super) async fn web_identity(
        &self,
        ctx: &RequestContext,
        input: sts::AssumeRoleWithWebIdentityRequest,
    ) -> Result<sts::AssumeRoleWithWebIdentityResponse, StsError> {
        for (member, given) in [
            ("ProviderId", input.provider_id.is_some()),
            (
                "MinimumSessionTokenSize",
                input.minimum_session_token_size.is_some(),
            ),
        ] {
            refuse(given, &format!("AssumeRoleWithWebIdentity with {member}"))?;
        }
        let (account, _) =
            role_of_arn(&input.role_arn).ok_or_else(|| invalid("Request ARN is invalid"))?;
        let token = web_token::read(&input.web_identity_token)
            .map_err(|unreadable| invalid_token(unreadable.to_string()))?;
        let claims = &token.claims;
        let snapshot = self.store.snapshot();
        let url = claims.issuer.strip_prefix("https://");
        let provider = url
            .and_then(|url| snapshot.read::<OidcProviders>(&account, &Region::global(), url))
            .ok_or_else(|| {
                invalid_token(format!(
                    "No OpenIDConnect provider found in your account for {}",
                    claims.issuer
                ))
            })?;
        let audience = audience(claims, &provider)
            .ok_or_else(|| invalid_token("Incorrect token audience".to_owned()))?;
        check_times(ctx, claims)?;
        self.issuers
            .verify(&provider.url, &provider.thumbprints, &token)
            .await
            .map_err(unverified)?;

        let terms = terms(&input, claims)?;
        let packed_policy_size = check_policies(&terms)?;
        let asked = input.duration_seconds.unwrap_or(DEFAULT_SESSION_S);
        let request = federated(ctx, &input, &provider, &audience, claims, &terms, asked);
        let permit = |role: &RoleRow| lets_in(role, ACTION, &request, &terms);
        // A role that would not let the caller in does not tell how long its sessions may be.
        if find_role(&snapshot, &input.role_arn)
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
            .map_err(|error| match error {
                RoleSessionError::NoSuchRole(_) | RoleSessionError::NotTrusted(_) => {
                    denied(format!("Not authorized to perform {ACTION}"))
                }
                RoleSessionError::NotARole(_) | RoleSessionError::SessionName(_) => {
                    invalid(&error.to_string())
                }
                RoleSessionError::Store(cause) => ApiError::internal(cause).into(),
            })?;
        Ok(sts::AssumeRoleWithWebIdentityResponse {
            assumed_role_user: Some(sts::AssumedRoleUser {
                assumed_role_id: session.assumed_role_id.clone(),
                arn: session.arn.to_string(),
            }),
            credentials: Some(shown(session)),
            subject_from_web_identity_token: Some(claims.subject.clone()),
            provider: Some(provider.arn.to_string()),
            audience: Some(audience),
            source_identity: terms.source_identity,
            packed_policy_size,
            ..Default::default()
        })
    }
}

/// The audience that counts, if it is registered: the authorized party where the token names one, otherwise
/// the first audience that is.
fn audience(claims: &Claims, provider: &OidcProviderRow) -> Option<String> {
    let mut candidates = match &claims.authorized_party {
        Some(party) => std::slice::from_ref(party),
        None => claims.audiences.as_slice(),
    }
    .iter();
    candidates
        .find(|audience| provider.client_ids.contains(audience))
        .cloned()
}

fn check_times(ctx: &RequestContext, claims: &Claims) -> Result<(), StsError> {
    let now_s = ctx.now.as_epoch_seconds_f64().floor() as i64;
    let skew_s = i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or_default();
    if now_s >= claims.expires_at_s.saturating_add(skew_s) {
        return Err(StsError::expired_token_exception(format!(
            "Token expired: current date/time {now_s} must be before the expiration date/time {}",
            claims.expires_at_s
        )));
    }
    for (claim, moment_s) in [
        ("nbf", claims.not_before_s.unwrap_or(i64::MIN)),
        ("iat", claims.issued_at_s),
    ] {
        if moment_s > now_s.saturating_add(skew_s) {
            return Err(StsError::idp_rejected_claim_exception(format!(
                "The claim {claim} of the ID Token provided is in the future: current date/time \
                 {now_s} must be after {moment_s}"
            )));
        }
    }
    Ok(())
}

fn terms(
    input: &sts::AssumeRoleWithWebIdentityRequest,
    claims: &Claims,
) -> Result<SessionTerms, StsError> {
    let given = claims.tags.iter();
    let terms = SessionTerms {
        policy: input.policy.clone(),
        policy_arns: policy_arns(input.policy_arns.as_deref()),
        tags: tags(given.map(|(key, value)| (key.as_str(), value.as_str())))?,
        transitive: claims.transitive.iter().cloned().collect(),
        source_identity: claims.source_identity.clone(),
    };
    check_transitive(&terms)?;
    if let Some(identity) = &terms.source_identity
        && !is_source_identity(identity)
    {
        return Err(StsError::idp_rejected_claim_exception(
            "The source identity of the ID Token provided is not 2 to 64 letters, digits and \
             + = , . @ _ -",
        ));
    }
    Ok(terms)
}

/// What the trust policy is asked about: what the token claims, and how the session is asked for.
fn federated(
    ctx: &RequestContext,
    input: &sts::AssumeRoleWithWebIdentityRequest,
    provider: &OidcProviderRow,
    audience: &str,
    claims: &Claims,
    terms: &SessionTerms,
    duration_s: i32,
) -> TrustRequest {
    let mut facts = Facts::of_session(ctx, &input.role_session_name, duration_s, terms);
    let key = |claim: &str| format!("{}:{claim}", provider.url);
    facts.tell(&key("aud"), [audience.to_owned()]);
    if claims.authorized_party.is_some() {
        facts.tell(&key("oaud"), claims.audiences.clone());
    }
    facts.tell(&key("sub"), [claims.subject.clone()]);
    facts.tell(&key("azp"), claims.authorized_party.clone());
    facts.tell(&key("amr"), claims.methods.clone());
    facts.tell(&key("email"), claims.email.clone());
    facts.tell("aws:FederatedProvider", [provider.arn.to_string()]);
    let told = ["aud", "oaud", "sub", "azp", "amr", "email"];
    facts.of(Caller::Federated(provider.arn.to_string()), told.map(key))
}

fn invalid_token(message: String) -> StsError {
    StsError::invalid_identity_token_exception(message)
}

fn unverified(error: KeysError) -> StsError {
    match error {
        KeysError::Fetch(FetchError::Unreachable(_)) => {
            StsError::idp_communication_error_exception(
                "The request could not be fulfilled because the identity provider (IDP) that was \
                 asked to verify the incoming identity token could not be reached.",
            )
        }
        KeysError::Fetch(FetchError::Thumbprint) => invalid_token(
            "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint"
                .to_owned(),
        ),
        // The two spaces are AWS's.
        KeysError::Fetch(FetchError::Refused(_)) => invalid_token(
            "Couldn't retrieve verification key from your identity provider,  please reference \
             AssumeRoleWithWebIdentity documentation for requirements"
                .to_owned(),
        ),
        KeysError::BadSignature => invalid_token(
            "The ID Token provided is not signed with the key of the identity provider that it \
             names"
                .to_owned(),
        ),
    }
}
