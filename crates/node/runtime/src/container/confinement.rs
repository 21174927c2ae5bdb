//! What a process gives up right before it becomes a container's program.
//!
//! What always holds: the filter is loaded before the capabilities go, because without `no_new_privs` loading asks for
//! CAP_SYS_ADMIN, and a container's set-user-id programs must work; libcontainer is told of neither. Every program that
//! starts in a container goes through here: its first, and whatever is executed beside it.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::seccomp::{self, Filter};
use super::{cannot_create, capabilities};
use crate::error::RuntimeError;
use crate::spec::ContainerSpec;

/// Made outside of the container, applied inside.
#[derive(Debug, Clone)]
pub(super) struct Confinement {
    capabilities: CapabilitySet,
    /// A privileged container has none.
    filter: Option<Filter>,
}

impl Confinement {
    pub(super) fn of(spec: &ContainerSpec) -> Result<Self, RuntimeError> {
        let held = capabilities::held()
            .map_err(|error| cannot_create("reading this process's capabilities", error))?;
        let capabilities = capabilities::of(spec, held).map_err(super::refused)?;
        let filter = (!spec.privileged).then(|| seccomp::filter(capabilities));
        Ok(Self {
            capabilities,
            filter,
        })
    }

    /// For a process of Gantry's own that containers can see.
    pub(super) fn of_nothing() -> Self {
        let capabilities = CapabilitySet::empty();
        Self {
            capabilities,
            filter: Some(seccomp::filter(capabilities)),
        }
    }

    /// Takes effect for this process and is inherited by whatever it becomes.
    pub(super) fn apply(&self) -> io::Result<()> {
        if let Some(filter) = &self.filter {
            filter.load()?;
        }
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities.contains(one) {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // After the last one that this kernel knows.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        clear_ambient_capability_set()?;
        set_capabilities(
            None,
            CapabilitySets {
                effective: self.capabilities,
                permitted: self.capabilities,
                // As in Docker since an inheritable set let unprivileged users keep file capabilities.
                inheritable: CapabilitySet::empty(),
            },
        )?;
        Ok(())
    }
}
