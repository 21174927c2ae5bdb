//! The users of services: they create, change, stop and delete them, protect and stop their tasks, and drain
//! container instances; in the end they ask for what can be.
//!
//! What always holds: a request that is refused is refused for a reason that the user could have known;
//! everything else is a panic. A CreateService whose answer is lost is made again, and gives the same service.

use std::collections::BTreeMap;

use gantry_api::ecs;

use super::shown;
use crate::chance::Chance;
use crate::control::ControlPlane;
use crate::founding;
use crate::runtime::Behaviour;
use std::time::Duration;

/// The family of their task definitions, the good ones first.
pub const FAMILY: &str = "plan";
const GOOD: usize = 2;
const NAMES: [&str; 4] = ["api", "jobs", "shop", "web"];
/// `minimumHealthyPercent` and `maximumPercent`, those that any service can roll within first.
const BOUNDS: [(i32, i32); 7] = [
    (100, 200),
    (0, 100),
    (50, 200),
    (0, 200),
    (50, 100),
    (100, 150),
    (75, 125),
];
const ROLLING: usize = 4;

fn plans() -> [(Behaviour, bool); 9] {
    let seconds = Duration::from_secs;
    [
        (Behaviour::Lives, false),
        (Behaviour::Lives, true),
        (Behaviour::DoesNotStart, false),
        (Behaviour::IsNotFound, true),
        (Behaviour::EndsAfter(seconds(7)), false),
        (Behaviour::EndsAfter(seconds(90)), true),
        (Behaviour::IsSick, true),
        (Behaviour::SickensAfter(seconds(70)), true),
        (Behaviour::StartsNowAndThen, false),
    ]
}

#[derive(Debug, Default)]
pub struct ServiceUsers {
    /// How many services were created.
    pub created: usize,
    /// How each service shall end: with so many tasks of a revision, or not at all.
    pub wanted: BTreeMap<&'static str, Option<(i32, String)>>,
    /// The instance that is left DRAINING.
    pub drained: Option<String>,
}

impl ServiceUsers {
    pub fn prepare(&self, control: &ControlPlane) {
        for (behaviour, checked) in plans() {
            founding::define(control, FAMILY, behaviour, checked);
        }
    }

    /// One thing that a user does.
    pub fn act(&mut self, control: &ControlPlane, instances: &[String], chance: &mut Chance) {
        if !control.is_up() {
            return;
        }
        if chance.per_mille(60) {
            let instance = &instances[chance.below(instances.len())];
            let status = ["DRAINING", "ACTIVE"][chance.below(2)];
            return set_state(control, instance, status);
        }
        let name = NAMES[chance.below(NAMES.len())];
        let service = shown::describe(control, name);
        match service.as_ref().and_then(|it| it.status.as_deref()) {
            None | Some("INACTIVE") => self.create(control, name, chance),
            Some("ACTIVE") => self.change(control, &service.expect("a service"), chance),
            Some(_) => {}
        }
    }

    fn create(&mut self, control: &ControlPlane, name: &str, chance: &mut Chance) {
        let spread = |field: &str| ecs::PlacementStrategy {
            r#type: Some(ecs::PlacementStrategyType::Spread),
            field: Some(field.to_owned()),
        };
        let strategies = match chance.below(4) {
            0 => Some(vec![
                spread("attribute:ecs.availability-zone"),
                spread("instanceId"),
            ]),
            1 => Some(vec![ecs::PlacementStrategy {
                r#type: Some(ecs::PlacementStrategyType::Binpack),
                field: Some("memory".to_owned()),
            }]),
            _ => None,
        };
        let distinct = chance.per_mille(200).then(|| {
            vec![ecs::PlacementConstraint {
                r#type: Some(ecs::PlacementConstraintType::DistinctInstance),
                expression: None,
            }]
        });
        let request = ecs::CreateServiceRequest {
            service_name: name.to_owned(),
            task_definition: Some(definition(chance)),
            desired_count: Some(chance.below(9) as i32),
            client_token: chance.per_mille(500).then(|| chance.token()),
            deployment_configuration: Some(configuration(chance)),
            health_check_grace_period_seconds: chance.per_mille(300).then_some(60),
            placement_strategy: strategies,
            placement_constraints: distinct,
            // This world has no second plan for it; it is asked for by name where it is meant.
            availability_zone_rebalancing: Some(ecs::AvailabilityZoneRebalancing::Disabled),
            ..Default::default()
        };
        self.created += 1;
        let again = request.clone();
        let ask = |request: ecs::CreateServiceRequest| {
            control.call(|ecs, ctx| async move { ecs.create_service(&ctx, request).await })
        };
        let first = expect("CreateService", ask(request)).service;
        if chance.per_mille(100) {
            // The answer was lost.
            let second = expect("CreateService", ask(again)).service;
            assert_eq!(
                first.and_then(|it| it.current_service_deployment),
                second.and_then(|it| it.current_service_deployment),
                "the same request again makes the same service"
            );
        }
    }

