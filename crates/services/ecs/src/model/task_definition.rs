//! Whether a task definition is one that can be registered: AWS's rules, in AWS's words.
//!
//! What always holds: the first rule that is broken is the one reported, and the order does not
//! depend on anything but the request. What passes here is kept whole; nothing is dropped.
//!
//! Left to others: filling in defaults ([`defaults`]), and whether a launch type can be run at all
//! (RunTask).

pub mod capabilities;
mod container;
mod container_settings;
pub mod defaults;
mod dependencies;
mod fargate;
pub mod network;
mod task;
pub(crate) use task::is_role;
mod volumes;

use gantry_api::ecs::{EcsError, RegisterTaskDefinitionRequest};

use super::refusal::client;

/// AWS's limit of a task definition, as the JSON of the request.
const TASK_DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// The most containers in a task definition.
const CONTAINERS_MAX: usize = 10;

/// Checks the whole request, whose enums are known words ([`super::enums`]).
pub fn validate(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    task::validate_names(input)?;
    if input.container_definitions.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if input.container_definitions.len() > CONTAINERS_MAX {
        return Err(client("Too many containers."));
    }
    for definition in &input.container_definitions {
        container::validate(input, definition)?;
    }
    container::validate_together(input)?;
    task::validate(input)?;
    volumes::validate(input)?;
    network::validate(input)?;
    dependencies::validate(&input.container_definitions)?;
    if fargate::is_required(input) {
        fargate::validate(input)?;
    }
    validate_size(input)
}

fn validate_size(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    let actual = serde_json::to_vec(input).map_or(0, |json| json.len());
    if actual > TASK_DEFINITION_BYTES_MAX {
        return Err(client(format!(
            "Actual length: '{actual}'. Max allowed length is '{TASK_DEFINITION_BYTES_MAX}' bytes."
        )));
    }
    Ok(())
}
