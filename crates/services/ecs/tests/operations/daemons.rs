//! Services of daemons, with the controller stepped by hand: one task on each container instance.

use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};

use crate::harness::{Harness, attribute, done, refusal, web};
use crate::services::{Plane, change, three, with_breaker, within};

fn daemon() -> ecs::CreateServiceRequest {
    ecs::CreateServiceRequest {
        scheduling_strategy: Some(ecs::SchedulingStrategy::Daemon),
        desired_count: None,
        ..three()
    }
}

/// A cluster of this many equal instances.
fn plane(instances: usize) -> (Plane, Vec<String>) {
    let (plane, first) = Plane::new();
    let mut all = vec![first];
    while all.len() < instances {
        all.push(plane.harness.register_instance(4096, 8192));
    }
    (plane, all)
}

/// Where its tasks are, each instance as often as there is one.
fn places(plane: &Plane) -> Vec<String> {
    let mut places: Vec<String> = plane
        .tasks()
        .into_iter()
        .map(|task| task.container_instance_arn.unwrap())
        .collect();
    places.sort();
    places
}

fn sorted(instances: &[&String]) -> Vec<String> {
    let mut all: Vec<String> = instances.iter().map(|arn| (*arn).clone()).collect();
    all.sort();
    all
}

fn desired(plane: &Plane) -> i32 {
    plane.service().desired_count.unwrap()
}

#[test]
fn one_task_runs_on_each_instance_and_a_new_one_gets_its_own() {
    let (plane, all) = plane(2);
    let made = plane.create(daemon());
    assert_eq!(made.desired_count, Some(2));
    assert_eq!(
        made.scheduling_strategy,
        Some(ecs::SchedulingStrategy::Daemon)
    );
    let configuration = made.deployment_configuration.unwrap();
    assert_eq!(
        (
            configuration.minimum_healthy_percent,
            configuration.maximum_percent
        ),
        (Some(0), Some(100))
    );
    plane.converge();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    assert_eq!(plane.rollout().0, "COMPLETED");
    let third = plane.harness.register_instance(4096, 8192);
    plane.settle();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1], &third]));
    assert_eq!(desired(&plane), 3);
    // A task that ends is followed by another in the same place.
    plane.converge();
    let gone = plane.tasks()[0].clone();
    plane
        .harness
        .submit(gone.task_arn.as_deref().unwrap(), "STOPPED", Some(1));
    plane.settle();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1], &third]));
    plane.converge();
    assert_eq!(plane.service().running_count, Some(3));
}

#[test]
fn constraints_say_where_and_are_heeded_when_they_change() {
    let (plane, all) = plane(2);
    let with_disk = plane
        .harness
        .register_with(4096, 8192, vec![attribute("disk", Some("ssd"))]);
    plane.harness.connect(&with_disk, true);
    let on_ssd = |expression: &str| {
        Some(vec![ecs::PlacementConstraint {
            r#type: Some(ecs::PlacementConstraintType::MemberOf),
            expression: Some(expression.to_owned()),
        }])
    };
    plane.create(ecs::CreateServiceRequest {
        placement_constraints: on_ssd("attribute:disk == ssd"),
        ..daemon()
    });
    plane.converge();
    assert_eq!(
        (desired(&plane), places(&plane)),
        (1, vec![with_disk.clone()])
    );
    // Its own tasks are none that a constraint looks at: with them, it would drive itself away.
    plane.update(ecs::UpdateServiceRequest {
        placement_constraints: on_ssd("runningTasksCount < 1"),
        ..change()
    });
    plane.converge();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1], &with_disk]));
    plane.update(ecs::UpdateServiceRequest {
        placement_constraints: on_ssd("attribute:disk != ssd"),
        ..change()
    });
    plane.converge();
    assert_eq!(
        (desired(&plane), places(&plane)),
        (2, sorted(&[&all[0], &all[1]]))
    );
    assert_eq!(plane.service().deployments.unwrap().len(), 1);
}

