//! Labels of the kernel's security modules.
//!
//! What always holds: a profile or label that this machine cannot put in force is refused by its name, never ignored.

use std::path::Path;

use super::refused;
use crate::error::RuntimeError;
use crate::spec::ContainerSpec;

/// What AppArmor calls no profile, and ECS no label.
const UNCONFINED: &str = "unconfined";
const DISABLED: &str = "disable";

/// The profile to put in force, if there is one.
pub(super) fn apparmor_profile(spec: &ContainerSpec) -> Result<Option<&str>, RuntimeError> {
    let Some(profile) = spec.apparmor_profile.as_deref() else {
        return Ok(None);
    };
    let is_enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with('Y'));
    match (is_enabled, profile) {
        (true, profile) => Ok(Some(profile)),
        (false, UNCONFINED) => Ok(None),
        (false, _) => Err(refused(format!(
            "AppArmor profile \"{profile}\": AppArmor is not enabled on this machine"
        ))),
    }
}

/// The label of the container's processes, if there is one.
pub(super) fn selinux_label(spec: &ContainerSpec) -> Result<Option<&str>, RuntimeError> {
    let Some(label) = spec.selinux_label.as_deref() else {
        return Ok(None);
    };
    let is_enabled = Path::new("/sys/fs/selinux/enforce").exists();
    match (is_enabled, label) {
        (_, DISABLED) => Ok(None),
        (true, label) => Ok(Some(label)),
        (false, _) => Err(refused(format!(
            "SELinux label \"{label}\": SELinux is not enabled on this machine"
        ))),
    }
}
