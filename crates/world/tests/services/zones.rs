//! Availability zone rebalancing.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

fn enabled() -> Option<ecs::AvailabilityZoneRebalancing> {
    Some(ecs::AvailabilityZoneRebalancing::Enabled)
}

fn disabled() -> Option<ecs::AvailabilityZoneRebalancing> {
    Some(ecs::AvailabilityZoneRebalancing::Disabled)
}

/// Four tasks in zone-a, and then a machine in zone-b with room for so many.
fn uneven(percents: (i32, i32), room: i64) -> Stage {
    let mut stage = Stage::new(&[10]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        availability_zone_rebalancing: None,
        deployment_configuration: Some(within(percents.0, percents.1)),
        ..web(4, &good)
    });
    steady(&mut stage);
    assert_eq!(zones(&stage), [4, 0]);
    stage.add_machine(room, "zone-b");
    stage
}

#[test]
fn it_is_enabled_for_a_service_that_does_not_say_where_it_can_be() {
    let mut stage = Stage::new(&[10]);
    let good = stage.define(Behaviour::Lives, false);
    let bare = || ecs::CreateServiceRequest {
        availability_zone_rebalancing: None,
        ..web(0, &good)
    };
    let pack = strategy(ecs::PlacementStrategyType::Binpack, "memory");
    let zone = strategy(
        ecs::PlacementStrategyType::Spread,
        "attribute:ecs.availability-zone",
    );
    let in_a = member_of("attribute:ecs.availability-zone == zone-a");
    let asked = [
        (bare(), enabled()),
        (
            ecs::CreateServiceRequest {
                placement_strategy: Some(vec![zone]),
                ..bare()
            },
            enabled(),
        ),
        (
            ecs::CreateServiceRequest {
                placement_strategy: Some(vec![pack]),
                ..bare()
            },
            disabled(),
        ),
        (
            ecs::CreateServiceRequest {
                placement_constraints: Some(vec![in_a]),
                ..bare()
            },
            disabled(),
        ),
        (
            ecs::CreateServiceRequest {
                deployment_configuration: Some(within(0, 100)),
                ..bare()
            },
            disabled(),
        ),
        (
            ecs::CreateServiceRequest {
                scheduling_strategy: Some(ecs::SchedulingStrategy::Daemon),
                desired_count: None,
                ..bare()
            },
            disabled(),
        ),
    ];
    for (number, (mut request, expected)) in asked.into_iter().enumerate() {
        request.service_name = format!("web-{number}");
        let asked_for = ecs::CreateServiceRequest {
            service_name: format!("asked-{number}"),
            availability_zone_rebalancing: enabled(),
            ..request.clone()
        };
        let made = stage.create(request);
        assert_eq!(made.availability_zone_rebalancing, expected, "{number}");
        // To ask for it where it cannot be is refused.
        let is_made = stage.try_create(asked_for).is_ok();
        assert_eq!(is_made, expected == enabled(), "{number}");
    }
}

#[test]
fn an_update_that_would_rule_it_out_is_refused_while_it_is_on() {
    let mut stage = uneven((100, 200), 10);
    let ruled_out = || ecs::UpdateServiceRequest {
        deployment_configuration: Some(within(0, 100)),
        ..change()
    };
    let refused = refusal(stage.try_update(ruled_out()));
    assert!(refused.contains("maximumPercent <= 100"), "{refused}");
    stage.update(ecs::UpdateServiceRequest {
        availability_zone_rebalancing: disabled(),
        ..ruled_out()
    });
}

#[test]
fn a_steady_service_starts_one_in_the_poorer_zone_before_it_stops_one_in_the_richer() {
    let mut stage = uneven((100, 200), 10);
    let before = arns(&stage.tasks("web"));
    stage.until(600, "balance", |stage| {
        let tasks = stage.tasks("web");
        assert!(up(stage) >= 4 && tasks.len() <= 5, "{tasks:?}");
        zones(stage) == [2, 2]
    });
    stage.until(120, "a word", |stage| {
        stage.messages()[0]
            .ends_with("is AZ balanced with 2 tasks in zone-a and 2 tasks in zone-b.")
    });
    let kept = arns(&stage.tasks("web"));
    assert_eq!(kept.iter().filter(|arn| before.contains(arn)).count(), 2);
    let messages = stage.messages();
    for said in [
        "is not AZ balanced with 4 tasks in zone-a and 0 in zone-b. AZ Rebalancing in progress.",
        "has started 1 tasks in zone-b to AZ Rebalance:",
        "has stopped 1 running tasks in zone-a due to AZ rebalancing:",
    ] {
        assert!(messages.iter().any(|it| it.contains(said)), "{messages:#?}");
    }
    // And that is that.
    let writes = stage.writes();
    stage.run(3_600);
    assert_eq!(stage.writes(), writes);
}

#[test]
fn a_service_that_is_not_steady_is_not_rebalanced() {
    let mut stage = Stage::new(&[4]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        availability_zone_rebalancing: enabled(),
        ..web(6, &good)
    });
    stage.run(120);
    stage.add_machine(1, "zone-b");
    stage.run(300);
    assert_eq!(zones(&stage), [4, 1]);
    stage.add_machine(10, "zone-b");
    stage.run(300);
    assert_eq!(zones(&stage), [3, 3]);
}

#[test]
fn protected_tasks_are_not_moved() {
    let mut stage = uneven((100, 200), 10);
    let tasks = stage.tasks("web");
    stage.protect(&tasks, Some(20));
    stage.run(15 * 60);
    let now = arns(&stage.tasks("web"));
    assert!(arns(&tasks).iter().all(|arn| now.contains(arn)));
    stage.run(20 * 60);
    assert_eq!(zones(&stage), [2, 2]);
}

#[test]
fn nothing_is_moved_when_the_maximum_has_no_room_for_one_more() {
    let mut stage = uneven((100, 120), 10);
    stage.run(1_200);
    assert_eq!(zones(&stage), [4, 0]);
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(within(100, 125)),
        ..change()
    });
    stage.run(600);
    assert_eq!(zones(&stage), [2, 2]);
}

#[test]
fn a_move_that_came_to_nothing_is_tried_again() {
    // Where there is an instance, and no room.
    let mut stage = uneven((100, 200), 0);
    let no_room = |stage: &Stage| {
        let all = stage.messages();
        let said = all.iter();
        said.filter(|it| it.contains("is unable to place a task in zone-b"))
            .count()
    };
    stage.until(60, "a word", |stage| no_room(stage) == 1);
    stage.run(20 * 60);
    assert_eq!(zones(&stage), [4, 0]);
    stage.add_machine(10, "zone-b");
    stage.run(40 * 60);
    assert_eq!(zones(&stage), [2, 2]);
}

#[test]
fn a_move_that_never_can_be_is_tried_ever_less_and_balance_is_not_told_while_an_agent_is_away() {
    let mut stage = uneven((100, 200), 0);
    stage.run(3 * 3600);
    let before = stage.writes();
    stage.run(3600);
    let writes = stage.writes() - before;
    assert!(writes <= 6, "{writes} writes in an hour");
    let told = stage.messages();
    assert!(
        !told.iter().any(|it| it.contains("is AZ balanced")),
        "{told:#?}"
    );
}
