//! The frames of the agent protocol: what ACS (control) and TCS (telemetry) put on their WebSockets.
//!
//! What always holds: a frame is `{"type": T, "message": {…}}`; a type that is not known here decodes
//! to [`Frame::Unknown`], never to an error, because either side may be newer than the other. Absent
//! members stay absent on the wire, so the Amazon ECS agent sees exactly what ECS would send.
//! Numbers come from [`FrameNumber`], which only grows.
//! What it leaves to others: when a frame is sent and what follows from it (`gantry_ecs::acs` on the
//! control plane's side, `gantry_agent::core` on the node's).

mod control;
mod docker;
mod frame;
mod number;
mod payload;
mod telemetry;

pub use control::{
    AckRequest, CloseMessage, ErrorMessage, HeartbeatAckRequest, HeartbeatMessage,
    IamRoleCredentialsAckRequest, IamRoleCredentialsMessage, NackRequest, RoleCredentials,
    RoleType, TaskIdentifier, TaskManifestMessage, TaskStopVerificationAck,
    TaskStopVerificationMessage,
};
pub use docker::{
    DockerConfig, DockerContainerConfig, DockerDevice, DockerHealthcheck, DockerHostConfig,
    DockerLogConfig, DockerUlimit,
};
pub use frame::{Frame, FrameError, MAX_FRAME_BYTES};
pub use number::{FrameNumber, NumberExhausted};
pub use payload::{
    AsmAuthData, AuthenticationType, Condition, Container, ContainerDependency, DesiredStatus,
    DockerVolumeConfiguration, EcrAuthData, HostVolumeProperties, MountPoint, PayloadMessage,
    PortMapping, RegistryAuthentication, RestartPolicy, Task, Volume, VolumeFrom,
};
pub use telemetry::{
    ContainerHealth, ContainerHealthStatus, ContainerMetric, InstanceStatus, NetworkStatsSet,
    PublishHealthRequest, PublishInstanceStatusRequest, PublishMetricsRequest, RestartStatsSet,
    StatsSet, StorageStatsSet, TaskHealth, TaskMetric, TelemetryAck, TelemetryFrame,
    TelemetryMetadata, TelemetryTime, split_header_text,
};