#[test]
fn what_a_daemon_cannot_have_is_refused_in_the_words_of_aws() {
    let (plane, _) = plane(1);
    let ask = |input| {
        let service = &plane.harness.service;
        let refused = done(service.create_service(&plane.harness.ctx(), input));
        refusal(refused).1
    };
    let strategy = Some(vec![ecs::PlacementStrategy {
        r#type: Some(ecs::PlacementStrategyType::Random),
        field: None,
    }]);
    let counted = "The daemon scheduling strategy does not support a desired count for services. Remove the desired count value and try again.";
    let placed = "The daemon scheduling strategy does not support placement strategies. Remove the placement strategy and try again.";
    let beyond = "The daemon scheduling strategy does not support values above 100 for maximumPercent on a deployment configuration. Change the maximumPercent value to 100, and try again.";
    assert_eq!(
        ask(ecs::CreateServiceRequest {
            desired_count: Some(2),
            ..daemon()
        }),
        counted
    );
    assert_eq!(
        ask(ecs::CreateServiceRequest {
            placement_strategy: strategy.clone(),
            ..daemon()
        }),
        placed
    );
    assert_eq!(
        ask(ecs::CreateServiceRequest {
            deployment_configuration: within(50, 150),
            ..daemon()
        }),
        beyond
    );
    let blocks = ask(ecs::CreateServiceRequest {
        deployment_configuration: within(100, 100),
        ..daemon()
    });
    assert!(blocks.contains("will block deployments"), "{blocks}");
    let rebalanced = ask(ecs::CreateServiceRequest {
        availability_zone_rebalancing: Some(ecs::AvailabilityZoneRebalancing::Enabled),
        ..daemon()
    });
    assert!(
        rebalanced.starts_with("AvailabilityZoneRebalancing does not support"),
        "{rebalanced}"
    );
    plane.create(daemon());
    let change_to = |input| {
        let service = &plane.harness.service;
        refusal(done(service.update_service(&plane.harness.ctx(), input))).1
    };
    assert_eq!(
        change_to(ecs::UpdateServiceRequest {
            desired_count: Some(2),
            ..change()
        }),
        counted
    );
    assert_eq!(
        change_to(ecs::UpdateServiceRequest {
            placement_strategy: strategy,
            ..change()
        }),
        placed
    );
    assert_eq!(
        change_to(ecs::UpdateServiceRequest {
            deployment_configuration: within(50, 200),
            ..change()
        }),
        beyond
    );
}

#[test]
fn a_roll_goes_from_instance_to_instance_and_never_has_two_on_one() {
    for (minimum, least) in [(0, 0), (50, 2), (75, 3)] {
        let (plane, all) = plane(4);
        plane.create(ecs::CreateServiceRequest {
            deployment_configuration: within(minimum, 100),
            ..daemon()
        });
        plane.converge();
        plane.harness.register(web()).unwrap();
        plane.update(ecs::UpdateServiceRequest {
            task_definition: Some("web:2".to_owned()),
            ..change()
        });
        for _ in 0..100 {
            assert!(
                plane.service().running_count.unwrap() >= least,
                "{:?}",
                plane.service()
            );
            // Also those that are only just stopping are there.
            for arn in &all {
                let there = plane.all_tasks().into_iter().filter(|task| {
                    task.container_instance_arn.as_ref() == Some(arn)
                        && task.last_status.as_deref() != Some("STOPPED")
                });
                assert!(there.count() <= 1, "two on {arn}");
            }
            plane.nodes_work();
            plane.advance(Duration::from_secs(9));
        }
        assert_eq!(plane.tasks_of(2).len(), 4);
        assert_eq!(plane.service().deployments.unwrap().len(), 1);
        assert_eq!(plane.rollout().0, "COMPLETED");
    }
}

#[test]
fn a_broken_revision_is_rolled_back() {
    let (plane, _) = plane(4);
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: with_breaker(true),
        ..daemon()
    });
    plane.converge();
    plane.harness.register(web()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    let mut failed = 0;
    for _ in 0..60 {
        for task in plane.all_tasks() {
            let arn = task.task_arn.as_deref().unwrap();
            let is_second = task.task_definition_arn.as_ref().unwrap().ends_with(":2");
            match (task.desired_status.as_deref(), task.last_status.as_deref()) {
                (Some("RUNNING"), Some("PENDING")) if is_second => {
                    plane.harness.submit(arn, "STOPPED", None);
                    failed += 1;
                }
                (Some("STOPPED"), Some(last)) if last != "STOPPED" => {
                    plane.harness.submit(arn, "STOPPED", Some(0));
                }
                (Some("RUNNING"), Some("PENDING")) => plane.harness.submit(arn, "RUNNING", None),
                _ => {}
            }
        }
        plane.settle();
        plane.advance(Duration::from_secs(60));
    }
    // Half of four are two, and three is the least threshold.
    assert!((3..=4).contains(&failed), "{failed}");
    assert_eq!(plane.tasks_of(1).len(), 4);
    assert_eq!(plane.rollout().0, "COMPLETED");
}

