//! What the fuzz targets reach of the server: the guard, whose parsers are its own.

use http::{HeaderMap, HeaderValue, Uri, header};

use super::guard;

/// The host of a request that the guard lets in.
pub fn accepted_host(host: &str, origin: Option<&str>) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).ok()?);
    if let Some(origin) = origin {
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).ok()?);
    }
    guard::check(&Uri::from_static("/"), &headers, &[]).ok()
}
