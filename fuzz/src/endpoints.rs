//! What containers ask the agent for, and the names by which anybody asks the port.

use gantry_agent::endpoints::address::{Asked, Document, EndpointId, Version};
use gantry_api::server::fuzzing::accepted_host;

use crate::{first_line, text};

/// A path stands for one thing, which has a path of its own; an id of an endpoint is written as it was read.
pub fn paths(data: &[u8]) {
    let Some(path) = text(data) else { return };
    if let Some(id) = EndpointId::parse(path) {
        assert_eq!(EndpointId::parse(&id.to_string()), Some(id));
    }
    let Some(asked) = Asked::of(path) else { return };
    // One slash at the end says nothing, so it is always there.
    let plain = match asked {
        Asked::Credentials { id } => {
            assert!(!id.is_empty() && !id.contains('/'));
            format!("/v2/credentials/{id}/")
        }
        Asked::Metadata {
            id,
            version,
            document,
        } => {
            assert!(!id.contains('/'));
            let version = match version {
                Version::V3 => "v3",
                Version::V4 => "v4",
            };
            let below = match document {
                Document::Container => "",
                Document::Task => "task/",
                Document::TaskWithTags => "taskWithTags/",
                Document::Stats => "stats/",
                Document::TaskStats => "task/stats/",
            };
            format!("/{version}/{id}/{below}")
        }
        Asked::Agent { id, api } => {
            assert!(!id.contains('/'));
            format!("/api/{id}/{api}/")
        }
    };
    assert_eq!(Asked::of(&plain), Some(asked), "{plain:?} of {path:?}");
}

/// A Host, and after it an Origin. What is let in is a host of this endpoint and nothing else, because it
/// stands in headers and links; and a page of another origin is never let in.
pub fn hosts(data: &[u8]) {
    let (host, origin) = first_line(data);
    let (Some(host), Some(origin)) = (text(host), text(origin)) else {
        return;
    };
    let origin = (!origin.is_empty()).then_some(origin);
    let Some(accepted) = accepted_host(host, origin) else {
        return;
    };
    assert!(
        accepted
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)),
        "{accepted:?}"
    );
    let (name, port) = match accepted.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (accepted.as_str(), "0"),
    };
    assert!(port.parse::<u16>().is_ok(), "{accepted:?}");
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address =
        name.parse::<std::net::IpAddr>().is_ok() || (name.starts_with('[') && name.ends_with(']'));
    assert!(
        is_address
            || lower == "localhost"
            || [".localhost", ".amazonaws.com", ".amazonaws.com.cn"]
                .iter()
                .any(|suffix| lower.ends_with(suffix)),
        "{accepted:?}"
    );
    if let Some(origin) = origin {
        let (_, authority) = origin.split_once("://").expect("an origin of a page");
        assert!(
            authority.eq_ignore_ascii_case(&accepted),
            "{origin:?} at {accepted:?}"
        );
    }
}
