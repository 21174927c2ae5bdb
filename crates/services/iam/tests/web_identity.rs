//! AssumeRoleWithWebIdentity on virtual time, against an issuer that this test is.

mod desk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desk::{Desk, refusal};
use gantry_api::auth::CredentialSource;
use gantry_api::iam::{self, Iam};
use gantry_api::sts::{self, Sts};
use gantry_iam::{Fetch, FetchError};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

const ISSUER: &str = "i.example/id";
const PROVIDER: &str = "arn:aws:iam::000000000000:oidc-provider/i.example/id";
const THUMBPRINT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The issuer's documents, and which of them were asked for.
#[derive(Default)]
struct Documents {
    answers: Mutex<BTreeMap<String, Result<String, FetchError>>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Fetch for Documents {
    async fn get(&self, url: &str, thumbprints: &[String]) -> Result<Vec<u8>, FetchError> {
        assert_eq!(thumbprints, [THUMBPRINT]);
        self.asked.lock().unwrap().push(url.to_owned());
        let answers = self.answers.lock().unwrap();
        let missing = || Err(FetchError::Refused(format!("{url}: 404")));
        let answer = answers.get(url).cloned().unwrap_or_else(missing);
        answer.map(String::into_bytes)
    }
}

impl Documents {
    fn put(&self, url: &str, answer: Result<Value, FetchError>) {
        let answer = answer.map(|value| value.to_string());
        self.answers.lock().unwrap().insert(url.to_owned(), answer);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id: id.into(),
            pair: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap(),
        }
    }

    fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap()))
    }
}

struct Bench {
    desk: Desk,
    documents: Arc<Documents>,
    key: Key,
    role: iam::Role,
}

fn trust(statement: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Federated":"{PROVIDER}"}},{statement}}}]}}"#
    )
}

const OF_WEB: &str = r#""Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"i.example/id:aud":"sts.amazonaws.com","i.example/id:sub":"web"}}"#;

impl Bench {
    fn new() -> Self {
        let mut desk = Desk::new();
        let documents = Arc::new(Documents::default());
        desk.iam = desk.iam.clone().fetching_through(documents.clone());
        let key = Key::new("k1");
        documents.put(
            "https://i.example/id/.well-known/openid-configuration",
            Ok(json!({"issuer": "https://i.example/id", "jwks_uri": "https://keys.example/jwks"})),
        );
        documents.put(
            "https://keys.example/jwks",
            Ok(json!({"keys": [key.public()]})),
        );
        desk.wait(desk.iam.create_open_id_connect_provider(
            &desk.ctx,
            iam::CreateOpenIDConnectProviderRequest {
                url: format!("https://{ISSUER}"),
                client_id_list: Some(vec!["sts.amazonaws.com".into(), "app".into()]),
                thumbprint_list: Some(vec![THUMBPRINT.into()]),
                ..Default::default()
            },
        ))
        .unwrap();
        let role = desk.role("web");
        let bench = Self {
            desk,
            documents,
            key,
            role,
        };
        bench.trust(OF_WEB);
        bench
    }

    fn trust(&self, statement: &str) {
        let change = iam::UpdateAssumeRolePolicyRequest {
            role_name: "web".into(),
            policy_document: trust(statement),
        };
        let desk = &self.desk;
        desk.wait(desk.iam.update_assume_role_policy(&desk.ctx, change))
            .unwrap();
    }

    fn now_s(&self) -> i64 {
        self.desk.world.now().as_epoch_seconds_f64() as i64
    }

    fn claims(&self) -> Value {
        let now = self.now_s();
        json!({"iss": "https://i.example/id", "sub": "web", "aud": "sts.amazonaws.com",
            "iat": now, "nbf": now, "exp": now + 600})
    }

    fn assume(
        &self,
        token: &str,
        edit: impl FnOnce(&mut sts::AssumeRoleWithWebIdentityRequest),
    ) -> Result<sts::AssumeRoleWithWebIdentityResponse, sts::StsError> {
        let mut input = sts::AssumeRoleWithWebIdentityRequest {
            role_arn: self.role.arn.clone(),
            role_session_name: "me".into(),
            web_identity_token: token.into(),
            ..Default::default()
        };
        edit(&mut input);
        let mut ctx = self.desk.ctx.clone();
        ctx.now = self.desk.world.now();
        let sts = &self.desk.iam;
        self.desk
            .wait(sts.assume_role_with_web_identity(&ctx, input))
    }

