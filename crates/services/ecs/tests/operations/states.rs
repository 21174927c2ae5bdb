//! The life of a task: reports, stops, and what users see of them.

use std::time::Duration;

use gantry_api::ecs::{
    Connectivity, ContainerStateChange, DescribeTasksRequest, DesiredStatus, Ecs as _, LaunchType,
    ListTasksRequest, NetworkBinding, SubmitContainerStateChangeRequest,
    SubmitTaskStateChangeRequest, Task, TaskStopCode,
};
use gantry_ecs::model::last_status::LastStatus;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use crate::harness::{Harness, container, done, refusal, report, run, web};

fn status(task: &Task) -> (&str, &str) {
    (
        task.last_status.as_deref().unwrap(),
        task.desired_status.as_deref().unwrap(),
    )
}

#[test]
fn a_task_runs_ends_and_remembers_all_of_it() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let at = |harness: &Harness| {
        harness.env.advance(Duration::from_secs(1));
        harness.env.now()
    };
    let pulled = at(&harness);
    let running = at(&harness);
    let mut input = report(&arn, "RUNNING", None);
    input.pull_started_at = Some(harness.env.now());
    input.pull_stopped_at = Some(pulled);
    let change = &mut input.containers.as_mut().unwrap()[0];
    change.image_digest = Some("sha256:0f".to_owned());
    change.network_bindings = Some(vec![NetworkBinding {
        host_port: Some(32768),
        ..Default::default()
    }]);
    done(
        harness
            .service
            .submit_task_state_change(&harness.ctx(), input),
    )
    .unwrap();
    let task = harness.task(&arn);
    assert_eq!(status(&task), ("RUNNING", "RUNNING"));
    assert_eq!(task.started_at, Some(running));
    assert_eq!(task.pull_stopped_at, Some(pulled));
    assert_eq!(task.version, Some(2));
    assert_eq!(task.connectivity, Some(Connectivity::Connected));
    let shown = &task.containers.as_ref().unwrap()[0];
    assert_eq!(shown.last_status.as_deref(), Some("RUNNING"));
    assert_eq!(shown.runtime_id.as_deref(), Some("abc-123"));
    assert_eq!(shown.image_digest.as_deref(), Some("sha256:0f"));
    assert_eq!(
        shown.network_bindings.as_ref().unwrap()[0].host_port,
        Some(32768)
    );
    assert_eq!(harness.instance(&instance).running_tasks_count, Some(1));

    let stopped = at(&harness);
    harness.submit(&arn, "STOPPED", Some(3));
    let task = harness.task(&arn);
    assert_eq!(status(&task), ("STOPPED", "STOPPED"));
    assert_eq!(
        (task.stopped_at, task.stopping_at),
        (Some(stopped), Some(stopped))
    );
    assert_eq!(task.execution_stopped_at, Some(stopped));
    assert_eq!(task.stop_code, Some(TaskStopCode::EssentialContainerExited));
    assert_eq!(
        task.stopped_reason.as_deref(),
        Some("Essential container in task exited")
    );
    assert_eq!(task.containers.as_ref().unwrap()[0].exit_code, Some(3));
    assert_eq!(task.started_at, Some(running));
    assert_eq!(harness.remaining(&instance, "CPU"), 4096);
}

#[test]
fn a_task_that_never_ran_has_failed_to_start_and_says_why() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let mut input = report(&arn, "STOPPED", None);
    input.containers.as_mut().unwrap()[0].reason =
        Some("CannotPullContainerError: no such image".to_owned());
    done(
        harness
            .service
            .submit_task_state_change(&harness.ctx(), input),
    )
    .unwrap();
    let task = harness.task(&arn);
    assert_eq!(task.stop_code, Some(TaskStopCode::TaskFailedToStart));
    assert_eq!(
        task.stopped_reason.as_deref(),
        Some("CannotPullContainerError: no such image")
    );
    assert_eq!(task.started_at, None);
    assert_eq!(task.containers.unwrap()[0].exit_code, None);
    let said = gantry_ecs::explain::task(
        &harness.store.snapshot(),
        &harness.scope(),
        arn.rsplit('/').next().unwrap(),
        harness.env.now(),
    )
    .unwrap();
    assert_eq!(
        said.sentences[0],
        "The task failed to start: CannotPullContainerError: no such image."
    );
}

