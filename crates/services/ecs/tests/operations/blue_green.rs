//! Blue/green deployments through the API, with the controller stepped by hand.

use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::{
    SERVICE_DEPLOYMENT_RETENTION, SERVICE_DEPLOYMENTS_MAX, ServiceHistory,
};
use gantry_reconcile::Controller;

use crate::harness::{done, refusal, web};
use crate::services::{HEALTHY_AFTER, Plane, change, describe_deployment, list_deployments, three};

const MINUTE: Duration = Duration::from_secs(60);

fn blue_green(
    bake_time: i32,
    hooks: Vec<ecs::DeploymentLifecycleHook>,
) -> ecs::DeploymentConfiguration {
    ecs::DeploymentConfiguration {
        strategy: Some(ecs::DeploymentStrategy::BlueGreen),
        bake_time_in_minutes: Some(bake_time),
        lifecycle_hooks: (!hooks.is_empty()).then_some(hooks),
        ..Default::default()
    }
}

fn pause(stage: &str) -> ecs::DeploymentLifecycleHook {
    ecs::DeploymentLifecycleHook {
        target_type: Some(ecs::DeploymentLifecycleHookTargetType::Pause),
        lifecycle_stages: Some(vec![stage.into()]),
        ..Default::default()
    }
}

/// A whole blue of `web:1`, and `web:2` registered.
fn with_blue(configuration: ecs::DeploymentConfiguration) -> Plane {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            lifecycle_hooks: None,
            ..configuration.clone()
        }),
        ..three()
    });
    plane.converge();
    assert_eq!(plane.rollout().0, "COMPLETED");
    plane.harness.register(web()).unwrap();
    if configuration.lifecycle_hooks.is_some() {
        plane.update(ecs::UpdateServiceRequest {
            deployment_configuration: Some(configuration),
            ..change()
        });
    }
    plane
}

fn deploy(plane: &Plane, revision: &str) -> String {
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some(revision.to_owned()),
        ..change()
    });
    newest(plane)
}

fn newest(plane: &Plane) -> String {
    let newest = list_deployments(plane).remove(0);
    newest.service_deployment_arn.unwrap()
}

fn stage(plane: &Plane, arn: &str) -> String {
    describe_deployment(plane, arn)
        .lifecycle_stage
        .unwrap()
        .to_string()
}

fn status(plane: &Plane, arn: &str) -> String {
    describe_deployment(plane, arn).status.unwrap().to_string()
}

fn sides(plane: &Plane) -> (usize, usize) {
    (plane.tasks_of(1).len(), plane.tasks_of(2).len())
}

/// What waits starts to run, what is to stop stops, and 40 seconds pass.
fn tick(plane: &Plane) {
    plane.nodes_work();
    plane.advance(HEALTHY_AFTER);
}

fn hooks(plane: &Plane, arn: &str) -> Vec<(String, String)> {
    let whole = describe_deployment(plane, arn);
    let hooks = whole.lifecycle_hook_details.unwrap().into_iter();
    hooks
        .map(|hook| (hook.hook_id.unwrap(), hook.status.unwrap().to_string()))
        .collect()
}

fn answer(
    plane: &Plane,
    arn: &str,
    hook: &str,
    action: Option<ecs::DeploymentLifecycleHookAction>,
) -> Result<ecs::ContinueServiceDeploymentResponse, ecs::EcsError> {
    let input = ecs::ContinueServiceDeploymentRequest {
        service_deployment_arn: arn.to_owned(),
        hook_id: hook.to_owned(),
        action,
    };
    let ctx = plane.harness.ctx();
    done(
        plane
            .harness
            .service
            .continue_service_deployment(&ctx, input),
    )
}

fn stop(plane: &Plane, arn: &str) {
    let input = ecs::StopServiceDeploymentRequest {
        service_deployment_arn: arn.to_owned(),
        stop_type: Some(ecs::StopServiceDeploymentStopType::Rollback),
    };
    let ctx = plane.harness.ctx();
    done(plane.harness.service.stop_service_deployment(&ctx, input)).unwrap();
    plane.settle();
}

