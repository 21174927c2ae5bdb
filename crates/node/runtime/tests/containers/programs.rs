//! Programs beside a container's own, the same container again, terminals and open standard input.

use std::time::Duration;

use gantry_runtime::{ExecSpec, NetworkMode, PidMode, RuntimeEvent, TaskHandle};

use crate::{Fixture, event, eventually, exit, lines, name, open};

fn shell(script: &str) -> ExecSpec {
    ExecSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        user: None,
        timeout: crate::patience(),
        output_bytes_max: 64 << 10,
    }
}

async fn says(task: &TaskHandle, script: &str) -> (i32, Vec<String>) {
    let result = task.exec(&name("app"), shell(script)).await.unwrap();
    assert!(!result.timed_out);
    let text = String::from_utf8(result.output).unwrap();
    (result.exit_code, text.lines().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_beside_is_in_the_container_and_as_confined_as_it() {
    let fixture = Fixture::new().await;
    for (user, network) in [("0", NetworkMode::Host), ("app", NetworkMode::None)] {
        let task = fixture.task_in(network).await;
        let mut spec = fixture.script(
            "for n in net pid mnt ipc uts cgroup; do readlink /proc/self/ns/$n; done; \
             grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; pwd; exec sleep 1000",
        );
        spec.user = Some(user.to_owned());
        spec.working_directory = Some("/made/here".to_owned());
        spec.capabilities_drop = vec!["CHOWN".to_owned()];
        spec.environment = vec![("FROM".to_owned(), "task".to_owned())];
        task.start_container(spec).await.unwrap();
        let mut own = Vec::new();
        let mut reader = task.logs(&name("app"), 0).unwrap();
        while !own.iter().any(|line: &String| line == "/made/here") {
            for record in reader.next_batch(100).await.unwrap() {
                own.push(String::from_utf8(record.bytes).unwrap());
            }
        }
        let (code, beside) = says(
            &task,
            "for n in net pid mnt ipc uts cgroup; do readlink /proc/self/ns/$n; done; \
             grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; pwd",
        )
        .await;
        assert_eq!((code, &beside), (0, &own));
        assert!(
            own.iter()
                .any(|line| line.replace('\t', " ") == "Seccomp: 2"),
            "{own:?}"
        );
        let (_, more) = says(
            &task,
            "echo $FROM $HOME; unshare -U true || echo refused; readlink /proc/self/exe; exit 3",
        )
        .await;
        assert!(more[0].starts_with("task /"), "{more:?}");
        assert!(more.iter().any(|line| line == "refused"), "{more:?}");
        task.remove().await.unwrap();
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_beside_has_an_end_an_output_and_a_user() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.script("exec sleep 1000"))
        .await
        .unwrap();
    assert_eq!(says(&task, "echo out; echo err >&2; exit 7").await.0, 7);
    assert_eq!(says(&task, "kill -9 $$").await.0, 137);
    let mut spec = shell("id -u; id -g; echo $X");
    spec.user = Some("app".to_owned());
    spec.environment = vec![("X".to_owned(), "y".to_owned())];
    let result = task.exec(&name("app"), spec).await.unwrap();
    assert_eq!(result.output, b"1000\n1001\ny\n");
    let mut much = shell("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done");
    much.output_bytes_max = 100;
    let result = task.exec(&name("app"), much).await.unwrap();
    assert_eq!((result.exit_code, result.output.len()), (0, 100));
    let mut absent = shell("");
    absent.args = vec!["nope".to_owned()];
    let result = task.exec(&name("app"), absent).await.unwrap();
    let text = String::from_utf8(result.output).unwrap();
    assert_eq!(result.exit_code, 127, "{text}");
    assert!(text.contains("nope"), "{text}");
    let of_nobody = task.exec(&name("other"), shell("true")).await.unwrap_err();
    assert!(
        of_nobody.to_string().contains("is not running"),
        "{of_nobody}"
    );
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_beside_is_killed_as_a_whole() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.script("exec sleep 1000"))
        .await
        .unwrap();
    let sleepers = || {
        let found = fixture.processes();
        found.iter().filter(|line| line.contains("77777")).count()
    };
    // At its time-out, with what it put behind itself.
    let mut slow = shell("trap '' TERM; sleep 77777 & (sleep 77777 &) ; echo begun; sleep 77777");
    slow.timeout = crate::scaled(Duration::from_millis(400));
    let result = task.exec(&name("app"), slow).await.unwrap();
    assert_eq!((result.exit_code, result.timed_out), (137, true));
    assert_eq!(result.output, b"begun\n");
    assert_eq!(sleepers(), 0);
    // At its own end.
    let (code, _) = says(&task, "sleep 77777 & exit 4").await;
    assert_eq!((code, sleepers()), (4, 0));
    // At the container's.
    let (beside, container) = (task.clone(), task.clone());
    let ended = tokio::spawn(async move { beside.exec(&name("app"), shell("sleep 77777")).await });
    eventually("it runs", || sleepers() > 0).await;
    container.signal(&name("app"), 9).await.unwrap();
    let result = ended.await.unwrap().unwrap();
    assert_eq!((result.exit_code, result.timed_out), (137, false));
    assert_eq!(exit(&fixture.runtime).await.exit_code, 137);
    assert_eq!(sleepers(), 0);
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_container_again_keeps_what_it_wrote() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    let script = "echo x >> /ran; n=$(grep -c x /ran); echo run $n; \
                  [ $n -lt 3 ] && exit $n; exec sleep 1000";
    let first = task.start_container(fixture.script(script)).await.unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 1);
    let refused = task.restart_container(&name("other")).await.unwrap_err();
    assert!(refused.to_string().contains("never started"), "{refused}");
    let second = task.restart_container(&name("app")).await.unwrap();
    assert_ne!(first.pid, second.pid);
    match event(&fixture.runtime).await {
        RuntimeEvent::ContainerStarted { pid, .. } => assert_eq!(pid, second.pid),
        other => panic!("{other:?}"),
    }
    assert_eq!(exit(&fixture.runtime).await.exit_code, 2);
    task.restart_container(&name("app")).await.unwrap();
    let running = task.restart_container(&name("app")).await.unwrap_err();
    assert!(running.to_string().contains("has not ended"), "{running}");
    let mut reader = task.logs(&name("app"), 0).unwrap();
    let mut said = Vec::new();
    while said.len() < 3 {
        for record in reader.next_batch(10).await.unwrap() {
            said.push(String::from_utf8(record.bytes).unwrap());
        }
    }
    assert_eq!(said, ["run 1", "run 2", "run 3"]);
    // Whoever comes next knows how often it ran.
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    let adopted = runtime.adopt().await.unwrap().remove(0);
    let container = &adopted.containers[0];
    assert_eq!((container.restarts, container.exit.is_none()), (2, true));
    adopted.handle.signal(&name("app"), 9).await.unwrap();
    assert_eq!(exit(&runtime).await.signal, Some(9));
    adopted
        .handle
        .restart_container(&name("app"))
        .await
        .unwrap();
    adopted.handle.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_and_its_output_is_kept() {
    let fixture = Fixture::new().await;
    for (user, has_init) in [("0", false), ("app", true)] {
        let mut spec = fixture.script(
            "tty; test -t 0 && test -t 1 && test -t 2 && echo three; echo err >&2; echo > /dev/tty",
        );
        spec.terminal = true;
        spec.init_process = has_init;
        spec.user = Some(user.to_owned());
        let (exit, lines) = fixture.run(spec).await;
        assert_eq!(exit.exit_code, 0, "{lines:?}");
        // As Docker keeps them: a terminal ends its lines with both.
        assert_eq!(lines, ["/dev/pts/0\r", "three\r", "err\r", "\r"]);
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_at_its_end_or_stays_open() {
    let fixture = Fixture::new().await;
    let (exit_closed, _) = fixture.run(fixture.script("cat; exit 5")).await;
    assert_eq!(exit_closed.exit_code, 5);
    let mut spec = fixture.script("echo waits; cat; exit 5");
    spec.stdin_open = true;
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    reader.next_batch(1).await.unwrap();
    let waits = "[ \"$(cat /proc/1/wchan 2>/dev/null)\" != x ] && kill -0 1 && echo there";
    assert_eq!(says(&task, waits).await.1, ["there"]);
    task.stop(&name("app"), Duration::ZERO).await.unwrap();
    assert_ne!(exit(&fixture.runtime).await.exit_code, 5);
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_passes_signals_on_and_a_stop_ends_what_shares_its_processes() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    let mut spec = fixture.script("trap 'exit 6' TERM; echo $$; while true; do sleep 0.01; done");
    spec.init_process = true;
    task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    let first = reader.next_batch(1).await.unwrap();
    assert_ne!(first[0].bytes, b"1", "the program is not the first process");
    task.stop(&name("app"), crate::patience()).await.unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 6);
    task.remove().await.unwrap();

    // With the host's process ids nothing ends by itself when the first process does.
    let mut spec = fixture.task_spec(NetworkMode::Host);
    spec.pid_mode = PidMode::Host;
    let task = fixture.runtime.create_task(spec).await.unwrap();
    task.start_container(fixture.script("sleep 77777 & exit 8"))
        .await
        .unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 8);
    eventually("what it left ends", || {
        let found = fixture.processes();
        !found.iter().any(|line| line.contains("77777"))
    })
    .await;
    assert!(lines(&task).await.is_empty());
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}
