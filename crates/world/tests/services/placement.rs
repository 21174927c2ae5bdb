//! Where tasks go, and what becomes of them when that is changed.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

fn placed(stage: &mut Stage, count: i32, change: impl FnOnce(&mut ecs::CreateServiceRequest)) {
    let good = stage.define(Behaviour::Lives, false);
    let mut request = web(count, &good);
    change(&mut request);
    stage.create(request);
    steady(stage);
}

fn there(stage: &Stage) -> [usize; 3] {
    [0, 1, 2].map(|machine| on(stage, machine).len())
}

fn pack() -> ecs::PlacementStrategy {
    strategy(ecs::PlacementStrategyType::Binpack, "memory")
}

#[test]
fn without_a_strategy_tasks_are_spread_over_the_zones() {
    // One machine in zone-b beside two in zone-a.
    let mut stage = Stage::new(&[10, 10, 10]);
    placed(&mut stage, 6, |_| {});
    assert_eq!(zones(&stage), [3, 3]);
}

#[test]
fn strategies_chain() {
    let mut stage = Stage::new(&[10, 10, 10]);
    placed(&mut stage, 6, |request| {
        let zones = "attribute:ecs.availability-zone";
        let spread = strategy(ecs::PlacementStrategyType::Spread, zones);
        request.placement_strategy = Some(vec![spread, pack()]);
    });
    // The second is alone in its zone; of the two others one is filled.
    let [first, second, third] = there(&stage);
    assert_eq!((second, first.max(third)), (3, 3));
}

#[test]
fn distinct_instance_gives_each_task_an_instance_of_its_own() {
    let mut stage = Stage::new(&[10, 10, 10]);
    placed(&mut stage, 3, |request| {
        request.placement_constraints = Some(vec![ecs::PlacementConstraint {
            r#type: Some(ecs::PlacementConstraintType::DistinctInstance),
            expression: None,
        }]);
    });
    assert_eq!(there(&stage), [1, 1, 1]);
    stage.update(to_count(4));
    stage.run(120);
    assert_eq!(there(&stage), [1, 1, 1]);
    let said = &stage.messages()[0];
    assert!(said.contains("was unable to place a task"), "{said}");
}

#[test]
fn placement_follows_the_constraints_of_the_service_and_of_the_task_definition() {
    let mut stage = Stage::new(&[10, 10, 10]);
    stage.put_attribute(0, "disk", "ssd");
    stage.put_attribute(1, "disk", "ssd");
    let picky = stage.define_otherwise(Behaviour::Lives, |request| {
        request.placement_constraints = Some(vec![ecs::TaskDefinitionPlacementConstraint {
            r#type: Some(ecs::TaskDefinitionPlacementConstraintType::MemberOf),
            expression: Some("attribute:disk == ssd".to_owned()),
        }]);
    });
    stage.create(ecs::CreateServiceRequest {
        placement_constraints: Some(vec![member_of("attribute:ecs.availability-zone == zone-b")]),
        ..web(2, &picky)
    });
    steady(&mut stage);
    assert_eq!(there(&stage), [0, 2, 0]);
}

#[test]
fn a_change_of_placement_starts_no_deployment_and_holds_for_what_is_started_then() {
    let mut stage = Stage::new(&[10, 10, 10]);
    placed(&mut stage, 2, |request| {
        request.placement_constraints = Some(vec![member_of("attribute:machine == 0")]);
    });
    let (deployment, before) = (primary(&stage).id, arns(&stage.tasks("web")));
    stage.update(ecs::UpdateServiceRequest {
        placement_constraints: Some(vec![member_of("attribute:machine == 1")]),
        ..change()
    });
    stage.run(300);
    assert_eq!(primary(&stage).id, deployment);
    assert_eq!(arns(&stage.tasks("web")), before);
    stage.update(to_count(3));
    steady(&mut stage);
    assert_eq!(there(&stage), [2, 1, 0]);
    // And a deployment moves the rest.
    stage.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    steady(&mut stage);
    assert_eq!(there(&stage), [0, 3, 0]);
}

#[test]
fn an_empty_list_removes_them_and_so_does_a_strategy_that_is_an_empty_object() {
    let mut stage = Stage::new(&[10, 10, 10]);
    placed(&mut stage, 2, |request| {
        request.placement_constraints = Some(vec![member_of("attribute:machine == 0")]);
        request.placement_strategy = Some(vec![pack()]);
    });
    let service = stage.update(ecs::UpdateServiceRequest {
        placement_constraints: Some(Vec::new()),
        placement_strategy: Some(vec![ecs::PlacementStrategy::default()]),
        ..change()
    });
    assert_eq!(service.placement_constraints, Some(Vec::new()));
    assert_eq!(service.placement_strategy, Some(Vec::new()));
    stage.update(to_count(4));
    steady(&mut stage);
    assert_eq!(zones(&stage), [2, 2]);
}
