//! The circuit breaker: what it counts, when it opens, and what follows.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;
use std::time::Duration;

type Form = Option<(ecs::ThresholdType, i32)>;

fn of_form(form: Form) -> ecs::DeploymentConfiguration {
    with_breaker(ecs::DeploymentCircuitBreaker {
        threshold_configuration: form.map(|(kind, value)| ecs::ThresholdConfiguration {
            r#type: kind,
            value,
        }),
        ..breaker(true)
    })
}

/// `web` runs so many good ones, and then a revision that behaves so is deployed until it is rolled back.
/// Gives the stage and after how many failures that was.
fn broken(count: i32, form: Form, behaviour: Behaviour, checked: bool) -> (Stage, i32) {
    let mut stage = running(&[10, 10, 10, 10, 10, 10], count, of_form(form));
    let before = arns(&stage.tasks("web"));
    let bad = stage.define(behaviour, checked);
    stage.update(to_revision(&bad));
    stage.until(3_600, "a rollback", |stage| {
        let running = stage.tasks("web").into_iter().filter(is_running).count();
        assert!(running >= count as usize, "below the minimum");
        is_steady(stage) && revision_of(&stage.tasks("web")[0]) != bad
    });
    assert_eq!(
        arns(&stage.tasks("web")),
        before,
        "what was good ran all the time"
    );
    let deployment = stage.service_deployment();
    let status = deployment.status.as_ref().map(|it| it.to_string());
    assert_eq!(status.as_deref(), Some("ROLLBACK_SUCCESSFUL"));
    let counted = deployment.deployment_circuit_breaker.expect("a breaker");
    let needed = counted.threshold.expect("a threshold");
    // Reports of the same few milliseconds are looked at together.
    let failed = counted.failure_count.unwrap_or(0);
    assert!((needed..=needed + 2).contains(&failed), "{counted:?}");
    (stage, needed)
}

#[test]
fn it_opens_after_half_of_the_desired_count_rounded_up_at_least_3() {
    for (count, failures) in [(1, 3), (6, 3), (7, 4), (25, 13)] {
        let (_, seen) = broken(count, None, Behaviour::DoesNotStart, false);
        assert_eq!(seen, failures, "of {count}");
    }
}

#[test]
fn a_bounded_percent_is_at_least_3() {
    use ecs::ThresholdType::BoundedPercent;
    for (count, percent, failures) in [(10, 10, 3), (10, 80, 8), (7, 50, 4)] {
        let form = Some((BoundedPercent, percent));
        let (_, seen) = broken(count, form, Behaviour::DoesNotStart, false);
        assert_eq!(seen, failures, "{percent} % of {count}");
    }
}

#[test]
fn an_unbounded_percent_may_be_less_than_3() {
    use ecs::ThresholdType::UnboundedPercent;
    for (count, percent, failures) in [(10, 10, 1), (10, 15, 2), (6, 100, 6)] {
        let form = Some((UnboundedPercent, percent));
        let (_, seen) = broken(count, form, Behaviour::DoesNotStart, false);
        assert_eq!(seen, failures, "{percent} % of {count}");
    }
}

#[test]
fn a_count_is_a_count() {
    for failures in [1, 2, 5] {
        let form = Some((ecs::ThresholdType::Count, failures));
        let (_, seen) = broken(3, form, Behaviour::IsNotFound, false);
        assert_eq!(seen, failures);
    }
}

#[test]
fn its_second_stage_counts_failed_health_checks() {
    let (stage, failures) = broken(2, None, Behaviour::IsSick, true);
    assert_eq!(failures, 3);
    let reasons = stage
        .all_tasks()
        .into_iter()
        .filter_map(|it| it.stopped_reason);
    let failed = reasons.filter(|it| it == "Task failed container health checks");
    assert!(failed.count() >= 3);
}

#[test]
fn a_task_that_ends_before_its_health_check_has_passed_counts_and_puts_nothing_off() {
    let ends = Behaviour::EndsAfter(Duration::from_secs(2));
    let (stage, failures) = broken(2, None, ends, true);
    assert_eq!(failures, 3);
    let said = stage.messages();
    assert!(
        !said.iter().any(|it| it.contains("unable to consistently")),
        "{said:?}"
    );
}

#[test]
fn a_task_that_ends_where_nothing_checks_its_health_does_not_count() {
    let mut stage = running(&[10, 10], 2, with_breaker(breaker(true)));
    let ends = stage.define(Behaviour::EndsAfter(Duration::from_secs(2)), false);
    stage.update(to_revision(&ends));
    stage.run(600);
    assert_eq!(rollout(&primary(&stage)), "IN_PROGRESS");
    assert_eq!(primary(&stage).failed_tasks, Some(0));
}

