//! IAM and STS: roles, policies, credentials.

pub mod model;