#[test]
fn a_task_that_ended_before_it_was_seen_running_did_run() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.submit(&arn, "STOPPED", Some(0));
    let task = harness.task(&arn);
    assert_eq!(task.stop_code, Some(TaskStopCode::EssentialContainerExited));
    assert!(task.started_at.is_some());
}

#[test]
fn a_task_whose_dependency_failed_never_started() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let reason = "CannotStartContainerError: dependency graph: failed to resolve container ordering \
                  dependency [init] for target [web] as dependency did not exit successfully.";
    let input = SubmitTaskStateChangeRequest {
        cluster: Some("default".to_owned()),
        task: Some(arn.clone()),
        status: Some("STOPPED".to_owned()),
        reason: Some(reason.to_owned()),
        // As the Amazon ECS agent reports it: with an exit code, and without a runtime id.
        containers: Some(vec![ContainerStateChange {
            container_name: Some("web".to_owned()),
            status: Some("STOPPED".to_owned()),
            exit_code: Some(143),
            reason: Some(reason.to_owned()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    done(
        harness
            .service
            .submit_task_state_change(&harness.ctx(), input),
    )
    .unwrap();
    let task = harness.task(&arn);
    assert_eq!(task.stop_code, Some(TaskStopCode::TaskFailedToStart));
    assert_eq!(task.stopped_reason.as_deref(), Some(reason));
    assert_eq!(task.started_at, None);
    assert_eq!(task.containers.unwrap()[0].exit_code, Some(143));
}

#[test]
fn a_stop_is_decided_once_and_its_reason_stays() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.submit(&arn, "RUNNING", None);
    harness.env.advance(Duration::from_secs(1));
    let answered = harness.stop(&arn, "enough").unwrap();
    assert_eq!(status(&answered), ("RUNNING", "STOPPED"));
    assert_eq!(answered.stop_code, Some(TaskStopCode::UserInitiated));
    assert_eq!(answered.stopped_reason.as_deref(), Some("enough"));
    let decided = harness.env.now();
    harness.env.advance(Duration::from_secs(1));
    harness.stop(&arn, "again").unwrap();
    let task = harness.task(&arn);
    assert_eq!(status(&task), ("STOPPING", "STOPPED"));
    assert_eq!(task.stopped_reason.as_deref(), Some("enough"));
    assert_eq!(task.stopping_at, Some(decided));
    harness.submit(&arn, "STOPPED", Some(143));
    let task = harness.task(&arn);
    assert_eq!(task.stop_code, Some(TaskStopCode::UserInitiated));
    assert_eq!(task.containers.as_ref().unwrap()[0].exit_code, Some(143));
    // A stop of what is stopped changes nothing.
    assert_eq!(harness.stop(&arn, "later").unwrap(), task);
}

#[test]
fn what_ended_by_itself_is_not_stopped_by_a_late_user() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.submit(&arn, "RUNNING", None);
    let input = SubmitContainerStateChangeRequest {
        cluster: Some("default".to_owned()),
        task: Some(arn.clone()),
        container_name: Some("web".to_owned()),
        status: Some("STOPPED".to_owned()),
        exit_code: Some(1),
        ..Default::default()
    };
    let answer = done(
        harness
            .service
            .submit_container_state_change(&harness.ctx(), input),
    );
    assert!(answer.unwrap().acknowledgment.is_some());
    let task = harness.stop(&arn, "too late").unwrap();
    assert_eq!(status(&task), ("RUNNING", "STOPPED"));
    assert_eq!(task.stop_code, Some(TaskStopCode::EssentialContainerExited));
}

#[test]
fn reports_again_and_late_reports_change_nothing() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.submit(&arn, "RUNNING", None);
    let running = harness.task(&arn);
    let revision = harness.store.snapshot().revision();
    harness.env.advance(Duration::from_secs(9));
    harness.submit(&arn, "RUNNING", None);
    assert_eq!(harness.task(&arn), running);
    assert_eq!(harness.store.snapshot().revision(), revision);
    harness.submit(&arn, "STOPPED", Some(0));
    let stopped = harness.task(&arn);
    // The same end with another code and another run of the container, and an earlier state with one.
    for (status, exit_code) in [
        ("STOPPED", Some(77)),
        ("RUNNING", Some(77)),
        ("PENDING", None),
    ] {
        harness.submit(&arn, status, exit_code);
        assert_eq!(harness.task(&arn), stopped, "{status} {exit_code:?}");
    }
    let containers = stopped.containers.unwrap();
    assert_eq!(containers[0].exit_code, Some(0));
}

#[test]
fn a_container_that_is_not_essential_ends_alone() {
    let (harness, _) = Harness::with_instance();
    let mut input = web();
    let mut side = container("side");
    side.essential = Some(false);
    input.container_definitions.push(side);
    harness.register(input).unwrap();
    let arn = harness.run_one("web");
    let change = |name: &str, status: &str, exit_code| ContainerStateChange {
        container_name: Some(name.to_owned()),
        status: Some(status.to_owned()),
        exit_code,
        ..Default::default()
    };
    let input = SubmitTaskStateChangeRequest {
        cluster: Some("default".to_owned()),
        task: Some(arn.clone()),
        status: Some("RUNNING".to_owned()),
        containers: Some(vec![
            change("side", "STOPPED", Some(0)),
            change("web", "RUNNING", None),
            change("stranger", "RUNNING", None),
        ]),
        ..Default::default()
    };
    done(
        harness
            .service
            .submit_task_state_change(&harness.ctx(), input),
    )
    .unwrap();
    let task = harness.task(&arn);
    assert_eq!(status(&task), ("RUNNING", "RUNNING"));
    let containers = task.containers.unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[1].last_status.as_deref(), Some("STOPPED"));
    assert_eq!(containers[1].exit_code, Some(0));
}

