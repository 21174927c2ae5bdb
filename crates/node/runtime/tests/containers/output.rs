//! Output: all of it in order where a container may be held up, counted where it may not.

use gantry_runtime::{LogMode, LogSpec};

use crate::{Fixture, exit, lines, name};

#[tokio::test(flavor = "multi_thread")]
async fn blocking_mode_loses_nothing_through_a_small_spool() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    spec.logs = LogSpec::Spool {
        mode: LogMode::Blocking,
        bytes_max: 128 * 1024,
    };
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    let lines = lines(&task).await;
    assert_eq!(lines.len(), 20_000);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(at, line)| *line == format!("line {at}"))
    );
    assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn non_blocking_mode_counts_what_it_drops() {
    let fixture = Fixture::new().await;
    let mut spec = fixture
        .script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000");
    spec.logs = LogSpec::Spool {
        mode: LogMode::NonBlocking,
        bytes_max: 64 * 1024,
    };
    let task = fixture.task().await;
    task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    // Nobody trims, so the container gets to its end only because lines are dropped.
    let mut kept = 0;
    while kept < 500 {
        kept += reader.next_batch(100).await.unwrap().len();
    }
    task.signal(&name("app"), 9).await.unwrap();
    assert_eq!(exit(&fixture.runtime).await.signal, Some(9));
    let spool = fixture
        .data_dir
        .join("tasks")
        .join(task.id().as_str())
        .join("c/app/spool");
    let size: u64 = std::fs::read_dir(spool)
        .unwrap()
        .flatten()
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(size <= 64 * 1024, "{size}");
    fixture.assert_nothing_left().await;
}