    /// What a token with these claims, signed with the issuer's key, is answered.
    fn outcome(&self, change: impl FnOnce(&mut Value)) -> Result<(), (String, String)> {
        let mut claims = self.claims();
        change(&mut claims);
        match self.assume(&self.key.token(&claims), |_| {}) {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(Err::<(), _>(error))),
        }
    }
}

fn error(code: &str, message: &str) -> Result<(), (String, String)> {
    Err((code.into(), message.into()))
}

const NOT_AUTHORIZED: &str = "Not authorized to perform sts:AssumeRoleWithWebIdentity";

#[test]
fn a_verified_token_becomes_a_session_of_the_role() {
    let bench = Bench::new();
    let token = bench.key.token(&bench.claims());
    let answer = bench.assume(&token, |_| {}).unwrap();
    assert_eq!(
        answer.subject_from_web_identity_token.as_deref(),
        Some("web")
    );
    assert_eq!(answer.audience.as_deref(), Some("sts.amazonaws.com"));
    assert_eq!(answer.provider.as_deref(), Some(PROVIDER));
    assert_eq!(
        (answer.source_identity, answer.packed_policy_size),
        (None, None)
    );
    let user = answer.assumed_role_user.unwrap();
    assert_eq!(user.arn, "arn:aws:sts::000000000000:assumed-role/web/me");
    assert_eq!(user.assumed_role_id, format!("{}:me", bench.role.role_id));
    let key = answer.credentials.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(key.expiration, bench.desk.world.now() + hour);
    let found = bench.desk.iam.credentials().lookup(&key.access_key_id);
    let found = bench.desk.wait(found).unwrap();
    assert_eq!(found.principal.arn.to_string(), user.arn);

    // The second token costs the issuer nothing.
    assert_eq!(bench.documents.asked(), 2);
    bench.assume(&token, |_| {}).unwrap();
    assert_eq!(bench.documents.asked(), 2);
}

#[test]
fn the_token_alone_is_judged_first() {
    let bench = Bench::new();
    let invalid = "InvalidIdentityToken";
    assert_eq!(
        bench.outcome(|claims| claims["iss"] = json!("https://other.example")),
        error(
            invalid,
            "No OpenIDConnect provider found in your account for https://other.example"
        )
    );
    assert_eq!(
        bench.outcome(|claims| claims["iss"] = json!("http://i.example/id")),
        error(
            invalid,
            "No OpenIDConnect provider found in your account for http://i.example/id"
        )
    );
    assert_eq!(
        bench.outcome(|claims| claims["aud"] = json!("somebody")),
        error(invalid, "Incorrect token audience")
    );
    // The authorized party counts where there is one.
    assert_eq!(
        bench.outcome(|claims| claims["azp"] = json!("somebody")),
        error(invalid, "Incorrect token audience")
    );
    let now = bench.now_s();
    let (late, future) = (now - 300, now + 301);
    assert_eq!(
        bench.outcome(|claims| claims["exp"] = json!(late)),
        error(
            "ExpiredTokenException",
            &format!(
                "Token expired: current date/time {now} must be before the expiration date/time {late}"
            )
        )
    );
    for claim in ["nbf", "iat"] {
        let outcome = bench.outcome(|claims| claims[claim] = json!(future));
        assert_eq!(outcome.unwrap_err().0, "IDPRejectedClaim", "{claim}");
    }
    assert_eq!(
        refusal(bench.assume("ya29.opaque", |_| {})),
        (
            invalid.into(),
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)".into()
        )
    );
    // None of these made Gantry ask anybody.
    assert_eq!(bench.documents.asked(), 0);
    // A clock may be off by five minutes, both ways.
    assert_eq!(
        bench.outcome(|claims| claims["exp"] = json!(late + 1)),
        Ok(())
    );
    assert_eq!(
        bench.outcome(|claims| claims["nbf"] = json!(future - 1)),
        Ok(())
    );
}

