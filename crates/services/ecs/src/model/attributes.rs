//! Custom attributes of container instances: how they may be named and valued.

use gantry_api::ecs::{Attribute, EcsError};

use super::refusal::invalid;

/// AWS's limit for one container instance.
pub const CUSTOM_ATTRIBUTES_MAX: usize = 10;

/// Instances that bring this attribute are EXTERNAL; all others are EC2.
pub const EXTERNAL: &str = "ecs.capability.external";

const LENGTH_MAX: usize = 128;

/// Whether only an agent sets attributes of this name.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("ecs.") || name.starts_with("com.amazonaws.")
}

pub fn validate_name(name: &str) -> Result<(), EcsError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_/\\.".contains(c);
    if name.is_empty() || name.len() > LENGTH_MAX || !name.chars().all(is_name) {
        return Err(invalid(format!(
            "Invalid attribute name '{name}': it must have 1 to {LENGTH_MAX} letters, numbers, hyphens, underscores, slashes, back slashes and periods."
        )));
    }
    Ok(())
}

pub fn validate_value(value: &str) -> Result<(), EcsError> {
    let is_value = |c: char| c.is_ascii_alphanumeric() || "-_.@/\\: ".contains(c);
    let padded = value.starts_with(' ') || value.ends_with(' ');
    if value.is_empty() || value.len() > LENGTH_MAX || padded || !value.chars().all(is_value) {
        return Err(invalid(format!(
            "Invalid attribute value '{value}': it must have 1 to {LENGTH_MAX} letters, numbers, hyphens, underscores, periods, at signs, slashes, back slashes, colons and spaces, and not begin or end with a space."
        )));
    }
    Ok(())
}

/// What an instance has once its agent has registered again: all that the agent says now, and of
/// what was there the users' own, because an agent that restarts knows nothing of those.
pub fn registered_again(before: &[Attribute], now: Vec<Attribute>) -> Vec<Attribute> {
    let mut attributes = now;
    for attribute in before {
        let known = attributes.iter().any(|a| a.name == attribute.name);
        if !known && !is_reserved(&attribute.name) {
            attributes.push(attribute.clone());
        }
    }
    attributes
}
