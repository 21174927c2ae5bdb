//! Gantry's own life: signals, `kill -9`, adoption by the next `up`, and what `down` leaves.

use std::time::Duration;

use crate::image::push_busybox;
use crate::installation::{Installation, eventually, send_signal};

/// Starts a task that runs until it is told to stop, and returns its ARN once it is RUNNING.
fn long_running(gantry: &Installation, image: &str) -> String {
    gantry.python(&format!(
        r#"
import boto3
ecs = boto3.client("ecs")
ecs.register_task_definition(family="long", networkMode="host", containerDefinitions=[dict(
    name="c", image="{image}", memory=32,
    command=["sh", "-c", "i=0; while test ! -e /tmp/stop; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 7"],
    logConfiguration=dict(logDriver="awslogs", options={{"awslogs-group": "/long", "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "p", "awslogs-create-group": "true", "mode": "blocking"}}))])
arn = ecs.run_task(taskDefinition="long")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
print(arn)
"#
    ))
    .trim()
    .to_owned()
}

/// The processes of a task, from its cgroup.
fn pids(gantry: &Installation, arn: &str) -> Vec<u32> {
    let task = arn.rsplit('/').next().expect("an id");
    let mut pids = Vec::new();
    for root in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
        let folder = format!("{root}/gantry-{}/{task}", gantry.installation_id());
        for container in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let file =
                std::fs::read_to_string(container.path().join("cgroup.procs")).unwrap_or_default();
            pids.extend(file.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        if !pids.is_empty() {
            break;
        }
    }
    pids
}

/// Whether a process runs. One that has ended and waits only for its parent to notice does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

fn describe(gantry: &Installation, arn: &str) -> serde_json::Value {
    gantry.aws(&["ecs", "describe-tasks", "--tasks", arn])["tasks"][0].clone()
}

#[test]
fn a_task_survives_kill_9_and_the_next_up_adopts_it() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "long", &[]);
    let arn = long_running(&gantry, &image);
    let before = pids(&gantry, &arn);
    assert!(!before.is_empty(), "the task has processes");

    gantry.signal_and_wait("KILL");
    let first = before[0];
    assert!(runs(first), "the container ran on");
    gantry.start();
    let adopted = describe(&gantry, &arn);
    assert_eq!(adopted["lastStatus"], "RUNNING", "{adopted}");
    assert!(
        pids(&gantry, &arn).contains(&first),
        "it is the same process"
    );

    // The container ends while nobody watches; the next `up` still knows how.
    gantry.signal_and_wait("KILL");
    std::fs::write(format!("/proc/{first}/root/tmp/stop"), "")
        .expect("a file inside the container");
    eventually(Duration::from_secs(10), "the container's end", || {
        if runs(first) {
            Err("it runs".to_owned())
        } else {
            Ok(())
        }
    });
    gantry.start();
    let stopped = eventually(Duration::from_secs(20), "the task's end is known", || {
        let task = describe(&gantry, &arn);
        if task["lastStatus"] == "STOPPED" {
            Ok(task)
        } else {
            Err(task.to_string())
        }
    });
    assert_eq!(stopped["containers"][0]["exitCode"], 7, "{stopped}");
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");

    // Every line once and in order, across both kills.
    let checked = eventually(Duration::from_secs(20), "every log line", || {
        let printed = gantry.python(
            r#"
import boto3
logs = boto3.client("logs")
stream = logs.describe_log_streams(logGroupName="/long")["logStreams"][0]["logStreamName"]
lines, token = [], None
while True:
    more = dict(nextToken=token) if token else {}
    page = logs.get_log_events(logGroupName="/long", logStreamName=stream, startFromHead=True, **more)
    lines += [e["message"] for e in page["events"]]
    if page["nextForwardToken"] == token: break
    token = page["nextForwardToken"]
assert lines == ["line %d" % i for i in range(len(lines))], lines
print(len(lines))
"#,
        );
        match printed.trim().parse::<usize>() {
            Ok(lines) if lines > 20 => Ok(lines),
            _ => Err(printed),
        }
    });
    assert!(checked > 20);
}

#[test]
fn sigterm_leaves_tasks_running_and_sigint_stops_them() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "long", &[]);
    let arn = long_running(&gantry, &image);
    let first = pids(&gantry, &arn)[0];

    assert!(gantry.signal_and_wait("TERM").success());
    assert!(runs(first), "SIGTERM leaves the task");
    gantry.start();
    assert_eq!(describe(&gantry, &arn)["lastStatus"], "RUNNING");
    assert!(gantry.signal_and_wait("INT").success());
    assert!(!runs(first), "SIGINT stops the task");
    gantry.start();
    assert_eq!(describe(&gantry, &arn)["lastStatus"], "STOPPED");
}

#[test]
fn down_leaves_nothing_even_when_up_is_dead() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "long", &[]);
    let arn = long_running(&gantry, &image);
    let ids = pids(&gantry, &arn);
    gantry.signal_and_wait("KILL");
    let down = gantry.gantry(&["down"]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    assert_nothing_left(&gantry, &ids);
    // Down again has nothing to do, and says no error.
    assert!(gantry.gantry(&["down"]).status.success());
    // The data is still there, and the task is known to be gone.
    gantry.start();
    eventually(Duration::from_secs(20), "the lost task is STOPPED", || {
        let task = describe(&gantry, &arn);
        if task["lastStatus"] == "STOPPED" {
            Ok(())
        } else {
            Err(task.to_string())
        }
    });
}

#[test]
fn a_task_whose_shim_is_killed_is_stopped_and_told() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "long", &[]);
    let arn = long_running(&gantry, &image);
    let ids = pids(&gantry, &arn);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", ids[0])).expect("stat");
    let shim: u32 = stat
        .rsplit_once(')')
        .expect("stat")
        .1
        .split_whitespace()
        .nth(1)
        .expect("a parent")
        .parse()
        .expect("a pid");
    send_signal(shim, "KILL");
    let task = eventually(Duration::from_secs(20), "the task is STOPPED", || {
        let task = describe(&gantry, &arn);
        if task["lastStatus"] == "STOPPED" {
            Ok(task)
        } else {
            Err(task.to_string())
        }
    });
    assert!(
        !task["stoppedReason"]
            .as_str()
            .unwrap_or_default()
            .is_empty(),
        "{task}"
    );
    for pid in ids {
        assert!(!runs(pid), "process {pid} is left");
    }
}

#[test]
fn two_installations_share_a_machine() {
    let one = Installation::up();
    let two = Installation::up();
    let image = push_busybox(&one, "long", &[]);
    let arn = long_running(&one, &image);
    assert!(
        two.aws(&["ecs", "list-tasks"])["taskArns"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    drop(two);
    assert_eq!(describe(&one, &arn)["lastStatus"], "RUNNING");
}

/// Asserts that nothing of an installation is left on the machine.
pub fn assert_nothing_left(gantry: &Installation, pids: &[u32]) {
    let id = gantry.installation_id();
    for pid in pids {
        assert!(!runs(*pid), "process {pid} is left");
    }
    let data_dir = gantry.data_dir().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let left: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains(&data_dir) || line.contains(&id))
        .collect();
    assert!(left.is_empty(), "mounts are left: {left:?}");
    for controller in std::fs::read_dir("/sys/fs/cgroup")
        .expect("cgroups")
        .flatten()
    {
        let folder = controller.path().join(format!("gantry-{id}"));
        assert!(!folder.exists(), "a cgroup is left: {}", folder.display());
    }
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup/gantry-{id}")).exists());
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(
            !(line.contains("shim") && line.contains(&data_dir)),
            "a shim is left: {line}"
        );
    }
}