#[test]
fn only_the_issuers_key_makes_tokens() {
    let bench = Bench::new();
    let bad = (
        "InvalidIdentityToken".to_owned(),
        "The ID Token provided is not signed with the key of the identity provider that it names"
            .to_owned(),
    );
    let claims = bench.claims();
    // Another key that calls itself the same.
    let forged = Key::new("k1").token(&claims);
    assert_eq!(refusal(bench.assume(&forged, |_| {})), bad);
    // A good signature under other claims.
    let good = bench.key.token(&claims);
    let mut other = claims.clone();
    other["sub"] = json!("admin");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let header = head.split_once('.').unwrap().0;
    let body = URL_SAFE_NO_PAD.encode(other.to_string());
    let swapped = format!("{header}.{body}.{signature}");
    assert_eq!(refusal(bench.assume(&swapped, |_| {})), bad);
    for algorithm in ["none", "HS256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "kid": "k1"}).to_string());
        let token = format!("{header}.{body}.");
        let (code, message) = refusal(bench.assume(&token, |_| {}));
        assert_eq!(code, "InvalidIdentityToken");
        assert!(message.contains(algorithm), "{message}");
    }
    // The key is one of P-256 and no other algorithm's.
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": "k1"}).to_string());
    assert_eq!(
        refusal(bench.assume(&format!("{header}.{body}.{signature}"), |_| {})),
        bad
    );
}

#[test]
fn the_trust_policy_decides() {
    let bench = Bench::new();
    assert_eq!(
        bench.outcome(|claims| claims["sub"] = json!("db")),
        error("AccessDenied", NOT_AUTHORIZED)
    );
    assert_eq!(
        bench.outcome(|claims| claims["aud"] = json!("app")),
        error("AccessDenied", NOT_AUTHORIZED)
    );
    let token = bench.key.token(&bench.claims());
    // A role that is not there, and one that trusts others, look the same.
    let other = bench.desk.role("tasks").arn;
    for role_arn in ["arn:aws:iam::000000000000:role/ghost".into(), other] {
        let refused = bench.assume(&token, |input| input.role_arn = role_arn);
        assert_eq!(
            refusal(refused),
            ("AccessDenied".into(), NOT_AUTHORIZED.into())
        );
    }
    let refused = bench.assume(&token, |input| input.role_arn = "web".repeat(10));
    assert_eq!(
        refusal(refused),
        ("ValidationError".into(), "Request ARN is invalid".into())
    );

    let tagged = |claims: &mut Value| {
        claims["https://aws.amazon.com/tags"] =
            json!({"principal_tags": {"Team": ["blue"]}, "transitive_tag_keys": ["Team"]});
        claims["https://aws.amazon.com/source_identity"] = json!("ann");
    };
    assert_eq!(bench.outcome(tagged), error("AccessDenied", NOT_AUTHORIZED));
    bench.trust(
        r#""Action":["sts:AssumeRoleWithWebIdentity","sts:TagSession","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"aws:RequestTag/team":"blue","sts:SourceIdentity":"ann"}}"#,
    );
    let mut claims = bench.claims();
    tagged(&mut claims);
    let answer = bench.assume(&bench.key.token(&claims), |_| {}).unwrap();
    assert_eq!(answer.source_identity.as_deref(), Some("ann"));
    assert_eq!(bench.outcome(|_| {}), error("AccessDenied", NOT_AUTHORIZED));
}

#[test]
fn the_session_is_bounded_as_aws_bounds_it() {
    let bench = Bench::new();
    let token = bench.key.token(&bench.claims());
    let too_long = bench.assume(&token, |input| input.duration_seconds = Some(7200));
    assert_eq!(
        refusal(too_long),
        (
            "ValidationError".into(),
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                .into()
        )
    );
    let answer = bench.assume(&token, |input| {
        input.duration_seconds = Some(900);
        input.policy = Some(desk::DOCUMENT.into());
    });
    let answer = answer.unwrap();
    assert!(answer.packed_policy_size.is_some_and(|percent| percent > 0));
    let expiration = answer.credentials.unwrap().expiration;
    assert_eq!(
        expiration,
        bench.desk.world.now() + Duration::from_secs(900)
    );
    let malformed = bench.assume(&token, |input| input.policy = Some("{}".into()));
    assert_eq!(refusal(malformed).0, "MalformedPolicyDocument");
    let legacy = bench.assume(&token, |input| {
        input.provider_id = Some("www.amazon.com".into())
    });
    let (code, message) = refusal(legacy);
    assert_eq!(code, "NotImplemented");
    assert!(message.contains("ProviderId"), "{message}");
}

