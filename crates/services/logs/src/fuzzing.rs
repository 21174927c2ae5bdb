//! Doors for the fuzz targets (`fuzz/`) to what is private here. Nothing else uses them.

use crate::page_token;

pub fn seal_page(key: &str, scope: &str, last: &str) -> String {
    page_token::seal(key, scope, &last)
}

pub fn open_page(key: &str, scope: &str, token: &str) -> Option<String> {
    page_token::open(key, scope, token)
}
