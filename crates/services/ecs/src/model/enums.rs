//! Enum members of a request, all at once: a word that the model does not list is refused before
//! any rule looks at it, in the words of AWS's front end.

use gantry_api::ecs::EcsError;
use gantry_api::shape::Structure;
use gantry_api::validate;

use super::refusal::invalid;

/// Refuses the request if any enum in it, however deep, has an unknown value.
pub fn validate(input: &dyn Structure) -> Result<(), EcsError> {
    let Err(found) = validate::validate(input) else {
        return Ok(());
    };
    // Lengths, ranges and patterns are ECS's own rules, with ECS's own words. A list of words is told as
    // a whole, with what each of them must satisfy in brackets.
    let unknown = |error: &validate::ValidationError| {
        error
            .constraint
            .contains("Member must satisfy enum value set")
    };
    // Loki's driver is a plug-in of Docker's, which Gantry's agent has of its own and AWS's does not.
    let is_ours = |error: &validate::ValidationError| {
        error.path.ends_with("logConfiguration.logDriver")
            && error.value.as_deref() == Some("'loki'")
    };
    let errors: Vec<_> = found
        .errors
        .into_iter()
        .filter(|error| unknown(error) && !is_ours(error))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(invalid(validate::ValidationErrors { errors }.to_string()))
}
