//! Identity providers of OpenID Connect, asked for the keys that they sign with.
//!
//! What always holds: only providers that somebody registered are asked, over https alone; an answer is
//! bounded in size and time, and never leads anywhere else. Callers without a signature can make Gantry ask, so a
//! provider is asked by one of them at a time, and neither an answer nor a failure is fetched twice in a short while.
//! What it leaves to others: tokens (`model::web_token`) and what they are good for (`api::web_identity`).

mod fetch;
mod issuers;

pub use fetch::{Fetch, FetchError, HttpsFetch};
pub(crate) use issuers::{Issuers, KeysError};
