//! Availability zone rebalancing, the scale-in under a binpack, placement that changes and capacity that
//! comes and goes, with the service controller stepped by hand.

use std::time::Duration;

use gantry_api::ecs::{self, AvailabilityZoneRebalancing as Rebalancing, Ecs as _};

use crate::harness::{done, refusal, web};
use crate::services::{HEALTHY_AFTER, Plane, change, three, within};

fn strategy(kind: ecs::PlacementStrategyType, field: &str) -> ecs::PlacementStrategy {
    ecs::PlacementStrategy {
        r#type: Some(kind),
        field: Some(field.to_owned()),
    }
}

fn spread_over_zones() -> ecs::PlacementStrategy {
    strategy(
        ecs::PlacementStrategyType::Spread,
        "attribute:ecs.availability-zone",
    )
}

/// How many tasks are meant to run in each of the zones.
fn in_zones<const N: usize>(plane: &Plane, zones: [&str; N]) -> [usize; N] {
    let tasks = plane.tasks();
    zones.map(|zone| {
        let there = tasks
            .iter()
            .filter(|task| task.availability_zone.as_deref() == Some(zone));
        there.count()
    })
}

fn on(plane: &Plane, instance: &str) -> usize {
    let tasks = plane.tasks();
    let there = |task: &&ecs::Task| task.container_instance_arn.as_deref() == Some(instance);
    tasks.iter().filter(there).count()
}

/// Four tasks in zone a, all healthy, and nothing in zone b yet.
fn lopsided(input: ecs::CreateServiceRequest) -> Plane {
    let (plane, home) = Plane::new();
    plane.harness.deregister(&home);
    plane.harness.register_in_zone("a", 4096, 8192);
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(4),
        ..input
    });
    plane.converge();
    plane
}

/// Steps until nothing changes for a long time. Answers how often tasks were started.
fn rest(plane: &Plane, least: i32, most: i32) -> usize {
    let known = |plane: &Plane| plane.all_tasks().len();
    let before = known(plane);
    for _ in 0..120 {
        let service = plane.service();
        let running = service.running_count.unwrap();
        let all = running + service.pending_count.unwrap();
        assert!(running >= least && all <= most, "{service:?}");
        plane.nodes_work();
        plane.advance(Duration::from_secs(13));
    }
    known(plane) - before
}

#[test]
fn a_steady_service_is_brought_into_balance_one_task_at_a_time() {
    let plane = lopsided(three());
    assert_eq!(
        plane.service().availability_zone_rebalancing,
        Some(Rebalancing::Enabled)
    );
    assert_eq!(in_zones(&plane, ["a", "b"]), [4, 0]);
    let said = plane.messages().len();
    plane.harness.register_in_zone("b", 4096, 8192);
    plane.settle();
    assert_eq!(
        in_zones(&plane, ["a", "b"]),
        [4, 1],
        "the start comes first, and alone"
    );
    assert_eq!(rest(&plane, 4, 5), 1, "two are moved, and no more");
    assert_eq!(in_zones(&plane, ["a", "b"]), [2, 2]);
    assert_eq!(plane.service().running_count, Some(4));
    let mut messages = plane.messages();
    messages.truncate(messages.len() - said);
    messages.reverse();
    let expected = [
        "(service web) is not AZ balanced with 4 tasks in a and 0 in b. AZ Rebalancing in progress.",
        "(service web) has started 1 tasks in b to AZ Rebalance: (task ",
        "(service web) has stopped 1 running tasks in a due to AZ rebalancing: (task ",
        "(service web) has started 1 tasks in b to AZ Rebalance: (task ",
        "(service web) has stopped 1 running tasks in a due to AZ rebalancing: (task ",
        "(service web) is AZ balanced with 2 tasks in a and 2 tasks in b.",
    ];
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
    for (message, expected) in messages.iter().zip(expected) {
        assert!(message.starts_with(expected), "{messages:#?}");
    }
    // A third zone takes one of the four, which leaves no two apart by two.
    plane.harness.register_in_zone("c", 4096, 8192);
    rest(&plane, 4, 5);
    assert_eq!(in_zones(&plane, ["a", "b", "c"]).iter().sum::<usize>(), 4);
    assert_eq!(in_zones(&plane, ["c"]), [1]);
    assert_eq!(rest(&plane, 4, 4), 0, "nothing flaps");
}

