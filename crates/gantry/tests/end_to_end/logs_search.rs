//! Finding and following lines with the aws CLI, and a disk that fills up.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::installation::{Installation, eventually};

fn put(gantry: &Installation, stream: &str, messages: &[&str]) {
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970")
        .as_millis();
    let events: Vec<_> = messages
        .iter()
        .map(|message| serde_json::json!({"timestamp": now as u64, "message": message}))
        .collect();
    let events = serde_json::Value::from(events).to_string();
    gantry.aws(&[
        "logs",
        "put-log-events",
        "--log-group-name",
        "/app",
        "--log-stream-name",
        stream,
        "--log-events",
        &events,
    ]);
}

fn group_with_streams(gantry: &Installation, streams: &[&str]) {
    gantry.aws(&["logs", "create-log-group", "--log-group-name", "/app"]);
    for stream in streams {
        gantry.aws(&[
            "logs",
            "create-log-stream",
            "--log-group-name",
            "/app",
            "--log-stream-name",
            stream,
        ]);
    }
}

fn found(gantry: &Installation, pattern: &str) -> Vec<String> {
    let answer = gantry.aws(&[
        "logs",
        "filter-log-events",
        "--log-group-name",
        "/app",
        "--filter-pattern",
        pattern,
    ]);
    let events = answer["events"].as_array().expect("events");
    let message = |event: &serde_json::Value| event["message"].as_str().map(str::to_owned);
    events.iter().filter_map(message).collect()
}

#[test]
fn the_cli_finds_lines_by_patterns_also_after_a_kill() {
    let mut gantry = Installation::up();
    group_with_streams(&gantry, &["a", "b"]);
    let line = r#"{"level": "error", "ms": 250, "tags": ["x", "y"]}"#;
    put(&gantry, "a", &["ERROR time out", line, "GET /x 404 17"]);
    put(&gantry, "b", &["ERROR other", "GET /y 200 18"]);
    for round in 0..2 {
        for (pattern, expected) in [
            ("ERROR", &["ERROR time out", "ERROR other"][..]),
            ("ERROR -\"time out\"", &["ERROR other"]),
            ("?other ?200", &["ERROR other", "GET /y 200 18"]),
            ("{ $.ms > 200 && $.tags[1] = y }", &[line]),
            ("[verb, path, status = 4*, size]", &["GET /x 404 17"]),
            ("%ti.e o[ut]+%", &["ERROR time out"]),
        ] {
            assert_eq!(
                found(&gantry, pattern),
                expected,
                "{pattern} in round {round}"
            );
        }
        if round == 0 {
            gantry.signal_and_wait("KILL");
            gantry.start();
        }
    }
    let refused = gantry.aws_refused(&[
        "logs",
        "filter-log-events",
        "--log-group-name",
        "/app",
        "--filter-pattern",
        "{ $.a }",
    ]);
    assert!(refused.contains("InvalidParameterException"), "{refused}");
}

#[test]
fn the_cli_follows_a_live_tail() {
    let gantry = Installation::up();
    group_with_streams(&gantry, &["a"]);
    let arn = "arn:aws:logs:us-east-1:000000000000:log-group:/app";
    let mut tail = gantry
        .command("aws")
        .args(["logs", "start-live-tail", "--log-group-identifiers", arn])
        .args(["--log-event-filter-pattern", "live"])
        .env("PYTHONUNBUFFERED", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("aws");
    let shown = BufReader::new(tail.stdout.take().expect("stdout"));
    let (tell, told) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in shown.lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    // The session begins when it begins; what is written before is not part of it.
    let mut seen = Vec::new();
    eventually(Duration::from_secs(60), "a live line", || {
        put(&gantry, "a", &["dead", "live and well"]);
        seen.extend(told.try_iter());
        match seen.iter().any(|line| line.contains("live and well")) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    });
    assert!(!seen.iter().any(|line| line.contains("dead")), "{seen:?}");
    tail.kill().expect("aws ends");
    tail.wait().expect("aws ends");
    drop(told);
    let _ = reading.join();
}

/// Unmounts what the test has mounted, however it ends.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_loses_nothing_that_was_acknowledged() {
    let mut gantry = Installation::up();
    group_with_streams(&gantry, &["a"]);
    gantry.signal_and_wait("TERM");
    let archive = gantry.data_dir().join("archive");
    assert!(archive.is_dir(), "{archive:?}");
    let kept = gantry.scratch("kept");
    let run = |command: &mut Command| {
        assert!(
            command.status().expect("a command").success(),
            "{command:?}"
        );
    };
    run(Command::new("cp").arg("-a").arg(&archive).arg(&kept));
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "gantry-test"])
        .arg(&archive));
    let _mounted = Mounted(archive.clone());
    run(Command::new("cp")
        .arg("-a")
        .arg(kept.join("."))
        .arg(&archive));
    gantry.start();
    let program = format!(
        r#"
import boto3, os, subprocess, time
from botocore.config import Config
logs = boto3.client("logs", config=Config(retries=dict(max_attempts=1)))
acknowledged, number = [], 0
def put():
    global number
    message = "%06d " % number + os.urandom(200_000).hex()
    logs.put_log_events(logGroupName="/app", logStreamName="a", logEvents=[dict(timestamp=int(time.time() * 1000), message=message)])
    acknowledged.append(number)
    number += 1
refused = None
for _ in range(400):
    try:
        put()
    except logs.exceptions.ServiceUnavailableException as error:
        refused = error.response
        break
assert refused and refused["ResponseMetadata"]["HTTPStatusCode"] == 500 or refused["ResponseMetadata"]["HTTPStatusCode"] == 503, refused
assert len(acknowledged) > 10, acknowledged
def stored():
    found, token = [], None
    while True:
        more = dict(nextToken=token) if token else {{}}
        page = logs.filter_log_events(logGroupName="/app", **more)
        found += [int(e["message"][:6]) for e in page["events"]]
        token = page.get("nextToken")
        if not token: return found
assert stored() == acknowledged, (len(stored()), len(acknowledged))
subprocess.run(["mount", "-o", "remount,size=96m", {archive:?}], check=True)
deadline = time.time() + 20 * PATIENCE
while True:
    try:
        put()
        break
    except logs.exceptions.ServiceUnavailableException:
        assert time.time() < deadline
        time.sleep(0.1)
for _ in range(20): put()
assert stored() == acknowledged, (len(stored()), len(acknowledged))
print("all true")
"#
    );
    let printed = gantry.python(&program);
    assert!(printed.ends_with("all true\n"), "{printed}");
    // SIGKILL, so that nothing is tidied up on the way.
    gantry.signal_and_wait("KILL");
    gantry.start();
    assert_eq!(found(&gantry, "%^00000[0-3] %").len(), 4);
    gantry.signal_and_wait("TERM");
}
