//! Tasks in bridge mode: their ports answered from every side, also while no Gantry runs, and nothing left.
//!
//! Each test has a network and mounts of its own, so it sees a machine with one address, and the network of
//! the real one is never touched. What a killed test leaves goes with its last process.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::image::{push_busybox, run};
use crate::installation::{Installation, eventually};

/// The address of the machine that a test sees.
const HOST: &str = "192.0.2.1";
/// A container that serves its own name over HTTP.
const SERVE: &str =
    "mkdir -p /www; hostname > /www/index.html; /bin/busybox httpd -f -p 80 -h /www";

/// Moves this test, and every process that it starts from now on, onto a machine of its own.
pub fn machine() {
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
    sh("mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/netns");
    sh("ip link set lo up && ip netns add outside");
    sh("ip link add uplink type veth peer name wire netns outside");
    sh(&format!(
        "ip addr add {HOST}/24 dev uplink && ip link set uplink up"
    ));
    sh("ip -n outside addr add 192.0.2.9/24 dev wire && ip -n outside link set wire up");
    sh("ip route add default via 192.0.2.9");
}

fn sh(command: &str) -> String {
    run(Command::new("sh").args(["-ec", command]))
}

/// What the kernel has of networks.
fn everything() -> BTreeSet<String> {
    let lines = sh(
        "ip -o link | sed 's/ qlen.*//'; ip -4 route show table all; nft list ruleset; ls /run/netns; sysctl net.ipv4.ip_forward",
    );
    lines.lines().map(str::to_owned).collect()
}

fn container(name: &str, image: &str, command: &str, more: Value) -> Value {
    let mut container = json!({
        "name": name, "image": image, "memory": 32, "stopTimeout": 2, "command": ["sh", "-c", command],
    });
    let members = container.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    container
}

fn register(gantry: &Installation, family: &str, containers: &[Value]) {
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        family,
        "--network-mode",
        "bridge",
        "--container-definitions",
        &json!(containers).to_string(),
    ]);
}

fn run_tasks(gantry: &Installation, family: &str, count: &str) -> Value {
    gantry.aws(&[
        "ecs",
        "run-task",
        "--task-definition",
        family,
        "--count",
        count,
    ])
}

/// Starts tasks and returns them once all run.
fn start(gantry: &Installation, family: &str, count: &str) -> Vec<Value> {
    let answer = run_tasks(gantry, family, count);
    assert_eq!(answer["failures"], json!([]), "{answer}");
    let tasks = answer["tasks"].as_array().expect("tasks");
    let arns: Vec<String> = tasks
        .iter()
        .map(|task| task["taskArn"].as_str().expect("an ARN").to_owned())
        .collect();
    running(gantry, &arns)
}

fn describe(gantry: &Installation, arns: &[String]) -> Vec<Value> {
    let mut words = vec!["ecs", "describe-tasks", "--tasks"];
    words.extend(arns.iter().map(String::as_str));
    let answer = gantry.aws(&words);
    answer["tasks"].as_array().expect("tasks").clone()
}

fn running(gantry: &Installation, arns: &[String]) -> Vec<Value> {
    eventually(Duration::from_secs(60), "the tasks run", || {
        let tasks = describe(gantry, arns);
        if tasks.iter().all(|task| task["lastStatus"] == "RUNNING") {
            Ok(tasks)
        } else {
            Err(json!(tasks).to_string())
        }
    })
}

fn arn(task: &Value) -> String {
    task["taskArn"].as_str().expect("an ARN").to_owned()
}

/// The host port of a task's container.
fn port(task: &Value, container: &str) -> u16 {
    let containers = task["containers"].as_array().expect("containers");
    let found = containers
        .iter()
        .find(|one| one["name"] == container)
        .expect("the container");
    let binding = &found["networkBindings"][0];
    assert_eq!(binding["bindIP"], "0.0.0.0", "{task}");
    assert_eq!(binding["protocol"], "tcp", "{task}");
    u16::try_from(binding["hostPort"].as_u64().expect("a port")).expect("a port")
}

