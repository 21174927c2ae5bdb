//! Services, with the controller stepped by hand and a node that is told what to report.
//!
//! After each step: nothing more is planned, the bounds of the deployment hold, and what
//! DescribeServices counts is what ListTasks lists.

use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::{INACTIVE_SERVICE_RETENTION, Services};
use gantry_reconcile::Controller;

use crate::harness::{Harness, done, refusal, tag, web};

pub const HEALTHY_AFTER: Duration = Duration::from_secs(40);

pub struct Plane {
    pub harness: Harness,
    controller: Services,
}

impl Plane {
    /// With one instance that has room for sixteen tasks of `web`.
    pub fn new() -> (Self, String) {
        let (harness, instance) = Harness::with_instance();
        harness.register_web();
        let controller = Services::of(&harness.service);
        (
            Self {
                harness,
                controller,
            },
            instance,
        )
    }

    pub fn create(&self, input: ecs::CreateServiceRequest) -> ecs::Service {
        let answer = done(
            self.harness
                .service
                .create_service(&self.harness.ctx(), input),
        );
        let service = answer.unwrap().service.unwrap();
        self.settle();
        service
    }

    pub fn update(&self, input: ecs::UpdateServiceRequest) -> ecs::Service {
        let answer = done(
            self.harness
                .service
                .update_service(&self.harness.ctx(), input),
        );
        let service = answer.unwrap().service.unwrap();
        self.settle();
        service
    }

    pub fn delete(&self, force: bool) -> Result<ecs::DeleteServiceResponse, ecs::EcsError> {
        let input = ecs::DeleteServiceRequest {
            service: "web".to_owned(),
            force: Some(force),
            ..Default::default()
        };
        done(
            self.harness
                .service
                .delete_service(&self.harness.ctx(), input),
        )
    }

    /// Reconciles until nothing is planned.
    pub fn settle(&self) {
        for _ in 0..200 {
            let mut planned = false;
            for key in self.controller.all_keys(&self.harness.store.snapshot()) {
                let snapshot = self.harness.store.snapshot();
                let plan = self
                    .controller
                    .reconcile(&snapshot, self.harness.env.now(), &key);
                if !plan.is_nothing() {
                    planned = true;
                    done(self.harness.store.commit(plan.transaction)).unwrap();
                    self.controller.settled(&key);
                }
            }
            if !planned {
                return;
            }
            self.check();
        }
        panic!("the controller does not settle: {:?}", self.described());
    }

    pub fn advance(&self, by: Duration) {
        self.harness.env.advance(by);
        self.settle();
    }

    /// What must hold after every commit.
    pub fn check(&self) {
        let Some(service) = self.described() else {
            return;
        };
        let (running, pending) = (
            service.running_count.unwrap(),
            service.pending_count.unwrap(),
        );
        let listed = i32::try_from(self.tasks().len()).unwrap();
        assert_eq!(running + pending, listed, "{service:?}");
        let deployments = service.deployments.as_ref().unwrap();
        let of = |count: fn(&ecs::Deployment) -> i32| deployments.iter().map(count).sum::<i32>();
        if service.status.as_deref() == Some("ACTIVE") {
            assert_eq!(of(|it| it.running_count.unwrap()), running, "{service:?}");
            assert_eq!(of(|it| it.pending_count.unwrap()), pending, "{service:?}");
            let primary = deployments
                .iter()
                .filter(|it| it.status.as_deref() == Some("PRIMARY"));
            assert_eq!(primary.count(), 1, "{service:?}");
        }
        assert!(service.events.unwrap().len() <= 100);
    }

    pub fn described(&self) -> Option<ecs::Service> {
        let input = ecs::DescribeServicesRequest {
            services: vec!["web".to_owned()],
            include: Some(vec![ecs::ServiceField::Tags]),
            ..Default::default()
        };
        let answer = done(
            self.harness
                .service
                .describe_services(&self.harness.ctx(), input),
        );
        answer.unwrap().services.unwrap().pop()
    }

    pub fn service(&self) -> ecs::Service {
        self.described().expect("the service is there")
    }

    /// The tasks that are meant to run.
    pub fn tasks(&self) -> Vec<ecs::Task> {
        let input = ecs::ListTasksRequest {
            service_name: Some("web".to_owned()),
            ..Default::default()
        };
        let answer = done(self.harness.service.list_tasks(&self.harness.ctx(), input)).unwrap();
        let arns = answer.task_arns.unwrap();
        arns.iter().map(|arn| self.harness.task(arn)).collect()
    }