    fn change(&mut self, control: &ControlPlane, service: &ecs::Service, chance: &mut Chance) {
        let name = service.service_name.clone().unwrap_or_default();
        let mut update = ecs::UpdateServiceRequest {
            service: name.clone(),
            ..Default::default()
        };
        match chance.below(24) {
            0..=4 => update.desired_count = Some(chance.below(11) as i32),
            5 => update.desired_count = Some(20 + chance.below(20) as i32),
            6..=10 => update.task_definition = Some(definition(chance)),
            11..=12 => update.force_new_deployment = Some(true),
            13..=14 => update.deployment_configuration = Some(configuration(chance)),
            15 => {
                update.desired_count = Some(chance.below(11) as i32);
                update.task_definition = Some(definition(chance));
            }
            16 => return delete(control, service, chance.per_mille(500)),
            17..=18 => return stop_deployment(control, service),
            19..=21 => return protect(control, &name, chance),
            _ => return stop_task(control, &name, chance),
        }
        let answer = control.call(|ecs, ctx| async move { ecs.update_service(&ctx, update).await });
        expect("UpdateService", answer);
    }

    /// Asks of every service what can be.
    pub fn finish(&mut self, control: &ControlPlane, instances: &[String], chance: &mut Chance) {
        for instance in instances {
            set_state(control, instance, "ACTIVE");
        }
        self.drained = chance
            .per_mille(500)
            .then(|| instances[chance.below(instances.len())].clone());
        if let Some(instance) = &self.drained {
            set_state(control, instance, "DRAINING");
        }
        for name in NAMES {
            let Some(service) = shown::describe(control, name) else {
                continue;
            };
            self.wanted.insert(name, None);
            if service.status.as_deref() != Some("ACTIVE") {
                continue;
            }
            if chance.per_mille(250) {
                delete(control, &service, true);
                continue;
            }
            let count = chance.below(6) as i32;
            let good = format!("{FAMILY}:{}", 1 + chance.below(GOOD));
            let update = ecs::UpdateServiceRequest {
                service: name.to_owned(),
                desired_count: Some(count),
                task_definition: Some(good.clone()),
                force_new_deployment: Some(true),
                deployment_configuration: Some(within(BOUNDS[chance.below(ROLLING)])),
                ..Default::default()
            };
            let answer =
                control.call(|ecs, ctx| async move { ecs.update_service(&ctx, update).await });
            expect("UpdateService", answer);
            self.wanted.insert(name, Some((count, good)));
        }
    }
}

fn definition(chance: &mut Chance) -> String {
    let count = plans().len();
    // A service that is mostly broken shows little.
    let revision = match chance.per_mille(500) {
        true => 1 + chance.below(GOOD),
        false => 1 + chance.below(count),
    };
    format!("{FAMILY}:{revision}")
}

fn within((minimum, maximum): (i32, i32)) -> ecs::DeploymentConfiguration {
    ecs::DeploymentConfiguration {
        minimum_healthy_percent: Some(minimum),
        maximum_percent: Some(maximum),
        ..Default::default()
    }
}

