//! One task on each container instance.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

fn daemon(definition: &str) -> ecs::CreateServiceRequest {
    ecs::CreateServiceRequest {
        desired_count: None,
        scheduling_strategy: Some(ecs::SchedulingStrategy::Daemon),
        availability_zone_rebalancing: None,
        ..web(0, definition)
    }
}

fn on_all(machines: &[i64], minimum: Option<i32>) -> Stage {
    let mut stage = Stage::new(machines);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: minimum.map(|minimum| within(minimum, 100)),
        ..daemon(&good)
    });
    steady(&mut stage);
    stage
}

fn there(stage: &Stage, machines: usize) -> Vec<usize> {
    (0..machines)
        .map(|machine| on(stage, machine).len())
        .collect()
}

#[test]
fn each_active_instance_that_meets_the_constraints_has_one_task() {
    let mut stage = Stage::new(&[10, 10, 10, 10]);
    for machine in [0, 1, 2] {
        stage.put_attribute(machine, "disk", "ssd");
    }
    stage.set_state(2, "DRAINING");
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        placement_constraints: Some(vec![member_of("attribute:disk == ssd")]),
        ..daemon(&good)
    });
    steady(&mut stage);
    assert_eq!(there(&stage, 4), [1, 1, 0, 0]);
    assert_eq!(stage.service().desired_count, Some(2));
}

#[test]
fn an_instance_that_registers_gets_its_own() {
    let mut stage = on_all(&[10, 10], None);
    let deployment = primary(&stage).id;
    stage.add_machine(10, "zone-a");
    stage.until(30, "a third", |stage| there(stage, 3) == [1, 1, 1]);
    steady(&mut stage);
    assert_eq!(primary(&stage).id, deployment);
}

#[test]
fn where_the_constraints_no_longer_hold_the_task_stops_without_a_deployment() {
    let mut stage = Stage::new(&[10, 10]);
    stage.put_attribute(0, "disk", "ssd");
    stage.put_attribute(1, "disk", "ssd");
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        placement_constraints: Some(vec![member_of("attribute:disk == ssd")]),
        ..daemon(&good)
    });
    steady(&mut stage);
    let deployment = primary(&stage).id;
    stage.put_attribute(1, "disk", "hdd");
    steady(&mut stage);
    assert_eq!(there(&stage, 2), [1, 0]);
    assert_eq!(primary(&stage).id, deployment);
}

#[test]
fn its_minimum_is_0_and_its_maximum_100() {
    let mut stage = on_all(&[10, 10, 10], None);
    let configuration = stage.service().deployment_configuration.expect("percents");
    assert_eq!(configuration.minimum_healthy_percent, Some(0));
    assert_eq!(configuration.maximum_percent, Some(100));
    let before = arns(&stage.tasks("web"));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    // All at once.
    assert!(
        !arns(&stage.tasks("web"))
            .iter()
            .any(|arn| before.contains(arn))
    );
    steady(&mut stage);
    assert_eq!(there(&stage, 3), [1, 1, 1]);
}

#[test]
fn a_maximum_above_100_a_desired_count_and_strategies_are_refused() {
    let mut stage = Stage::new(&[10]);
    let good = stage.define(Behaviour::Lives, false);
    let pack = strategy(ecs::PlacementStrategyType::Binpack, "memory");
    for (request, member) in [
        (
            ecs::CreateServiceRequest {
                deployment_configuration: Some(within(0, 150)),
                ..daemon(&good)
            },
            "maximumPercent",
        ),
        (
            ecs::CreateServiceRequest {
                desired_count: Some(1),
                ..daemon(&good)
            },
            "desired count",
        ),
        (
            ecs::CreateServiceRequest {
                placement_strategy: Some(vec![pack]),
                ..daemon(&good)
            },
            "placement strategies",
        ),
    ] {
        let refused = refusal(stage.try_create(request));
        assert!(refused.contains(member), "{refused}");
    }
}

