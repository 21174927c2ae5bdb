//! The AWS wire: protocols, SigV4, generated types, one trait a service.
//!
//! Types, traits and schemas of every service are generated from `models/` (see
//! `cargo xtask codegen`) and are plain data; one reader and one writer a protocol serve them
//! all. Nothing in this crate knows what an operation does. A request that is malformed is an
//! error of its protocol, never a default.

#![forbid(unsafe_code)]

pub mod acs;
pub mod auth;
pub mod client;
mod context;
pub mod document;
mod error;
pub mod event_stream;
mod generated;
pub mod protocol;
pub mod read;
pub mod refusals;
pub mod schema;
pub mod serde_form;
pub mod server;
mod service;
pub mod shape;
pub mod sigv4;
pub mod tls;
pub mod validate;
pub mod write;

pub use context::{Principal, RequestContext};
pub use error::{ApiError, Fault, ProtocolError};
pub use generated::{ecr, ecs, iam, logs, sts};
pub use service::{
    Coverage, Dispatch, DispatchFuture, Operation, OperationModel, Service, ServiceModel, coverage,
};
