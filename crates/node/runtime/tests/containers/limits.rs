//! What a task may take as a whole, and what is counted of what it took.

use std::time::Duration;

use gantry_runtime::{ContainerSpec, Exit, NetworkMode, RuntimeEvent, TaskHandle, TaskLimits};

use crate::{Fixture, event, eventually, name};

const MIB: u64 = 1 << 20;

impl Fixture {
    async fn task_with(&self, limits: TaskLimits) -> TaskHandle {
        let mut spec = self.task_spec(NetworkMode::Host);
        spec.limits = limits;
        self.runtime.create_task(spec).await.unwrap()
    }

    fn named(&self, container: &str, script: &str) -> ContainerSpec {
        let mut spec = self.script(script);
        spec.name = name(container);
        spec
    }
}

/// The next exit, and whose it is.
async fn end(fixture: &Fixture) -> (String, Exit) {
    loop {
        if let RuntimeEvent::ContainerExited {
            container, exit, ..
        } = event(&fixture.runtime).await
        {
            return (container.as_str().to_owned(), exit);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_containers_together_get_no_more_processor_than_their_task() {
    let fixture = Fixture::new().await;
    let task = fixture
        .task_with(TaskLimits {
            cpu_units: Some(256),
            memory_bytes: None,
        })
        .await;
    for container in ["one", "two"] {
        task.start_container(fixture.named(container, "while true; do true; done"))
            .await
            .unwrap();
    }
    let (from, before) = (fixture.env.monotonic(), task.task_stats().await.unwrap());
    // The kernel's own count says when the limit has been felt often enough to be measured; on a busy machine that is
    // not in every period.
    let enough = before.cpu.throttled_periods + 10;
    while task.task_stats().await.unwrap().cpu.throttled_periods < enough {
        fixture.env.sleep(Duration::from_millis(20)).await;
    }
    let after = task.task_stats().await.unwrap();
    let wall = (fixture.env.monotonic() - from).as_nanos() as f64;
    let share = (after.cpu.total_ns - before.cpu.total_ns) as f64 / wall;
    assert!(share < 0.25 * 1.3, "{share} of a processor");
    assert!(after.cpu.periods >= after.cpu.throttled_periods);
    let one = task.stats(&name("one")).await.unwrap();
    let two = task.stats(&name("two")).await.unwrap();
    assert!(one.cpu.total_ns > 0 && two.cpu.total_ns > 0);
    assert!(one.pids.current >= 1 && one.pids.limit == Some(4096));
    assert!(one.memory.usage_bytes > 0 && one.cpu.online_cpus > 0);
    task.remove().await.unwrap();
    assert!(task.stats(&name("one")).await.is_err());
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_limit_ends_at_its_tasks_and_alone() {
    let fixture = Fixture::new().await;
    let task = fixture
        .task_with(TaskLimits {
            cpu_units: None,
            memory_bytes: Some(48 * MIB),
        })
        .await;
    task.start_container(fixture.named("quiet", "echo up; exec sleep 1000"))
        .await
        .unwrap();
    task.start_container(fixture.named("hog", "exec tail /dev/zero"))
        .await
        .unwrap();
    let (container, exit) = end(&fixture).await;
    assert_eq!(container, "hog");
    assert_eq!((exit.exit_code, exit.out_of_memory), (137, true));
    let quiet = task.stats(&name("quiet")).await.unwrap();
    assert_eq!(quiet.memory.limit_bytes, Some(48 * MIB));
    assert!(task.task_stats().await.unwrap().memory.usage_bytes <= 48 * MIB);
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_containers_that_are_each_small_enough_are_too_much_together() {
    let fixture = Fixture::new().await;
    let task = fixture
        .task_with(TaskLimits {
            cpu_units: None,
            memory_bytes: Some(32 * MIB),
        })
        .await;
    // Each keeps 24 MiB in its own memory file system, which its own limit would allow.
    for container in ["one", "two"] {
        let mut spec = fixture.named(
            container,
            "head -c 25165824 /dev/zero > /dev/shm/x; echo full; exec sleep 1000",
        );
        spec.resources.memory_bytes = Some(30 * MIB);
        task.start_container(spec).await.unwrap();
    }
    let usage = || async { task.task_stats().await.unwrap().memory };
    let deadline = fixture.env.monotonic() + crate::patience();
    while usage().await.limit_reached == 0 {
        assert!(fixture.env.monotonic() < deadline, "the limit is not felt");
        fixture.env.sleep(Duration::from_millis(10)).await;
    }
    assert!(usage().await.usage_bytes <= 32 * MIB);
    task.remove().await.unwrap();
    eventually("all goes", || fixture.processes().is_empty()).await;
    fixture.assert_nothing_left().await;
}