    pub fn tasks_of(&self, revision: i32) -> Vec<ecs::Task> {
        let end = format!(":{revision}");
        let is_it = |task: &ecs::Task| task.task_definition_arn.as_ref().unwrap().ends_with(&end);
        self.tasks().into_iter().filter(is_it).collect()
    }

    /// Every task that waits is RUNNING, and every one that is to stop has.
    pub fn nodes_work(&self) {
        for task in self.all_tasks() {
            let arn = task.task_arn.as_deref().unwrap();
            match (task.desired_status.as_deref(), task.last_status.as_deref()) {
                (Some("RUNNING"), Some("PENDING")) => self.harness.submit(arn, "RUNNING", None),
                (Some("STOPPED"), Some(status)) if status != "STOPPED" => {
                    self.harness.submit(arn, "STOPPED", Some(0));
                }
                _ => {}
            }
        }
        self.settle();
    }

    pub fn all_tasks(&self) -> Vec<ecs::Task> {
        let of = |status: ecs::DesiredStatus| {
            let input = ecs::ListTasksRequest {
                desired_status: Some(status),
                ..Default::default()
            };
            done(self.harness.service.list_tasks(&self.harness.ctx(), input))
                .unwrap()
                .task_arns
                .unwrap()
        };
        let mut arns = of(ecs::DesiredStatus::Running);
        arns.extend(of(ecs::DesiredStatus::Stopped));
        arns.iter().map(|arn| self.harness.task(arn)).collect()
    }

    /// Until everything that was asked for runs, and is healthy.
    pub fn converge(&self) {
        for _ in 0..40 {
            self.nodes_work();
            self.advance(HEALTHY_AFTER);
        }
    }

    pub fn messages(&self) -> Vec<String> {
        let events = self.service().events.unwrap();
        events
            .into_iter()
            .map(|event| event.message.unwrap())
            .collect()
    }

    pub fn rollout(&self) -> (String, String) {
        let primary = self.service().deployments.unwrap().remove(0);
        (
            primary.rollout_state.unwrap().to_string(),
            primary.rollout_state_reason.unwrap(),
        )
    }
}

pub fn three() -> ecs::CreateServiceRequest {
    ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(3),
        ..Default::default()
    }
}

pub fn change() -> ecs::UpdateServiceRequest {
    ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        ..Default::default()
    }
}

pub fn with_breaker(rollback: bool) -> Option<ecs::DeploymentConfiguration> {
    Some(ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: true,
            rollback,
            ..Default::default()
        }),
        ..Default::default()
    })
}

pub fn within(minimum: i32, maximum: i32) -> Option<ecs::DeploymentConfiguration> {
    Some(ecs::DeploymentConfiguration {
        minimum_healthy_percent: Some(minimum),
        maximum_percent: Some(maximum),
        ..Default::default()
    })
}

#[test]
fn a_service_comes_up_is_completed_when_healthy_and_says_so() {
    let (plane, _) = Plane::new();
    let made = plane.create(ecs::CreateServiceRequest {
        tags: Some(vec![tag("team", "shop")]),
        propagate_tags: Some(ecs::PropagateTags::Service),
        enable_ecs_managed_tags: Some(true),
        ..three()
    });
    assert_eq!(made.deployments.unwrap().len(), 1);
    assert_eq!((made.running_count, made.pending_count), (Some(0), Some(0)));
    let tasks = plane.tasks();
    assert_eq!(tasks.len(), 3);
    let deployment = plane.service().deployments.unwrap().remove(0);
    for task in &tasks {
        assert_eq!(task.group.as_deref(), Some("service:web"));
        assert_eq!(task.started_by, deployment.id);
        let tags = task.tags.clone().unwrap();
        assert!(tags.contains(&tag("team", "shop")), "{tags:?}");
        assert!(
            tags.contains(&tag("aws:ecs:serviceName", "web")),
            "{tags:?}"
        );
        assert!(
            tags.contains(&tag("aws:ecs:clusterName", "default")),
            "{tags:?}"
        );
    }
    let id = deployment.id.unwrap();
    let digits = id.strip_prefix("ecs-svc/").unwrap();
    assert!(digits.len() == 19 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    plane.nodes_work();
    assert_eq!(plane.service().running_count, Some(3));
    assert_eq!(plane.rollout().0, "IN_PROGRESS");
    // RUNNING for 40 seconds is healthy where nothing checks.
    plane.advance(HEALTHY_AFTER - Duration::from_millis(1));
    assert_eq!(plane.rollout().0, "IN_PROGRESS");
    plane.advance(Duration::from_millis(1));
    let completed = format!("ECS deployment {id} completed.");
    assert_eq!(plane.rollout(), ("COMPLETED".to_owned(), completed));
    let said = plane.messages();
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0], "(service web) has reached a steady state.");
    assert_eq!(
        said[1],
        format!("(service web) (deployment {id}) deployment completed.")
    );
    assert!(said[2].starts_with("(service web) has started 3 tasks: (task "));
}

