//! Services on a fleet of agents that joined with a token: daemons, an instance that drains, and tasks
//! that are moved to another availability zone.

use std::time::Duration;

use serde_json::Value;

use crate::agents::{Agent, Agents, token};
use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

const PATIENCE: Duration = Duration::from_secs(120);

/// Ends when it is told to, after a second of work.
const SERVES: &str = r#"["sh","-c","trap 'sleep 1; exit 0' TERM; while true; do sleep 0.1; done"]"#;

fn ecs(gantry: &Installation, words: &[&str]) -> Value {
    let (operation, rest) = words.split_first().expect("an operation");
    let mut all = vec!["ecs", operation, "--cluster", "fleet"];
    all.extend(rest);
    gantry.aws(&all)
}

fn register(gantry: &Installation, image: &str, family: &str, more: &str) {
    let container = format!(
        r#"[{{"name":"c","image":"{image}","memory":16,"command":{SERVES},"stopTimeout":10{more}}}]"#
    );
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        family,
        "--network-mode",
        "host",
        "--container-definitions",
        &container,
    ]);
}

fn service(gantry: &Installation, name: &str) -> Value {
    ecs(gantry, &["describe-services", "--services", name])["services"][0].clone()
}

fn describe(gantry: &Installation, arns: &[String]) -> Vec<Value> {
    if arns.is_empty() {
        return Vec::new();
    }
    let mut words = vec!["describe-tasks", "--tasks"];
    words.extend(arns.iter().map(String::as_str));
    ecs(gantry, &words)["tasks"]
        .as_array()
        .expect("tasks")
        .clone()
}

fn tasks(gantry: &Installation, name: &str, status: &str) -> Vec<Value> {
    let listed = ecs(
        gantry,
        &[
            "list-tasks",
            "--service-name",
            name,
            "--desired-status",
            status,
        ],
    );
    let arns = listed["taskArns"].as_array().expect("ARNs").iter();
    let arns: Vec<String> = arns
        .map(|arn| arn.as_str().expect("an ARN").to_owned())
        .collect();
    describe(gantry, &arns)
}

/// Where the tasks of the service run, once as many do as it shall have and no other deployment is left.
fn settled_on(gantry: &Installation, name: &str, count: i64) -> Vec<String> {
    eventually(PATIENCE, "a settled service", || {
        let seen = service(gantry, name);
        let is_alone = seen["deployments"]
            .as_array()
            .is_some_and(|all| all.len() == 1);
        if seen["runningCount"] == count && seen["pendingCount"] == 0 && is_alone {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    let mut places: Vec<String> = tasks(gantry, name, "RUNNING")
        .iter()
        .map(|task| {
            task["containerInstanceArn"]
                .as_str()
                .expect("an ARN")
                .to_owned()
        })
        .collect();
    places.sort();
    places
}

fn set_state(gantry: &Installation, instance: &str, status: &str) {
    ecs(
        gantry,
        &[
            "update-container-instances-state",
            "--status",
            status,
            "--container-instances",
            instance,
        ],
    );
}

#[test]
fn a_daemon_runs_on_each_agent_and_leaves_a_draining_one_last() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "daemons", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "fleet"]);
    register(&gantry, &image, "log", "");
    register(&gantry, &image, "shop", "");
    let join = token(&gantry, &["--cluster", "fleet", "--uses", "2"]);
    let agents = Agents::new();
    let mut one = agents.agent(&gantry, "one");
    one.start(Some(&join));
    let first = one.container_instance();
    // It is there before the second agent, which gets its task by itself.
    let made = ecs(
        &gantry,
        &[
            "create-service",
            "--service-name",
            "log",
            "--task-definition",
            "log",
            "--scheduling-strategy",
            "DAEMON",
        ],
    );
    let made = &made["service"];
    assert_eq!(made["schedulingStrategy"], "DAEMON", "{made}");
    assert_eq!(
        made["deploymentConfiguration"]["maximumPercent"], 100,
        "{made}"
    );
    assert_eq!(settled_on(&gantry, "log", 1), std::slice::from_ref(&first));
    let mut two = agents.agent(&gantry, "two");
    two.start(Some(&join));
    let second = two.container_instance();
    let mut both = vec![first.clone(), second.clone()];
    both.sort();
    assert_eq!(settled_on(&gantry, "log", 2), both);
    assert_eq!(service(&gantry, "log")["desiredCount"], 2);

    // Another service has a task on each; its tasks may be stopped before they are replaced.
    ecs(
        &gantry,
        &[
            "create-service",
            "--service-name",
            "shop",
            "--task-definition",
            "shop",
            "--desired-count",
            "2",
            "--placement-strategy",
            "type=spread,field=instanceId",
            "--deployment-configuration",
            "minimumHealthyPercent=0,maximumPercent=100",
        ],
    );
    assert_eq!(settled_on(&gantry, "shop", 2), both);
    set_state(&gantry, &first, "DRAINING");
    assert_eq!(
        settled_on(&gantry, "shop", 2),
        [second.clone(), second.clone()]
    );
    assert_eq!(settled_on(&gantry, "log", 1), std::slice::from_ref(&second));
    assert_eq!(service(&gantry, "log")["desiredCount"], 1);
    let ended = |name: &str| {
        eventually(PATIENCE, "a stopped task", || {
            let all = tasks(&gantry, name, "STOPPED");
            let there = all
                .iter()
                .find(|task| task["containerInstanceArn"] == *first);
            let stopped = there.filter(|task| task["lastStatus"] == "STOPPED");
            stopped.cloned().ok_or_else(|| format!("{all:?}"))
        })
    };
    let (daemon, other) = (ended("log"), ended("shop"));
    // Seconds or a date, as the CLI has it: both are in order as text.
    let at = |task: &Value, member: &str| {
        assert!(!task[member].is_null(), "{member}: {task}");
        task[member].to_string()
    };
    assert!(
        at(&daemon, "stoppingAt") >= at(&other, "stoppedAt"),
        "the daemon goes last: {daemon} {other}"
    );

    // Back again, and rolled: each instance gets the new one.
    set_state(&gantry, &first, "ACTIVE");
    assert_eq!(settled_on(&gantry, "log", 2), both);
    let before = tasks(&gantry, "log", "RUNNING");
    ecs(
        &gantry,
        &[
            "update-service",
            "--service",
            "log",
            "--force-new-deployment",
        ],
    );
    eventually(PATIENCE, "new tasks", || {
        let now = tasks(&gantry, "log", "RUNNING");
        let is_old = |task: &&Value| before.iter().any(|old| old["taskArn"] == task["taskArn"]);
        match now.iter().filter(is_old).count() {
            0 if now.len() == 2 => Ok(()),
            left => Err(format!("{left} of {} are old", now.len())),
        }
    });
    assert_eq!(settled_on(&gantry, "log", 2), both);
    ecs(&gantry, &["delete-service", "--service", "log"]);
    ecs(&gantry, &["delete-service", "--service", "shop", "--force"]);
    gantry.aws(&[
        "ecs",
        "wait",
        "services-inactive",
        "--cluster",
        "fleet",
        "--services",
        "log",
        "shop",
    ]);
    for mut agent in [one, two] {
        ends(&mut agent);
    }
}

