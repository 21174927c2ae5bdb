//! IAM and STS: roles, policies, credentials.
