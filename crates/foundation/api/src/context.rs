//! Who calls, where, and when: what an operation knows of its request beyond the input.
//!
//! A context exists only for a request whose signature was verified (or whose caller is a
//! service-linked role inside this process), so an operation never checks credentials itself.
//! The time is taken once per request; an operation reads `now` instead of a clock.

use gantry_arn::{AccountId, Arn, Region};
use gantry_env::Timestamp;

/// One request, as the operation sees it.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub account: AccountId,
    pub region: Region,
    pub principal: Principal,
    /// Returned to the caller and written to the log with the same value.
    pub request_id: String,
    /// The Host header: links in answers (`repositoryUri`, poll endpoints) lead back to the
    /// name by which the caller found this endpoint.
    pub host: Option<String>,
    pub now: Timestamp,
}

/// The identity that signed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub arn: Arn,
    pub user_id: String,
    pub access_key_id: String,
}
