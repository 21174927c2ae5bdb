//! Tokens and keys of identity providers, and the trust policies that are asked about them.

use gantry_iam::model::trust::{Caller, TrustRequest, allows};
use gantry_iam::model::{web_keys, web_token};

use crate::{first_line, text};

/// A key whose other half nobody has.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

/// The first line is a token, the rest a set of keys. What is read says what was written, and no token is good under a key
/// that did not sign it.
pub fn tokens(data: &[u8]) {
    let (token, keys) = first_line(data);
    let keys = text(keys).and_then(web_keys::read).unwrap_or_default();
    assert!(keys.len() <= 200);
    let Some(token) = text(token) else { return };
    let Ok(read) = web_token::read(token) else {
        return;
    };
    assert!(token.starts_with(&read.signed) && read.signed.matches('.').count() == 1);
    let claims = &read.claims;
    assert!(!claims.issuer.is_empty() && !claims.subject.is_empty());
    let ours = web_keys::read(KEYS).expect("a set of keys");
    assert_eq!(ours.len(), 1);
    assert!(web_keys::verify(&ours, &read).is_err());
    // Signed or not, the same token is answered the same.
    assert_eq!(
        web_keys::verify(&keys, &read),
        web_keys::verify(&keys, &read)
    );
    assert!(web_keys::verify(&[], &read).is_err());
}

/// The input is a trust policy. It lets a provider in only if it names it, a user only if it names it, its account or
/// everybody, and neither to what it does not name.
pub fn trust_policies(data: &[u8]) {
    const PROVIDER: &str = "arn:aws:iam::000000000000:oidc-provider/i.example";
    const USER: &str = "arn:aws:iam::111122223333:user/ann";
    let Some(document) = text(data) else { return };
    let request = |caller: Caller| TrustRequest {
        caller,
        told: vec!["i.example:sub".to_owned()],
        values: [("i.example:sub".to_owned(), vec!["somebody".to_owned()])].into(),
    };
    let federated = |provider: &str| request(Caller::Federated(provider.to_owned()));
    let action = "sts:AssumeRoleWithWebIdentity";
    let parsed = || serde_json::from_str::<serde_json::Value>(document).expect("JSON");
    if allows(document, action, &federated(PROVIDER)) {
        assert!(names(&parsed(), PROVIDER), "{document}");
    }
    let stranger = federated("a provider that no input knows");
    assert!(!allows(document, action, &stranger));
    let user = request(Caller::Key {
        names: vec![USER.to_owned()],
        account: "111122223333".to_owned(),
    });
    if allows(document, "sts:AssumeRole", &user) {
        let known = [USER, "*", "111122223333", "arn:aws:iam::111122223333:root"];
        let parsed = parsed();
        assert!(known.iter().any(|name| names(&parsed, name)), "{document}");
    }
}

fn names(value: &serde_json::Value, name: &str) -> bool {
    match value {
        serde_json::Value::String(text) => text == name,
        serde_json::Value::Array(items) => items.iter().any(|item| names(item, name)),
        serde_json::Value::Object(members) => members.values().any(|value| names(value, name)),
        _ => false,
    }
}