#[test]
fn green_comes_up_beside_blue_bakes_and_takes_over() {
    let plane = with_blue(blue_green(5, Vec::new()));
    let blue: Vec<_> = plane
        .tasks()
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    let arn = deploy(&plane, "web:2");
    assert_eq!(
        (stage(&plane, &arn).as_str(), sides(&plane)),
        ("SCALE_UP", (3, 3))
    );
    let service = plane.service();
    let shown: Vec<_> = service
        .deployments
        .unwrap()
        .into_iter()
        .map(|it| {
            (
                it.status.unwrap(),
                it.desired_count.unwrap(),
                it.rollout_state.unwrap().to_string(),
            )
        })
        .collect();
    let shown: Vec<_> = shown
        .iter()
        .map(|(a, b, c)| (a.as_str(), *b, c.as_str()))
        .collect();
    assert_eq!(
        shown,
        [("PRIMARY", 3, "IN_PROGRESS"), ("ACTIVE", 3, "COMPLETED")]
    );
    assert_eq!(service.task_sets, None);
    tick(&plane);
    assert_eq!(
        (stage(&plane, &arn).as_str(), sides(&plane)),
        ("BAKE_TIME", (3, 3))
    );
    let whole = describe_deployment(&plane, &arn);
    let counts = |it: ecs::ServiceRevisionSummary| {
        (
            it.requested_task_count.unwrap(),
            it.running_task_count.unwrap(),
            it.pending_task_count.unwrap(),
        )
    };
    assert_eq!(counts(whole.target_service_revision.unwrap()), (3, 3, 0));
    assert_eq!(
        counts(whole.source_service_revisions.unwrap().remove(0)),
        (3, 3, 0)
    );
    plane.advance(5 * MINUTE - Duration::from_millis(1));
    let same: Vec<_> = plane
        .tasks_of(1)
        .into_iter()
        .map(|task| task.task_arn)
        .collect();
    assert_eq!(blue, same, "nothing of blue was touched");
    plane.advance(Duration::from_millis(1));
    assert_eq!(
        (stage(&plane, &arn).as_str(), sides(&plane)),
        ("CLEAN_UP", (0, 3))
    );
    tick(&plane);
    assert_eq!(status(&plane, &arn), "SUCCESSFUL");
    assert_eq!(plane.service().deployments.unwrap().len(), 1);
    assert_eq!(plane.rollout().0, "COMPLETED");
    // What it had at its end stays, whatever becomes of the service.
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(1),
        ..change()
    });
    plane.converge();
    let whole = describe_deployment(&plane, &arn);
    assert_eq!(counts(whole.target_service_revision.unwrap()), (3, 3, 0));
    assert_eq!(
        counts(whole.source_service_revisions.unwrap().remove(0)),
        (0, 0, 0)
    );
}

