//! Blue/green deployments without a load balancer.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

use ecs::DeploymentLifecycleHookAction::{Continue, Rollback};

fn blue_green(
    bake_time: i32,
    hooks: Vec<ecs::DeploymentLifecycleHook>,
) -> ecs::DeploymentConfiguration {
    ecs::DeploymentConfiguration {
        strategy: Some(ecs::DeploymentStrategy::BlueGreen),
        bake_time_in_minutes: Some(bake_time),
        lifecycle_hooks: Some(hooks),
        ..Default::default()
    }
}

fn pause(
    stages: &[&str],
    minutes: Option<i32>,
    action: Option<ecs::DeploymentLifecycleHookAction>,
) -> ecs::DeploymentLifecycleHook {
    let timeout = ecs::DeploymentLifecycleHookTimeoutConfiguration {
        action,
        timeout_in_minutes: minutes,
    };
    ecs::DeploymentLifecycleHook {
        target_type: Some(ecs::DeploymentLifecycleHookTargetType::Pause),
        lifecycle_stages: Some(stages.iter().map(|it| (*it).into()).collect()),
        timeout_configuration: Some(timeout),
        ..Default::default()
    }
}

fn stage_of(stage: &Stage) -> String {
    let deployment = stage.service_deployment();
    let at = deployment.lifecycle_stage;
    at.map(|it| it.to_string()).unwrap_or_default()
}

/// Three of blue, steady, and a deployment of green that has just begun. Gives both revisions.
fn begun(
    machines: &[i64],
    configuration: ecs::DeploymentConfiguration,
    green: Behaviour,
) -> (Stage, String, String) {
    let mut stage = running(machines, 3, within(100, 200));
    let blue = revision_of(&stage.tasks("web")[0]).to_owned();
    let green = stage.define(green, false);
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(configuration),
        ..to_revision(&green)
    });
    (stage, blue, green)
}

fn until_stage(stage: &mut Stage, name: &str) {
    stage.until(900, name, |stage| stage_of(stage) == name);
}

#[test]
fn its_stages_follow_one_another_and_nothing_of_blue_is_stopped_before_the_last() {
    let (mut stage, blue, green) = begun(&[10], blue_green(2, Vec::new()), Behaviour::Lives);
    let mut seen: Vec<String> = Vec::new();
    let mut baked = 0;
    for _ in 0..600 {
        let now = stage_of(&stage);
        if seen.last() != Some(&now) {
            seen.push(now.clone());
        }
        if now == "BAKE_TIME" {
            baked += 1;
            assert_eq!(of_revision(&stage, &green), 3);
        }
        if !matches!(now.as_str(), "CLEAN_UP") {
            assert_eq!(of_revision(&stage, &blue), 3, "in {now}");
        }
        if is_steady(&stage) {
            break;
        }
        stage.run(1);
    }
    assert_eq!(seen, ["SCALE_UP", "BAKE_TIME", "CLEAN_UP"]);
    assert!((119..=122).contains(&baked), "{baked} s");
    assert_eq!(of_revision(&stage, &green), 3);
    assert_eq!(status(&stage.service_deployment()), "SUCCESSFUL");
}

#[test]
fn a_first_deployment_has_no_blue_and_bakes_nothing() {
    let mut stage = Stage::new(&[10]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(blue_green(60, Vec::new())),
        ..web(3, &good)
    });
    assert!(steady(&mut stage) < 120);
}

#[test]
fn a_pause_hook_waits_for_its_answer_and_goes_on() {
    let stages = [
        "PRE_SCALE_UP",
        "POST_SCALE_UP",
        "POST_PRODUCTION_TRAFFIC_SHIFT",
    ];
    let hooks = vec![pause(&stages, None, None)];
    let (mut stage, blue, green) = begun(&[10], blue_green(0, hooks), Behaviour::Lives);
    stage.run(3_600);
    assert_eq!(stage_of(&stage), "PRE_SCALE_UP");
    assert_eq!(
        (of_revision(&stage, &blue), stage.tasks("web").len()),
        (3, 3)
    );
    for name in &stages[1..] {
        stage.answer(Continue);
        stage.run(3_600);
        assert_eq!(stage_of(&stage), *name);
        assert_eq!(
            (of_revision(&stage, &blue), of_revision(&stage, &green)),
            (3, 3)
        );
    }
    stage.answer(Continue);
    steady(&mut stage);
    assert_eq!(of_revision(&stage, &green), 3);
}

#[test]
fn a_hook_that_is_answered_with_rollback_returns_to_blue() {
    let hooks = vec![pause(&["POST_SCALE_UP"], None, None)];
    let (mut stage, blue, green) = begun(&[10], blue_green(0, hooks), Behaviour::Lives);
    let mut before = stage.tasks("web");
    before.retain(|it| revision_of(it) == blue);
    until_stage(&mut stage, "POST_SCALE_UP");
    assert_eq!(of_revision(&stage, &green), 3);
    stage.answer(Rollback);
    steady(&mut stage);
    assert_eq!(arns(&stage.tasks("web")), arns(&before));
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_SUCCESSFUL");
    assert_eq!(
        stage_of(&stage),
        "POST_SCALE_UP",
        "it stays where that began"
    );
}

