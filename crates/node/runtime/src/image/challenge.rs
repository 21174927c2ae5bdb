//! What a registry asks for when it answers 401: `WWW-Authenticate`. Pure.

/// `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BearerChallenge {
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

impl BearerChallenge {
    /// The Bearer challenge in a header's value; `None` where there is none that can be answered.
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, mut rest) = value.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        while let Some((key, after)) = rest.split_once('=') {
            let (text, after) = quoted_or_token(after.trim_start())?;
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(text),
                "service" => service = Some(text),
                "scope" => scope = Some(text),
                _ => {}
            }
            rest = after.trim_start().trim_start_matches(',');
        }
        Some(Self {
            realm: realm?,
            service,
            scope,
        })
    }
}

fn quoted_or_token(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return Some((text[..end].trim().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_do_not_end_a_value() {
        let value = r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull,push""#;
        let challenge = BearerChallenge::parse(value).unwrap();
        assert_eq!(challenge.realm, "https://auth.example/token");
        assert_eq!(challenge.scope.as_deref(), Some("repository:a:pull,push"));
        let plain = BearerChallenge::parse("bearer realm=http://x/y, service=z").unwrap();
        assert_eq!(
            (plain.realm.as_str(), plain.service.as_deref()),
            ("http://x/y", Some("z"))
        );
    }

    #[test]
    fn other_challenges_are_not_answered() {
        for other in [
            "Basic realm=\"x\"",
            "Bearer",
            "Bearer service=\"x\"",
            "Bearer realm=\"x",
            "",
        ] {
            assert_eq!(BearerChallenge::parse(other), None, "{other}");
        }
    }
}
