//! What is refused, and in which words. Made by `cargo xtask codegen` from `members.toml`; do not edit.

use super::Refused;

pub(super) const REFUSED: &[Refused] = &[
    Refused {
        member: "containerDefinitions.credentialSpecs",
        reason: "ResourceInitializationError: container definition member 'credentialSpecs' of container '{container}' is not built yet",
        sample: "{\"containerDefinitions\": [{\"credentialSpecs\": [\"credentialspec:file://x\"]}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.disableNetworking | with networkMode host",
        reason: "ResourceInitializationError: disableNetworking of container '{container}' cannot be had with networkMode 'host'",
        sample: "{\"networkMode\": \"host\", \"containerDefinitions\": [{\"disableNetworking\": true}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.environmentFiles",
        reason: "ResourceInitializationError: container definition member 'environmentFiles' of container '{container}' is not built yet; there is no S3",
        sample: "{\"containerDefinitions\": [{\"environmentFiles\": [{\"type\": \"s3\", \"value\": \"arn:aws:s3:::b/x.env\"}]}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.firelensConfiguration",
        reason: "ResourceInitializationError: container definition member 'firelensConfiguration' of container '{container}' is not built yet",
        sample: "{\"containerDefinitions\": [{\"firelensConfiguration\": {\"type\": \"fluentbit\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.logConfiguration.logDriver | journald, splunk, awsfirelens",
        reason: "ResourceInitializationError: container definition member 'logConfiguration.logDriver={value}' of container '{container}' is not built yet",
        sample: "{\"containerDefinitions\": [{\"logConfiguration\": {\"logDriver\": \"splunk\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.logConfiguration.secretOptions",
        reason: "ResourceInitializationError: container definition member 'logConfiguration.secretOptions' of container '{container}' is not built yet",
        sample: "{\"containerDefinitions\": [{\"logConfiguration\": {\"logDriver\": \"awslogs\", \"secretOptions\": [{\"name\": \"a\", \"valueFrom\": \"b\"}]}}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.repositoryCredentials",
        reason: "ResourceInitializationError: container definition member 'repositoryCredentials' of container '{container}' is not built yet; there is no Secrets Manager",
        sample: "{\"containerDefinitions\": [{\"repositoryCredentials\": {\"credentialsParameter\": \"arn:aws:secretsmanager:us-east-1:000000000000:secret:s\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.resourceRequirements",
        reason: "ResourceInitializationError: container definition member 'resourceRequirements' of container '{container}' is not built yet; there are no GPUs",
        sample: "{\"containerDefinitions\": [{\"resourceRequirements\": [{\"type\": \"GPU\", \"value\": \"1\"}]}]}",
        at_run_task: false,
    },
    Refused {
        member: "containerDefinitions.secrets",
        reason: "ResourceInitializationError: container definition member 'secrets' of container '{container}' is not built yet; there are no Secrets Manager and no Parameter Store",
        sample: "{\"containerDefinitions\": [{\"secrets\": [{\"name\": \"A\", \"valueFrom\": \"b\"}]}]}",
        at_run_task: false,
    },
    Refused {
        member: "enableFaultInjection",
        reason: "ResourceInitializationError: task definition member 'enableFaultInjection' is not built yet",
        sample: "{\"enableFaultInjection\": true}",
        at_run_task: false,
    },
    Refused {
        member: "ephemeralStorage",
        reason: "ResourceInitializationError: task definition member 'ephemeralStorage' is not built yet; it belongs to Fargate",
        sample: "{\"ephemeralStorage\": {\"sizeInGiB\": 30}}",
        at_run_task: false,
    },
    Refused {
        member: "inferenceAccelerators",
        reason: "ResourceInitializationError: task definition member 'inferenceAccelerators' is not built yet",
        sample: "{\"inferenceAccelerators\": [{\"deviceName\": \"d\", \"deviceType\": \"eia1.medium\"}]}",
        at_run_task: false,
    },
    Refused {
        member: "networkMode | awsvpc",
        reason: "Network mode awsvpc is not built in Gantry yet.",
        sample: "{\"networkMode\": \"awsvpc\"}",
        at_run_task: true,
    },
    Refused {
        member: "proxyConfiguration",
        reason: "Network mode awsvpc is not built in Gantry yet.",
        sample: "{\"networkMode\": \"awsvpc\", \"proxyConfiguration\": {\"containerName\": \"app\"}}",
        at_run_task: true,
    },
    Refused {
        member: "runtimePlatform.operatingSystemFamily | Windows",
        reason: "ResourceInitializationError: runtimePlatform.operatingSystemFamily '{value}' cannot be run; container instances are Linux",
        sample: "{\"runtimePlatform\": {\"operatingSystemFamily\": \"WINDOWS_SERVER_2022_CORE\"}}",
        at_run_task: false,
    },
    Refused {
        member: "trustedExecutionConfiguration",
        reason: "ResourceInitializationError: task definition member 'trustedExecutionConfiguration' is not built yet",
        sample: "{\"trustedExecutionConfiguration\": {\"isolationMode\": \"SHARED\"}}",
        at_run_task: false,
    },
    Refused {
        member: "volumes.configuredAtLaunch",
        reason: "ResourceInitializationError: configuredAtLaunch of volume '{container}' is not built yet; there are no EBS volumes",
        sample: "{\"volumes\": [{\"name\": \"v\", \"configuredAtLaunch\": true}]}",
        at_run_task: false,
    },
    Refused {
        member: "volumes.dockerVolumeConfiguration.driver | another one than local",
        reason: "ResourceInitializationError: driver '{value}' of volume '{container}' is not built yet; use 'local'",
        sample: "{\"volumes\": [{\"name\": \"v\", \"dockerVolumeConfiguration\": {\"driver\": \"rexray/ebs\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "volumes.efsVolumeConfiguration",
        reason: "ResourceInitializationError: efsVolumeConfiguration of volume '{container}' is not built yet",
        sample: "{\"volumes\": [{\"name\": \"v\", \"efsVolumeConfiguration\": {\"fileSystemId\": \"fs-1\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "volumes.fsxWindowsFileServerVolumeConfiguration",
        reason: "ResourceInitializationError: fsxWindowsFileServerVolumeConfiguration of volume '{container}' is not built yet",
        sample: "{\"volumes\": [{\"name\": \"v\", \"fsxWindowsFileServerVolumeConfiguration\": {\"fileSystemId\": \"fs-1\", \"rootDirectory\": \"/\", \"authorizationConfig\": {\"credentialsParameter\": \"arn\", \"domain\": \"d\"}}}]}",
        at_run_task: false,
    },
    Refused {
        member: "volumes.s3filesVolumeConfiguration",
        reason: "ResourceInitializationError: s3filesVolumeConfiguration of volume '{container}' is not built yet",
        sample: "{\"volumes\": [{\"name\": \"v\", \"s3filesVolumeConfiguration\": {\"fileSystemArn\": \"arn:aws:s3files:us-east-1:000000000000:file-system/fs-1\"}}]}",
        at_run_task: false,
    },
    Refused {
        member: "overrides.containerOverrides.environmentFiles",
        reason: "ResourceInitializationError: override 'environmentFiles' of container '{container}' is not built yet; there is no S3",
        sample: "{\"containerOverrides\": [{\"name\": \"app\", \"environmentFiles\": [{\"type\": \"s3\", \"value\": \"arn:aws:s3:::b/x.env\"}]}]}",
        at_run_task: false,
    },
    Refused {
        member: "overrides.containerOverrides.resourceRequirements",
        reason: "ResourceInitializationError: override 'resourceRequirements' of container '{container}' is not built yet; there are no GPUs",
        sample: "{\"containerOverrides\": [{\"name\": \"app\", \"resourceRequirements\": [{\"type\": \"GPU\", \"value\": \"1\"}]}]}",
        at_run_task: false,
    },
    Refused {
        member: "overrides.ephemeralStorage",
        reason: "ephemeralStorage can only be overridden for FARGATE tasks.",
        sample: "{\"ephemeralStorage\": {\"sizeInGiB\": 30}}",
        at_run_task: true,
    },
    Refused {
        member: "overrides.inferenceAcceleratorOverrides",
        reason: "inferenceAcceleratorOverrides is not built in Gantry yet.",
        sample: "{\"inferenceAcceleratorOverrides\": [{\"deviceName\": \"d\"}]}",
        at_run_task: true,
    },
];