#[test]
fn a_task_that_ends_is_replaced_and_one_that_ends_at_once_not_at_once() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    let gone = plane.tasks()[0].task_arn.clone().unwrap();
    plane.harness.submit(&gone, "STOPPED", Some(1));
    plane.settle();
    let tasks = plane.tasks();
    assert_eq!(tasks.len(), 3);
    assert!(
        tasks
            .iter()
            .all(|task| task.task_arn.as_ref() != Some(&gone))
    );
    // The replacement runs, and ends at once: the next one waits.
    let young = tasks
        .iter()
        .find(|task| task.last_status.as_deref() == Some("PENDING"));
    let young = young.unwrap().task_arn.clone().unwrap();
    plane.harness.submit(&young, "RUNNING", None);
    plane.harness.submit(&young, "STOPPED", Some(1));
    plane.settle();
    assert_eq!(plane.tasks().len(), 2);
    plane.advance(Duration::from_secs(10));
    assert_eq!(plane.tasks().len(), 3);
}

#[test]
fn a_roll_never_leaves_its_minimum_and_maximum() {
    for (minimum, maximum, least, most) in [
        (100, 200, 4, 8),
        (50, 100, 2, 4),
        (75, 150, 3, 6),
        (0, 100, 0, 4),
    ] {
        let (plane, _) = Plane::new();
        plane.create(ecs::CreateServiceRequest {
            desired_count: Some(4),
            deployment_configuration: within(minimum, maximum),
            ..three()
        });
        plane.converge();
        plane.harness.register(web()).unwrap();
        plane.update(ecs::UpdateServiceRequest {
            task_definition: Some("web:2".to_owned()),
            ..change()
        });
        for _ in 0..200 {
            let service = plane.service();
            let running = service.running_count.unwrap();
            let all = running + service.pending_count.unwrap();
            assert!(
                running >= least && all <= most,
                "{minimum} {maximum}: {service:?}"
            );
            plane.nodes_work();
            plane.advance(Duration::from_secs(9));
        }
        let service = plane.service();
        assert_eq!(
            service.deployments.as_ref().unwrap().len(),
            1,
            "{service:?}"
        );
        assert_eq!(service.running_count, Some(4));
        assert_eq!(plane.tasks_of(2).len(), 4);
        assert_eq!(plane.rollout().0, "COMPLETED");
    }
}

#[test]
fn scaling_changes_the_count_and_starts_no_deployment() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    let before = plane.service().deployments.unwrap().remove(0).id;
    for count in [7, 1, 0, 2] {
        plane.update(ecs::UpdateServiceRequest {
            desired_count: Some(count),
            ..change()
        });
        plane.converge();
        assert_eq!(plane.service().running_count, Some(count));
        assert_eq!(plane.service().desired_count, Some(count));
        let deployments = plane.service().deployments.unwrap();
        assert_eq!(deployments.len(), 1);
        assert_eq!(deployments[0].id, before);
    }
}

#[test]
fn a_forced_deployment_replaces_every_task_of_the_same_revision() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    let before: Vec<_> = plane
        .tasks()
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    plane.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    plane.converge();
    let after: Vec<_> = plane
        .tasks()
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    assert_eq!(after.len(), 3);
    assert!(before.iter().all(|arn| !after.contains(arn)));
}

/// Lets every new task fail before it runs, until nothing is started for an hour.
fn break_revision(plane: &Plane, revision: i32) -> usize {
    let mut failed = 0;
    for _ in 0..60 {
        for task in plane.tasks_of(revision) {
            if task.last_status.as_deref() == Some("PENDING") {
                plane
                    .harness
                    .submit(task.task_arn.as_deref().unwrap(), "STOPPED", None);
                failed += 1;
            }
        }
        plane.settle();
        let left = plane.tasks_of(1).len();
        assert!(left >= 3, "the old revision keeps serving: {left}");
        plane.advance(Duration::from_secs(60));
    }
    failed
}

