//! Volumes, and where containers mount them.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    EFSAuthorizationConfigIAM, EFSTransitEncryption, EFSVolumeConfiguration, EcsError,
    RegisterTaskDefinitionRequest, Scope, Volume,
};

use super::super::absent::items;
use super::super::refusal::client;
use super::container::is_name;

pub(super) fn validate(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    let mut names = BTreeSet::new();
    for volume in items(&input.volumes) {
        let name = volume.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(client("Volume.name should not be null or empty."));
        }
        if !is_name(name) {
            return Err(client("Volume.name contains invalid characters."));
        }
        if !names.insert(name) {
            return Err(client(
                "Volume names must be unique within a Task Definition.",
            ));
        }
        validate_kind(volume, name)?;
    }
    let containers: BTreeSet<&str> = input
        .container_definitions
        .iter()
        .filter_map(|container| container.name.as_deref())
        .collect();
    for container in &input.container_definitions {
        let own_name = container.name.as_deref().unwrap_or_default();
        for mount in items(&container.mount_points) {
            let source = mount.source_volume.as_deref();
            if !source.is_some_and(|source| names.contains(source)) {
                return Err(client(format!(
                    "Unknown volume '{}'.",
                    source.unwrap_or("null")
                )));
            }
            match mount.container_path.as_deref() {
                Some(path) if !path.is_empty() => {}
                _ => {
                    return Err(client(
                        "MountPoint.containerPath should not be null or empty.",
                    ));
                }
            }
        }
        for from in items(&container.volumes_from) {
            let source = from.source_container.as_deref();
            if !source.is_some_and(|source| containers.contains(source) && source != own_name) {
                return Err(client(format!(
                    "Invalid 'volumesFrom' setting for container '{own_name}': unknown container '{}'.",
                    source.unwrap_or("null")
                )));
            }
        }
    }
    Ok(())
}

fn validate_kind(volume: &Volume, name: &str) -> Result<(), EcsError> {
    let kinds = [
        volume.host.is_some(),
        volume.docker_volume_configuration.is_some(),
        volume.efs_volume_configuration.is_some(),
        volume.s3files_volume_configuration.is_some(),
        volume
            .fsx_windows_file_server_volume_configuration
            .is_some(),
    ];
    if kinds.iter().filter(|given| **given).count() > 1 {
        return Err(client(format!(
            "Volume '{name}' has more than one volume configuration. Only one may be specified."
        )));
    }
    if volume.configured_at_launch == Some(true) && kinds.contains(&true) {
        return Err(client(format!(
            "Volume '{name}' is configured at launch and cannot have a volume configuration."
        )));
    }
    if let Some(path) = volume
        .host
        .as_ref()
        .and_then(|host| host.source_path.as_deref())
        && path.trim().is_empty()
    {
        return Err(client("host.sourcePath should not be blank."));
    }
    if let Some(docker) = &volume.docker_volume_configuration {
        // Only a volume that outlives its task can be made once and found again.
        if docker.autoprovision.is_some() && docker.scope != Some(Scope::Shared) {
            return Err(client(
                "autoprovision is only supported for Docker volumes with scope 'shared'.",
            ));
        }
    }
    if let Some(efs) = &volume.efs_volume_configuration {
        validate_efs(efs)?;
    }
    if let Some(files) = &volume.s3files_volume_configuration {
        if files.file_system_arn.is_empty() {
            return Err(client(
                "s3filesVolumeConfiguration.fileSystemArn should not be null or empty.",
            ));
        }
        validate_encryption_port(files.transit_encryption_port)?;
    }
    if let Some(fsx) = &volume.fsx_windows_file_server_volume_configuration
        && fsx.file_system_id.is_empty()
    {
        return Err(client(
            "fsxWindowsFileServerVolumeConfiguration.fileSystemId should not be null or empty.",
        ));
    }
    Ok(())
}

fn validate_efs(efs: &EFSVolumeConfiguration) -> Result<(), EcsError> {
    if efs.file_system_id.is_empty() {
        return Err(client(
            "efsVolumeConfiguration.fileSystemId should not be null or empty.",
        ));
    }
    if !efs.file_system_id.starts_with("fs-") && !efs.file_system_id.starts_with("arn:") {
        return Err(client(format!(
            "Invalid file system id '{}': it must begin with 'fs-'.",
            efs.file_system_id
        )));
    }
    let encrypted = efs.transit_encryption == Some(EFSTransitEncryption::Enabled);
    validate_encryption_port(efs.transit_encryption_port)?;
    if let Some(authorization) = &efs.authorization_config {
        let with_iam = authorization.iam == Some(EFSAuthorizationConfigIAM::Enabled);
        if (with_iam || authorization.access_point_id.is_some()) && !encrypted {
            return Err(client(
                "EFS transit encryption must be enabled when an access point or IAM authorization is used.",
            ));
        }
        let root = efs.root_directory.as_deref().unwrap_or("/");
        if authorization.access_point_id.is_some() && root != "/" {
            return Err(client(
                "EFS root directory must be '/' or omitted when an access point is specified.",
            ));
        }
    }
    Ok(())
}

fn validate_encryption_port(port: Option<i32>) -> Result<(), EcsError> {
    match port {
        Some(port) if !(1..=65535).contains(&port) => {
            Err(client(format!("Invalid transitEncryptionPort '{port}'.")))
        }
        _ => Ok(()),
    }
}
