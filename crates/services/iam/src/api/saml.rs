//! AssumeRoleWithSAML: a session of a role for whoever a SAML identity provider vouches for.
//!
//! What always holds: nobody signed this call, so nothing that the caller says counts before the assertion was held
//! against the keys in the metadata of a provider that is registered in the role's account. Then its times, to whom it
//! may be presented, the pair of role and provider that it names, and the role's trust policy decide.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::sts::{self, StsError};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{AccountId, Region};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::IamService;
use super::session_terms::{
    check_policies, check_transitive, is_source_identity, policy_arns, refuse, tags,
};
use super::sts::{DEFAULT_SESSION_S, denied, invalid, seconds, shown};
use super::trusting::{Facts, lets_in};
use crate::credentials::{
    RoleSessionError, RoleSessionRequest, SHORTEST_SESSION, find_role, role_of_arn,
};
use crate::model::saml::{Assertion, Confirmation, Metadata, Refused, read};
use crate::model::trust::Caller;
use crate::sessions::is_session_name;
use crate::tables::{RoleRow, SamlProviderRow, SamlProviders, SessionTerms, row_name};

const ACTION: &str = "sts:AssumeRoleWithSAML";
/// How far a provider's clock may be ahead, and how long after its issue an assertion is good at most, as at AWS.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
const REDEEMED_WITHIN: Duration = Duration::from_secs(5 * 60);
/// The name that AWS has as a service provider, beside the addresses where it takes assertions.
const AWS: &str = "urn:amazon:webservices";

impl IamService {
    pub(super) async fn saml(
        &self,
        ctx: &RequestContext,
        input: sts::AssumeRoleWithSAMLRequest,
    ) -> Result<sts::AssumeRoleWithSAMLResponse, StsError> {
        refuse(
            input.minimum_session_token_size.is_some(),
            "AssumeRoleWithSAML with MinimumSessionTokenSize",
        )?;
        let (account, _) =
            role_of_arn(&input.role_arn).ok_or_else(|| invalid("Request ARN is invalid"))?;
        let snapshot = self.store.snapshot();
        let name = input.principal_arn.split_once(":saml-provider/");
        let provider = name
            .and_then(|(_, name)| {
                snapshot.read::<SamlProviders>(&account, &Region::global(), &row_name(name))
            })
            .filter(|provider| provider.arn.to_string() == input.principal_arn)
            .ok_or_else(|| rejected("Specified provider doesn't exist"))?;
        let metadata = Metadata::read(&provider.metadata)
            .ok_or_else(|| rejected("The metadata of the specified provider cannot be read"))?;
        if metadata.valid_until.is_some_and(|end| end <= ctx.now) {
            return Err(rejected(
                "The metadata of the specified provider have expired",
            ));
        }
        let response: String = input.saml_assertion.split_ascii_whitespace().collect();
        let response = STANDARD
            .decode(response)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| rejected("Invalid base64 SAMLResponse"))?;
        let assertion = read(&response, &metadata).map_err(unverified)?;
        let recipient = check(ctx, &assertion)?;
        let session_name = session_name(&assertion)?;
        let asked = match input.duration_seconds {
            Some(asked) => asked,
            None => session_duration(&assertion)?.unwrap_or(DEFAULT_SESSION_S),
        };
        let terms = terms(&input, &assertion)?;
        let packed_policy_size = check_policies(&terms)?;

