//! Conditional requests: what a client already has is not sent again.

use gantry_api::server::ResponseBody;
use http::StatusCode;
use http::header::{ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, IF_RANGE};

use super::answers::Answer;
use crate::model::Digest;

/// The tag of content that its digest names, so it is a strong one.
pub fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has this already: `If-None-Match` names it.
pub fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        // A weak tag is as good here as a strong one (RFC 9110, 13.1.2).
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == entity_tag(digest)
    })
}

/// Whether a range may be answered: without `If-Range`, or where that names this very content.
pub fn is_range_meant(headers: &HeaderMap, digest: &Digest) -> bool {
    let Some(tag) = headers.get(IF_RANGE) else {
        return true;
    };
    tag.to_str()
        .is_ok_and(|tag| tag.trim() == entity_tag(digest))
}

/// The answer to a client that has the content.
pub fn not_modified(name: HeaderName, digest: &Digest) -> Answer {
    Answer::new(StatusCode::NOT_MODIFIED)
        .header(name, digest)
        .header(ETAG, entity_tag(digest))
        .body(ResponseBody::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_contents_own_tag_is_known() {
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let (own, weak) = (format!("\"{digest}\""), format!("W/\"{digest}\""));
        let (other, bare) = (format!("\"{other}\""), digest.to_string());
        let list = format!("{other}, {own}");
        for (values, expected) in [
            (vec![own.as_str()], true),
            (vec![&weak], true),
            (vec!["*"], true),
            (vec![&list], true),
            (vec![&other, &own], true),
            (vec![&other], false),
            (vec![&bare], false),
            (vec![], false),
        ] {
            let known = is_known(&headers(IF_NONE_MATCH, &values), &digest);
            assert_eq!(known, expected, "{values:?}");
        }
        assert!(is_range_meant(&HeaderMap::new(), &digest));
        assert!(is_range_meant(&headers(IF_RANGE, &[&own]), &digest));
        assert!(!is_range_meant(&headers(IF_RANGE, &[&weak]), &digest));
        assert!(!is_range_meant(&headers(IF_RANGE, &[&other]), &digest));
    }
}