/// What is answered there. A server may need a moment after its container has started.
fn curl(from: &[&str], host: &str, port: u16) -> String {
    let url = format!("http://{host}:{port}/");
    let program = [
        from,
        &["curl", "-fsS", "--max-time", "2", "--noproxy", "*", &url],
    ]
    .concat();
    eventually(Duration::from_secs(20), &url, || {
        let output = Command::new(program[0])
            .args(&program[1..])
            .output()
            .expect("curl");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
}

#[test]
fn dynamic_ports_are_answered_from_everywhere_and_links_are_names() {
    machine();
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "bridge", &[]);
    let dynamic = json!({"portMappings": [{"containerPort": 80}]});
    register(&gantry, "web", &[container("web", &image, SERVE, dynamic)]);
    let tasks = start(&gantry, "web", "2");
    let ports: Vec<u16> = tasks.iter().map(|task| port(task, "web")).collect();
    assert!(ports.iter().all(|port| *port >= 32768), "{ports:?}");
    let names: Vec<String> = ports
        .iter()
        .map(|port| curl(&[], "127.0.0.1", *port))
        .collect();
    assert_ne!(names[0], names[1], "each task answers on its own port");
    for (port, name) in ports.iter().zip(&names) {
        assert_eq!(&curl(&[], HOST, *port), name);
        assert_eq!(
            &curl(&["ip", "netns", "exec", "outside"], HOST, *port),
            name
        );
    }
    // From a task: another task by the host's port and by its address, and the linked one by its name.
    let address = names[0].trim_start_matches("ip-").replace('-', ".");
    let look = format!(
        "mkdir -p /www; exec > /www/index.html 2>&1; /bin/busybox httpd -p 80 -h /www; \
         for from in {HOST}:{} {address} cache; do \
         until /bin/busybox wget -qO- http://$from/; do sleep 0.2; done; done; hostname; sleep 1000",
        ports[1]
    );
    register(
        &gantry,
        "linked",
        &[
            container("redis", &image, SERVE, json!({"hostname": "the-cache"})),
            container(
                "web",
                &image,
                &look,
                json!({"links": ["redis:cache"], "hostname": "shop", "portMappings": [{"containerPort": 80, "hostPort": 0}]}),
            ),
        ],
    );
    let linked = start(&gantry, "linked", "1");
    let web = port(&linked[0], "web");
    let wanted = [&names[1], &names[0], "the-cache", "shop"];
    eventually(
        Duration::from_secs(20),
        "what the web container sees",
        || {
            let seen = curl(&[], "127.0.0.1", web);
            if seen.lines().eq(wanted) {
                Ok(())
            } else {
                Err(seen)
            }
        },
    );
}

#[test]
fn a_static_port_is_one_tasks_until_that_task_is_stopped() {
    machine();
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "static", &[]);
    let fixed = json!({"portMappings": [{"containerPort": 80, "hostPort": 8080}]});
    register(&gantry, "web", &[container("web", &image, SERVE, fixed)]);
    let mut task = start(&gantry, "web", "1").remove(0);
    assert_eq!(port(&task, "web"), 8080);
    for _ in 0..3 {
        let name = curl(&[], "127.0.0.1", 8080);
        let refused = run_tasks(&gantry, "web", "1");
        assert_eq!(
            refused["failures"][0]["reason"], "RESOURCE:PORTS",
            "{refused}"
        );
        // As soon as it is stopped the port is the next task's, whatever this machine still has to remove.
        gantry.aws(&["ecs", "stop-task", "--task", &arn(&task)]);
        eventually(
            Duration::from_secs(20),
            "the task's end",
            || match &describe(&gantry, &[arn(&task)])[0]["lastStatus"] {
                status if status == "STOPPED" => Ok(()),
                status => Err(status.to_string()),
            },
        );
        task = start(&gantry, "web", "1").remove(0);
        assert_ne!(curl(&[], HOST, 8080), name);
    }
    // Somebody on the machine who is no task: it is said who is in the way.
    gantry.aws(&["ecs", "stop-task", "--task", &arn(&task)]);
    let taken = json!({"portMappings": [{"containerPort": 80, "hostPort": 8081}]});
    register(&gantry, "taken", &[container("web", &image, SERVE, taken)]);
    let _somebody = TcpListener::bind((HOST, 8081)).expect("a free port");
    let answer = run_tasks(&gantry, "taken", "1");
    let failed = eventually(Duration::from_secs(20), "the task's end", || {
        let task = describe(&gantry, &[arn(&answer["tasks"][0])]).remove(0);
        if task["lastStatus"] == "STOPPED" {
            Ok(task)
        } else {
            Err(task.to_string())
        }
    });
    let reason = failed["containers"][0]["reason"]
        .as_str()
        .unwrap_or_default();
    assert!(
        reason.starts_with("CannotStartContainerError") && reason.contains("0.0.0.0:8081"),
        "{failed}"
    );
}

