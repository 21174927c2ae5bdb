//! What a signed assertion must claim, and what comes of it.

use std::time::Duration;

use gantry_api::auth::CredentialSource;

use crate::desk::refusal;
use crate::idp::{Bench, HERE, PROVIDER, ROLE, SIGN_IN, attribute, response};

const NOT_AUTHORIZED: (&str, &str) = (
    "AccessDenied",
    "Not authorized to perform sts:AssumeRoleWithSAML",
);

fn text((code, message): &(String, String)) -> (&str, &str) {
    (code, message)
}

#[test]
fn a_verified_assertion_becomes_a_session_of_the_role() {
    let bench = Bench::new();
    let assertion = bench.idp.signed(&bench.assertion(), "_a");
    let alone = response(&assertion).replace(HERE, "");
    let around = bench
        .idp
        .signed(&response(&bench.assertion().replace(HERE, "")), "_r");
    let both = bench.idp.signed(&response(&assertion), "_r");
    for signed in [alone, around, both] {
        let answer = bench.assume(&signed).unwrap();
        assert_eq!(answer.subject.as_deref(), Some("ann"));
        assert_eq!(answer.subject_type.as_deref(), Some("persistent"));
        assert_eq!(answer.issuer.as_deref(), Some("urn:idp"));
        assert_eq!(answer.audience.as_deref(), Some(SIGN_IN));
        // printf 'urn:idp000000000000/idp' | openssl dgst -sha1 -binary | base64
        assert_eq!(answer.name_qualifier.as_deref(), Some(QUALIFIER));
        let user = answer.assumed_role_user.unwrap();
        assert_eq!(
            user.arn,
            "arn:aws:sts::000000000000:assumed-role/web/ann@example"
        );
        let key = answer.credentials.unwrap();
        assert_eq!(key.expiration, bench.now() + Duration::from_secs(3600));
        let found = bench
            .desk
            .wait(bench.desk.iam.credentials().lookup(&key.access_key_id));
        assert_eq!(found.unwrap().principal.arn.to_string(), user.arn);
    }
}

const QUALIFIER: &str = "VSyeWGFDGNPddWSJfbzVfcr85p8=";