#[test]
fn a_hook_whose_time_is_over_counts_as_rollback_unless_it_says_otherwise() {
    for (action, ends) in [
        (None, "ROLLBACK_SUCCESSFUL"),
        (Some(Rollback), "ROLLBACK_SUCCESSFUL"),
        (Some(Continue), "SUCCESSFUL"),
    ] {
        let hooks = vec![pause(&["POST_SCALE_UP"], Some(5), action)];
        let (mut stage, ..) = begun(&[10], blue_green(0, hooks), Behaviour::Lives);
        until_stage(&mut stage, "POST_SCALE_UP");
        stage.run(290);
        assert_eq!(status(&stage.service_deployment()), "IN_PROGRESS");
        stage.run(20);
        steady(&mut stage);
        assert_eq!(status(&stage.service_deployment()), ends);
    }
}

#[test]
fn while_both_run_what_ends_of_either_is_replaced_by_its_like() {
    let (mut stage, blue, green) = begun(&[10], blue_green(60, Vec::new()), Behaviour::Lives);
    until_stage(&mut stage, "BAKE_TIME");
    for definition in [&blue, &green] {
        let tasks = stage.tasks("web");
        let mut its = tasks
            .iter()
            .filter(|it| revision_of(it) == definition.as_str());
        let gone = its.next().expect("one of it").clone();
        stage.stop_task(&gone);
    }
    stage.run(60);
    assert_eq!(stage_of(&stage), "BAKE_TIME");
    assert_eq!(
        (of_revision(&stage, &blue), of_revision(&stage, &green)),
        (3, 3)
    );
}

#[test]
fn a_changed_count_is_that_of_both_while_both_run() {
    let (mut stage, blue, green) = begun(&[20], blue_green(60, Vec::new()), Behaviour::Lives);
    until_stage(&mut stage, "BAKE_TIME");
    for count in [5, 2] {
        stage.update(to_count(count));
        stage.run(60);
        let both = (of_revision(&stage, &blue), of_revision(&stage, &green));
        assert_eq!(both, (count as usize, count as usize));
    }
}

#[test]
fn the_circuit_breaker_rolls_green_back() {
    let configuration = ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(breaker(true)),
        ..blue_green(0, Vec::new())
    };
    let (mut stage, blue, _) = begun(&[10], configuration, Behaviour::DoesNotStart);
    let mut before = stage.tasks("web");
    before.retain(|it| revision_of(it) == blue);
    let before = arns(&before);
    stage.until(600, "a rollback", |stage| {
        assert!(of_revision(stage, &blue) == 3);
        status(&stage.service_deployment()) == "ROLLBACK_SUCCESSFUL"
    });
    steady(&mut stage);
    assert_eq!(arns(&stage.tasks("web")), before);
}

#[test]
fn without_a_rollback_the_circuit_breaker_leaves_blue_kept_up_and_starts_no_more_of_green() {
    let configuration = ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(breaker(false)),
        ..blue_green(0, Vec::new())
    };
    let (mut stage, blue, green) = begun(&[10], configuration, Behaviour::DoesNotStart);
    stage.until(600, "FAILED", |stage| rollout(&primary(stage)) == "FAILED");
    let tried = |stage: &Stage| {
        let all = stage.all_tasks();
        all.iter().filter(|it| revision_of(it) == green).count()
    };
    let before = tried(&stage);
    let gone = stage.tasks("web").remove(0);
    stage.stop_task(&gone);
    stage.run(1_200);
    assert_eq!(tried(&stage), before);
    assert_eq!(of_revision(&stage, &blue), 3);
}

#[test]
fn a_first_deployment_has_nothing_to_return_to() {
    let mut stage = Stage::new(&[10]);
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            deployment_circuit_breaker: Some(breaker(true)),
            ..blue_green(0, Vec::new())
        }),
        ..web(2, &bad)
    });
    stage.until(600, "FAILED", |stage| rollout(&primary(stage)) == "FAILED");
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_FAILED");
}

#[test]
fn stop_service_deployment_rolls_back_in_any_stage() {
    for name in ["SCALE_UP", "BAKE_TIME", "CLEAN_UP"] {
        let (mut stage, blue, _) = begun(&[10], blue_green(5, Vec::new()), Behaviour::Lives);
        if name == "CLEAN_UP" {
            // A protected one keeps it there.
            let tasks = stage.tasks("web");
            stage.protect(&tasks[..1], Some(60));
        }
        until_stage(&mut stage, name);
        stage.stop_deployment().expect("it is under way");
        stage.until(900, "blue", |stage| {
            assert!(up(stage) >= 3, "below the minimum");
            is_steady(stage) && of_revision(stage, &blue) == 3
        });
        let over = status(&stage.service_deployment());
        assert_eq!(over, "ROLLBACK_SUCCESSFUL", "in {name}");
    }
}