#[test]
fn a_pause_hook_holds_the_deployment_until_it_is_continued() {
    let plane = with_blue(blue_green(
        0,
        vec![pause("PRE_SCALE_UP"), pause("POST_TEST_TRAFFIC_SHIFT")],
    ));
    let arn = deploy(&plane, "web:2");
    assert_eq!(
        (stage(&plane, &arn).as_str(), sides(&plane)),
        ("PRE_SCALE_UP", (3, 0))
    );
    let service = plane.service();
    assert_eq!(service.deployments.unwrap()[0].desired_count, Some(0));
    let (first, is) = hooks(&plane, &arn).remove(0);
    assert_eq!(is, "AWAITING_ACTION");
    assert!(
        first.starts_with("ecs-pause-") && first.len() == 53,
        "{first}"
    );
    let unknown = answer(&plane, &arn, "ecs-pause-other", None);
    assert_eq!(refusal(unknown).0, "InvalidParameterException");
    answer(&plane, &arn, &first, None).unwrap();
    // The same again is no error, and something else is.
    answer(&plane, &arn, &first, None).unwrap();
    let rollback = Some(ecs::DeploymentLifecycleHookAction::Rollback);
    let late = answer(&plane, &arn, &first, rollback);
    assert!(refusal(late).1.contains("SUCCEEDED"));
    plane.settle();
    assert_eq!(sides(&plane), (3, 3));
    tick(&plane);
    assert_eq!(stage(&plane, &arn), "POST_TEST_TRAFFIC_SHIFT");
    plane.advance(23 * 60 * MINUTE);
    assert_eq!(sides(&plane), (3, 3));
    let (second, is) = hooks(&plane, &arn).remove(1);
    assert_eq!(is, "AWAITING_ACTION");
    assert_ne!(first, second);
    answer(
        &plane,
        &arn,
        &second,
        Some(ecs::DeploymentLifecycleHookAction::Continue),
    )
    .unwrap();
    plane.settle();
    tick(&plane);
    assert_eq!(
        (status(&plane, &arn).as_str(), sides(&plane)),
        ("SUCCESSFUL", (0, 3))
    );
    assert!(hooks(&plane, &arn).iter().all(|(_, is)| is == "SUCCEEDED"));
    assert!(
        refusal(answer(&plane, &arn, "x", None))
            .1
            .contains("SUCCESSFUL")
    );
}

#[test]
fn a_hook_that_is_refused_or_runs_out_of_time_rolls_back() {
    for refuses in [true, false] {
        let plane = with_blue(blue_green(0, vec![pause("POST_SCALE_UP")]));
        let blue: Vec<_> = plane
            .tasks()
            .into_iter()
            .map(|task| task.task_arn)
            .collect();
        let arn = deploy(&plane, "web:2");
        tick(&plane);
        assert_eq!(
            (stage(&plane, &arn).as_str(), sides(&plane)),
            ("POST_SCALE_UP", (3, 3))
        );
        if refuses {
            let (hook, _) = hooks(&plane, &arn).remove(0);
            let rollback = Some(ecs::DeploymentLifecycleHookAction::Rollback);
            answer(&plane, &arn, &hook, rollback).unwrap();
            plane.settle();
        } else {
            plane.advance(24 * 60 * MINUTE);
        }
        assert_eq!(sides(&plane), (3, 0));
        let is = hooks(&plane, &arn).remove(0).1;
        assert_eq!(is, if refuses { "FAILED" } else { "TIMED_OUT" });
        tick(&plane);
        assert_eq!(status(&plane, &arn), "ROLLBACK_SUCCESSFUL");
        let after: Vec<_> = plane
            .tasks()
            .into_iter()
            .map(|task| task.task_arn)
            .collect();
        assert_eq!(blue, after, "blue was never touched");
        let word = "deployment failed: hook execution failure(s) detected.";
        assert!(
            plane
                .messages()
                .iter()
                .any(|message| message.ends_with(word))
        );
        let service = plane.service();
        assert!(service.task_definition.unwrap().ends_with("web:1"));
        assert_eq!(plane.rollout().0, "COMPLETED");
    }
}

#[test]
fn a_green_that_does_not_come_up_opens_the_circuit_breaker() {
    let plane = with_blue(ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: true,
            rollback: true,
            ..Default::default()
        }),
        ..blue_green(5, Vec::new())
    });
    let arn = deploy(&plane, "web:2");
    for task in plane.tasks_of(2) {
        plane
            .harness
            .submit(task.task_arn.as_deref().unwrap(), "STOPPED", None);
    }
    plane.settle();
    tick(&plane);
    assert_eq!(
        (status(&plane, &arn).as_str(), sides(&plane)),
        ("ROLLBACK_SUCCESSFUL", (3, 0))
    );
    let whole = describe_deployment(&plane, &arn);
    assert_eq!(whole.lifecycle_stage.unwrap().to_string(), "SCALE_UP");
    assert!(
        whole
            .rollback
            .unwrap()
            .reason
            .unwrap()
            .contains("circuit breaker")
    );
}

