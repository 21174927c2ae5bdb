//! The canonical request: one byte string that both ends derive from a request and that the
//! signature covers.
//!
//! Pure, and total over whatever HTTP lets through. The path is normalised and encoded a second
//! time, as every service but S3 does; query parameters are decoded and encoded again, so that
//! two spellings of one request have one canonical form.

use http::{HeaderMap, HeaderName, Method};
use sha2::{Digest, Sha256};

/// The parts of a request that a signature covers, beside the payload.
#[derive(Clone, Copy)]
pub struct Signable<'a> {
    pub method: &'a Method,
    /// As on the wire, percent-encoded.
    pub path: &'a str,
    /// As on the wire, without the question mark.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// The Host of a request that carries none as a header (HTTP/2's `:authority`).
    pub authority: Option<&'a str>,
}

/// What stands for the body in the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Hash([u8; 32]),
    /// `UNSIGNED-PAYLOAD`: the body is not covered.
    Unsigned,
}

impl Payload {
    pub fn of(body: &[u8]) -> Self {
        Self::Hash(Sha256::digest(body).into())
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Hash(digest) => hex::encode(digest),
            Self::Unsigned => UNSIGNED_PAYLOAD.to_owned(),
        }
    }
}

pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
pub(super) const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";

/// `signed_headers` are lower-case names in the order of the request; a header that is not there
/// counts as empty, so its absence cannot be hidden.
pub(super) fn canonical_request(
    request: &Signable<'_>,
    signed_headers: &[&str],
    payload: Payload,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(canonical_path(request.path).as_bytes());
    out.push(b'\n');
    out.extend_from_slice(canonical_query(request.query).as_bytes());
    out.push(b'\n');
    for name in signed_headers {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        push_header(&mut out, request, name);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.join(";").as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload.text().as_bytes());
    out
}

/// The values of a header in their order, joined by commas, runs of spaces made one.
fn push_header(out: &mut Vec<u8>, request: &Signable<'_>, name: &str) {
    let values = HeaderName::from_bytes(name.as_bytes()).map(|name| request.headers.get_all(name));
    let mut first = true;
    for value in values.iter().flatten() {
        if !first {
            out.push(b',');
        }
        first = false;
        push_collapsed(out, value.as_bytes());
    }
    if first && name == "host" {
        push_collapsed(out, request.authority.unwrap_or_default().as_bytes());
    }
}

fn push_collapsed(out: &mut Vec<u8>, value: &[u8]) {
    let words = value
        .split(|b| *b == b' ' || *b == b'\t')
        .filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

fn canonical_path(path: &str) -> String {
    // Every awsJson and Query request has this path.
    if path.is_empty() || path == "/" {
        return "/".to_owned();
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut out = String::with_capacity(path.len() + 8);
    for segment in &segments {
        out.push('/');
        push_encoded(&mut out, segment.as_bytes());
    }
    if segments.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

fn canonical_query(query: &str) -> String {
    if query.is_empty() {
        return String::new();
    }
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != SIGNATURE_PARAMETER)
        .map(|(name, value)| (recoded(name), recoded(value)))
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(query.len());
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    out
}

fn recoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded(&mut out, &percent_decoded(text));
    out
}

/// A query component's bytes: `+` is a space, and a percent sign that encodes nothing stands for
/// itself.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = match bytes[index] {
            b'%' => bytes.get(index + 1..index + 3).and_then(|two| {
                let high = char::from(two[0]).to_digit(16)?;
                let low = char::from(two[1]).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()
            }),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(if bytes[index] == b'+' {
                    b' '
                } else {
                    bytes[index]
                });
                index += 1;
            }
        }
    }
    out
}

/// Everything but RFC 3986's unreserved characters, in upper-case hex.
pub(crate) fn push_encoded(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            other => {
                out.push('%');
                out.push(char::from(HEX[usize::from(other >> 4)]));
                out.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
}

/// The text that is signed: algorithm, time, scope, and the canonical request's digest.
pub(super) fn string_to_sign(amz_date: &str, scope: &str, canonical: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(canonical));
    format!("{}\n{amz_date}\n{scope}\n{digest}", super::ALGORITHM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_normalised_and_encoded_twice() {
        let cases = [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/./", "/"),
            ("/a/../..", "/"),
            ("/a/./b/../c/", "/a/c/"),
            ("/example//path", "/example/path"),
            ("/a%20b", "/a%2520b"),
            ("/~x.y_z-1", "/~x.y_z-1"),
            ("/a:b", "/a%3Ab"),
        ];
        for (path, canonical) in cases {
            assert_eq!(canonical_path(path), canonical, "{path}");
        }
    }

    #[test]
    fn queries_are_sorted_by_their_encoded_form() {
        let cases = [
            ("", ""),
            ("b=2&a=1", "a=1&b=2"),
            ("Param1=value2&Param1=Value1", "Param1=Value1&Param1=value2"),
            ("a", "a="),
            ("a=b=c", "a=b%3Dc"),
            ("a=x+y", "a=x%20y"),
            ("a=%7e%2f", "a=~%2F"),
            ("a=%zz", "a=%25zz"),
            ("a=1&X-Amz-Signature=00", "a=1"),
            ("&&a=1&", "a=1"),
        ];
        for (query, canonical) in cases {
            assert_eq!(canonical_query(query), canonical, "{query}");
        }
    }

    #[test]
    fn header_values_are_trimmed_and_joined() {
        let mut headers = HeaderMap::new();
        headers.append("my-header1", "  a   b  c ".parse().unwrap());
        headers.append("my-header1", "d".parse().unwrap());
        let request = Signable {
            method: &Method::GET,
            path: "/",
            query: "",
            headers: &headers,
            authority: Some("h"),
        };
        let canonical = canonical_request(
            &request,
            &["absent", "host", "my-header1"],
            Payload::Unsigned,
        );
        let text = String::from_utf8(canonical).unwrap();
        assert_eq!(
            text,
            "GET\n/\n\nabsent:\nhost:h\nmy-header1:a b c,d\n\nabsent;host;my-header1\nUNSIGNED-PAYLOAD"
        );
    }

    proptest! {
        #[test]
        fn any_path_and_query_have_a_canonical_form(path in "\\PC{0,40}", query in "\\PC{0,60}") {
            let once = canonical_query(&query);
            prop_assert_eq!(canonical_query(&once), once.clone());
            prop_assert!(once.is_ascii());
            prop_assert!(canonical_path(&path).starts_with('/'));
        }

        #[test]
        fn encoding_and_decoding_round_trip(bytes: Vec<u8>) {
            let mut text = String::new();
            push_encoded(&mut text, &bytes);
            prop_assert_eq!(percent_decoded(&text), bytes);
        }
    }
}