#[test]
fn the_circuit_breaker_rolls_back_to_the_last_completed_deployment() {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: with_breaker(true),
        ..three()
    });
    plane.converge();
    let good: Vec<_> = plane
        .tasks()
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    plane.harness.register(web()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    // Three at once, which is the least threshold.
    assert_eq!(break_revision(&plane, 2), 3);
    plane.converge();
    let service = plane.service();
    assert!(service.task_definition.unwrap().ends_with("web:1"));
    assert_eq!(service.deployments.unwrap().len(), 1);
    assert_eq!(plane.rollout().0, "COMPLETED");
    let after: Vec<_> = plane
        .tasks()
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    assert_eq!(good, after, "no good task was replaced");
    let deployments = list_deployments(&plane);
    let statuses: Vec<_> = deployments
        .iter()
        .map(|it| it.status.clone().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            ecs::ServiceDeploymentStatus::RollbackSuccessful,
            ecs::ServiceDeploymentStatus::Successful
        ]
    );
    let arn = deployments[0].service_deployment_arn.clone().unwrap();
    let whole = describe_deployment(&plane, &arn);
    let breaker = whole.deployment_circuit_breaker.unwrap();
    assert_eq!(
        (breaker.failure_count, breaker.threshold),
        (Some(3), Some(3))
    );
    assert!(
        whole
            .rollback
            .unwrap()
            .reason
            .unwrap()
            .contains("circuit breaker")
    );
    // The next update is a deployment as any other.
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    plane.converge();
    assert_eq!(plane.tasks_of(2).len(), 3);
}

#[test]
fn without_a_rollback_the_deployment_fails_and_starts_no_more() {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: with_breaker(false),
        ..three()
    });
    plane.converge();
    plane.harness.register(web()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    assert_eq!(break_revision(&plane, 2), 3);
    let reason = "ECS deployment circuit breaker: tasks failed to start.";
    assert_eq!(plane.rollout(), ("FAILED".to_owned(), reason.to_owned()));
    assert_eq!(plane.tasks_of(1).len(), 3);
    let status = list_deployments(&plane)[0].status.clone();
    assert_eq!(status, Some(ecs::ServiceDeploymentStatus::Stopped));
}

#[test]
fn without_a_circuit_breaker_starts_are_put_off_longer_and_longer() {
    let (plane, _) = Plane::new();
    plane.create(three());
    let mut starts = Vec::new();
    for second in 0..600 {
        for task in plane.tasks() {
            plane
                .harness
                .submit(task.task_arn.as_deref().unwrap(), "STOPPED", None);
            starts.push(second);
        }
        plane.advance(Duration::from_secs(1));
    }
    starts.dedup();
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.is_sorted() && gaps.len() < 12 && gaps.last() > Some(&100),
        "{gaps:?}"
    );
    let word = "(service web) is unable to consistently start tasks successfully.";
    assert!(plane.messages().iter().any(|message| message == word));
    // A new deployment begins anew.
    plane.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    assert_eq!(plane.tasks().len(), 3);
}

#[test]
fn what_finds_no_place_is_said_and_started_when_there_is_room() {
    let (plane, instance) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(20),
        ..three()
    });
    plane.nodes_work();
    assert_eq!(plane.tasks().len(), 16);
    let id = instance.rsplit('/').next().unwrap();
    let word = format!(
        "(service web) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance {id}) has insufficient"
    );
    assert!(
        plane.messages()[0].starts_with(&word),
        "{:?}",
        plane.messages()
    );
    let said = plane.messages().len();
    plane.advance(Duration::from_secs(600));
    assert_eq!(plane.messages().len(), said, "repeats are suppressed");
    plane.harness.register_instance(4096, 8192);
    plane.advance(Duration::from_secs(15));
    assert_eq!(plane.tasks().len(), 20);
}

#[test]
fn an_instance_that_drains_keeps_running_tasks_until_others_have_taken_over() {
    let (plane, instance) = Plane::new();
    plane.create(three());
    plane.converge();
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(4),
        ..change()
    });
    let other = plane.harness.register_instance(4096, 8192);
    let input = ecs::UpdateContainerInstancesStateRequest {
        container_instances: vec![instance.clone()],
        status: ecs::ContainerInstanceStatus::Draining,
        ..Default::default()
    };
    done(
        plane
            .harness
            .service
            .update_container_instances_state(&plane.harness.ctx(), input),
    )
    .unwrap();
    plane.settle();
    // The one that was PENDING went at once.
    let on = |arn: &str| {
        let mut tasks = plane.tasks();
        tasks.retain(|task| task.container_instance_arn.as_deref() == Some(arn));
        tasks.len()
    };
    assert_eq!((on(&instance), on(&other)), (3, 4));
    plane.nodes_work();
    assert_eq!(on(&instance), 3);
    plane.converge();
    assert_eq!((on(&instance), on(&other)), (0, 4));
}

