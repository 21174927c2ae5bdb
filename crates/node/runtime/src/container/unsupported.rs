//! What a specification may ask for that no container gets yet.
//!
//! What always holds: nothing is ignored in silence; a member is here, by its name, until it is honoured.

use crate::error::{ErrorKind, RuntimeError};
use crate::spec::ContainerSpec;

/// Refuses the first member that is not honoured.
pub(super) fn refuse(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let asked = [
        (spec.terminal, "pseudoTerminal"),
        (spec.stdin_open, "interactive"),
    ];
    match asked.into_iter().find(|(is_asked, _)| *is_asked) {
        None => Ok(()),
        Some((_, member)) => Err(RuntimeError::new(
            ErrorKind::CannotCreateContainer,
            format!("this agent does not support {member} yet"),
        )),
    }
}