/// A deployment that is never completed, because a second task finds no place, and whose first is healthy for a
/// while each time: whether its failures ever become two.
fn fails_after_healthy_ones(reset: Option<bool>) -> Stage {
    let mut stage = Stage::new(&[1]);
    let sickens = stage.define(Behaviour::SickensAfter(Duration::from_secs(60)), true);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            minimum_healthy_percent: Some(0),
            ..with_breaker(ecs::DeploymentCircuitBreaker {
                reset_on_healthy_task: reset,
                threshold_configuration: Some(ecs::ThresholdConfiguration {
                    r#type: ecs::ThresholdType::Count,
                    value: 2,
                }),
                ..breaker(false)
            })
        }),
        ..web(2, &sickens)
    });
    stage.run(1_200);
    stage
}

#[test]
fn a_healthy_task_takes_back_what_was_counted() {
    for reset in [None, Some(true)] {
        let stage = fails_after_healthy_ones(reset);
        let primary = primary(&stage);
        assert_eq!(rollout(&primary), "IN_PROGRESS", "{reset:?}");
        assert!(primary.failed_tasks >= Some(5), "{primary:?}");
    }
}

#[test]
fn with_reset_on_healthy_task_false_nothing_is_taken_back() {
    let stage = fails_after_healthy_ones(Some(false));
    let primary = primary(&stage);
    assert_eq!(rollout(&primary), "FAILED");
    assert_eq!(primary.failed_tasks, Some(2));
}

#[test]
fn a_broken_revision_rolls_back_to_the_last_completed_one_and_says_so() {
    let (stage, _) = broken(3, None, Behaviour::DoesNotStart, false);
    let deployment = stage.service_deployment();
    let rollback = deployment.rollback.expect("a rollback");
    assert_eq!(
        rollback.reason.as_deref(),
        Some("ECS deployment circuit breaker: tasks failed to start.")
    );
    let messages = stage.messages();
    let position = |end: &str| {
        let found = messages.iter().position(|said| said.contains(end));
        found.unwrap_or_else(|| panic!("'{end}' is not in {messages:#?}"))
    };
    // Newest first.
    let said = [
        "has reached a steady state.",
        "deployment completed.",
        "rolling back to deployment",
        "deployment failed: tasks failed to start.",
    ];
    assert!(said.map(position).is_sorted(), "{messages:#?}");
}

#[test]
fn without_a_rollback_it_fails_and_starts_nothing_more_and_what_runs_runs_on() {
    let mut stage = running(&[10], 3, with_breaker(breaker(false)));
    let before = arns(&stage.tasks("web"));
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.update(to_revision(&bad));
    stage.until(600, "FAILED", |stage| rollout(&primary(stage)) == "FAILED");
    let failed = stage.all_tasks().len();
    stage.run(3_000);
    assert_eq!(stage.all_tasks().len(), failed);
    assert_eq!(arns(&stage.tasks("web")), before);
    assert_eq!(stage.deployments().len(), 2);
}

#[test]
fn where_nothing_was_completed_there_is_nothing_to_return_to() {
    let mut stage = Stage::new(&[10]);
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(with_breaker(breaker(true))),
        ..web(2, &bad)
    });
    stage.until(600, "FAILED", |stage| rollout(&primary(stage)) == "FAILED");
    let status = stage.service_deployment().status;
    assert_eq!(
        status.map(|it| it.to_string()).as_deref(),
        Some("ROLLBACK_FAILED")
    );
    stage.run(600);
    assert_eq!(stage.tasks("web"), []);
}

#[test]
fn what_failed_before_a_rollback_does_not_count_against_it() {
    // Some of the good revision's tasks failed to start in their time, and are still shown.
    let mut stage = Stage::new(&[10]);
    let at = stage.now() + Duration::from_secs(100);
    let good = stage.define(Behaviour::StartsFrom(at), false);
    stage.create(web(2, &good));
    steady(&mut stage);
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(with_breaker(breaker(true))),
        ..change()
    });
    let failed = |task: &ecs::Task| {
        task.stop_code.as_ref().map(|code| code.as_str()) == Some("TaskFailedToStart")
    };
    let before = stage.all_tasks().into_iter().filter(failed).count();
    assert!(before > 3, "only {before} failed");
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.update(to_revision(&bad));
    stage.until(600, "a rollback", |stage| {
        is_steady(stage) && revision_of(&stage.tasks("web")[0]) == good
    });
}

#[test]
fn it_opens_after_200_at_most() {
    let mut stage = Stage::new(&[450]);
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(with_breaker(breaker(false))),
        ..web(450, &bad)
    });
    stage.until(3_600, "FAILED", |stage| {
        rollout(&primary(stage)) == "FAILED"
    });
    let counted = stage.service_deployment().deployment_circuit_breaker;
    let counted = counted.expect("a breaker");
    assert_eq!(counted.threshold, Some(200));
    // What had been started before it opened failed with it, and no more.
    let failed = counted.failure_count.unwrap_or(0);
    assert!((200..400).contains(&failed), "{failed}");
}