#[test]
fn keys_are_fetched_seldom_and_new_ones_are_found() {
    let bench = Bench::new();
    let jwks = "https://keys.example/jwks";
    assert_eq!(bench.outcome(|_| {}), Ok(()));
    assert_eq!(bench.documents.asked(), 2);
    // The issuer has a new key: it is asked again, but not at once after it was asked.
    let newer = Key::new("k2");
    bench.documents.put(
        jwks,
        Ok(json!({"keys": [bench.key.public(), newer.public()]})),
    );
    let no_key = "Couldn't retrieve verification key from your identity provider,  please reference \
        AssumeRoleWithWebIdentity documentation for requirements";
    let refused = bench.assume(&newer.token(&bench.claims()), |_| {});
    assert_eq!(
        refusal(refused),
        ("InvalidIdentityToken".into(), no_key.into())
    );
    assert_eq!(bench.documents.asked(), 2);
    bench.desk.world.advance(Duration::from_secs(30));
    bench.assume(&newer.token(&bench.claims()), |_| {}).unwrap();
    assert_eq!(bench.documents.asked(), 4);
    // Somebody with made-up key ids makes it be asked twice a minute, no more.
    bench.desk.world.advance(Duration::from_secs(30));
    for _ in 0..10 {
        let made_up = Key::new("k3").token(&bench.claims());
        assert_eq!(
            refusal(bench.assume(&made_up, |_| {})).0,
            "InvalidIdentityToken"
        );
    }
    assert_eq!(bench.documents.asked(), 6);
    // A key that was withdrawn is good for an hour at most.
    bench
        .documents
        .put(jwks, Ok(json!({"keys": [newer.public()]})));
    assert_eq!(bench.outcome(|_| {}), Ok(()));
    bench.desk.world.advance(Duration::from_secs(3600));
    let refused = bench.assume(&bench.key.token(&bench.claims()), |_| {});
    assert_eq!(
        refusal(refused),
        ("InvalidIdentityToken".into(), no_key.into())
    );
}

#[test]
fn an_issuer_that_is_down_or_wrong_is_told_apart() {
    let bench = Bench::new();
    let configuration = "https://i.example/id/.well-known/openid-configuration";
    let mut answers = vec![
        (
            Err(FetchError::Unreachable("no route".into())),
            "IDPCommunicationError",
            "could not be reached",
        ),
        (
            Err(FetchError::Thumbprint),
            "InvalidIdentityToken",
            "doesn't match configured thumbprint",
        ),
        (
            Err(FetchError::Refused("302".into())),
            "InvalidIdentityToken",
            "Couldn't retrieve",
        ),
        (Ok(json!([])), "InvalidIdentityToken", "Couldn't retrieve"),
    ];
    for other in [
        json!({"issuer": "https://evil.example", "jwks_uri": "https://keys.example/jwks"}),
        json!({"issuer": "https://i.example/id", "jwks_uri": "http://keys.example/jwks"}),
        json!({"issuer": "https://i.example/id", "jwks_uri": "https://keys.example/none"}),
    ] {
        answers.push((Ok(other), "InvalidIdentityToken", "Couldn't retrieve"));
    }
    for (answer, code, words) in answers {
        bench.documents.put(configuration, answer);
        let asked = bench.documents.asked();
        let (said, message) = bench.outcome(|_| {}).unwrap_err();
        assert!(said == code && message.contains(words), "{said}: {message}");
        let asked_once = bench.documents.asked();
        assert!(asked_once > asked);
        // The same answer again, without asking again at once.
        assert_eq!(bench.outcome(|_| {}).unwrap_err(), (said, message));
        assert_eq!(bench.documents.asked(), asked_once);
        bench.desk.world.advance(Duration::from_secs(5));
    }
    bench.documents.put(
        configuration,
        Ok(json!({"issuer": "https://i.example/id", "jwks_uri": "https://keys.example/jwks"})),
    );
    assert_eq!(bench.outcome(|_| {}), Ok(()));
}

#[test]
fn a_port_is_for_issuers_of_this_machine() {
    let desk = Desk::new();
    let create = |url: &str| {
        desk.wait(desk.iam.create_open_id_connect_provider(
            &desk.ctx,
            iam::CreateOpenIDConnectProviderRequest {
                url: url.into(),
                ..Default::default()
            },
        ))
    };
    for url in ["https://localhost:8443", "https://127.0.0.9:443/realms/x"] {
        create(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    for url in [
        "https://i.example:443",
        "https://localhost.example:443",
        "https://10.0.0.1:443",
        "https://localhost:x",
        "https://localhost:99999",
        "https://user@localhost:1",
    ] {
        assert_eq!(refusal(create(url)).0, "ValidationError", "{url}");
    }
}