#[test]
fn an_update_during_it_begins_anew_and_blue_is_what_was_completed_last() {
    let hooks = vec![pause(&["RECONCILE_SERVICE"], None, None)];
    let (mut stage, blue, second) = begun(&[10], blue_green(60, hooks), Behaviour::Lives);
    until_stage(&mut stage, "BAKE_TIME");
    let third = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&third));
    assert_eq!(stage_of(&stage), "RECONCILE_SERVICE");
    stage.run(120);
    let there = [&blue, &second, &third].map(|it| of_revision(&stage, it));
    assert_eq!(there, [3, 0, 0]);
    stage.answer(Continue);
    until_stage(&mut stage, "BAKE_TIME");
    assert_eq!([&blue, &third].map(|it| of_revision(&stage, it)), [3, 3]);
}

#[test]
fn an_update_of_one_that_had_reached_clean_up_returns_to_that() {
    let (mut stage, blue, second) = begun(&[10], blue_green(0, Vec::new()), Behaviour::Lives);
    let tasks = stage.tasks("web");
    stage.protect(&tasks[..1], Some(600));
    until_stage(&mut stage, "CLEAN_UP");
    stage.run(60);
    assert_eq!([&blue, &second].map(|it| of_revision(&stage, it)), [1, 3]);
    let third = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&third));
    stage.run(10);
    assert_eq!(of_revision(&stage, &second), 3);
    stage.stop_deployment().expect("it is under way");
    stage.protect(&tasks[..1], None);
    stage.until(600, "the second", |stage| {
        is_steady(stage) && of_revision(stage, &second) == 3
    });
}

#[test]
fn an_update_during_its_rollback_wins() {
    let (mut stage, blue, _) = begun(&[10], blue_green(60, Vec::new()), Behaviour::Lives);
    let tasks = stage.tasks("web");
    until_stage(&mut stage, "BAKE_TIME");
    // Green cannot leave at once.
    let green: Vec<_> = stage
        .tasks("web")
        .into_iter()
        .filter(|it| revision_of(it) != blue)
        .collect();
    stage.protect(&green[..1], Some(600));
    stage.stop_deployment().expect("it is under way");
    stage.run(30);
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_IN_PROGRESS");
    let third = stage.define(Behaviour::Lives, false);
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(blue_green(0, Vec::new())),
        ..to_revision(&third)
    });
    stage.run(60);
    stage.protect(&green[..1], None);
    steady(&mut stage);
    assert_eq!(of_revision(&stage, &third), 3);
    assert!(!arns(&stage.tasks("web")).contains(&arns(&tasks)[0]));
}

#[test]
fn a_draining_instance_is_left_as_far_as_the_minimum_allows_and_otherwise_afterwards() {
    let (mut stage, _, green) = begun(&[10, 10], blue_green(10, Vec::new()), Behaviour::Lives);
    until_stage(&mut stage, "BAKE_TIME");
    stage.set_state(0, "DRAINING");
    stage.until(300, "an instance without green", |stage| {
        let there = on(stage, 0);
        !there.iter().any(|it| revision_of(it) == green)
    });
    steady(&mut stage);
    assert_eq!(on(&stage, 0), []);
    assert_eq!(of_revision(&stage, &green), 3);
}

#[test]
fn a_service_that_turns_to_rolling_loses_its_bake_time_and_its_hooks() {
    let hooks = vec![pause(&["POST_SCALE_UP"], None, None)];
    let mut stage = running(&[10], 3, within(100, 200));
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(blue_green(60, hooks)),
        ..change()
    });
    let next = stage.define(Behaviour::Lives, false);
    let service = stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            strategy: Some(ecs::DeploymentStrategy::Rolling),
            ..Default::default()
        }),
        ..to_revision(&next)
    });
    let configuration = service.deployment_configuration.expect("a configuration");
    assert_eq!(configuration.bake_time_in_minutes, Some(0));
    assert_eq!(configuration.lifecycle_hooks, None);
    assert!(steady(&mut stage) < 300);
    assert_eq!(of_revision(&stage, &next), 3);
}

#[test]
fn a_control_plane_that_dies_goes_on_in_the_stage_where_it_was() {
    let (mut stage, blue, green) = begun(&[10], blue_green(3, Vec::new()), Behaviour::Lives);
    for _ in 0..6 {
        stage.run(30);
        stage.kill_control(5);
        stage.run(6);
    }
    steady(&mut stage);
    assert_eq!([&blue, &green].map(|it| of_revision(&stage, it)), [0, 3]);
}

#[test]
fn where_several_revisions_run_and_none_was_completed_all_leave_for_green() {
    let mut stage = Stage::new(&[10]);
    let sick = stage.define(Behaviour::IsSick, true);
    let first = stage.define(Behaviour::Lives, false);
    stage.create(web(2, &first));
    stage.run(20);
    // Overtaken before it was completed, by one that never will be.
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(with_breaker(breaker(true))),
        ..to_revision(&sick)
    });
    stage.until(600, "FAILED", |stage| rollout(&primary(stage)) == "FAILED");
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_FAILED");
    let green = stage.define(Behaviour::Lives, false);
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(blue_green(0, Vec::new())),
        ..to_revision(&green)
    });
    steady(&mut stage);
    assert_eq!(of_revision(&stage, &green), 2);
}