        let qualifier = name_qualifier(&assertion.issuer, &account, &provider);
        let mut facts = Facts::of_session(ctx, &session_name, asked, &terms);
        facts.tell("saml:aud", [recipient.clone()]);
        facts.tell("saml:iss", [assertion.issuer.clone()]);
        facts.tell("saml:sub", [assertion.subject.clone()]);
        facts.tell("saml:sub_type", [assertion.subject_type.clone()]);
        facts.tell("saml:namequalifier", [qualifier.clone()]);
        facts.tell("saml:doc", [format!("{account}/{}", provider.name)]);
        facts.tell("aws:FederatedProvider", [provider.arn.to_string()]);
        let request = facts.of(Caller::Federated(provider.arn.to_string()), []);
        let named = names_role(&assertion, &input.role_arn, &input.principal_arn);
        let permit = |role: &RoleRow| named && lets_in(role, ACTION, &request, &terms);
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
            session_name,
            duration: until_the_provider_ends_it(ctx, &assertion, seconds(asked))?,
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
        Ok(sts::AssumeRoleWithSAMLResponse {
            assumed_role_user: Some(sts::AssumedRoleUser {
                assumed_role_id: session.assumed_role_id.clone(),
                arn: session.arn.to_string(),
            }),
            credentials: Some(shown(session)),
            subject: Some(assertion.subject),
            subject_type: Some(assertion.subject_type),
            issuer: Some(assertion.issuer),
            audience: Some(recipient),
            name_qualifier: Some(qualifier),
            source_identity: terms.source_identity,
            packed_policy_size,
            ..Default::default()
        })
    }
}

/// Whether the assertion is for AWS and for now. Answers to whom its bearer may present it.
fn check(ctx: &RequestContext, assertion: &Assertion) -> Result<String, StsError> {
    let now = ctx.now;
    if now >= assertion.issued_at + REDEEMED_WITHIN {
        return Err(expired(
            "Token must be redeemed within 5 minutes of issuance",
        ));
    }
    let for_aws: Vec<&Confirmation> = assertion
        .confirmations
        .iter()
        .filter(|confirmation| is_sign_in(&confirmation.recipient))
        .collect();
    if for_aws.is_empty() {
        return Err(rejected("Response does not contain the required recipient"));
    }
    let required = |audiences: &Vec<String>| {
        let mut audiences = audiences.iter();
        audiences.any(|audience| audience == AWS || is_sign_in(audience))
    };
    if assertion.audiences.is_empty() || !assertion.audiences.iter().all(required) {
        return Err(rejected("Response does not contain the required audience"));
    }
    let over = |end: gantry_env::Timestamp| end <= now;
    let early = |begin: gantry_env::Timestamp| begin > now + CLOCK_SKEW;
    let confirmed = for_aws
        .iter()
        .find(|confirmation| !over(confirmation.not_on_or_after))
        .filter(|_| !assertion.not_on_or_after.is_some_and(over))
        .ok_or_else(|| expired("The SAML assertion has expired"))?;
    for begin in [
        Some(assertion.issued_at),
        assertion.not_before,
        confirmed.not_before,
    ] {
        if begin.is_some_and(early) {
            return Err(StsError::idp_rejected_claim_exception(
                "The SAML assertion is from the future",
            ));
        }
    }
    Ok(confirmed.recipient.clone())
}

/// `https://signin.aws.amazon.com/saml`, or that of a region.
fn is_sign_in(url: &str) -> bool {
    const HOST: &str = "signin.aws.amazon.com/saml";
    let Some(rest) = url.strip_prefix("https://") else {
        return false;
    };
    let region = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    rest == HOST
        || rest
            .strip_suffix(HOST)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|name| !name.is_empty() && region(name))
}

fn one<'a>(assertion: &'a Assertion, attribute: &str) -> Result<Option<&'a str>, StsError> {
    match assertion.attributes.get(attribute).map(Vec::as_slice) {
        None => Ok(None),
        Some([value]) => Ok(Some(value)),
        Some(_) => Err(rejected(format!(
            "{attribute} in AuthnResponse must have exactly one value"
        ))),
    }
}

fn session_name(assertion: &Assertion) -> Result<String, StsError> {
    match one(assertion, "RoleSessionName")? {
        None => Err(rejected("RoleSessionName is required in AuthnResponse")),
        Some(name) if is_session_name(name) => Ok(name.to_owned()),
        Some(_) => Err(rejected(
            "RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}",
        )),
    }
}

