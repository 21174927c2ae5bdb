//! Volumes: which kinds there are, and which are built.

use gantry_api::ecs::{DockerVolumeConfiguration, HostVolumeProperties, Volume};

use super::{first_asked, refusal};

/// What the payload's volume is built from.
pub enum HonouredVolume<'a> {
    /// A path of the host, or a new folder where there is none.
    Host(Option<&'a str>),
    Docker(&'a DockerVolumeConfiguration),
}

/// Takes a volume apart, or says which member is not built.
pub fn honoured_volume(volume: &Volume) -> Result<(&str, HonouredVolume<'_>), String> {
    let Volume {
        configured_at_launch,
        docker_volume_configuration,
        efs_volume_configuration,
        fsx_windows_file_server_volume_configuration,
        host,
        name,
        s3files_volume_configuration,
    } = volume;
    let name = name.as_deref().unwrap_or_default();
    first_asked(
        &[
            ("configuredAtLaunch", *configured_at_launch == Some(true)),
            ("efsVolumeConfiguration", efs_volume_configuration.is_some()),
            (
                "fsxWindowsFileServerVolumeConfiguration",
                fsx_windows_file_server_volume_configuration.is_some(),
            ),
            (
                "s3filesVolumeConfiguration",
                s3files_volume_configuration.is_some(),
            ),
        ],
        "volumes.",
        name,
    )?;
    let Some(docker) = docker_volume_configuration else {
        let path = host
            .as_ref()
            .and_then(|HostVolumeProperties { source_path }| source_path.as_deref());
        return Ok((name, HonouredVolume::Host(path)));
    };
    if let Some(driver) = docker
        .driver
        .as_deref()
        .filter(|driver| !matches!(*driver, "" | "local"))
    {
        return Err(refusal(
            "volumes.dockerVolumeConfiguration.driver | another one than local",
            name,
            driver,
        ));
    }
    Ok((name, HonouredVolume::Docker(docker)))
}