#[test]
fn a_deployment_goes_from_instance_to_instance_as_the_minimum_allows() {
    let mut stage = on_all(&[10, 10, 10, 10], Some(75));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    let (mut fewest, mut seconds) = (4, 0);
    while !is_steady(&stage) {
        fewest = fewest.min(up(&stage));
        seconds += 1;
        assert!(seconds < 1_200, "it does not end");
        stage.run(1);
    }
    assert_eq!(fewest, 3);
    assert!(seconds > 4 * 40, "one after the other: {seconds} s");
    assert_eq!(of_revision(&stage, &next), 4);
}

#[test]
fn on_a_draining_instance_the_daemon_goes_last() {
    let mut stage = on_all(&[10, 10], None);
    let good = stage.define(Behaviour::Lives, false);
    // Of another service, and of none.
    stage.create(ecs::CreateServiceRequest {
        service_name: "api".to_owned(),
        ..web(2, &good)
    });
    let alone = stage.start_task(0, &good);
    stage.run(60);
    let daemon = arns(&on(&stage, 0));
    stage.set_state(0, "DRAINING");
    assert_eq!(stage.service().desired_count, Some(1));
    let of_api = |stage: &Stage| {
        let arn = stage.instance(0);
        let tasks = stage.tasks("api");
        let there = tasks
            .iter()
            .filter(|it| it.container_instance_arn.as_ref() == Some(&arn));
        there.count()
    };
    stage.until(120, "the others have gone", |stage| {
        assert_eq!(arns(&on(stage, 0)), daemon);
        of_api(stage) == 0
    });
    stage.run(120);
    assert_eq!(arns(&on(&stage, 0)), daemon, "a task of RunTask is there");
    stage.stop_task(&alone);
    stage.until(60, "its end", |stage| on(stage, 0).is_empty());
}

#[test]
fn it_is_not_stopped_while_its_successor_could_not_be_started_there() {
    let mut stage = on_all(&[10, 10], None);
    let kept = on(&stage, 0);
    stage.cut_off(0, 1_200);
    stage.run(600);
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    stage.run(300);
    assert_eq!(arns(&on(&stage, 0)), arns(&kept));
    assert_eq!(of_revision(&stage, &next), 1);
    steady(&mut stage);
    assert_eq!(of_revision(&stage, &next), 2);
}

#[test]
fn an_instance_whose_agent_is_disconnected_counts_and_gets_its_task_when_it_is_back() {
    let mut stage = Stage::new(&[10, 10]);
    stage.cut_off(1, 900);
    stage.run(600);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(daemon(&good));
    stage.run(60);
    assert_eq!(there(&stage, 2), [1, 0]);
    assert_eq!(stage.service().desired_count, Some(2));
    stage.until(600, "the other", |stage| there(stage, 2) == [1, 1]);
    steady(&mut stage);
}

#[test]
fn a_protected_daemon_is_left_alone_by_a_deployment() {
    let mut stage = on_all(&[10, 10], None);
    let kept = on(&stage, 0);
    stage.protect(&kept, Some(20));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    stage.run(15 * 60);
    assert_eq!(arns(&on(&stage, 0)), arns(&kept));
    assert_eq!(of_revision(&stage, &next), 1);
    stage.run(10 * 60);
    assert_eq!(of_revision(&stage, &next), 2);
}

#[test]
fn a_broken_revision_of_a_daemon_rolls_back() {
    let mut stage = on_all(&[10, 10, 10], Some(50));
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(with_breaker(breaker(true))),
        ..change()
    });
    let good = revision_of(&stage.tasks("web")[0]).to_owned();
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.update(to_revision(&bad));
    stage.until(1_200, "a rollback", |stage| {
        assert!(up(stage) >= 2, "below the minimum");
        is_steady(stage) && of_revision(stage, &good) == 3
    });
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_SUCCESSFUL");
}