fn configuration(chance: &mut Chance) -> ecs::DeploymentConfiguration {
    let form = match chance.below(5) {
        0 => Some((ecs::ThresholdType::Count, 1 + chance.below(5) as i32)),
        1 => Some((
            ecs::ThresholdType::BoundedPercent,
            10 + chance.below(90) as i32,
        )),
        2 => Some((
            ecs::ThresholdType::UnboundedPercent,
            10 + chance.below(90) as i32,
        )),
        _ => None,
    };
    ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: chance.per_mille(700),
            rollback: chance.per_mille(700),
            reset_on_healthy_task: [None, Some(true), Some(false)][chance.below(3)],
            threshold_configuration: form.map(|(kind, value)| ecs::ThresholdConfiguration {
                r#type: kind,
                value,
            }),
        }),
        ..within(BOUNDS[chance.below(BOUNDS.len())])
    }
}

fn delete(control: &ControlPlane, service: &ecs::Service, force: bool) {
    let request = ecs::DeleteServiceRequest {
        service: service.service_name.clone().unwrap_or_default(),
        force: Some(force),
        ..Default::default()
    };
    let answer = control.call(|ecs, ctx| async move { ecs.delete_service(&ctx, request).await });
    match answer.expect("the control plane is up") {
        Err(ecs::EcsError::InvalidParameterException(_))
            if !force && service.desired_count > Some(0) => {}
        answer => drop(expect("DeleteService", Some(answer))),
    }
}

fn stop_deployment(control: &ControlPlane, service: &ecs::Service) {
    let arn = service.current_service_deployment.clone();
    let request = ecs::StopServiceDeploymentRequest {
        service_deployment_arn: arn.expect("a deployment that was asked for last"),
        ..Default::default()
    };
    let answer =
        control.call(|ecs, ctx| async move { ecs.stop_service_deployment(&ctx, request).await });
    match answer.expect("the control plane is up") {
        // It is over.
        Err(ecs::EcsError::ConflictException(_)) => {}
        answer => drop(expect("StopServiceDeployment", Some(answer))),
    }
}

fn protect(control: &ControlPlane, name: &str, chance: &mut Chance) {
    let mut tasks = shown::list(control, name);
    tasks.retain(|_| chance.per_mille(300));
    tasks.truncate(10);
    if tasks.is_empty() {
        return;
    }
    let request = ecs::UpdateTaskProtectionRequest {
        cluster: "default".to_owned(),
        tasks,
        protection_enabled: chance.per_mille(750),
        expires_in_minutes: Some(1 + chance.below(10) as i32),
    };
    let answer =
        control.call(|ecs, ctx| async move { ecs.update_task_protection(&ctx, request).await });
    expect("UpdateTaskProtection", answer);
}

fn stop_task(control: &ControlPlane, name: &str, chance: &mut Chance) {
    let tasks = shown::list(control, name);
    let Some(task) = tasks.get(chance.below(tasks.len())).cloned() else {
        return;
    };
    let request = ecs::StopTaskRequest {
        task,
        reason: Some("enough".to_owned()),
        ..Default::default()
    };
    let answer = control.call(|ecs, ctx| async move { ecs.stop_task(&ctx, request).await });
    expect("StopTask", answer);
}

pub fn set_state(control: &ControlPlane, instance: &str, status: &str) {
    let request = ecs::UpdateContainerInstancesStateRequest {
        container_instances: vec![instance.to_owned()],
        status: status.into(),
        ..Default::default()
    };
    let answer = control
        .call(|ecs, ctx| async move { ecs.update_container_instances_state(&ctx, request).await });
    let answer = expect("UpdateContainerInstancesState", answer);
    assert_eq!(answer.failures.unwrap_or_default(), []);
}

fn expect<T>(operation: &str, answer: Option<Result<T, ecs::EcsError>>) -> T {
    answer
        .expect("the control plane is up")
        .unwrap_or_else(|error| panic!("{operation} was refused: {error:?}"))
}