#[test]
fn who_is_rebalanced_is_decided_by_the_rules_of_aws() {
    let (plane, _) = Plane::new();
    let binpack = strategy(ecs::PlacementStrategyType::Binpack, "cpu");
    let in_a = ecs::PlacementConstraint {
        r#type: Some(ecs::PlacementConstraintType::MemberOf),
        expression: Some("attribute:ecs.availability-zone == a".to_owned()),
    };
    let cases = [
        ("plain", three(), None),
        (
            "spread",
            ecs::CreateServiceRequest {
                placement_strategy: Some(vec![spread_over_zones(), binpack.clone()]),
                ..three()
            },
            None,
        ),
        (
            "narrow",
            ecs::CreateServiceRequest {
                deployment_configuration: within(50, 100),
                ..three()
            },
            Some("maximumPercent <= 100"),
        ),
        (
            "packed",
            ecs::CreateServiceRequest {
                placement_strategy: Some(vec![binpack.clone(), spread_over_zones()]),
                ..three()
            },
            Some("a first placement strategy"),
        ),
        (
            "zonal",
            ecs::CreateServiceRequest {
                placement_constraints: Some(vec![in_a]),
                ..three()
            },
            Some("a placement constraint"),
        ),
        (
            "external",
            ecs::CreateServiceRequest {
                launch_type: Some(ecs::LaunchType::External),
                ..three()
            },
            Some("the EXTERNAL launch type"),
        ),
    ];
    let service = &plane.harness.service;
    for (name, input, against) in cases {
        let input = ecs::CreateServiceRequest {
            service_name: name.to_owned(),
            ..input
        };
        let asked = ecs::CreateServiceRequest {
            service_name: format!("{name}-asked"),
            availability_zone_rebalancing: Some(Rebalancing::Enabled),
            ..input.clone()
        };
        let said = done(service.create_service(&plane.harness.ctx(), input)).unwrap();
        let said = said.service.unwrap().availability_zone_rebalancing;
        let asked = done(service.create_service(&plane.harness.ctx(), asked));
        match against {
            None => {
                assert_eq!(said, Some(Rebalancing::Enabled), "{name}");
                let asked = asked.unwrap().service.unwrap();
                assert_eq!(
                    asked.availability_zone_rebalancing,
                    Some(Rebalancing::Enabled)
                );
            }
            Some(why) => {
                assert_eq!(said, Some(Rebalancing::Disabled), "{name}");
                let refused = refusal(asked).1;
                let words = format!("AvailabilityZoneRebalancing does not support {why}");
                assert!(refused.starts_with(&words), "{refused}");
            }
        }
    }
    // An update that says nothing keeps what is there, and one that rules it out is refused.
    let update = |input: ecs::UpdateServiceRequest| {
        let input = ecs::UpdateServiceRequest {
            service: "plain".to_owned(),
            ..input
        };
        done(service.update_service(&plane.harness.ctx(), input))
    };
    let narrow = ecs::UpdateServiceRequest {
        deployment_configuration: within(50, 100),
        ..change()
    };
    let refused = refusal(update(narrow.clone())).1;
    assert_eq!(
        refused,
        "AvailabilityZoneRebalancing does not support maximumPercent <= 100"
    );
    let off = ecs::UpdateServiceRequest {
        availability_zone_rebalancing: Some(Rebalancing::Disabled),
        ..narrow
    };
    let off = update(off).unwrap().service.unwrap();
    assert_eq!(
        off.availability_zone_rebalancing,
        Some(Rebalancing::Disabled)
    );
    assert_eq!(off.deployments.unwrap().len(), 1);
    let wide = ecs::UpdateServiceRequest {
        deployment_configuration: within(50, 200),
        ..change()
    };
    let kept = update(wide).unwrap().service.unwrap();
    assert_eq!(
        kept.availability_zone_rebalancing,
        Some(Rebalancing::Disabled)
    );
}