#[test]
fn without_a_rollback_green_fails_and_blue_is_kept_up() {
    let plane = with_blue(ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: true,
            rollback: false,
            ..Default::default()
        }),
        ..blue_green(5, Vec::new())
    });
    let arn = deploy(&plane, "web:2");
    for task in plane.tasks_of(2) {
        plane
            .harness
            .submit(task.task_arn.as_deref().unwrap(), "STOPPED", None);
    }
    plane.settle();
    assert_eq!(status(&plane, &arn), "STOPPED");
    let gone = plane.tasks_of(1)[0].task_arn.clone().unwrap();
    plane.harness.submit(&gone, "STOPPED", Some(1));
    plane.settle();
    tick(&plane);
    assert_eq!(sides(&plane), (3, 0));
    // What comes next finds one revision with tasks, and takes over from blue.
    plane.harness.register(web()).unwrap();
    let arn = deploy(&plane, "web:3");
    plane.converge();
    assert_eq!(
        (status(&plane, &arn).as_str(), plane.tasks_of(3).len()),
        ("SUCCESSFUL", 3)
    );
}

#[test]
fn a_deployment_that_is_stopped_in_any_stage_returns_to_a_whole_blue() {
    for (stage_is, advances) in [("SCALE_UP", 0), ("BAKE_TIME", 1), ("CLEAN_UP", 10)] {
        let plane = with_blue(blue_green(5, Vec::new()));
        // A protected task of blue keeps a deployment in CLEAN_UP.
        let input = ecs::UpdateTaskProtectionRequest {
            cluster: "default".to_owned(),
            tasks: vec![plane.tasks()[0].task_arn.clone().unwrap()],
            protection_enabled: true,
            expires_in_minutes: None,
        };
        let ctx = plane.harness.ctx();
        done(plane.harness.service.update_task_protection(&ctx, input)).unwrap();
        let arn = deploy(&plane, "web:2");
        for _ in 0..advances {
            plane.nodes_work();
            plane.advance(HEALTHY_AFTER);
            if stage(&plane, &arn) == stage_is {
                break;
            }
        }
        assert_eq!(stage(&plane, &arn), stage_is);
        stop(&plane, &arn);
        for _ in 0..10 {
            let serving = plane.service().running_count.unwrap();
            assert!(serving >= 3, "{stage_is}: {serving}");
            tick(&plane);
        }
        assert_eq!(
            (status(&plane, &arn).as_str(), sides(&plane)),
            ("ROLLBACK_SUCCESSFUL", (3, 0))
        );
        assert_eq!(stage(&plane, &arn), stage_is);
    }
}

#[test]
fn a_hook_that_was_not_answered_before_its_deployment_was_stopped_has_failed() {
    let plane = with_blue(blue_green(0, vec![pause("POST_SCALE_UP")]));
    let arn = deploy(&plane, "web:2");
    tick(&plane);
    let (hook, is) = hooks(&plane, &arn).remove(0);
    assert_eq!(is, "AWAITING_ACTION");
    stop(&plane, &arn);
    assert_eq!(hooks(&plane, &arn), [(hook.clone(), "FAILED".to_owned())]);
    let rows = plane.harness.store.snapshot();
    let rows = rows.list_everywhere::<gantry_ecs::tables::StateChangesRow>();
    let told = rows.iter().flat_map(|row| &row.events);
    let wishes: Vec<_> = told
        .filter_map(|it| it.detail["message"].as_str())
        .collect();
    assert!(
        wishes.contains(&"its deployment to be stopped and rolled back"),
        "{wishes:?}"
    );
    let answered = answer(&plane, &arn, &hook, None);
    assert_eq!(refusal(answered).0, "InvalidParameterException");
    tick(&plane);
    assert_eq!(
        (status(&plane, &arn).as_str(), sides(&plane)),
        ("ROLLBACK_SUCCESSFUL", (3, 0))
    );
}

