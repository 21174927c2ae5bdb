//! Ways out of a container, tried from inside a real one. All fail.

use std::os::unix::fs::symlink;

use gantry_runtime::{BindMount, NetworkMode, PidMode};

use crate::intruders::{assert_all, disk};
use crate::{Fixture, eventually, exit, lines, lines_of, name};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_mounted() {
    let fixture = Fixture::with_intruder().await;
    assert_all(&fixture.tries(&["mounts"]).await, &["EPERM"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_cannot_be_taken_away() {
    let fixture = Fixture::with_intruder().await;
    assert_all(&fixture.tries(&["masks"]).await, &["EPERM"]);
    let read = fixture
        .tries(&[
            "read",
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/sched_debug",
            "/proc/latency_stats",
            "/proc/interrupts",
        ])
        .await;
    // A mask is /dev/null, or the kernel has no such file.
    assert_all(&read, &["empty", "ENOENT"]);
    assert!(
        read.contains(&"read /proc/kcore: empty".to_owned())
            || !std::path::Path::new("/proc/kcore").exists()
    );
    let (_, firmware) = fixture
        .run(fixture.script("ls /sys/firmware | head -1"))
        .await;
    assert!(firmware.is_empty(), "{firmware:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_parameters_cannot_be_written() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture
        .tries(&[
            "write",
            "/proc/sys/kernel/core_pattern=|/x",
            "/proc/sys/kernel/modprobe=/x",
            "/proc/sys/kernel/hostname=x",
            "/proc/sys/vm/panic_on_oom=1",
            "/proc/sys/fs/binfmt_misc/register=x",
            "/proc/irq/default_smp_affinity=1",
            "/proc/bus/pci",
            "/sys/kernel/uevent_helper=/x",
            "/sys/kernel/mm/ksm/run=0",
            "/sys/fs/cgroup/x-was-here",
            "/sys/class/net/lo/mtu=1400",
        ])
        .await;
    assert_all(
        &tried,
        &["EROFS", "ENOENT", "EACCES", "EPERM", "another error"],
    );
    assert!(
        tried[0].ends_with("EROFS") && tried[2].ends_with("EROFS"),
        "{tried:?}"
    );
    assert!(tried.iter().all(|line| !line.contains("DONE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn sysrq_cannot_be_triggered() {
    let fixture = Fixture::with_intruder().await;
    // `h` only prints a help text, if it should work.
    let tried = fixture.tries(&["write", "/proc/sysrq-trigger=h"]).await;
    assert_all(&tried, &["EROFS", "ENOENT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_a_container_makes_cannot_be_opened() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture
        .tries(&["devices", &disk(std::path::Path::new("/"))])
        .await;
    for line in &tried {
        let expected = if line.starts_with("mknod") || line.ends_with("null: DONE") {
            "DONE"
        } else {
            "EPERM"
        };
        assert!(line.ends_with(expected), "{line:?} in {tried:?}");
    }
    let (_, shown) = fixture
        .run(fixture.script("cd /dev; find . | sort | head -40"))
        .await;
    for absent in [
        "./mem",
        "./kmsg",
        "./sda",
        "./vda",
        "./net/tun",
        "./fuse",
        "./loop0",
    ] {
        assert!(!shown.iter().any(|line| line == absent), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cgroups_cannot_be_changed() {
    let fixture = Fixture::with_intruder().await;
    let script = "
        for file in release_agent notify_on_release memory.limit_in_bytes memory.max devices.allow pids.max \
                    cgroup.procs tasks cgroup.subtree_control cgroup.kill freezer.state; do
            for found in $(find /sys/fs/cgroup -name $file); do
                (echo 1 > $found) 2>/dev/null && echo written $found
            done
        done
        mkdir /sys/fs/cgroup/*/new /sys/fs/cgroup/new 2>/dev/null && echo made
        ls /sys/fs/cgroup
        cat /proc/self/cgroup";
    let (_, told) = fixture.run(fixture.script(script)).await;
    assert!(
        !told
            .iter()
            .any(|line| line.starts_with("written") || line == "made"),
        "{told:?}"
    );
    // It is there to be read, and shows nothing but its own.
    assert!(told.iter().any(|line| line.contains("memory")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("gantry")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_namespace_can_be_made() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture.tries(&["namespaces"]).await;
    let (last, others) = tried.split_last().unwrap();
    assert_all(others, &["EPERM"]);
    // So that a C library falls back to a call that the filter can look into.
    assert_eq!(last, "clone3: ENOSYS");
    let mut as_user = fixture.intruder(&["namespaces"]);
    as_user.user = Some("1000".to_owned());
    assert_all(
        &fixture.tries_in(NetworkMode::Host, as_user).await,
        &["EPERM", "ENOSYS"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_namespaces_cannot_be_joined() {
    let fixture = Fixture::with_intruder().await;
    let mut task = fixture.task_spec(NetworkMode::Host);
    // Even where the host's processes can be seen.
    task.pid_mode = PidMode::Host;
    let task = fixture.runtime.create_task(task).await.unwrap();
    task.start_container(fixture.intruder(&["join", "1"]))
        .await
        .unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
    let tried = lines(&task).await;
    assert_all(&tried, &["EACCES", "EPERM"]);
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_and_the_host_cannot_be_traced() {
    let fixture = Fixture::with_intruder().await;
    let mut task = fixture.task_spec(NetworkMode::Host);
    task.pid_mode = PidMode::Host;
    let task = fixture.runtime.create_task(task).await.unwrap();
    task.start_container(fixture.script("true")).await.unwrap();
    exit(&fixture.runtime).await;
    let shim = fixture.shim_pid(&task);
    for pid in [shim, std::process::id() as i32] {
        let mut spec = fixture.intruder(&["trace", &pid.to_string()]);
        spec.name = name(&format!("app{pid}"));
        task.start_container(spec).await.unwrap();
        assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
        let tried = lines_of(&task, &format!("app{pid}")).await;
        assert_all(&tried, &["EACCES", "EPERM"]);
    }
    assert!(!std::path::Path::new("/gantry-was-here").exists());
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_containers_processes_are_not_there() {
    let fixture = Fixture::with_intruder().await;
    let task = fixture.task().await;
    let mut first = fixture.intruder(&["wait"]);
    first.name = name("first");
    let first = task.start_container(first).await.unwrap();
    task.start_container(fixture.script("ps | grep -c [w]ait; ls /proc | grep -c '^[0-9]'"))
        .await
        .unwrap();
    exit(&fixture.runtime).await;
    let seen = lines(&task).await;
    assert_eq!(seen[0], "0", "{seen:?}");
    assert!(seen[1].parse::<u32>().unwrap() < 6, "{seen:?}");
    assert!(first.pid > 0);
    task.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_keys_are_out_of_reach() {
    let fixture = Fixture::with_intruder().await;
    assert_all(&fixture.tries(&["keys"]).await, &["EPERM"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_the_whole_machine_is_refused() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture.tries(&["kernel"]).await;
    for line in &tried {
        // The last two are there to show that the filter lets a program live.
        let expected = if line.starts_with("socket") || line.starts_with("getpid") {
            "DONE"
        } else {
            "EPERM"
        };
        assert!(line.ends_with(expected), "{line:?} in {tried:?}");
    }
    for refused in [
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "reboot",
        "vsock",
    ] {
        assert!(tried.contains(&format!("{refused}: EPERM")), "{tried:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_cannot_be_opened_by_their_number() {
    let fixture = Fixture::with_intruder().await;
    assert_all(&fixture.tries(&["handles"]).await, &["EPERM"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_cannot_be_raised() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture.tries(&["limits"]).await;
    assert_all(&tried, &["EPERM", "EACCES", "no limit"]);
    assert!(
        tried.contains(&"raise nofile: EPERM".to_owned()),
        "{tried:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chroot_leads_no_further_than_the_containers_root() {
    let fixture = Fixture::with_intruder().await;
    let mark = fixture.data_dir.to_str().unwrap();
    let tried = fixture.tries(&["chroot", mark]).await;
    assert_eq!(&tried[2..], ["container: true", "host: false"], "{tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_has_looked_at_do_not_exist() {
    let fixture = Fixture::with_intruder().await;
    let tried = fixture.tries(&["unknown"]).await;
    let (last, newer) = tried.split_last().unwrap();
    assert_all(newer, &["ENOSYS"]);
    assert!(
        last.ends_with("EPERM") || last.ends_with("ENOSYS"),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_of_gantrys_is_open() {
    let fixture = Fixture::with_intruder().await;
    let open = fixture.tries(&["descriptors"]).await;
    let numbers: Vec<&str> = open
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(numbers, ["0", "1", "2"], "{open:?}");
    assert!(
        open[1].contains("pipe:") && open[2].contains("pipe:"),
        "{open:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_environment_of_the_host_do_not_show() {
    let fixture = Fixture::with_intruder().await;
    let script = "cat /proc/net/unix | grep -v RefCount; echo --; env | sort; find / -xdev -type s";
    let (_, told) = fixture
        .run_in(NetworkMode::None, fixture.script(script))
        .await;
    let shown: Vec<_> = told
        .iter()
        .map(|line| line.split('=').next().unwrap())
        .collect();
    assert_eq!(
        shown,
        ["--", "FROM", "HOME", "PATH", "PWD", "SHLVL"],
        "{told:?}"
    );
    assert!(told.contains(&"FROM=image".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn gantrys_own_program_cannot_be_run_or_overwritten() {
    use gantry_runtime::image_builder::ImageBuilder;
    let mut image: ImageBuilder = crate::intruders::image();
    image
        .file("script", 0o755, "#!/proc/self/exe\n")
        .symlink("linked", "/proc/self/exe");
    let fixture = Fixture::with_image(&image).await;
    for program in ["/proc/self/exe", "/linked", "/script"] {
        let why = fixture.refusal(fixture.program(&[program])).await;
        assert!(
            why.contains("no such file") || why.contains("permission denied"),
            "{program}: {why}"
        );
    }
    // From inside, a process's own program is the container's.
    let script =
        "#!/bin/sh\nls -l /proc/self/exe /proc/1/exe; find / -xdev -name '*gantry-test-shim*'";
    let (_, told) = fixture.run(fixture.script(script)).await;
    assert!(
        told.iter().all(|line| line.ends_with("/bin/busybox")),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_process_can_neither_be_looked_into_nor_overwritten() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.program(&[
        "/bin/sh",
        "-c",
        "cat /proc/1/cmdline; echo; exec /intruder trace 1",
    ]);
    spec.init_process = true;
    let tried = fixture.tries_in(NetworkMode::Host, spec).await;
    assert_eq!(tried[0].trim_end_matches('\0'), "init");
    assert_all(&tried[1..], &["EACCES", "EPERM"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_image_lead_no_mount_out() {
    let mut image = crate::intruders::image();
    let outside = tempfile::tempdir().unwrap();
    let way_out = format!("../../../../../../../..{}", outside.path().display());
    image
        .symlink("absolute", outside.path().to_str().unwrap())
        .symlink("relative", &way_out)
        .symlink("etc/hosts", &format!("{}/hosts", outside.path().display()));
    let fixture = Fixture::with_image(&image).await;
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("here"), "x").unwrap();
    let mut spec = fixture.script(
        "cat /absolute/made/here /relative/also/here; echo; cat /etc/hosts | grep -c localhost",
    );
    spec.mounts = ["/absolute/made", "/relative/also"]
        .map(|target| BindMount {
            source: volume.path().to_owned(),
            target: target.into(),
            read_only: false,
        })
        .to_vec();
    let (exit, told) = fixture.run(spec).await;
    assert_eq!((exit.exit_code, told[0].as_str()), (0, "xx"), "{told:?}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_changes_under_a_mount_leads_nowhere() {
    let fixture = Fixture::with_intruder().await;
    let outside = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| volume.path().join(name);
    // Another container, say, that turns a folder into a link out and back as fast as it can.
    std::fs::create_dir(at("folder")).unwrap();
    symlink(outside.path(), at("link")).unwrap();
    std::fs::create_dir(at("flip")).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (flip, other, told) = (at("flip"), at("link"), stop.clone());
    let flipping = std::thread::spawn(move || {
        let mut turns = 0_u64;
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(rustix::fs::CWD, &flip, rustix::fs::CWD, &other, exchange)
                .unwrap();
            turns += 1;
        }
        turns
    });
    let mount = |source: &std::path::Path, target: &str| BindMount {
        source: source.to_owned(),
        target: target.into(),
        read_only: false,
    };
    let mut started = 0;
    for round in 0..20 {
        let task = fixture.task().await;
        let mut spec = fixture.script("true");
        spec.mounts = vec![
            mount(volume.path(), "/volume"),
            mount(source.path(), &format!("/volume/flip/below{round}")),
        ];
        // It starts or it is refused; either way nothing is made outside.
        if task.start_container(spec).await.is_ok() {
            exit(&fixture.runtime).await;
            started += 1;
        }
        task.remove().await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(flipping.join().unwrap() > 1000);
    assert!(started > 0, "no container started");
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_may_mount_stays_inside_all_the_same() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.program(&[
        "/bin/sh",
        "-c",
        "mount -t tmpfs none /tmp && echo mounted; mount -t proc proc /tmp && ls /tmp | grep -c '^[0-9]'; \
         find / -maxdepth 6 -path '*gantry-runtime-*' 2>/dev/null | head -1",
    ]);
    spec.capabilities_add = vec!["SYS_ADMIN".to_owned()];
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    exit(&fixture.runtime).await;
    let told = lines(&task).await;
    assert_eq!(told[0], "mounted", "{told:?}");
    assert!(
        told[1].parse::<u32>().unwrap() < 8 && told.len() == 2,
        "{told:?}"
    );
    task.remove().await.unwrap();
    eventually("its mounts go", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.contains(fixture.data_dir.to_str().unwrap())
    })
    .await;
}
