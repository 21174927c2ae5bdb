//! The guard in front of everything: a request that a web page sent from a browser, or that came
//! by a name which is not this endpoint's, is refused before anything else looks at it.
//!
//! A browser on the same machine can reach loopback, so a foreign page could otherwise read logs
//! or run tasks (with any-credentials mode), or get there by binding its own name to 127.0.0.1.
//! No AWS client sends `Origin` or `Sec-Fetch-Site`; Gantry's own pages send them as same-origin.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Uri, header};

/// Why a request was turned away. The sentences are for the person who reads the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("The request has no Host, more than one, or one that is no host name.")]
    MalformedHost,
    #[error(
        "The Host '{0}' is not a name of this endpoint. Names that are: IP addresses, localhost, *.localhost, *.amazonaws.com and the configured ones."
    )]
    ForeignHost(String),
    #[error("Requests from web pages of another origin are refused.")]
    ForeignOrigin,
}

impl Refused {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::MalformedHost => 400,
            Self::ForeignHost(_) | Self::ForeignOrigin => 403,
        }
    }
}

/// The Host of an acceptable request, as the client wrote it.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, own: &[String]) -> Result<String, Refused> {
    let host = host_of(uri, headers)?;
    if !is_own_name(name_of(&host).ok_or(Refused::MalformedHost)?, own) {
        return Err(Refused::ForeignHost(host));
    }
    check_origin(headers, &host)?;
    Ok(host)
}

fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<String, Refused> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let from_header = match hosts.next() {
        Some(value) => Some(value.to_str().map_err(|_| Refused::MalformedHost)?.trim()),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Refused::MalformedHost);
    }
    // HTTP/2's :authority, or the absolute form of HTTP/1: it may repeat the Host, not differ.
    let from_target = uri.authority().map(|authority| authority.as_str());
    match (from_header, from_target) {
        (Some(header), Some(target)) if !header.eq_ignore_ascii_case(target) => {
            Err(Refused::MalformedHost)
        }
        (Some(host), _) | (None, Some(host)) if !host.is_empty() => Ok(host.to_owned()),
        _ => Err(Refused::MalformedHost),
    }
}

/// The name without its port: `[::1]:80` gives `[::1]`.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (host.get(..end)?, host.get(end..)?)
        }
        None => match host.find(':') {
            Some(colon) => (host.get(..colon)?, host.get(colon..)?),
            None => (host, ""),
        },
    };
    let port_is_right = match port.strip_prefix(':') {
        // A number may have a sign, and a port has none.
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    (port_is_right && !name.is_empty()).then_some(name)
}

fn is_own_name(name: &str, own: &[String]) -> bool {
    if let Some(address) = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_name = name.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    is_name
        && (name == "localhost"
            || [".localhost", ".amazonaws.com", ".amazonaws.com.cn"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
            || own.iter().any(|own| is_named(&name, own)))
}

/// Whether a lower-case name is the configured one, or below it where that is `*.domain`.
fn is_named(name: &str, own: &str) -> bool {
    let own = own.to_ascii_lowercase();
    match own.strip_prefix('*') {
        Some(suffix) => suffix.starts_with('.') && name.ends_with(suffix),
        None => own == name,
    }
}

fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Refused> {
    for site in headers.get_all("sec-fetch-site") {
        // `same-site` is another port of this machine: somebody else's page.
        if !matches!(site.as_bytes(), b"none" | b"same-origin") {
            return Err(Refused::ForeignOrigin);
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let same = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(scheme, authority)| {
                matches!(scheme, "http" | "https") && authority.eq_ignore_ascii_case(host)
            });
        if !same {
            return Err(Refused::ForeignOrigin);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn try_host(host: &str) -> Result<String, Refused> {
        check(
            &"/".parse().unwrap(),
            &with(&[("host", host)]),
            &[
                "Builder.lan".to_owned(),
                "*.gantry.lan".to_owned(),
                "*".to_owned(),
            ],
        )
    }

    #[test]
    fn own_names_are_served() {
        for host in [
            "localhost",
            "localhost:4566",
            "LocalHost:4566",
            "api.localhost",
            "127.0.0.1:4566",
            "[::1]:4566",
            "10.1.2.3",
            "builder.lan:4566",
            "000000000000.dkr.ecr.us-east-1.gantry.lan",
            "ecs.us-east-1.amazonaws.com",
            "000000000000.dkr.ecr.us-east-1.amazonaws.com",
            "localhost.",
        ] {
            assert_eq!(try_host(host).as_deref(), Ok(host));
        }
    }

    #[test]
    fn foreign_and_malformed_hosts_are_refused() {
        for host in [
            "evil.example",
            "evil.example:4566",
            "localhost.evil.example",
            "xlocalhost",
            "amazonaws.com.evil.example",
        ] {
            assert_eq!(try_host(host), Err(Refused::ForeignHost(host.to_owned())));
        }
        for host in [
            "",
            ":80",
            "[::1",
            "localhost:",
            "localhost:http",
            "localhost:+80",
            "localhost:99999",
            "a@localhost:1",
        ] {
            assert!(try_host(host).is_err(), "{host}");
        }
        assert!(matches!(
            try_host(".localhost"),
            Err(Refused::ForeignHost(_))
        ));
        assert!(matches!(
            try_host("a/b.localhost"),
            Err(Refused::ForeignHost(_))
        ));
        let uri: Uri = "/".parse().unwrap();
        assert_eq!(
            check(&uri, &HeaderMap::new(), &[]),
            Err(Refused::MalformedHost)
        );
        let twice = with(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(check(&uri, &twice, &[]), Err(Refused::MalformedHost));
        let other: Uri = "http://127.0.0.1/".parse().unwrap();
        assert_eq!(
            check(&other, &with(&[("host", "localhost")]), &[]),
            Err(Refused::MalformedHost)
        );
        assert_eq!(
            check(&other, &HeaderMap::new(), &[]).as_deref(),
            Ok("127.0.0.1")
        );
    }

    #[test]
    fn only_pages_of_the_endpoint_itself_may_call() {
        let uri: Uri = "/".parse().unwrap();
        let host = ("host", "localhost:4566");
        for fine in [
            ("origin", "http://localhost:4566"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "same-origin"),
        ] {
            assert!(check(&uri, &with(&[host, fine]), &[]).is_ok(), "{fine:?}");
        }
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:3000"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(
                check(&uri, &with(&[host, foreign]), &[]),
                Err(Refused::ForeignOrigin),
                "{foreign:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_host_is_judged_without_panic(host in "\\PC{0,60}") {
            let _ = name_of(&host).map(|name| is_own_name(name, &[]));
        }
    }
}
