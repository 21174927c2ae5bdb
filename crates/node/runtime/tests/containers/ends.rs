//! How containers start and end: exit codes, signals, memory, refusals.

use std::time::Duration;

use gantry_runtime::RuntimeEvent;

use crate::{Fixture, busybox, event, exit, lines, name};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code_arrive() {
    let fixture = Fixture::new().await;
    let (exit, mut lines) = fixture
        .run(fixture.script("echo out; echo err >&2; exit 7"))
        .await;
    lines.sort();
    assert_eq!(
        (exit.exit_code, exit.signal, exit.out_of_memory),
        (7, None, false)
    );
    assert_eq!(lines, ["err", "out"]);
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_told_before_its_end() {
    let fixture = Fixture::new().await;
    for _ in 0..20 {
        let task = fixture.task().await;
        let started = task
            .start_container(fixture.program(&["/bin/true"]))
            .await
            .unwrap();
        match event(&fixture.runtime).await {
            RuntimeEvent::ContainerStarted { pid, .. } => assert_eq!(pid, started.pid),
            other => panic!("{other:?} before the start"),
        }
        assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
        task.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let fixture = Fixture::new().await;
    let mut no_user = fixture.program(&["/bin/true"]);
    no_user.user = Some("nobody".to_owned());
    let mut bad_cwd = fixture.program(&["/bin/true"]);
    bad_cwd.working_directory = Some("/data".to_owned());
    let cases = [
        (
            fixture.program(&["/nope"]),
            "CannotStartContainerError: ",
            "exec: \"/nope\": stat /nope: no such file or directory: unknown",
        ),
        (
            fixture.program(&["nope"]),
            "CannotStartContainerError: ",
            "exec: \"nope\": executable file not found in $PATH: unknown",
        ),
        (
            fixture.program(&["/data"]),
            "CannotStartContainerError: ",
            "permission denied",
        ),
        (
            fixture.program(&["/garbage"]),
            "CannotStartContainerError: ",
            "exec format error",
        ),
        (
            no_user,
            "CannotStartContainerError: ",
            "unable to find user nobody",
        ),
        (bad_cwd, "Cannot", "/data"),
    ];
    for (spec, kind, part) in cases {
        let text = fixture.refusal(spec).await;
        assert!(
            text.starts_with(kind) && text.contains(part),
            "{text:?} has no {part:?}"
        );
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_too_much_memory_is_known() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.program(&["tail", "/dev/zero"]);
    spec.resources.memory_bytes = Some(24 * MIB);
    let (exit, _) = fixture.run(spec).await;
    assert_eq!((exit.exit_code, exit.out_of_memory), (137, true));

    let (exit, _) = fixture.run(fixture.script("exit 137")).await;
    assert_eq!(
        (exit.exit_code, exit.signal, exit.out_of_memory),
        (137, None, false)
    );

    // A killed child is the container's own affair, also when the container is then killed by a stop.
    let mut spec =
        fixture.script("trap '' TERM; tail /dev/zero; echo went on; sleep 100; sleep 100");
    spec.resources.memory_bytes = Some(24 * MIB);
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    loop {
        let batch = reader.next_batch(10).await.unwrap();
        if batch.is_empty()
            || batch
                .iter()
                .any(|record| record.bytes.ends_with(b"went on"))
        {
            break;
        }
    }
    task.stop(&name("app"), Duration::from_millis(50))
        .await
        .unwrap();
    let exit = exit_of(&fixture).await;
    assert_eq!((exit.signal, exit.out_of_memory), (Some(9), false));
    task.remove().await.unwrap();
}

async fn exit_of(fixture: &Fixture) -> gantry_runtime::Exit {
    exit(&fixture.runtime).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_memory_that_ecs_allows_is_enough_to_start() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.script("echo small");
    spec.resources.memory_bytes = Some(6 * MIB);
    spec.resources.cpu_shares = Some(0);
    let (exit, lines) = fixture.run(spec).await;
    assert_eq!((exit.exit_code, lines), (0, vec!["small".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_asks_first_and_then_kills() {
    let fixture = Fixture::with_image(busybox().stop_signal("SIGUSR1")).await;
    let task = fixture.task().await;
    let polite = fixture.script("trap 'exit 3' USR1; echo ready; while true; do sleep 0.01; done");
    task.start_container(polite).await.unwrap();
    task.logs(&name("app"), 0)
        .unwrap()
        .next_batch(1)
        .await
        .unwrap();
    task.stop(&name("app"), crate::patience()).await.unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 3);
    task.remove().await.unwrap();

    let task = fixture.task().await;
    let stubborn = fixture.script("trap '' USR1; echo ready; while true; do sleep 1; done");
    task.start_container(stubborn).await.unwrap();
    task.logs(&name("app"), 0)
        .unwrap()
        .next_batch(1)
        .await
        .unwrap();
    task.stop(&name("app"), Duration::from_millis(100))
        .await
        .unwrap();
    let exit = exit(&fixture.runtime).await;
    assert_eq!((exit.exit_code, exit.signal), (137, Some(9)));
    assert_eq!(lines(&task).await, ["ready"]);
    fixture.assert_nothing_left().await;
}