#[test]
fn bad_reports_are_refused() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let submit = |input| {
        refusal(done(
            harness
                .service
                .submit_task_state_change(&harness.ctx(), input),
        ))
    };
    assert_eq!(
        submit(report(&arn, "FLYING", None)).1,
        "Invalid status 'FLYING'."
    );
    let other = format!("{}{}", &arn[..arn.len() - 32], "0".repeat(32));
    assert_eq!(
        submit(report(&other, "RUNNING", None)).1,
        "The referenced task was not found."
    );
    let refused = refusal(harness.stop(&other, ""));
    assert_eq!(
        refused,
        (
            "InvalidParameterException".to_owned(),
            "The referenced task was not found.".to_owned()
        )
    );
}

#[test]
fn describe_answers_what_is_missing_and_refuses_what_is_wrong() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let describe = |tasks: Vec<String>| {
        let input = DescribeTasksRequest {
            tasks,
            ..Default::default()
        };
        done(harness.service.describe_tasks(&harness.ctx(), input))
    };
    let missing = "0".repeat(32);
    let id = arn.rsplit('/').next().unwrap().to_owned();
    let answer = describe(vec![id, missing.clone()]).unwrap();
    assert_eq!(
        answer.tasks.unwrap()[0].task_arn.as_deref(),
        Some(arn.as_str())
    );
    let failure = &answer.failures.unwrap()[0];
    assert_eq!(failure.reason.as_deref(), Some("MISSING"));
    assert!(failure.arn.as_ref().unwrap().ends_with(&missing));
    assert_eq!(refusal(describe(vec![])).1, "Tasks cannot be empty.");
    assert_eq!(
        refusal(describe(vec![missing; 101])).0,
        "InvalidParameterException"
    );
    assert_eq!(
        refusal(describe(vec!["short".to_owned()])).0,
        "InvalidParameterException"
    );
    assert_eq!(
        refusal(describe(vec![arn.replace("/default/", "/other/")])).1,
        "Identifier is for cluster other. Your cluster is default"
    );
}

