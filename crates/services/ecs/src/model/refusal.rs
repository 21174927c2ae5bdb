//! How ECS says no. Two exceptions carry nearly every refusal: ClientException where the caller's
//! document or state is wrong, InvalidParameterException where a parameter is.

use gantry_api::ecs::EcsError;

pub fn client(message: impl Into<String>) -> EcsError {
    EcsError::client_exception(message)
}

pub fn invalid(message: impl Into<String>) -> EcsError {
    EcsError::invalid_parameter_exception(message)
}

/// What is modelled but does not exist in Gantry yet: named, and never ignored in silence.
pub fn not_built(what: &str) -> EcsError {
    client(format!("{what} is not built in Gantry yet."))
}