#[test]
fn ports_are_answered_while_no_gantry_runs_and_the_next_holds_them_again() {
    machine();
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "adopted", &[]);
    let ports = json!({"portMappings": [{"containerPort": 80}, {"containerPort": 81}]});
    register(&gantry, "web", &[container("web", &image, SERVE, ports)]);
    let task = start(&gantry, "web", "1").remove(0);
    let dynamic = port(&task, "web");
    let name = curl(&[], HOST, dynamic);
    gantry.signal_and_wait("KILL");
    assert_eq!(curl(&[], "127.0.0.1", dynamic), name);
    gantry.start();
    let adopted = running(&gantry, &[arn(&task)]).remove(0);
    assert_eq!(
        adopted["containers"][0]["networkBindings"],
        task["containers"][0]["networkBindings"]
    );
    assert_eq!(curl(&[], HOST, dynamic), name);
    eventually(
        Duration::from_secs(10),
        "the ports are held",
        || match TcpListener::bind(("0.0.0.0", dynamic)) {
            Ok(_) => Err("anybody could have it".to_owned()),
            Err(_) => Ok(()),
        },
    );
    let next = start(&gantry, "web", "1");
    assert_ne!(port(&next[0], "web"), dynamic);
}

#[test]
fn a_killed_gantry_leaves_nothing_after_down() {
    machine();
    let before = everything();
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "left", &[]);
    let dynamic = json!({"portMappings": [{"containerPort": 80}]});
    register(&gantry, "web", &[container("web", &image, SERVE, dynamic)]);
    start(&gantry, "web", "3");
    // In the middle of starting more.
    run_tasks(&gantry, "web", "5");
    gantry.signal_and_wait("KILL");
    assert_ne!(everything(), before);
    let down = gantry.gantry(&["down"]);
    let said = String::from_utf8_lossy(&down.stderr).into_owned();
    assert!(down.status.success(), "{said}");
    // The kernel takes the last routes away moments after the interfaces.
    eventually(Duration::from_secs(5), "nothing is left", || {
        let now = everything();
        let more: Vec<&String> = now.difference(&before).collect();
        if now == before {
            Ok(())
        } else {
            Err(format!("{said}: {more:?}"))
        }
    });
}

#[test]
fn what_a_stopped_task_had_is_gone_while_gantry_runs() {
    machine();
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "gone", &[]);
    let dynamic = json!({"portMappings": [{"containerPort": 80}]});
    register(&gantry, "web", &[container("web", &image, SERVE, dynamic)]);
    let first = start(&gantry, "web", "1").remove(0);
    // What all containers share stays; what this one had goes.
    let shared = everything();
    let more = start(&gantry, "web", "4");
    let clock = Instant::now();
    for task in &more {
        gantry.aws(&["ecs", "stop-task", "--task", &arn(task)]);
    }
    eventually(Duration::from_secs(30), "their networks are gone", || {
        let now = everything();
        if now == shared {
            return Ok(());
        }
        let more: Vec<&String> = now.difference(&shared).collect();
        Err(format!("{more:?} after {:?}", clock.elapsed()))
    });
    assert!(!curl(&[], HOST, port(&first, "web")).is_empty());
}