#[test]
fn the_newest_update_wins_over_a_roll_that_is_under_way() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    for revision in ["web:2", "web:3"] {
        plane.harness.register(web()).unwrap();
        plane.update(ecs::UpdateServiceRequest {
            task_definition: Some(revision.to_owned()),
            ..change()
        });
        assert!(plane.tasks_of(1).len() >= 3);
    }
    plane.converge();
    assert_eq!(plane.tasks_of(3).len(), 3);
    assert_eq!(plane.tasks().len(), 3);
    let overtaken = list_deployments(&plane)[1].clone();
    assert_eq!(
        overtaken.status,
        Some(ecs::ServiceDeploymentStatus::Stopped)
    );
}

#[test]
fn a_service_deployment_that_is_stopped_is_rolled_back() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    plane.harness.register(web()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    plane.nodes_work();
    let arn = list_deployments(&plane)[0]
        .service_deployment_arn
        .clone()
        .unwrap();
    let stop = |arn: &str| {
        let input = ecs::StopServiceDeploymentRequest {
            service_deployment_arn: arn.to_owned(),
            ..Default::default()
        };
        done(
            plane
                .harness
                .service
                .stop_service_deployment(&plane.harness.ctx(), input),
        )
    };
    stop(&arn).unwrap();
    let status = describe_deployment(&plane, &arn).status.unwrap();
    assert_eq!(status, ecs::ServiceDeploymentStatus::RollbackRequested);
    plane.settle();
    plane.converge();
    assert_eq!((plane.tasks_of(1).len(), plane.tasks().len()), (3, 3));
    let status = describe_deployment(&plane, &arn).status.unwrap();
    assert_eq!(status, ecs::ServiceDeploymentStatus::RollbackSuccessful);
    assert_eq!(refusal(stop(&arn)).0, "ConflictException");
}

#[test]
fn a_service_is_deleted_drains_and_is_forgotten() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    let (code, message) = refusal(plane.delete(false));
    assert_eq!(code, "InvalidParameterException");
    assert_eq!(
        message,
        "The service cannot be stopped while it is scaled above 0."
    );
    let input = ecs::DeleteClusterRequest {
        cluster: "default".to_owned(),
    };
    let refused = done(
        plane
            .harness
            .service
            .delete_cluster(&plane.harness.ctx(), input),
    );
    assert!(refused.is_err());
    assert_eq!(
        plane
            .delete(true)
            .unwrap()
            .service
            .unwrap()
            .status
            .as_deref(),
        Some("DRAINING")
    );
    plane.settle();
    let again = done(
        plane
            .harness
            .service
            .create_service(&plane.harness.ctx(), three()),
    );
    assert_eq!(
        refusal(again).1,
        "Unable to Start a service that is still Draining."
    );
    let reason = plane.all_tasks()[0].stopped_reason.clone().unwrap();
    assert!(reason.starts_with("Scaling activity initiated by (deployment ecs-svc/"));
    plane.nodes_work();
    assert_eq!(plane.service().status.as_deref(), Some("INACTIVE"));
    // Its name is free, and its successor is another service.
    plane.create(three());
    plane.nodes_work();
    assert_eq!(plane.service().running_count, Some(3));
    plane.delete(true).unwrap();
    plane.settle();
    plane.nodes_work();
    plane.advance(INACTIVE_SERVICE_RETENTION);
    assert_eq!(plane.described(), None);
    let left = plane.harness.store.snapshot();
    let left = left.list_everywhere::<gantry_ecs::tables::ServiceDeploymentRow>();
    assert!(left.is_empty());
}