#[test]
fn bounds_protection_and_a_user_who_does_not_want_it_keep_tasks_where_they_are() {
    // A maximum of 4.4 tasks has no room for a fifth.
    let narrow = lopsided(ecs::CreateServiceRequest {
        deployment_configuration: within(100, 110),
        ..three()
    });
    let off = lopsided(ecs::CreateServiceRequest {
        availability_zone_rebalancing: Some(Rebalancing::Disabled),
        ..three()
    });
    let protected = lopsided(three());
    let tasks = protected
        .tasks()
        .into_iter()
        .map(|task| task.task_arn.unwrap())
        .collect();
    let input = ecs::UpdateTaskProtectionRequest {
        cluster: "default".to_owned(),
        tasks,
        protection_enabled: true,
        expires_in_minutes: Some(60),
    };
    done(
        protected
            .harness
            .service
            .update_task_protection(&protected.harness.ctx(), input),
    )
    .unwrap();
    for plane in [&narrow, &off, &protected] {
        plane.harness.register_in_zone("b", 4096, 8192);
        assert_eq!(rest(plane, 4, 4), 0);
        assert_eq!(in_zones(plane, ["a", "b"]), [4, 0]);
    }
    // It ends in time, and then they move.
    protected.advance(Duration::from_secs(60 * 60));
    rest(&protected, 4, 5);
    assert_eq!(in_zones(&protected, ["a", "b"]), [2, 2]);
    off.update(ecs::UpdateServiceRequest {
        availability_zone_rebalancing: Some(Rebalancing::Enabled),
        ..change()
    });
    rest(&off, 4, 5);
    assert_eq!(in_zones(&off, ["a", "b"]), [2, 2]);
}

#[test]
fn a_move_that_comes_to_nothing_costs_nothing_and_is_not_tried_again_at_once() {
    let plane = lopsided(three());
    // A zone without room.
    plane.harness.register_in_zone("b", 128, 128);
    plane.settle();
    let word = "(service web) is unable to place a task in b because no container instance met all of its requirements.";
    assert_eq!(plane.messages()[0], word);
    let said = plane.messages().len();
    plane.advance(Duration::from_secs(59));
    assert_eq!(plane.messages().len(), said);
    // Its successor stops before it runs: nobody left for it, and the next is tried later.
    let roomy = plane.harness.register_in_zone("b", 4096, 8192);
    plane.advance(Duration::from_secs(1));
    assert_eq!((on(&plane, &roomy), plane.tasks().len()), (1, 5));
    let newcomer = plane
        .tasks()
        .into_iter()
        .find(|task| task.last_status.as_deref() == Some("PENDING"));
    plane
        .harness
        .submit(&newcomer.unwrap().task_arn.unwrap(), "STOPPED", None);
    plane.settle();
    plane.advance(Duration::from_secs(30));
    assert_eq!(in_zones(&plane, ["a", "b"]), [4, 0]);
    assert_eq!(plane.service().running_count, Some(4));
    rest(&plane, 4, 5);
    assert_eq!(in_zones(&plane, ["a", "b"]), [2, 2]);
}

#[test]
fn whatever_else_happens_comes_before_a_move() {
    // A roll, while a task is being moved.
    let plane = lopsided(three());
    plane.harness.register_in_zone("b", 4096, 8192);
    plane.settle();
    plane.harness.register(web()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    rest(&plane, 4, 8);
    assert_eq!(plane.tasks_of(2).len(), 4);
    assert_eq!(in_zones(&plane, ["a", "b"]), [2, 2]);
    // A scale-in, while a task is being moved.
    let plane = lopsided(three());
    plane.harness.register_in_zone("b", 4096, 8192);
    plane.settle();
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(2),
        ..change()
    });
    rest(&plane, 2, 5);
    assert_eq!(in_zones(&plane, ["a", "b"]), [1, 1]);
    // The task that is to leave ends by itself: its successor is the one that is needed.
    let plane = lopsided(three());
    plane.harness.register_in_zone("b", 4096, 8192);
    plane.settle();
    plane.nodes_work();
    let ends = plane
        .tasks()
        .into_iter()
        .find(|it| it.availability_zone.as_deref() == Some("a"));
    plane
        .harness
        .submit(&ends.unwrap().task_arn.unwrap(), "STOPPED", Some(1));
    rest(&plane, 3, 5);
    assert_eq!(in_zones(&plane, ["a", "b"]), [2, 2]);
}

#[test]
fn under_a_binpack_a_scale_in_empties_the_instance_that_has_most_left() {
    let (plane, roomy) = Plane::new();
    let small = plane.harness.register_instance(1024, 8192);
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(7),
        placement_strategy: Some(vec![strategy(ecs::PlacementStrategyType::Binpack, "cpu")]),
        ..three()
    });
    plane.converge();
    assert_eq!(
        (on(&plane, &small), on(&plane, &roomy)),
        (4, 3),
        "packed where least was left"
    );
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(5),
        ..change()
    });
    plane.converge();
    assert_eq!((on(&plane, &small), on(&plane, &roomy)), (4, 1));
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(3),
        ..change()
    });
    plane.converge();
    assert_eq!((on(&plane, &small), on(&plane, &roomy)), (3, 0));
}

