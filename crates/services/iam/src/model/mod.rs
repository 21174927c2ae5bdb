//! IAM's own rules, without I/O: ids, documents, trust, tokens and assertions of identity providers, and the policies AWS ships.

pub mod document;
pub mod ids;
mod json;
pub mod managed;
pub mod saml;
pub mod trust;
pub mod web_keys;
pub mod web_token;