#[test]
fn an_update_during_a_deployment_begins_anew_from_blue() {
    let plane = with_blue(blue_green(5, Vec::new()));
    plane.harness.register(web()).unwrap();
    let first = deploy(&plane, "web:2");
    tick(&plane);
    assert_eq!(stage(&plane, &first), "BAKE_TIME");
    let second = deploy(&plane, "web:3");
    assert_eq!(status(&plane, &first), "STOPPED");
    // The green that was overtaken has gone before the next one comes.
    assert_eq!((sides(&plane), plane.tasks_of(3).len()), ((3, 0), 3));
    let sources = describe_deployment(&plane, &second)
        .source_service_revisions
        .unwrap();
    assert_eq!(sources.len(), 2);
    // An update during the rollback wins as well. It is under way while blue is not whole.
    let gone = plane.tasks_of(1)[0].task_arn.clone().unwrap();
    plane.harness.submit(&gone, "STOPPED", Some(1));
    stop(&plane, &second);
    assert_eq!(status(&plane, &second), "ROLLBACK_IN_PROGRESS");
    let third = deploy(&plane, "web:2");
    assert_eq!(status(&plane, &second), "STOPPED");
    plane.converge();
    assert_eq!(
        (status(&plane, &third).as_str(), sides(&plane)),
        ("SUCCESSFUL", (0, 3))
    );
    assert_eq!(plane.tasks().len(), 3);
}

#[test]
fn a_green_that_only_cleans_up_is_what_the_next_deployment_replaces() {
    let plane = with_blue(blue_green(1, Vec::new()));
    plane.harness.register(web()).unwrap();
    let first = deploy(&plane, "web:2");
    tick(&plane);
    // One of green's tasks has to be made anew as the bake time ends: blue serves in its place.
    let one = plane.tasks_of(2)[0].task_arn.clone().unwrap();
    plane.harness.submit(&one, "STOPPED", Some(1));
    plane.advance(MINUTE);
    assert_eq!(sides(&plane), (1, 3));
    assert_eq!(
        (
            stage(&plane, &first).as_str(),
            status(&plane, &first).as_str()
        ),
        ("CLEAN_UP", "IN_PROGRESS")
    );
    let second = deploy(&plane, "web:3");
    // It stays whole, and the last task of the one before it leaves when it is not needed any more.
    let stage_is = stage(&plane, &second);
    assert_eq!(
        (stage_is.as_str(), sides(&plane)),
        ("RECONCILE_SERVICE", (1, 3))
    );
    tick(&plane);
    assert_eq!((sides(&plane), plane.tasks_of(3).len()), ((0, 3), 3));
    plane.converge();
    assert_eq!(
        (status(&plane, &second).as_str(), plane.tasks_of(3).len()),
        ("SUCCESSFUL", 3)
    );
}

#[test]
fn a_first_deployment_goes_through_its_hooks_and_bakes_nothing() {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(blue_green(
            60,
            vec![pause("POST_PRODUCTION_TRAFFIC_SHIFT")],
        )),
        ..three()
    });
    let arn = newest(&plane);
    tick(&plane);
    assert_eq!(stage(&plane, &arn), "POST_PRODUCTION_TRAFFIC_SHIFT");
    assert_eq!(plane.rollout().0, "IN_PROGRESS");
    let (hook, _) = hooks(&plane, &arn).remove(0);
    answer(&plane, &arn, &hook, None).unwrap();
    plane.settle();
    assert_eq!(status(&plane, &arn), "SUCCESSFUL");
    // With nothing to return to, a rollback fails, and says so.
    plane.delete(true).unwrap();
    plane.settle();
    plane.nodes_work();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(blue_green(60, vec![pause("PRE_SCALE_UP")])),
        ..three()
    });
    let arn = newest(&plane);
    stop(&plane, &arn);
    assert_eq!(status(&plane, &arn), "ROLLBACK_FAILED");
}

#[test]
fn a_task_of_blue_that_ends_is_replaced_while_green_bakes() {
    let plane = with_blue(blue_green(60, Vec::new()));
    deploy(&plane, "web:2");
    tick(&plane);
    for side in [1, 2] {
        let gone = plane.tasks_of(side)[0].task_arn.clone().unwrap();
        plane.harness.submit(&gone, "STOPPED", Some(1));
        plane.settle();
        assert_eq!(sides(&plane), (3, 3));
    }
    // Both sides follow the desired count.
    plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(4),
        ..change()
    });
    assert_eq!(sides(&plane), (4, 4));
}