#[test]
fn placement_that_changes_holds_for_what_is_started_from_then_on() {
    let (plane, first) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(2),
        placement_strategy: Some(vec![strategy(
            ecs::PlacementStrategyType::Binpack,
            "memory",
        )]),
        ..three()
    });
    plane.converge();
    let other =
        plane
            .harness
            .register_with(4096, 8192, vec![crate::harness::attribute("new", None)]);
    plane.harness.connect(&other, true);
    let deployment = plane.service().deployments.unwrap().remove(0).id;
    let update = |input| {
        plane.update(input);
        plane.converge();
        (on(&plane, &first), on(&plane, &other))
    };
    let only_new = Some(vec![ecs::PlacementConstraint {
        r#type: Some(ecs::PlacementConstraintType::MemberOf),
        expression: Some("attribute:new exists".to_owned()),
    }]);
    let constrained = ecs::UpdateServiceRequest {
        placement_constraints: only_new,
        ..change()
    };
    assert_eq!(update(constrained), (2, 0), "what runs, runs on");
    assert_eq!(
        plane.service().deployments.unwrap().remove(0).id,
        deployment,
        "no deployment"
    );
    let scaled = ecs::UpdateServiceRequest {
        desired_count: Some(3),
        ..change()
    };
    assert_eq!(update(scaled), (2, 1));
    let forced = ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    };
    assert_eq!(update(forced), (0, 3));
    // An empty list removes them, and a strategy counts for the next start.
    let spread = ecs::UpdateServiceRequest {
        placement_constraints: Some(Vec::new()),
        placement_strategy: Some(vec![strategy(
            ecs::PlacementStrategyType::Spread,
            "instanceId",
        )]),
        ..change()
    };
    assert_eq!(update(spread), (0, 3));
    assert_eq!(plane.service().placement_constraints, Some(Vec::new()));
    let scaled = ecs::UpdateServiceRequest {
        desired_count: Some(5),
        ..change()
    };
    assert_eq!(update(scaled), (2, 3));
    let none = ecs::UpdateServiceRequest {
        placement_strategy: Some(vec![Default::default()]),
        ..change()
    };
    assert_eq!(update(none), (2, 3));
    assert_eq!(plane.service().placement_strategy, Some(Vec::new()));
}

#[test]
fn a_service_follows_its_instances_as_they_go_and_come() {
    let (plane, first) = Plane::new();
    let second = plane.harness.register_instance(4096, 8192);
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(4),
        ..three()
    });
    plane.converge();
    assert_eq!((on(&plane, &first), on(&plane, &second)), (2, 2));
    // An agent that is away: its tasks run on, and nothing new goes there.
    plane.harness.connect(&first, false);
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(6),
        ..change()
    });
    plane.converge();
    assert_eq!((on(&plane, &first), on(&plane, &second)), (2, 4));
    plane.harness.connect(&first, true);
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(8),
        ..change()
    });
    plane.converge();
    assert_eq!((on(&plane, &first), on(&plane, &second)), (4, 4));
    // One that is drained and comes back before all have left keeps those that are still there.
    plane
        .harness
        .set_state(&first, ecs::ContainerInstanceStatus::Draining);
    plane.settle();
    plane.nodes_work();
    plane
        .harness
        .set_state(&first, ecs::ContainerInstanceStatus::Active);
    plane.converge();
    assert_eq!(plane.service().running_count, Some(8));
    assert!(on(&plane, &first) >= 4, "{}", on(&plane, &first));
    // One that is deregistered by force loses its tasks, and they come up elsewhere as there is room.
    plane.harness.deregister(&second);
    plane.settle();
    assert_eq!(on(&plane, &second), 0);
    plane.converge();
    assert_eq!(on(&plane, &first), 8);
    assert_eq!(
        plane.service().deployments.unwrap()[0].failed_tasks,
        Some(0)
    );
    // None is left: it waits, and goes on with the first that comes.
    plane.harness.deregister(&first);
    plane.converge();
    assert_eq!(plane.tasks().len(), 0);
    let word = "(service web) was unable to place a task. Reason: No Container Instances were found in your cluster.";
    assert!(
        plane.messages().iter().any(|it| it == word),
        "{:?}",
        plane.messages()
    );
    let third = plane.harness.register_instance(4096, 8192);
    plane.advance(HEALTHY_AFTER);
    assert_eq!(on(&plane, &third), 8);
    plane.converge();
    assert_eq!(
        plane.messages()[0],
        "(service web) has reached a steady state."
    );
}
