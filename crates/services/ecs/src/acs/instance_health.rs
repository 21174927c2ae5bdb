//! A container instance's health, as DescribeContainerInstances shows it.

use gantry_api::ecs::{
    ContainerInstanceHealthStatus, InstanceHealthCheckResult, InstanceHealthCheckState,
};

use super::telemetry::InstanceCheck;

/// Worst first: what one check says decides for the whole.
const WORST_FIRST: [InstanceHealthCheckState; 3] = [
    InstanceHealthCheckState::Impaired,
    InstanceHealthCheckState::InsufficientData,
    InstanceHealthCheckState::Initializing,
];

/// An agent that said nothing, or is not there to say it, leaves INSUFFICIENT_DATA.
pub(crate) fn health_status(checks: Vec<InstanceCheck>) -> ContainerInstanceHealthStatus {
    let details: Vec<InstanceHealthCheckResult> = checks
        .into_iter()
        .map(|check| InstanceHealthCheckResult {
            last_status_change: check.last_status_change,
            last_updated: check.last_updated,
            status: Some(check.status.as_str().into()),
            status_reason: None,
            r#type: Some(check.kind.as_str().into()),
        })
        .collect();
    let said = |state: &&InstanceHealthCheckState| {
        details
            .iter()
            .any(|detail| detail.status.as_ref() == Some(*state))
    };
    let overall = match WORST_FIRST.iter().find(said) {
        Some(worst) => worst.clone(),
        None if details.is_empty() => InstanceHealthCheckState::InsufficientData,
        None => InstanceHealthCheckState::Ok,
    };
    ContainerInstanceHealthStatus {
        overall_status: Some(overall),
        details: Some(details),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides() {
        let check = |status: &str| InstanceCheck {
            kind: "CONTAINER_RUNTIME".into(),
            status: status.into(),
            last_updated: None,
            last_status_change: None,
        };
        let overall = |checks: &[&str]| {
            let status = health_status(checks.iter().map(|s| check(s)).collect());
            status.overall_status.unwrap().as_str().to_owned()
        };
        assert_eq!(overall(&[]), "INSUFFICIENT_DATA");
        assert_eq!(overall(&["OK", "OK"]), "OK");
        assert_eq!(overall(&["OK", "INITIALIZING"]), "INITIALIZING");
        assert_eq!(overall(&["INSUFFICIENT_DATA", "IMPAIRED"]), "IMPAIRED");
    }
}