#[test]
fn a_service_is_rebalanced_when_a_second_zone_comes() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "zones", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "fleet"]);
    register(
        &gantry,
        &image,
        "web",
        r#","healthCheck":{"command":["CMD","true"],"interval":5,"retries":1}"#,
    );
    let join = token(&gantry, &["--cluster", "fleet", "--uses", "2"]);
    let agents = Agents::new();
    let mut all: Vec<Agent> = ["a", "b"]
        .iter()
        .map(|zone| {
            let mut agent = agents.agent(&gantry, zone);
            agent.attributes = format!(",ecs.availability-zone=zone-{zone}");
            agent
        })
        .collect();
    all[0].start(Some(&join));
    let first = all[0].container_instance();
    let made = ecs(
        &gantry,
        &[
            "create-service",
            "--service-name",
            "web",
            "--task-definition",
            "web",
            "--desired-count",
            "2",
        ],
    );
    assert_eq!(
        made["service"]["availabilityZoneRebalancing"], "ENABLED",
        "{made}"
    );
    assert_eq!(settled_on(&gantry, "web", 2), [first.clone(), first]);
    all[1].start(Some(&join));
    let balanced = eventually(PATIENCE, "the balance", || {
        let seen = service(&gantry, "web");
        assert!(
            seen["runningCount"].as_i64() >= Some(2),
            "never below: {seen}"
        );
        let events = seen["events"].as_array().expect("events").clone();
        let is_balanced = |event: &&Value| {
            let said = event["message"].as_str().unwrap_or_default();
            said == "(service web) is AZ balanced with 1 tasks in zone-a and 1 tasks in zone-b."
        };
        match events.iter().find(is_balanced) {
            Some(_) => Ok(events),
            None => Err(seen.to_string()),
        }
    });
    let said = |words: &str| {
        let has = |event: &Value| {
            event["message"]
                .as_str()
                .is_some_and(|it| it.contains(words))
        };
        assert!(balanced.iter().any(has), "{words}: {balanced:?}");
    };
    said("is not AZ balanced with 2 tasks in zone-a and 0 in zone-b. AZ Rebalancing in progress.");
    said("has started 1 tasks in zone-b to AZ Rebalance: (task ");
    said("has stopped 1 running tasks in zone-a due to AZ rebalancing: (task ");
    let mut zones: Vec<String> = tasks(&gantry, "web", "RUNNING")
        .iter()
        .map(|task| {
            task["availabilityZone"]
                .as_str()
                .expect("a zone")
                .to_owned()
        })
        .collect();
    zones.sort();
    assert_eq!(zones, ["zone-a", "zone-b"]);
    for agent in &mut all {
        ends(agent);
    }
}

fn ends(agent: &mut Agent) {
    agent.signal_and_wait("TERM");
    agent.down();
}
