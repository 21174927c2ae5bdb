//! Doors for the fuzz targets (`fuzz/`) to what is private here. Nothing else uses them.

use gantry_env::Timestamp;

use crate::{nodes, page_token};

pub fn seal_page(key: &[u8], scope: &str, last: &str) -> String {
    page_token::seal(key, scope, last)
}

pub fn open_page(key: &[u8], scope: &str, marker: &str) -> Option<String> {
    page_token::open(key, scope, marker)
}

pub fn seal_join_token(id: &str, expires_at: Timestamp, secret: &str) -> String {
    nodes::sealed(id, expires_at, secret)
}

/// The id that a join token carries, if it was made with this secret.
pub fn open_join_token(token: &str, secret: &str) -> Option<String> {
    nodes::opened(token, secret)
}
