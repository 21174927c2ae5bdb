//! The volumes of a task and where its containers see them.
//!
//! What always holds: a mount names a volume that the task has, and `volumesFrom` a container that the
//! task has. A kind of volume, a driver or an option that is not honoured is a reason that names it.
//! What it leaves to others: making folders and mounting (the shell), what the image declares as a
//! volume, which is known only after the pull.

use std::collections::BTreeMap;

use gantry_api::acs;

use super::unknown::{first_meaningful, not_built};

/// A volume of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    pub name: String,
    pub source: VolumeSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// A path of the host, as it is.
    HostPath(String),
    /// A new folder, which goes with the task.
    TaskFolder,
    Docker(DockerVolume),
}

/// A volume of Docker's `local` driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerVolume {
    pub scope: VolumeScope,
    /// A shared volume that is missing is made.
    pub autoprovision: bool,
    pub backing: VolumeBacking,
    /// As they were given, to tell whether a shared volume is the one that is meant.
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeScope {
    /// Goes with the task.
    Task,
    /// Stays, and belongs to every task that names it.
    Shared,
}

/// Where a Docker volume's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeBacking {
    Folder,
    /// In memory, with mount options as tmpfs names them.
    Tmpfs {
        options: Vec<String>,
    },
    /// A folder of the host.
    Bind {
        device: String,
        read_only: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    pub volume: String,
    pub path: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesFromPlan {
    pub container: String,
    pub read_only: bool,
}

pub(super) fn volumes(volumes: &[acs::Volume]) -> Result<Vec<VolumePlan>, String> {
    volumes.iter().map(volume).collect()
}

fn volume(volume: &acs::Volume) -> Result<VolumePlan, String> {
    let acs::Volume {
        docker_volume_configuration,
        host,
        name,
        kind,
        unknown,
    } = volume;
    let name = name.clone().unwrap_or_default();
    if name.is_empty() {
        return Err("a volume has no name".to_owned());
    }
    if let Some(member) = first_meaningful(unknown) {
        return Err(not_built(
            &format!("member of volume '{name}'"),
            member,
            None,
        ));
    }
    let source = match (kind.as_deref(), docker_volume_configuration) {
        (Some("docker"), Some(docker)) => VolumeSource::Docker(docker_volume(docker, &name)?),
        (Some("docker"), None) => {
            return Err(format!("volume '{name}' has no dockerVolumeConfiguration"));
        }
        (None | Some("" | "host"), None) => {
            match host.as_ref().and_then(|host| host.source_path.as_deref()) {
                None | Some("") => VolumeSource::TaskFolder,
                Some(path) => VolumeSource::HostPath(absolute(path, &name, "host.sourcePath")?),
            }
        }
        (other, _) => {
            return Err(not_built(
                &format!("kind of volume '{name}'"),
                other.unwrap_or("docker without its type"),
                None,
            ));
        }
    };
    Ok(VolumePlan { name, source })
}

fn docker_volume(
    docker: &acs::DockerVolumeConfiguration,
    name: &str,
) -> Result<DockerVolume, String> {
    let acs::DockerVolumeConfiguration {
        autoprovision,
        driver,
        driver_opts,
        labels,
        scope,
    } = docker;
    match driver.as_deref() {
        None | Some("" | "local") => {}
        Some(other) => {
            return Err(not_built(
                &format!("driver of volume '{name}'"),
                other,
                None,
            ));
        }
    }
    let scope = match scope.as_deref() {
        None | Some("" | "task") => VolumeScope::Task,
        Some("shared") => VolumeScope::Shared,
        Some(other) => {
            return Err(not_built(&format!("scope of volume '{name}'"), other, None));
        }
    };
    Ok(DockerVolume {
        scope,
        autoprovision: autoprovision.unwrap_or(false),
        backing: backing(driver_opts, name)?,
        driver_opts: driver_opts.clone(),
        labels: labels.clone(),
    })
}

/// The options of Docker's `local` driver are those of mount(8): a type, a device and the rest in `o`.
fn backing(options: &BTreeMap<String, String>, name: &str) -> Result<VolumeBacking, String> {
    let (mut kind, mut device, mut rest) = ("", "", "");
    for (option, value) in options {
        match option.as_str() {
            "type" => kind = value,
            "device" => device = value,
            "o" => rest = value,
            other => {
                return Err(not_built(
                    &format!("driver option of volume '{name}'"),
                    other,
                    None,
                ));
            }
        }
    }
    let words: Vec<&str> = rest.split(',').filter(|word| !word.is_empty()).collect();
    let bind = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    match kind {
        "" if options.is_empty() => Ok(VolumeBacking::Folder),
        "tmpfs" => Ok(VolumeBacking::Tmpfs {
            options: words.iter().map(|word| (*word).to_owned()).collect(),
        }),
        "" | "none" | "bind" if bind => {
            let mut read_only = false;
            for word in words {
                match word {
                    "bind" | "rbind" | "rw" => {}
                    "ro" => read_only = true,
                    other => {
                        return Err(not_built(
                            &format!("driver option 'o' of volume '{name}'"),
                            other,
                            None,
                        ));
                    }
                }
            }
            Ok(VolumeBacking::Bind {
                device: absolute(device, name, "driverOpts.device")?,
                read_only,
            })
        }
        other => Err(not_built(
            &format!("driver option 'type' of volume '{name}'"),
            other,
            None,
        )),
    }
}

fn absolute(path: &str, volume: &str, member: &str) -> Result<String, String> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "{member} of volume '{volume}' is '{path}', which is not an absolute path"
        ))
    }
}

pub(super) fn mounts(
    mount_points: &[acs::MountPoint],
    volumes: &[VolumePlan],
    container: &str,
) -> Result<Vec<MountPlan>, String> {
    mount_points
        .iter()
        .map(|mount| {
            let acs::MountPoint {
                container_path,
                read_only,
                source_volume,
            } = mount;
            let volume = source_volume.clone().unwrap_or_default();
            if !volumes.iter().any(|known| known.name == volume) {
                return Err(format!(
                    "container '{container}' mounts volume '{volume}', which is not in the task"
                ));
            }
            let path = container_path.clone().unwrap_or_default();
            if !path.starts_with('/') {
                return Err(format!(
                    "container '{container}' mounts volume '{volume}' at '{path}', which is not an absolute path"
                ));
            }
            Ok(MountPlan {
                volume,
                path,
                read_only: read_only.unwrap_or(false),
            })
        })
        .collect()
}

pub(super) fn volumes_from(
    from: &[acs::VolumeFrom],
    container: &str,
) -> Result<Vec<VolumesFromPlan>, String> {
    from.iter()
        .map(|from| {
            let acs::VolumeFrom {
                read_only,
                source_container,
            } = from;
            let source = source_container
                .clone()
                .filter(|source| !source.is_empty())
                .ok_or_else(|| {
                    format!("container '{container}' has a volumesFrom without a sourceContainer")
                })?;
            Ok(VolumesFromPlan {
                container: source,
                read_only: read_only.unwrap_or(false),
            })
        })
        .collect()
}