#[test]
fn a_container_serves_a_range_of_ports() {
    machine();
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "range", &[]);
    let serve = "for p in 8000 8001 8002 8003; do mkdir -p /www/$p; echo $(hostname) $p > /www/$p/index.html; \
                 /bin/busybox httpd -p $p -h /www/$p; done; sleep 1000";
    let ranges = json!({"portMappings": [
        {"containerPortRange": "8000-8003"}, {"containerPortRange": "9000-9099", "protocol": "udp"}, {"containerPort": 8002, "protocol": "udp"},
    ]});
    register(&gantry, "web", &[container("web", &image, serve, ranges)]);
    let task = start(&gantry, "web", "1").remove(0);
    let bindings = |task: &Value| task["containers"][0]["networkBindings"].clone();
    let of = |task: &Value, range: &str| -> (u16, u16) {
        let all = bindings(task);
        let all = all.as_array().expect("bindings");
        let found = all.iter().find(|one| one["containerPortRange"] == range);
        let found = found.expect("the range");
        assert!(
            found.get("containerPort").is_none() && found.get("hostPort").is_none(),
            "{found}"
        );
        let (first, last) = found["hostPortRange"]
            .as_str()
            .and_then(|range| range.split_once('-'))
            .expect("FIRST-LAST");
        (
            first.parse().expect("a port"),
            last.parse().expect("a port"),
        )
    };
    let (first, last) = of(&task, "8000-8003");
    assert!(first >= 32768 && last == first + 3, "{task}");
    let (first_udp, last_udp) = of(&task, "9000-9099");
    assert_eq!(last_udp, first_udp + 99);
    let name = curl(&[], "127.0.0.1", first);
    for (n, port) in (first..=last).enumerate() {
        let said = name.replace("8000", &format!("800{n}"));
        assert_eq!(curl(&[], "127.0.0.1", port), said);
        assert_eq!(curl(&["ip", "netns", "exec", "outside"], HOST, port), said);
        assert!(
            TcpListener::bind(("0.0.0.0", port)).is_err(),
            "{port} is held"
        );
    }
    // Placement knows all of them, and says where a task that names one does not go.
    let fixed = json!({"portMappings": [{"containerPort": 80, "hostPort": last}]});
    register(&gantry, "fixed", &[container("web", &image, SERVE, fixed)]);
    let refused = run_tasks(&gantry, "fixed", "1");
    assert_eq!(
        refused["failures"][0]["reason"], "RESOURCE:PORTS",
        "{refused}"
    );
    // The next Gantry knows and holds them as well, and gives others to the next task.
    gantry.signal_and_wait("KILL");
    gantry.start();
    let adopted = running(&gantry, &[arn(&task)]).remove(0);
    assert_eq!(bindings(&adopted), bindings(&task));
    let next = start(&gantry, "web", "1").remove(0);
    let (other, _) = of(&next, "8000-8003");
    assert!(
        !(first..=last).contains(&other) && !(first..=last).contains(&(other + 3)),
        "{next}"
    );
    assert_ne!(curl(&[], HOST, other), name);
    assert_eq!(curl(&[], HOST, first), name);
    gantry.aws(&["ecs", "stop-task", "--task", &arn(&task)]);
    eventually(Duration::from_secs(30), "the ports are free", || {
        let all = (first..=last).map(|port| TcpListener::bind(("0.0.0.0", port)));
        match all.collect::<Result<Vec<_>, _>>() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
    start(&gantry, "fixed", "1");
}