#[test]
fn the_strategy_is_checked_and_what_is_not_built_of_it_refused_by_name() {
    let (plane, _) = Plane::new();
    let ask = |configuration| {
        let input = ecs::CreateServiceRequest {
            deployment_configuration: Some(configuration),
            ..three()
        };
        let ctx = plane.harness.ctx();
        refusal(done(plane.harness.service.create_service(&ctx, input)))
    };
    let with = |hook| blue_green(1, vec![hook]);
    let refused = [
        (
            ecs::DeploymentConfiguration {
                bake_time_in_minutes: None,
                ..blue_green(0, Vec::new())
            },
            "bakeTimeInMinutes must be specified",
        ),
        (blue_green(1441, Vec::new()), "between 0 and 1440"),
        (
            with(ecs::DeploymentLifecycleHook {
                target_type: None,
                ..pause("PRE_SCALE_UP")
            }),
            "AWS_LAMBDA is not built",
        ),
        (with(pause("TEST_TRAFFIC_SHIFT")), "TEST_TRAFFIC_SHIFT"),
        (
            with(pause("PRODUCTION_TRAFFIC_SHIFT")),
            "PRODUCTION_TRAFFIC_SHIFT",
        ),
        (
            with(ecs::DeploymentLifecycleHook {
                role_arn: Some("arn:aws:iam::123456789012:role/hook".to_owned()),
                ..pause("PRE_SCALE_UP")
            }),
            "roleArn is not applicable",
        ),
        (
            with(ecs::DeploymentLifecycleHook {
                timeout_configuration: Some(ecs::DeploymentLifecycleHookTimeoutConfiguration {
                    timeout_in_minutes: Some(20161),
                    action: None,
                }),
                ..pause("PRE_SCALE_UP")
            }),
            "between 1 and 20160",
        ),
        (
            ecs::DeploymentConfiguration {
                strategy: None,
                ..blue_green(5, Vec::new())
            },
            "with the strategy ROLLING is not built",
        ),
        (
            ecs::DeploymentConfiguration {
                strategy: Some(ecs::DeploymentStrategy::Linear),
                ..Default::default()
            },
            "Deployment strategy LINEAR is not built",
        ),
        (
            ecs::DeploymentConfiguration {
                early_success_criteria: Some(ecs::DeploymentEarlySuccessCriteria {
                    enable: true,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "earlySuccessCriteria of a deploymentConfiguration is not built",
        ),
    ];
    for (configuration, word) in refused {
        let (_, message) = ask(configuration);
        assert!(message.contains(word), "{message}");
    }
    // A service that turns to ROLLING loses what belongs to blue/green.
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(blue_green(5, vec![pause("PRE_SCALE_UP")])),
        ..three()
    });
    let rolling = plane.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            strategy: Some(ecs::DeploymentStrategy::Rolling),
            ..Default::default()
        }),
        ..change()
    });
    let configuration = rolling.deployment_configuration.unwrap();
    assert_eq!(configuration.bake_time_in_minutes, Some(0));
    assert_eq!(configuration.lifecycle_hooks, None);
}

#[test]
fn deployments_are_listed_by_status_and_time() {
    let plane = with_blue(blue_green(0, Vec::new()));
    let between = plane.harness.env.now();
    plane.advance(MINUTE);
    let second = deploy(&plane, "web:2");
    let ask = |status: &str, after, before| {
        let input = ecs::ListServiceDeploymentsRequest {
            service: "web".to_owned(),
            status: (!status.is_empty()).then(|| vec![status.into()]),
            created_at: Some(ecs::CreatedAt { after, before }),
            ..Default::default()
        };
        let ctx = plane.harness.ctx();
        let answer = done(plane.harness.service.list_service_deployments(&ctx, input));
        let found = answer.unwrap().service_deployments.unwrap().into_iter();
        found
            .map(|it| it.service_deployment_arn.unwrap())
            .collect::<Vec<_>>()
    };
    let all = ask("", None, None);
    assert_eq!((all.len(), &all[0]), (2, &second));
    assert_eq!(ask("IN_PROGRESS", None, None), all[..1]);
    assert_eq!(ask("SUCCESSFUL", None, None), all[1..]);
    assert_eq!(ask("", Some(between), None), all[..1]);
    assert_eq!(ask("", None, Some(between)), all[1..]);
    assert_eq!(ask("PENDING", None, None).len(), 0);
}

