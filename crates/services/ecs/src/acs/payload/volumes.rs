//! The volumes of a task, as an agent gets them.

use gantry_api::acs::{self, HostVolumeProperties};
use gantry_api::ecs::{DockerVolumeConfiguration, MountPoint, Scope, Volume, VolumeFrom};

use crate::acs::members::{HonouredVolume, honoured_volume};

pub(super) fn volumes(volumes: &[Volume]) -> Result<Vec<acs::Volume>, String> {
    volumes.iter().map(volume).collect()
}

fn volume(volume: &Volume) -> Result<acs::Volume, String> {
    let (name, honoured) = honoured_volume(volume)?;
    let name = Some(name.to_owned());
    Ok(match honoured {
        HonouredVolume::Host(path) => acs::Volume {
            name,
            kind: Some("host".to_owned()),
            // An empty path is how an agent is told to make a folder.
            host: Some(HostVolumeProperties {
                source_path: Some(path.unwrap_or_default().to_owned()),
            }),
            ..acs::Volume::default()
        },
        HonouredVolume::Docker(docker) => acs::Volume {
            name,
            kind: Some("docker".to_owned()),
            docker_volume_configuration: Some(docker_volume(docker)),
            ..acs::Volume::default()
        },
    })
}

fn docker_volume(docker: &DockerVolumeConfiguration) -> acs::DockerVolumeConfiguration {
    let DockerVolumeConfiguration {
        autoprovision,
        driver,
        driver_opts,
        labels,
        scope,
    } = docker;
    acs::DockerVolumeConfiguration {
        autoprovision: *autoprovision,
        driver: Some(driver.clone().unwrap_or_else(|| "local".to_owned())),
        driver_opts: driver_opts.clone().unwrap_or_default(),
        labels: labels.clone().unwrap_or_default(),
        scope: Some(scope.as_ref().map_or("task", Scope::as_str).to_owned()),
    }
}

pub(super) fn mount_points(mounts: &[MountPoint]) -> Vec<acs::MountPoint> {
    mounts
        .iter()
        .map(|mount| {
            let MountPoint {
                container_path,
                read_only,
                source_volume,
            } = mount;
            acs::MountPoint {
                container_path: container_path.clone(),
                read_only: *read_only,
                source_volume: source_volume.clone(),
            }
        })
        .collect()
}

pub(super) fn volumes_from(from: &[VolumeFrom]) -> Vec<acs::VolumeFrom> {
    from.iter()
        .map(|from| {
            let VolumeFrom {
                read_only,
                source_container,
            } = from;
            acs::VolumeFrom {
                read_only: *read_only,
                source_container: source_container.clone(),
            }
        })
        .collect()
}
