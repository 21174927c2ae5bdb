//! What a container may do more, or less, than others: capabilities, devices, limits, and everything.

use std::os::unix::fs::FileTypeExt;

use gantry_runtime::{Device, NetworkMode, Resources, Rlimit, Ulimit};

use crate::{Fixture, exit};

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

const BOUNDING: &str = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status";

/// Inherited, permitted, effective, bounding, ambient.
fn sets(told: &[String]) -> Vec<u64> {
    let number = |line: &String| u64::from_str_radix(line.split_whitespace().last()?, 16).ok();
    told.iter().filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_added_and_dropped() {
    let fixture = Fixture::new().await;
    const DEFAULT: u64 = 0xa804_25fb;
    let net_admin = 1 << 12;
    let mknod = 1 << 27;
    for (add, drop, expected) in [
        (&[][..], &[][..], DEFAULT),
        (&["NET_ADMIN"], &["CAP_MKNOD"], DEFAULT - mknod + net_admin),
        (&["cap_net_admin"], &["ALL"], net_admin),
        (&[], &["ALL"], 0),
    ] {
        let mut spec = fixture.script(BOUNDING);
        spec.capabilities_add = names(add);
        spec.capabilities_drop = names(drop);
        let (_, told) = fixture.run(spec).await;
        assert_eq!(
            sets(&told),
            [0, expected, expected, expected, 0],
            "{told:?}"
        );
    }
    let mut all = fixture.script(BOUNDING);
    all.capabilities_add = names(&["ALL"]);
    all.capabilities_drop = names(&["SYS_ADMIN"]);
    let (_, told) = fixture.run(all).await;
    let bounding = sets(&told)[3];
    assert!(
        bounding & (1 << 21) == 0 && bounding.count_ones() > 30,
        "{told:?}"
    );
    for unknown in ["FLY", "CAP_"] {
        let mut spec = fixture.script("true");
        spec.capabilities_add = names(&[unknown]);
        assert!(fixture.refusal(spec).await.contains("unknown capability"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_opens_the_calls_that_it_is_for() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.intruder(&["mounts"]);
    spec.capabilities_add = names(&["SYS_ADMIN"]);
    let told = fixture.tries_in(NetworkMode::Host, spec).await;
    assert!(told.contains(&"mount tmpfs: DONE".to_owned()), "{told:?}");
    let mut spec = fixture.intruder(&["chroot", "/none"]);
    spec.capabilities_drop = names(&["SYS_CHROOT"]);
    let told = fixture.tries_in(NetworkMode::Host, spec).await;
    assert_eq!(told[0], "chroot: EPERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_container_has_everything_that_gantry_has() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.script(&format!(
        "{BOUNDING}; grep -E '^Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted; \
         ls /dev | grep -c .; (: > /proc/sys/kernel/printk) && echo writable; \
         mkdir /sys/fs/cgroup/memory/below /sys/fs/cgroup/below 2>/dev/null; rmdir /sys/fs/cgroup/memory/below /sys/fs/cgroup/below 2>/dev/null && echo cgroup; \
         dd if=/dev/kmsg of=/dev/null bs=1 count=0 2>/dev/null && echo kmsg; grep -c ' /proc/kcore ' /proc/mounts"
    ));
    spec.privileged = true;
    let (_, told) = fixture.run(spec).await;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find(|line| line.starts_with("CapBnd"))
        .unwrap()
        .to_owned();
    assert!(told.contains(&own), "{told:?} without {own}");
    for expected in ["Seccomp:\t0", "mounted", "writable", "kmsg", "0"] {
        assert!(
            told.contains(&expected.to_owned()),
            "{expected} in {told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_there_with_its_permissions_and_no_other() {
    let fixture = Fixture::with_intruder().await;
    let device = |host: &str, inside: &str, permissions: &str| Device {
        host_path: host.into(),
        container_path: inside.into(),
        permissions: permissions.to_owned(),
    };
    let mut spec = fixture.script(
        "stat -c '%t:%T %F' /dev/some; (: < /dev/some) && echo read; \
         (: > /dev/some) 2>/dev/null && echo written; stat -c %t:%T /opt/zero; head -c 4 /opt/zero | wc -c",
    );
    spec.devices = vec![
        device("/dev/net/tun", "/dev/some", "r"),
        device("/dev/zero", "/opt/zero", "rw"),
    ];
    let (_, told) = fixture.run(spec).await;
    assert_eq!(told[0], "a:c8 character special file", "{told:?}");
    assert!(!told.contains(&"written".to_owned()), "{told:?}");
    assert!(told.contains(&"read".to_owned()), "{told:?}");
    assert!(told.contains(&"1:5".to_owned()), "{told:?}");
    for (path, why) in [
        ("/dev/none", "no such file or directory"),
        ("/etc/passwd", "not a device node"),
    ] {
        let mut spec = fixture.script("true");
        spec.devices = vec![device(path, "", "rwm")];
        let refusal = fixture.refusal(spec).await;
        assert!(refusal.contains(path) && refusal.contains(why), "{refusal}");
    }
    assert!(
        std::fs::metadata("/dev/net/tun")
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn set_user_id_programs_work_unless_new_privileges_are_refused() {
    let mut image = crate::intruders::image();
    crate::intruders::add(&mut image, "rooted", 0o4755);
    let fixture = Fixture::with_image(&image).await;
    for (no_new_privileges, euid) in [(false, "0"), (true, "1000")] {
        let mut spec =
            fixture.script("/rooted user; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status");
        spec.user = Some("1000".to_owned());
        spec.no_new_privileges = no_new_privileges;
        let (_, told) = fixture.run(spec).await;
        let expected = format!("NoNewPrivs:\t{}", u8::from(no_new_privileges));
        assert_eq!(told[1..], [expected.as_str(), "Seccomp:\t2"]);
        assert_eq!(told[0], euid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_modules_that_this_machine_lacks_are_refused_by_name() {
    let fixture = Fixture::new().await;
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        let mut spec = fixture.script("true");
        spec.apparmor_profile = Some("strict".to_owned());
        let why = fixture.refusal(spec).await;
        assert!(
            why.contains("\"strict\"") && why.contains("AppArmor is not enabled"),
            "{why}"
        );
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let mut spec = fixture.script("true");
        spec.selinux_label = Some("level:s0".to_owned());
        let why = fixture.refusal(spec).await;
        assert!(
            why.contains("\"level:s0\"") && why.contains("SELinux is not enabled"),
            "{why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_clamped_or_refused() {
    let fixture = Fixture::new().await;
    let limit = |name, soft, hard| Ulimit { name, soft, hard };
    let mut spec = fixture.script("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc");
    spec.ulimits = vec![limit(Rlimit::Nofile, 300, 400), limit(Rlimit::Core, 0, 0)];
    let (_, told) = fixture.run(spec).await;
    assert_eq!(told, ["300", "400", "0", "0"]);
    // The default: what programs expect, within what the machine allows.
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let (_, told) = fixture.run(fixture.script("ulimit -Sn; ulimit -Hn")).await;
    let hard = own.map_or("unlimited".to_owned(), |own| own.to_string());
    assert_eq!(told, ["1024".to_owned(), hard]);

    let mut beyond = fixture.script("true");
    beyond.ulimits = vec![limit(Rlimit::Nofile, 1024, 1 << 40)];
    let why = fixture.refusal(beyond).await;
    assert!(
        why.contains("ulimit nofile: 1099511627776 is above"),
        "{why}"
    );
    let mut twisted = fixture.script("true");
    twisted.ulimits = vec![limit(Rlimit::Nproc, 20, 10)];
    assert!(
        fixture
            .refusal(twisted)
            .await
            .contains("ulimit nproc: the soft limit")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn swap_and_swappiness_are_the_cgroups() {
    let fixture = Fixture::new().await;
    const MIB: i64 = 1 << 20;
    let mut spec = fixture.script(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.swappiness 2>/dev/null || cat memory.max memory.swap.max",
    );
    spec.resources = Resources {
        memory_bytes: Some(64 << 20),
        ..Resources::default()
    };
    spec.memory_swap_bytes = Some(96 * MIB);
    let is_v1 = std::path::Path::new("/sys/fs/cgroup/memory").exists();
    spec.memory_swappiness = is_v1.then_some(30);
    let (_, told) = fixture.run(spec.clone()).await;
    let expected = [
        (64 * MIB).to_string(),
        (if is_v1 { 96 * MIB } else { 32 * MIB }).to_string(),
    ];
    assert_eq!(told[..2], expected);
    if is_v1 {
        assert_eq!(told[2], "30");
    }
    // None at all, as `maxSwap` 0 asks for.
    spec.memory_swappiness = None;
    spec.memory_swap_bytes = Some(64 * MIB);
    let (_, told) = fixture.run(spec.clone()).await;
    assert_eq!(
        told[1],
        if is_v1 {
            (64 * MIB).to_string()
        } else {
            "0".to_owned()
        }
    );
    spec.memory_swappiness = Some(101);
    assert!(fixture.refusal(spec.clone()).await.contains("swappiness"));
    spec.memory_swappiness = None;
    spec.memory_swap_bytes = Some(MIB);
    assert!(
        fixture
            .refusal(spec)
            .await
            .contains("memory and swap together")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_process_passes_signals_on_and_takes_orphans() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.script(
        "trap 'echo told; exit 7' TERM; (sleep 0.1 &) ; echo $$; ps | grep -c [d]efunct; echo ready; while true; do sleep 0.05; done",
    );
    spec.init_process = true;
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    // The handler is in place once the last line is there.
    let mut reader = task.logs(&crate::name("app"), 0).unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&"ready".to_owned()) {
        let batch = reader.next_batch(10).await.unwrap();
        seen.extend(
            batch
                .iter()
                .map(|one| String::from_utf8_lossy(&one.bytes).into_owned()),
        );
        reader.trim(batch.last().unwrap().end_offset).await.unwrap();
    }
    assert_ne!(seen[0], "1", "the program is not the first process");
    task.stop(&crate::name("app"), crate::patience())
        .await
        .unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 7);
    task.remove().await.unwrap();

    let mut spec = fixture.program(&["/bin/nothing"]);
    spec.init_process = true;
    assert!(fixture.refusal(spec).await.contains("no such file"));
}
