use super::*;
use crate::core::plan::plan_task;
use gantry_api::acs::Task;
use serde_json::{Value, json};

/// A task with containers `a` (whose members are given) and `b`, which takes everything from `a`.
fn plan(volumes: Value, mount_points: Value) -> TaskPlan {
    let container = |name: &str, more: Value| {
        let mut whole = json!({"name": name, "image": "i", "dockerConfig": {"hostConfig": "{\"NetworkMode\":\"none\"}"}});
        for (member, value) in more.as_object().unwrap() {
            whole[member] = value.clone();
        }
        whole
    };
    let task: Task = serde_json::from_value(json!({
        "arn": "arn:aws:ecs:us-east-1:000000000000:task/default/0123",
        "volumes": volumes,
        "containers": [
            container("a", json!({"mountPoints": mount_points})),
            container("b", json!({"volumesFrom": [{"sourceContainer": "a", "readOnly": true}]})),
        ],
    }))
    .unwrap();
    plan_task(&task).unwrap()
}

fn task(digit: char) -> TaskId {
    std::iter::repeat_n(digit, 32)
        .collect::<String>()
        .parse()
        .unwrap()
}

#[test]
fn a_tasks_folder_goes_with_it_and_a_shared_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(dir.path());
    let plan = plan(
        json!([
            {"name": "scratch", "type": "host", "host": {}},
            {"name": "kept", "type": "docker", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}},
        ]),
        json!([
            {"sourceVolume": "scratch", "containerPath": "/scratch/deep"},
            {"sourceVolume": "kept", "containerPath": "/scratch", "readOnly": true},
        ]),
    );
    let images = ["/data".to_owned(), "/scratch/".to_owned()];
    let made = volumes
        .prepare(task('1'), &plan, &plan.containers[0], &images)
        .unwrap();
    let targets: Vec<_> = made
        .mounts
        .iter()
        .map(|mount| (mount.target.to_str().unwrap(), mount.read_only))
        .collect();
    // Outer targets come first, and the image's own volume gives way to the task definition's.
    assert_eq!(
        targets,
        [
            ("/scratch", true),
            ("/data", false),
            ("/scratch/deep", false)
        ]
    );
    assert_eq!(made.copy_up.len(), 3);
    let again = volumes
        .prepare(task('1'), &plan, &plan.containers[0], &images)
        .unwrap();
    assert_eq!(again, made);
    let taken = volumes
        .prepare(task('1'), &plan, &plan.containers[1], &[])
        .unwrap();
    assert_eq!(taken.mounts.len(), 3);
    assert!(taken.mounts.iter().all(|mount| mount.read_only));
    for mount in &made.mounts {
        fs::write(mount.source.join("file"), "x").unwrap();
    }
    volumes.remove(task('1')).unwrap();
    assert!(
        !dir.path()
            .join("volumes/task")
            .join(task('1').as_str())
            .exists()
    );
    assert!(dir.path().join("volumes/shared/kept/data/file").exists());
    volumes.remove(task('1')).unwrap();
}

#[test]
fn removing_follows_no_symbolic_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let volumes = Volumes::new(dir.path());
    let plan = plan(
        json!([{"name": "v", "type": "host", "host": {"sourcePath": ""}}]),
        json!([{"sourceVolume": "v", "containerPath": "/v"}]),
    );
    let made = volumes
        .prepare(task('2'), &plan, &plan.containers[0], &[])
        .unwrap();
    std::os::unix::fs::symlink(&outside, made.mounts[0].source.join("link")).unwrap();
    volumes.keep_only(&[task('2')]);
    assert!(made.mounts[0].source.exists());
    volumes.keep_only(&[]);
    assert!(!made.mounts[0].source.exists());
    assert!(outside.join("precious").exists());
}

#[test]
fn what_cannot_be_had_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(dir.path());
    let reason = |configuration: Value, path: &str| {
        let plan = plan(
            json!([{"name": "v", "type": "docker", "dockerVolumeConfiguration": configuration}]),
            json!([{"sourceVolume": "v", "containerPath": path}]),
        );
        volumes
            .prepare(task('3'), &plan, &plan.containers[0], &[])
            .map(drop)
            .unwrap_err()
    };
    let missing = reason(json!({"scope": "shared", "autoprovision": false}), "/v");
    assert!(
        missing.contains("'v'") && missing.contains("autoprovision"),
        "{missing}"
    );
    let bind = json!({"scope": "task", "driverOpts": {"type": "none", "o": "bind", "device": "/no/such/place"}});
    let missing = reason(bind, "/v");
    assert!(missing.contains("/no/such/place"), "{missing}");
    // A shared volume is what it was made as.
    let shared =
        |label: &str| json!({"scope": "shared", "autoprovision": true, "labels": {"l": label}});
    let plan_of = |label: &str| {
        plan(
            json!([{"name": "s", "type": "docker", "dockerVolumeConfiguration": shared(label)}]),
            json!([{"sourceVolume": "s", "containerPath": "/s"}]),
        )
    };
    let (one, two) = (plan_of("1"), plan_of("2"));
    volumes
        .prepare(task('3'), &one, &one.containers[0], &[])
        .unwrap();
    let other = volumes
        .prepare(task('3'), &two, &two.containers[0], &[])
        .unwrap_err();
    assert!(other.contains("'s'") && other.contains("labels"), "{other}");
}