fn session_duration(assertion: &Assertion) -> Result<Option<i32>, StsError> {
    match one(assertion, "SessionDuration")?.map(str::parse) {
        None => Ok(None),
        Some(Ok(duration_s)) if (900..=43_200).contains(&duration_s) => Ok(Some(duration_s)),
        Some(_) => Err(rejected(
            "SessionDuration in AuthnResponse must be a number of seconds from 900 to 43200",
        )),
    }
}

fn until_the_provider_ends_it(
    ctx: &RequestContext,
    assertion: &Assertion,
    asked: Duration,
) -> Result<Duration, StsError> {
    let Some(end) = assertion.session_ends_at else {
        return Ok(asked);
    };
    if end < ctx.now + SHORTEST_SESSION {
        return Err(expired(
            "SessionNotOnOrAfter leaves less than the 15 minutes that the shortest session has",
        ));
    }
    Ok(asked.min(end.since(ctx.now)))
}

/// Whether the assertion says that its subject may have this role by way of this provider. Each pair stands in either order.
fn names_role(assertion: &Assertion, role: &str, provider: &str) -> bool {
    let pairs = assertion.attributes.get("Role").into_iter().flatten();
    let mut pairs = pairs.filter_map(|pair| pair.split_once(','));
    pairs.any(|(first, second)| {
        let pair = (first.trim(), second.trim());
        pair == (role, provider) || pair == (provider, role)
    })
}

fn terms(
    input: &sts::AssumeRoleWithSAMLRequest,
    assertion: &Assertion,
) -> Result<SessionTerms, StsError> {
    let mut given = Vec::new();
    for name in assertion.attributes.keys() {
        if let Some(key) = name.strip_prefix("PrincipalTag:") {
            given.push((key, one(assertion, name)?.unwrap_or_default()));
        }
    }
    let transitive = assertion.attributes.get("TransitiveTagKeys");
    let terms = SessionTerms {
        policy: input.policy.clone(),
        policy_arns: policy_arns(input.policy_arns.as_deref()),
        tags: tags(given.into_iter())?,
        transitive: transitive.into_iter().flatten().cloned().collect(),
        source_identity: one(assertion, "SourceIdentity")?.map(str::to_owned),
    };
    check_transitive(&terms)?;
    if let Some(identity) = &terms.source_identity
        && !is_source_identity(identity)
    {
        return Err(rejected(
            "Source Identity must match [a-zA-Z_0-9+=,.@-]{2,64} and not begin with \"aws:\"",
        ));
    }
    Ok(terms)
}

/// What makes a subject's name that of one subject only, as AWS computes it.
fn name_qualifier(issuer: &str, account: &AccountId, provider: &SamlProviderRow) -> String {
    let text = format!("{issuer}{account}/{}", provider.name);
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

fn rejected(message: impl Into<String>) -> StsError {
    StsError::invalid_identity_token_exception(message)
}

fn expired(message: &str) -> StsError {
    StsError::expired_token_exception(message)
}

fn unverified(refused: Refused) -> StsError {
    match refused {
        Refused::Failed => StsError::idp_rejected_claim_exception(refused.to_string()),
        Refused::Encrypted => {
            ApiError::not_built("sts", "AssumeRoleWithSAML with an EncryptedAssertion").into()
        }
        other => rejected(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aws_own_addresses_are_its_own() {
        for good in [
            "https://signin.aws.amazon.com/saml",
            "https://eu-central-1.signin.aws.amazon.com/saml",
        ] {
            assert!(is_sign_in(good), "{good}");
        }
        for bad in [
            "",
            "http://signin.aws.amazon.com/saml",
            "https://signin.aws.amazon.com/saml/",
            "https://.signin.aws.amazon.com/saml",
            "https://evil.example/signin.aws.amazon.com/saml",
            "https://evil.example/?a=.signin.aws.amazon.com/saml",
            "https://evilsignin.aws.amazon.com/saml",
            "https://a.b.signin.aws.amazon.com/saml",
        ] {
            assert!(!is_sign_in(bad), "{bad}");
        }
    }
}