#[test]
fn the_same_request_again_is_the_same_service_and_another_is_refused() {
    let (plane, _) = Plane::new();
    let made = plane.create(three()).created_at;
    assert_eq!(plane.create(three()).created_at, made);
    let ask = |input| {
        done(
            plane
                .harness
                .service
                .create_service(&plane.harness.ctx(), input),
        )
    };
    let other = ask(ecs::CreateServiceRequest {
        desired_count: Some(5),
        ..three()
    });
    let not_idempotent = "Creation of service was not idempotent.";
    assert_eq!(refusal(other).1, not_idempotent);
    let with_token = |name: &str| ecs::CreateServiceRequest {
        service_name: name.to_owned(),
        client_token: Some("t".to_owned()),
        ..three()
    };
    ask(with_token("api")).unwrap();
    ask(with_token("api")).unwrap();
    assert_eq!(refusal(ask(with_token("other"))).1, not_idempotent);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let (plane, _) = Plane::new();
    let ask = |input| {
        let answer = done(
            plane
                .harness
                .service
                .create_service(&plane.harness.ctx(), input),
        );
        refusal(answer).1
    };
    let configured = |configuration| ecs::CreateServiceRequest {
        deployment_configuration: Some(configuration),
        ..three()
    };
    let balanced = ask(ecs::CreateServiceRequest {
        load_balancers: Some(vec![Default::default()]),
        ..three()
    });
    assert_eq!(
        balanced,
        "loadBalancers of a service is not built in Gantry yet."
    );
    let canary = ask(configured(ecs::DeploymentConfiguration {
        strategy: Some(ecs::DeploymentStrategy::Canary),
        ..Default::default()
    }));
    assert_eq!(
        canary,
        "Deployment strategy CANARY is not built in Gantry yet."
    );
    let alarmed = ask(configured(ecs::DeploymentConfiguration {
        alarms: Some(ecs::DeploymentAlarms {
            enable: true,
            ..Default::default()
        }),
        ..Default::default()
    }));
    assert!(
        alarmed.starts_with("alarms of a deploymentConfiguration"),
        "{alarmed}"
    );
    let external = ask(ecs::CreateServiceRequest {
        deployment_controller: Some(ecs::DeploymentController {
            r#type: ecs::DeploymentControllerType::External,
        }),
        ..three()
    });
    assert_eq!(
        external,
        "Deployment controller EXTERNAL is not built in Gantry yet."
    );
    let blocked = ask(configured(within(100, 100).unwrap()));
    assert_eq!(
        blocked,
        "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."
    );
    assert_eq!(
        ask(ecs::CreateServiceRequest {
            task_definition: Some("nothing".to_owned()),
            ..three()
        }),
        "TaskDefinition not found."
    );
}

pub fn list_deployments(plane: &Plane) -> Vec<ecs::ServiceDeploymentBrief> {
    let input = ecs::ListServiceDeploymentsRequest {
        service: "web".to_owned(),
        ..Default::default()
    };
    let answer = done(
        plane
            .harness
            .service
            .list_service_deployments(&plane.harness.ctx(), input),
    );
    answer.unwrap().service_deployments.unwrap()
}

pub fn describe_deployment(plane: &Plane, arn: &str) -> ecs::ServiceDeployment {
    let input = ecs::DescribeServiceDeploymentsRequest {
        service_deployment_arns: vec![arn.to_owned()],
    };
    let answer = done(
        plane
            .harness
            .service
            .describe_service_deployments(&plane.harness.ctx(), input),
    );
    answer.unwrap().service_deployments.unwrap().remove(0)
}

#[test]
fn a_protected_task_is_left_alone_until_its_protection_ends() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    let task = plane.tasks()[0].task_arn.clone().unwrap();
    let protect = |tasks: Vec<String>, minutes| {
        let input = ecs::UpdateTaskProtectionRequest {
            cluster: "default".to_owned(),
            tasks,
            protection_enabled: true,
            expires_in_minutes: minutes,
        };
        done(
            plane
                .harness
                .service
                .update_task_protection(&plane.harness.ctx(), input),
        )
    };
    let alone = plane.harness.run_one("web");
    let answer = protect(vec![task.clone(), alone], None).unwrap();
    let failures = answer.failures.unwrap();
    assert_eq!(failures[0].reason.as_deref(), Some("TASK_NOT_VALID"));
    let two_hours = Duration::from_secs(2 * 60 * 60);
    let shown = answer.protected_tasks.unwrap().remove(0);
    assert_eq!(
        shown.expiration_date,
        Some(plane.harness.env.now() + two_hours)
    );
    for minutes in [0, 2881] {
        let refused = protect(vec![task.clone()], Some(minutes));
        assert_eq!(refusal(refused).0, "InvalidParameterException");
    }
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(0),
        ..change()
    });
    let left = plane.tasks();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].task_arn.as_ref(), Some(&task));
    plane.advance(two_hours);
    assert_eq!(plane.tasks().len(), 0);
}
