//! What containers share with each other or with the host: processes, IPC, memory, networks; and what they then may change.

use std::os::unix::fs::MetadataExt;

use gantry_runtime::{ContainerSpec, IpcMode, NetworkMode, PidMode, TaskHandle};

use crate::{Fixture, exit, lines_of, name};

impl Fixture {
    async fn sharing(&self, pids: PidMode, ipc: IpcMode) -> TaskHandle {
        let mut spec = self.task_spec(NetworkMode::None);
        spec.pid_mode = pids;
        spec.ipc_mode = ipc;
        self.runtime.create_task(spec).await.unwrap()
    }

    fn called(&self, container: &str, script: &str) -> ContainerSpec {
        let mut spec = self.script(script);
        spec.name = name(container);
        spec
    }

    /// Runs it to its end, beside whatever runs in the task.
    async fn run_beside(&self, task: &TaskHandle, spec: ContainerSpec) -> Vec<String> {
        let container = spec.name.as_str().to_owned();
        task.start_container(spec).await.unwrap();
        exit(&self.runtime).await;
        lines_of(task, &container).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_task_see_each_others_processes() {
    let fixture = Fixture::with_intruder().await;
    let task = fixture.sharing(PidMode::Task, IpcMode::Container).await;
    task.start_container(fixture.called("first", "exec sleep 1000"))
        .await
        .unwrap();
    let told = fixture
        .run_beside(
            &task,
            fixture.called(
                "second",
                "ps -o pid,args; cat /proc/1/cmdline; echo; ls /proc/1/root 2>&1",
            ),
        )
        .await;
    assert!(
        told.iter().any(|line| line.contains("sleep 1000")),
        "{told:?}"
    );
    // Whoever holds them together gives nothing away.
    assert!(
        told.iter()
            .any(|line| line.trim_end_matches('\0') == "pause"),
        "{told:?}"
    );
    assert!(
        told.iter()
            .filter(|line| line.contains("Permission denied"))
            .count()
            >= 1,
        "{told:?}"
    );
    assert!(!told.iter().any(|line| line.contains("gantry")), "{told:?}");
    // It can end the other: they are one to the kernel.
    fixture.run_beside(&task, fixture.called("third", "kill -9 $(ps -o pid,args | grep '[s]leep 1000' | while read pid rest; do echo $pid; done); sleep 0.2")).await;
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_takes_its_processes_along_where_they_are_shared() {
    let fixture = Fixture::with_intruder().await;
    let task = fixture.sharing(PidMode::Task, IpcMode::Container).await;
    task.start_container(fixture.called("first", "exec sleep 1000"))
        .await
        .unwrap();
    fixture
        .run_beside(&task, fixture.called("second", "sleep 4321 & exit 0"))
        .await;
    let mut seen = vec![];
    for round in 0..50 {
        seen = fixture
            .run_beside(
                &task,
                fixture.called(
                    &format!("look{round}"),
                    "ps -o args | grep -c '[s]leep 4321'",
                ),
            )
            .await;
        if seen == ["0"] {
            break;
        }
    }
    assert_eq!(seen, ["0"]);
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_task_share_memory() {
    let fixture = Fixture::with_intruder().await;
    let task = fixture.sharing(PidMode::Container, IpcMode::Task).await;
    let mut first = fixture.called(
        "first",
        "echo shared > /dev/shm/x; stat -L -c %i /proc/self/ns/ipc",
    );
    first.shm_size_bytes = Some(8 << 20);
    let told = fixture.run_beside(&task, first).await;
    let mut second = fixture.called(
        "second",
        "cat /dev/shm/x; stat -L -c %i /proc/self/ns/ipc; df -k /dev/shm | tail -1",
    );
    second.shm_size_bytes = Some(32 << 20);
    let seen = fixture.run_beside(&task, second).await;
    assert_eq!(
        seen[..2],
        ["shared".to_owned(), told[0].clone()],
        "{seen:?}"
    );
    // The largest that is asked for.
    assert!(seen[2].contains(" 32768 "), "{seen:?}");
    let own = std::fs::metadata("/proc/self/ns/ipc").unwrap().ino();
    assert_ne!(told[0], own.to_string());
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_to_share_has_the_size_that_is_asked_for() {
    let fixture = Fixture::with_intruder().await;
    for (asked, kib) in [(None, " 65536 "), (Some(10 << 20), " 10240 ")] {
        let mut spec = fixture.script("df -k /dev/shm | tail -1");
        spec.shm_size_bytes = asked;
        let (_, told) = fixture.run(spec).await;
        assert!(told[0].contains(kib), "{told:?}");
    }
    let task = fixture.sharing(PidMode::Container, IpcMode::None).await;
    let told = fixture
        .run_beside(
            &task,
            fixture.called("app", "grep -c ' /dev/shm ' /proc/mounts"),
        )
        .await;
    assert_eq!(told, ["0"]);
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_processes_and_memory_can_be_shared() {
    let fixture = Fixture::with_intruder().await;
    let task = fixture.sharing(PidMode::Host, IpcMode::Host).await;
    let mark = std::path::Path::new("/dev/shm").join(format!("gantry-{}", fixture.installation));
    let script = format!(
        "ls -d /proc/{}; stat -L -c %i /proc/self/ns/pid /proc/self/ns/ipc; echo x > /dev/shm/{}; sleep 4242 &",
        std::process::id(),
        mark.file_name().unwrap().to_str().unwrap()
    );
    let told = fixture
        .run_beside(&task, fixture.called("app", &script))
        .await;
    let own = |kind: &str| {
        std::fs::metadata(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .ino()
            .to_string()
    };
    assert_eq!(
        told,
        [
            format!("/proc/{}", std::process::id()),
            own("pid"),
            own("ipc")
        ]
    );
    assert!(mark.exists());
    std::fs::remove_file(mark).unwrap();
    // What it left running among the host's processes goes with it.
    crate::eventually("the sleeper goes", || {
        !fixture.processes().iter().any(|line| line.contains("4242"))
    })
    .await;
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_namespace_is_joined_by_its_path() {
    let fixture = Fixture::with_intruder().await;
    // A namespace of a process that does nothing else.
    let mut holder = std::process::Command::new("unshare")
        .args(["-n", "sleep", "1000"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    crate::eventually("unshare has unshared", || {
        std::fs::metadata(&path).is_ok_and(|meta| meta.ino() != own)
    })
    .await;
    let joined = std::fs::metadata(&path).unwrap().ino();
    let mut spec = fixture.script("stat -L -c %i /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; hostname | grep -c .");
    spec.network_namespace = Some(path.into());
    spec.sysctls = [(
        "net.ipv4.ip_unprivileged_port_start".to_owned(),
        "80".to_owned(),
    )]
    .into();
    let (_, told) = fixture.run_in(NetworkMode::Namespaces, spec).await;
    assert_eq!(told, [joined.to_string(), "80".to_owned(), "1".to_owned()]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let task = fixture.task_in(NetworkMode::Namespaces).await;
    let why = task
        .start_container(fixture.script("true"))
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("names no network namespace"), "{why}");
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kernel_parameters_of_its_own_are_set_and_others_refused() {
    let fixture = Fixture::with_intruder().await;
    let sysctls = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mut spec = fixture.script(
        "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max",
    );
    spec.sysctls = sysctls(&[
        ("net.core.somaxconn", "77"),
        ("kernel.shmmax", "123456"),
        ("fs.mqueue.msg_max", "11"),
    ]);
    spec.user = Some("1000".to_owned());
    let (_, told) = fixture.run_in(NetworkMode::None, spec.clone()).await;
    assert_eq!(told, ["77", "123456", "11"]);
    assert!(
        fixture
            .refusal(spec)
            .await
            .contains("\"net.core.somaxconn\" is not allowed in the host's network")
    );
    for name in ["kernel.core_pattern", "vm.swappiness", "kernel.hostname"] {
        let mut spec = fixture.script("true");
        spec.sysctls = sysctls(&[(name, "1")]);
        let why = fixture.refusal(spec).await;
        assert!(
            why.contains(&format!(
                "sysctl \"{name}\" is not in a separate kernel namespace"
            )),
            "{why}"
        );
    }
}
