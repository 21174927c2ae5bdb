//! Neighbours that take all they can, beside a task that must not feel them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults_client::{Boto, awslogs, id_of};
use crate::image::push_busybox;
use crate::installation::{Installation, eventually, patience};

/// What the flood writes, as fast as it is taken in.
const FLOOD_LINES: usize = 100_000;
/// From a line's writing to its being stored, beside all that noise and with an emulated or busy machine in mind;
/// a driver that waits for its neighbour's flood to end is far beyond.
const LATENCY_MAX: Duration = Duration::from_secs(10);

fn define(boto: &mut Boto, family: &str, image: &str, command: &str, more: Value) {
    let mut container = json!({"name": "c", "image": image, "memory": 32, "stopTimeout": 2,
        "command": ["sh", "-c", command], "logConfiguration": awslogs("/noise")});
    for (key, value) in more.as_object().expect("members") {
        container[key] = value.clone();
    }
    let with =
        json!({"family": family, "networkMode": "none", "containerDefinitions": [container]});
    boto.ask("ecs", "register_task_definition", &with);
}

#[test]
fn noisy_neighbours_harm_only_their_own_tasks() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "noise", &[]);
    let mut boto = Boto::of(&gantry);
    // With ECS's own defaults, on a machine as slow as it says it is.
    let timeout = (5 * patience()).min(60);
    let check = json!({"healthCheck": {"command": ["CMD-SHELL", "test -e /tmp/up"], "interval": 5, "timeout": timeout, "retries": 3}});
    let quiet = "trap 'exit 5' TERM; touch /tmp/up; i=0; while true; do echo beat $i; i=$((i+1)); sleep 0.2; done";
    define(&mut boto, "quiet", &image, quiet, check);
    // Its first process must not fork again, or it ends like the others that cannot.
    let bomb = "bomb() { bomb | bomb & }; bomb; exec sleep 1000";
    // With memory enough for every process that it may have, so that only their number ends it.
    define(&mut boto, "bomb", &image, bomb, json!({"memory": 2048}));
    define(&mut boto, "hog", &image, "exec tail /dev/zero", json!({}));
    let flood = format!("exec seq {FLOOD_LINES}");
    define(&mut boto, "flood", &image, &flood, json!({}));
    let stubborn = "trap '' TERM INT HUP; echo up; while true; do sleep 1; done";
    define(&mut boto, "stubborn", &image, stubborn, json!({}));
    define(&mut boto, "newcomer", &image, "exit 9", json!({}));

    let healthy = |boto: &mut Boto, arn: &str| {
        eventually(Duration::from_secs(60), "the quiet task is healthy", || {
            let task = boto.task(arn);
            match task["healthStatus"] == "HEALTHY" {
                true => Ok(()),
                false => Err(task.to_string()),
            }
        });
    };
    let quiet = boto.run("quiet");
    healthy(&mut boto, &quiet);
    let arns: Vec<(&str, String)> = ["bomb", "hog", "flood", "stubborn"]
        .map(|family| (family, boto.run(family)))
        .into();
    let of = |family: &str| &arns.iter().find(|(of, _)| *of == family).expect("it ran").1;

    // The hog is the kernel's victim, by name; the flood comes through whole; a newcomer starts beside them.
    let task = boto.until(of("hog"), "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 137, "{task}");
    let reason = task["containers"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("OutOfMemoryError"), "{task}");
    let newcomer = boto.run("newcomer");
    let task = boto.until(&newcomer, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 9, "{task}");
    let task = boto.until(of("flood"), "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 0, "{task}");
    let stream = format!("p/c/{}", id_of(of("flood")));
    let events = eventually(Duration::from_secs(60), "every line of the flood", || {
        let events = boto.events("/noise", &stream);
        match events.len() {
            FLOOD_LINES.. => Ok(events),
            fewer => Err(format!("{fewer} lines")),
        }
    });
    let written = |event: &Value| event["timestamp"].as_u64().unwrap_or_default();
    let stored = |event: &Value| event["ingestionTime"].as_u64().unwrap_or(u64::MAX);
    let last = &events[events.len() - 1];
    let (first, last, all_stored) = (written(&events[0]), written(last), stored(last));
    let wrong = events
        .iter()
        .enumerate()
        .find(|(at, event)| event["message"].as_str() != Some(&(at + 1).to_string()));
    assert!(
        wrong.is_none() && events.len() == FLOOD_LINES,
        "{} lines; {wrong:?}",
        events.len()
    );
    let rate = FLOOD_LINES as u64 * 1000 / (last - first).max(1);
    let delivered = FLOOD_LINES as u64 * 1000 / (all_stored - first).max(1);
    eprintln!("the flood: {rate} lines a second taken in, {delivered} delivered");
    // What is delivered depends on the build and on who else uses the machine; a slow one delays only the flood.
    assert!(
        rate >= 10_000 / u64::from(patience()),
        "{rate} lines a second"
    );

    // The one that does not want to end is killed when its time is over, and not before.
    let from = Instant::now();
    boto.ask("ecs", "stop_task", &json!({"task": of("stubborn")}));
    let task = boto.until(of("stubborn"), "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 137, "{task}");
    assert_eq!(task["stopCode"], "UserInitiated", "{task}");
    assert!(from.elapsed() >= Duration::from_secs(2), "{task}");

    // The bomb still goes off. All that time the quiet one was well, and its lines came at once.
    healthy(&mut boto, &quiet);
    let bomb = boto.task(of("bomb"));
    assert_eq!(bomb["lastStatus"], "RUNNING", "{bomb}");
    boto.ask("ecs", "stop_task", &json!({"task": of("bomb")}));
    let task = boto.until(of("bomb"), "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 137, "{task}");
    let task = boto.task(&quiet);
    assert_eq!(
        (&task["lastStatus"], &task["healthStatus"]),
        (&json!("RUNNING"), &json!("HEALTHY")),
        "{task}"
    );
    let beats = boto.events("/noise", &format!("p/c/{}", id_of(&quiet)));
    let late = beats
        .iter()
        .map(|event| stored(event).saturating_sub(written(event)))
        .max()
        .expect("it wrote lines");
    eprintln!(
        "the quiet task: {} lines, {late} ms late at most",
        beats.len()
    );
    assert!(
        Duration::from_millis(late) < LATENCY_MAX * patience(),
        "a line came {late} ms late"
    );
    boto.ask("ecs", "stop_task", &json!({"task": quiet}));
    let task = boto.until(&quiet, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 5, "{task}");
    let lines = boto.lines("/noise", &format!("p/c/{}", id_of(&quiet)));
    let wanted: Vec<String> = (0..lines.len()).map(|at| format!("beat {at}")).collect();
    assert_eq!(lines, wanted);
}