#[test]
fn the_pair_of_role_and_provider_stands_in_either_order_and_must_stand() {
    let bench = Bench::new();
    let pair = format!("{ROLE},{PROVIDER}");
    bench
        .assume(&bench.with(&pair, &format!("{PROVIDER}, {ROLE}")))
        .unwrap();
    for other in [
        format!("{ROLE}x,{PROVIDER}"),
        format!("{ROLE},{PROVIDER}x"),
        format!("{ROLE},{ROLE}"),
        ROLE.to_owned(),
        String::new(),
    ] {
        let refused = bench.refused(&bench.with(&pair, &other));
        assert_eq!(text(&refused), NOT_AUTHORIZED, "{other}");
    }
    // The role's own trust decides as well.
    bench.trust(
        r#""Action":"sts:AssumeRoleWithSAML","Condition":{"StringEquals":{"SAML:sub":"bob"}}"#,
    );
    let good = bench.with(HERE, HERE);
    assert_eq!(text(&bench.refused(&good)), NOT_AUTHORIZED);
    bench.trust(r#""Action":"sts:AssumeRoleWithSAML","Condition":{"StringEquals":{"SAML:sub":"ann","SAML:sub_type":"persistent"}}"#);
    bench.assume(&good).unwrap();
    bench.trust(r#""Action":"sts:AssumeRoleWithWebIdentity""#);
    assert_eq!(text(&bench.refused(&good)), NOT_AUTHORIZED);
    let absent = bench.assume_with(&good, |input| input.role_arn.push('x'));
    assert_eq!(text(&refusal(absent)), NOT_AUTHORIZED);
}

#[test]
fn an_assertion_is_for_aws_and_of_the_provider_that_is_named() {
    let bench = Bench::new();
    for (from, to, message) in [
        (
            format!(r#"Recipient="{SIGN_IN}""#),
            r#"Recipient="https://evil.example/saml""#.to_owned(),
            "Response does not contain the required recipient",
        ),
        (
            format!("<saml:Audience>{SIGN_IN}<"),
            "<saml:Audience>https://other.example<".to_owned(),
            "Response does not contain the required audience",
        ),
        (
            format!(
                "<saml:AudienceRestriction><saml:Audience>{SIGN_IN}</saml:Audience></saml:AudienceRestriction>"
            ),
            String::new(),
            "Response does not contain the required audience",
        ),
        (
            "cm:bearer".to_owned(),
            "cm:holder-of-key".to_owned(),
            "Response does not contain the required recipient",
        ),
        (
            "<saml:Issuer>urn:idp<".to_owned(),
            "<saml:Issuer>urn:other<".to_owned(),
            "Issuer not present in specified provider",
        ),
    ] {
        let refused = bench.refused(&bench.with(&from, &to));
        assert_eq!(text(&refused), ("InvalidIdentityToken", message));
    }
    bench
        .assume(&bench.with(
            &format!("<saml:Audience>{SIGN_IN}<"),
            "<saml:Audience>urn:amazon:webservices<",
        ))
        .unwrap();
    let good = bench.with(HERE, HERE);
    let none = bench.assume_with(&good, |input| input.principal_arn.push('x'));
    let (code, message) = refusal(none);
    assert_eq!(code, "InvalidIdentityToken");
    assert_eq!(message, "Specified provider doesn't exist");
    // One that is registered without keys vouches for nobody.
    let key = bench.idp.metadata().replace("X509Certificate", "Other");
    bench.register("empty", &key);
    let other = PROVIDER.replace("/idp", "/empty");
    let empty = bench.assume_with(&good, |input| input.principal_arn = other);
    assert!(refusal(empty).1.starts_with("Response signature invalid"));
    let old = bench
        .idp
        .metadata()
        .replace("entityID", r#"validUntil="2001-01-01T00:00:00Z" entityID"#);
    bench.register("old", &old);
    let other = PROVIDER.replace("/idp", "/old");
    let old = bench.assume_with(&good, |input| input.principal_arn = other);
    assert!(refusal(old).1.contains("expired"));
}

#[test]
fn an_assertion_is_good_for_a_while_and_not_before() {
    let bench = Bench::new();
    let good = bench.with(HERE, HERE);
    bench.assume(&good).unwrap();
    let long = bench.with(&bench.in_s(300), &bench.in_s(86_400));
    let short = bench.with(
        &format!(r#"NotOnOrAfter="{}" Recipient"#, bench.in_s(300)),
        &format!(r#"NotOnOrAfter="{}" Recipient"#, bench.in_s(60)),
    );
    let early = |s: i64| {
        bench.with(
            &format!(r#"NotBefore="{}""#, bench.in_s(0)),
            &format!(r#"NotBefore="{}""#, bench.in_s(s)),
        )
    };
    bench.assume(&early(300)).unwrap();
    assert_eq!(bench.refused(&early(301)).0, "IDPRejectedClaim");
    let unborn = bench.with(
        &format!(r#"IssueInstant="{}""#, bench.in_s(0)),
        &format!(r#"IssueInstant="{}""#, bench.in_s(301)),
    );
    assert_eq!(bench.refused(&unborn).0, "IDPRejectedClaim");

    bench.desk.world.advance(Duration::from_secs(60));
    bench.assume(&good).unwrap();
    let over = bench.refused(&short);
    assert_eq!(
        text(&over),
        ("ExpiredTokenException", "The SAML assertion has expired")
    );
    // The same document again, and one that says itself that it is good for a day.
    bench.desk.world.advance(Duration::from_secs(240));
    for late in [&good, &long] {
        assert_eq!(
            text(&bench.refused(late)),
            (
                "ExpiredTokenException",
                "Token must be redeemed within 5 minutes of issuance"
            )
        );
    }
}

#[test]
fn attributes_say_how_the_session_is() {
    let bench = Bench::new();
    let name = attribute("RoleSessionName", &["ann@example"]);
    for (to, message) in [
        (
            String::new(),
            "RoleSessionName is required in AuthnResponse",
        ),
        (
            attribute("RoleSessionName", &["a b"]),
            "RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}",
        ),
        (
            attribute("RoleSessionName", &["ann", "bob"]),
            "RoleSessionName in AuthnResponse must have exactly one value",
        ),
        (
            name.repeat(2),
            "The response is not a SAML 2.0 response: an attribute stands twice",
        ),
    ] {
        let refused = bench.refused(&bench.with(&name, &to));
        assert_eq!(text(&refused), ("InvalidIdentityToken", message));
    }
    let lasts = |response: &str, asked: Option<i32>| {
        let answer = bench.assume_with(response, |input| input.duration_seconds = asked)?;
        let end = answer.credentials.unwrap().expiration;
        Ok::<_, gantry_api::sts::StsError>(end.since(bench.now()).as_secs())
    };
    let duration = bench.with_attribute("SessionDuration", &["1800"]);
    assert_eq!(lasts(&duration, None).unwrap(), 1800);
    assert_eq!(lasts(&duration, Some(900)).unwrap(), 900);
    let over = bench.with_attribute("SessionDuration", &["7200"]);
    assert_eq!(refusal(lasts(&over, None)).0, "ValidationError");
    for bad in ["0", "899", "43201", "x", ""] {
        let bad = bench.with_attribute("SessionDuration", &[bad]);
        assert_eq!(bench.refused(&bad).0, "InvalidIdentityToken");
    }
    // The provider's own session ends it sooner.
    let ends = |s: i64| {
        bench.with(
            &format!(r#"<saml:AuthnStatement AuthnInstant="{}""#, bench.in_s(0)),
            &format!(
                r#"<saml:AuthnStatement AuthnInstant="{}" SessionNotOnOrAfter="{}""#,
                bench.in_s(0),
                bench.in_s(s)
            ),
        )
    };
    assert_eq!(lasts(&ends(1000), None).unwrap(), 1000);
    assert_eq!(lasts(&ends(100_000), None).unwrap(), 3600);
    assert_eq!(refusal(lasts(&ends(899), None)).0, "ExpiredTokenException");

    let tags = [
        attribute("PrincipalTag:Team", &["blue"]),
        attribute("TransitiveTagKeys", &["Team"]),
        attribute("SourceIdentity", &["ann"]),
    ]
    .concat();
    let end = "</saml:AttributeStatement>";
    let tagged = bench.with(end, &format!("{tags}{end}"));
    let answer = bench.assume(&tagged).unwrap();
    assert_eq!(answer.source_identity.as_deref(), Some("ann"));
    bench.trust(r#""Action":["sts:AssumeRoleWithSAML","sts:TagSession","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"aws:RequestTag/Team":"blue"},"ForAllValues:StringEquals":{"sts:TransitiveTagKeys":"Team"}}"#);
    bench.assume(&tagged).unwrap();
    bench.trust(r#""Action":["sts:AssumeRoleWithSAML","sts:SetSourceIdentity"]"#);
    assert_eq!(text(&bench.refused(&tagged)), NOT_AUTHORIZED);
    let unknown = bench.with_attribute("TransitiveTagKeys", &["Team"]);
    assert_eq!(bench.refused(&unknown).0, "ValidationError");
}
