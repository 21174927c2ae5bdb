//! What a container sees: its user, environment, folders, network, and what it may not do.

use gantry_runtime::NetworkMode;

use crate::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn user_environment_and_working_directory() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.script("id -u; id -g; id -G; pwd; echo $FROM $NEW $HOME");
    spec.user = Some("app".to_owned());
    spec.working_directory = Some("/made/here".to_owned());
    spec.environment = vec![
        ("FROM".to_owned(), "task".to_owned()),
        ("NEW".to_owned(), "1".to_owned()),
    ];
    let (exit, lines) = fixture.run(spec).await;
    assert_eq!(exit.exit_code, 0);
    assert_eq!(
        lines,
        ["1000", "1001", "1001 44", "/made/here", "task 1 /home/app"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_privileges_can_reopen_its_output() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.script("echo again > /dev/stdout; echo err > /proc/self/fd/2");
    spec.user = Some("1000".to_owned());
    let (exit, mut lines) = fixture.run(spec).await;
    lines.sort();
    assert_eq!(
        (exit.exit_code, lines),
        (0, vec!["again".to_owned(), "err".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_stays_as_it_is() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.script("touch /x; echo $?; echo y > /dev/shm/y && cat /dev/shm/y");
    spec.readonly_root_filesystem = true;
    let (_, lines) = fixture.run(spec).await;
    assert!(
        lines
            .iter()
            .any(|line| line.contains("Read-only file system")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line == "y"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_in_force_and_capabilities_are_dockers() {
    let fixture = Fixture::new().await;
    for user in ["0", "1000"] {
        // A new user namespace needs no capability, so only the filter can refuse it.
        let mut spec = fixture
            .script("grep -E 'Seccomp:|CapBnd' /proc/self/status; unshare -U true || echo refused");
        spec.user = Some(user.to_owned());
        let (_, lines) = fixture.run(spec).await;
        let has = |part: &str| {
            lines
                .iter()
                .any(|line| line.replace('\t', " ").contains(part))
        };
        assert!(has("Seccomp: 2") && has("refused"), "{lines:?}");
        assert!(has("CapBnd: 00000000a80425fb"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_there_is_loopback() {
    let fixture = Fixture::new().await;
    let script = "cat /proc/net/dev | grep -c :; cat /sys/class/net/lo/operstate /sys/class/net/lo/flags; cat /etc/hosts";
    let (_, lines) = fixture
        .run_in(NetworkMode::None, fixture.script(script))
        .await;
    assert_eq!(
        (lines[0].as_str(), lines[2].as_str()),
        ("1", "0x9"),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("localhost")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_shows() {
    let fixture = Fixture::new().await;
    let script = "echo $$; cat /proc/mounts; cat /proc/kcore | head -c 1; echo end";
    let (_, lines) = fixture.run(fixture.script(script)).await;
    assert_eq!(lines[0], "1");
    // What the overlay is made of is told by /proc/mounts; no other line names the data directory.
    let shown = lines
        .iter()
        .filter(|line| line.contains(fixture.data_dir.to_str().unwrap()))
        .count();
    assert!(shown <= 1, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_network_has_a_name_that_resolves() {
    let fixture = Fixture::new().await;
    let script = "hostname; cat /etc/hostname; grep -c $(hostname) /etc/hosts";
    let (_, lines) = fixture
        .run_in(NetworkMode::None, fixture.script(script))
        .await;
    assert_eq!(lines[0].len(), 12, "{lines:?}");
    assert_eq!((&lines[1], lines[2].as_str()), (&lines[0], "1"));
}