#[test]
fn on_a_draining_instance_the_daemon_goes_last_and_comes_back_with_it() {
    let (plane, all) = plane(2);
    plane.create(daemon());
    plane.converge();
    // Somebody else's service has a task on each as well.
    let other = ecs::CreateServiceRequest {
        service_name: "shop".to_owned(),
        desired_count: Some(2),
        ..three()
    };
    done(
        plane
            .harness
            .service
            .create_service(&plane.harness.ctx(), other),
    )
    .unwrap();
    plane.settle();
    plane.converge();
    plane
        .harness
        .set_state(&all[0], ecs::ContainerInstanceStatus::Draining);
    plane.settle();
    assert_eq!(desired(&plane), 1);
    // The other's replacement is not healthy yet, so its task is still there, and so is the daemon.
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    plane.nodes_work();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    plane.advance(Duration::from_secs(40));
    let stopping = plane.all_tasks().into_iter().find(|task| {
        task.group.as_deref() == Some("service:shop")
            && task.desired_status.as_deref() == Some("STOPPED")
    });
    assert!(stopping.is_some(), "the other's task stops first");
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    plane.nodes_work();
    assert_eq!(places(&plane), vec![all[1].clone()]);
    plane.converge();
    assert_eq!(plane.service().running_count, Some(1));
    plane
        .harness
        .set_state(&all[0], ecs::ContainerInstanceStatus::Active);
    plane.converge();
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    assert_eq!(plane.service().running_count, Some(2));
}

#[test]
fn instances_that_go_and_come_take_their_daemon_with_them() {
    let (plane, all) = plane(2);
    plane.create(daemon());
    plane.converge();
    // A task whose agent is away runs on, and still is the one of its instance.
    plane.harness.connect(&all[0], false);
    plane.settle();
    assert_eq!(
        (desired(&plane), plane.service().running_count),
        (2, Some(2))
    );
    // It is not rolled before somebody is there to start its successor.
    plane.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    let before = places(&plane);
    assert!(before.contains(&all[0]), "{before:?}");
    plane.converge();
    assert_eq!(plane.rollout().0, "IN_PROGRESS");
    plane.harness.connect(&all[0], true);
    plane.converge();
    assert_eq!(plane.rollout().0, "COMPLETED");
    assert_eq!(places(&plane), sorted(&[&all[0], &all[1]]));
    // One that is deregistered counts no more, and what comes instead is another.
    plane.harness.deregister(&all[0]);
    plane.settle();
    assert_eq!((desired(&plane), places(&plane)), (1, vec![all[1].clone()]));
    // Registered, and not connected: it is counted, and gets its task when it is.
    let later = plane.harness.register_unconnected(4096, 8192);
    plane.settle();
    assert_eq!((desired(&plane), places(&plane)), (2, vec![all[1].clone()]));
    let word = "has the agent disconnected.";
    assert!(
        plane.messages()[0].ends_with(word),
        "{:?}",
        plane.messages()
    );
    plane.harness.connect(&later, true);
    plane.settle();
    assert_eq!(places(&plane), sorted(&[&all[1], &later]));
}

#[test]
fn a_full_instance_is_told_of_and_holds_up_no_other() {
    let (plane, all) = plane(1);
    let small = plane.harness.register_instance(128, 8192);
    plane.create(daemon());
    assert_eq!((desired(&plane), places(&plane)), (2, vec![all[0].clone()]));
    let id = small.rsplit('/').next().unwrap();
    let word = format!("(container-instance {id}) has insufficient CPU units available.");
    assert!(
        plane.messages().iter().any(|it| it.ends_with(&word)),
        "{:?}",
        plane.messages()
    );
    let third = plane.harness.register_instance(4096, 8192);
    plane.settle();
    assert_eq!(places(&plane), sorted(&[&all[0], &third]));
    // When there is room, it gets its own.
    let roomy = Harness::register_instance(&plane.harness, 4096, 8192);
    plane.harness.deregister(&small);
    plane.converge();
    assert_eq!(places(&plane), sorted(&[&all[0], &third, &roomy]));
    assert_eq!(plane.rollout().0, "COMPLETED");
}

#[test]
fn a_daemon_is_deleted_without_being_scaled_down() {
    let (plane, _) = plane(2);
    plane.create(daemon());
    plane.converge();
    assert_eq!(
        plane
            .delete(false)
            .unwrap()
            .service
            .unwrap()
            .status
            .as_deref(),
        Some("DRAINING")
    );
    plane.settle();
    plane.nodes_work();
    assert_eq!(plane.service().status.as_deref(), Some("INACTIVE"));
}