fn forget(plane: &Plane) -> Option<gantry_env::Timestamp> {
    let mut again_at = None;
    for key in ServiceHistory.all_keys(&plane.harness.store.snapshot()) {
        for _ in 0..100 {
            let snapshot = plane.harness.store.snapshot();
            let plan = ServiceHistory.reconcile(&snapshot, plane.harness.env.now(), &key);
            again_at = plan.again_at;
            if plan.is_nothing() {
                break;
            }
            done(plane.harness.store.commit(plan.transaction)).unwrap();
        }
    }
    again_at
}

#[test]
fn deployments_and_revisions_are_kept_for_ninety_days_and_what_is_needed_for_ever() {
    let plane = with_blue(blue_green(0, Vec::new()));
    let first = list_deployments(&plane).remove(0);
    deploy(&plane, "web:2");
    plane.converge();
    let over = describe_deployment(&plane, first.service_deployment_arn.as_deref().unwrap());
    let until = over.finished_at.unwrap() + SERVICE_DEPLOYMENT_RETENTION;
    assert_eq!(forget(&plane), Some(until));
    assert_eq!(list_deployments(&plane).len(), 2);
    plane
        .harness
        .env
        .advance(until.since(plane.harness.env.now()));
    forget(&plane);
    let left = list_deployments(&plane);
    assert_eq!(left.len(), 1, "what the service runs stays");
    let ask = |arn: &str| {
        let input = ecs::DescribeServiceRevisionsRequest {
            service_revision_arns: vec![arn.to_owned()],
        };
        let ctx = plane.harness.ctx();
        let answer = done(
            plane
                .harness
                .service
                .describe_service_revisions(&ctx, input),
        )
        .unwrap();
        (
            answer.service_revisions.unwrap().len(),
            answer.failures.unwrap().len(),
        )
    };
    // The deployment that is left names where it came from.
    let old = first.target_service_revision_arn.unwrap();
    assert_eq!(ask(&old), (1, 0));
    plane.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    plane.converge();
    plane.harness.env.advance(SERVICE_DEPLOYMENT_RETENTION);
    forget(&plane);
    assert_eq!(ask(&old), (0, 1));
    assert_eq!(list_deployments(&plane).len(), 1);
}

#[test]
fn a_service_that_is_deployed_without_end_keeps_its_last_deployments() {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(0),
        ..three()
    });
    for _ in 0..SERVICE_DEPLOYMENTS_MAX + 20 {
        plane.update(ecs::UpdateServiceRequest {
            force_new_deployment: Some(true),
            ..change()
        });
        plane.harness.env.advance(Duration::from_secs(1));
    }
    forget(&plane);
    let snapshot = plane.harness.store.snapshot();
    let deployments = snapshot.list_everywhere::<gantry_ecs::tables::ServiceDeploymentRow>();
    let revisions = snapshot.list_everywhere::<gantry_ecs::tables::ServiceRevisionRow>();
    let states = snapshot.list_everywhere::<gantry_ecs::tables::ServiceDeploymentStateRow>();
    assert_eq!(deployments.len(), SERVICE_DEPLOYMENTS_MAX);
    assert_eq!(states.len(), SERVICE_DEPLOYMENTS_MAX);
    // And the revision that the oldest of them came from.
    assert_eq!(revisions.len(), SERVICE_DEPLOYMENTS_MAX + 1);
}