#[test]
fn lists_filter_by_everything_and_come_in_pages() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let mut other = web();
    other.family = "other".to_owned();
    harness.register(other).unwrap();
    let mut input = run("web");
    input.count = Some(5);
    input.started_by = Some("me".to_owned());
    harness.run(input).unwrap();
    let stopped = harness.run_one("other");
    harness.submit(&stopped, "STOPPED", Some(0));
    let list = |input: ListTasksRequest| {
        done(harness.service.list_tasks(&harness.ctx(), input))
            .map(|page| (page.task_arns.unwrap().len(), page.next_token))
    };
    let by = |change: &dyn Fn(&mut ListTasksRequest)| {
        let mut input = ListTasksRequest::default();
        change(&mut input);
        list(input).unwrap().0
    };
    assert_eq!(by(&|_| ()), 5);
    assert_eq!(by(&|l| l.desired_status = Some(DesiredStatus::Stopped)), 1);
    assert_eq!(by(&|l| l.desired_status = Some(DesiredStatus::Pending)), 0);
    assert_eq!(by(&|l| l.family = Some("web".into())), 5);
    assert_eq!(by(&|l| l.family = Some("other".into())), 0);
    assert_eq!(by(&|l| l.started_by = Some("me".into())), 5);
    assert_eq!(by(&|l| l.started_by = Some("you".into())), 0);
    assert_eq!(by(&|l| l.container_instance = Some(instance.clone())), 5);
    assert_eq!(by(&|l| l.launch_type = Some(LaunchType::Fargate)), 0);
    let (first, token) = list(ListTasksRequest {
        max_results: Some(3),
        ..Default::default()
    })
    .unwrap();
    let rest = list(ListTasksRequest {
        next_token: token,
        ..Default::default()
    })
    .unwrap();
    assert_eq!((first, rest), (3, (2, None)));
    let services = ListTasksRequest {
        service_name: Some("s".into()),
        ..Default::default()
    };
    assert_eq!(refusal(list(services)).0, "ServiceNotFoundException");
}

fn any_report() -> impl Strategy<Value = (usize, Option<i32>, bool)> {
    (0..6usize, any::<Option<i32>>(), any::<bool>())
}

proptest! {
    #[test]
    fn no_report_or_stop_ever_takes_a_task_backwards(
        reports in proptest::collection::vec(any_report(), 1..12),
    ) {
        const WORDS: [&str; 6] = ["NONE", "PULLED", "CREATED", "RUNNING", "STOPPED", "PENDING"];
        let (harness, _) = Harness::with_instance();
        harness.register_web();
        let arn = harness.run_one("web");
        let mut before = harness.task(&arn);
        for (word, exit_code, stop) in reports {
            if stop {
                harness.stop(&arn, "because").unwrap();
            }
            harness.submit(&arn, WORDS[word], exit_code);
            let after = harness.task(&arn);
            let of = |task: &Task| -> LastStatus { status(task).0.parse().unwrap() };
            prop_assert!(of(&after) >= of(&before));
            prop_assert!(after.version >= before.version);
            prop_assert!(before.started_at.is_none() || before.started_at == after.started_at);
            prop_assert!(before.stop_code.is_none() || before.stop_code == after.stop_code);
            if of(&before) == LastStatus::Stopped {
                prop_assert_eq!(&before.stopped_at, &after.stopped_at);
            }
            before = after;
        }
    }
}
