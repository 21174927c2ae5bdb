//! A service from 1 to 50 to 3 tasks that rolls ten times, while its containers, its shims and Gantry itself are
//! killed at random.
//!
//! What always holds: when nobody kills any more, exactly what was asked for last is there: as told by the API, and
//! as counted on the machine. `GANTRY_SEED=7` plays a storm again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults_client::{Boto, id_of};
use crate::faults_left;
use crate::faults_seeds::{Chance, kill_of, seeds};
use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

/// How many tasks are asked for with each revision: the first one is created, the others roll.
const DESIRED: [u64; 11] = [1, 1, 50, 50, 50, 20, 50, 50, 3, 3, 3];
const KILLS_A_ROLL: u64 = 6;

struct Storm {
    gantry: Installation,
    boto: Boto,
    chance: Chance,
    /// What was killed, by its name.
    killed: std::collections::BTreeMap<&'static str, usize>,
}

impl Storm {
    fn service(&mut self) -> Value {
        let answer = self
            .boto
            .persist("ecs", "describe_services", &json!({"services": ["storm"]}));
        answer["services"][0].clone()
    }

    /// The tasks that shall run, by their ids.
    fn tasks(&mut self) -> BTreeSet<String> {
        let answer = self
            .boto
            .persist("ecs", "list_tasks", &json!({"serviceName": "storm"}));
        let arns = answer["taskArns"].as_array().expect("ARNs").iter();
        arns.map(|arn| id_of(arn.as_str().expect("an ARN")).to_owned())
            .collect()
    }

    /// The tasks that the machine has, by the folders of their shims.
    fn on_the_machine(&self) -> BTreeSet<String> {
        let folder = self.gantry.data_dir().join("node/tasks");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn count(&mut self, what: &'static str, happened: bool) {
        if happened {
            *self.killed.entry(what).or_default() += 1;
        }
    }

    /// Something is killed, whatever it is about to do.
    fn strike(&mut self) {
        let there: Vec<String> = self.on_the_machine().into_iter().collect();
        let task =
            (!there.is_empty()).then(|| &there[self.chance.below(there.len() as u64) as usize]);
        let folder = task.map(|id| self.gantry.data_dir().join("node/tasks").join(id));
        match (self.chance.below(8), task, folder) {
            (0 | 1, _, _) => {
                self.gantry.signal_and_wait("KILL");
                self.gantry.start();
                self.count("gantry", true);
            }
            (2 | 3, Some(id), Some(folder)) => {
                let done = kill_of(&folder, "shim.json", id);
                self.count("shim", done);
            }
            (4, Some(id), _) => {
                let with = json!({"task": id, "reason": "the storm"});
                // It may be gone from the API already.
                let done = self.boto.once("ecs", "stop_task", &with).is_ok();
                self.count("stopped", done);
            }
            (_, Some(id), Some(folder)) => {
                let done = kill_of(&folder, "c/web/started.json", id);
                self.count("container", done);
            }
            _ => {}
        }
    }

    fn weather(&mut self) {
        for _ in 0..KILLS_A_ROLL {
            std::thread::sleep(Duration::from_millis(100 + self.chance.below(900)));
            self.strike();
        }
    }

    /// Waits until the service is where it was asked to be, and nowhere else.
    fn calm(&mut self, revision: usize, desired: u64) {
        let definition = format!("task-definition/storm:{revision}");
        eventually(Duration::from_secs(150), "the service is steady", || {
            let service = self.service();
            let deployments = service["deployments"].as_array().expect("deployments");
            let is_steady = deployments.len() == 1
                && deployments[0]["rolloutState"] == "COMPLETED"
                && service["runningCount"] == desired
                && service["pendingCount"] == 0
                && service["desiredCount"] == desired
                && service["taskDefinition"]
                    .as_str()
                    .is_some_and(|arn| arn.ends_with(&definition));
            match is_steady {
                true => Ok(()),
                false => Err(format!(
                    "{} {} {:#?}",
                    service["runningCount"],
                    service["deployments"],
                    service["events"]
                        .as_array()
                        .map(|all| &all[..all.len().min(4)])
                )),
            }
        });
        let tasks = self.tasks();
        assert_eq!(tasks.len() as u64, desired, "{tasks:?}");
        let with = json!({"tasks": tasks});
        let described = self.boto.persist("ecs", "describe_tasks", &with);
        for task in described["tasks"].as_array().expect("tasks") {
            let arn = task["taskDefinitionArn"].as_str().expect("an ARN");
            assert!(arn.ends_with(&definition), "{task}");
            assert_eq!(task["lastStatus"], "RUNNING", "{task}");
        }
        // The machine has these and no others, each once.
        eventually(
            Duration::from_secs(60),
            "the machine agrees",
            || match self.on_the_machine() {
                there if there == tasks => Ok(()),
                there => Err(format!("{there:?}, not {tasks:?}")),
            },
        );
        let id = self.gantry.installation_id();
        let processes = faults_left::processes(&[&format!("gantry-{id}/")]);
        for task in &tasks {
            let folder = self.gantry.data_dir().join("node/tasks").join(task);
            let started = std::fs::read(folder.join("c/web/started.json")).expect("it was started");
            let started: Value = serde_json::from_slice(&started).expect("JSON");
            let process = format!("process {}: ", started["pid"]);
            assert!(
                processes.iter().any(|one| one.starts_with(&process)),
                "{task} has no process {process}: {processes:#?}"
            );
        }
        let programs = processes.iter().filter(|one| one.contains("sh -c trap"));
        assert_eq!(programs.count() as u64, desired, "{processes:#?}");
    }
}

#[test]
fn from_one_to_fifty_to_three_with_ten_rolls_in_a_storm_it_ends_where_asked() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "storm", &[]);
    let mut storm = Storm {
        boto: Boto::of(&gantry),
        gantry,
        chance: Chance(0),
        killed: std::collections::BTreeMap::new(),
    };
    for seed in seeds(1) {
        eprintln!("seed {seed}; GANTRY_SEED={seed} plays it again");
        storm.chance = Chance(seed);
        play(&mut storm, &image);
    }
    eprintln!("killed: {:?}", storm.killed);
    for what in ["gantry", "shim", "container"] {
        assert!(storm.killed.contains_key(what), "{:?}", storm.killed);
    }
}

fn play(storm: &mut Storm, image: &str) {
    let mut revision = 0;
    for (roll, desired) in DESIRED.into_iter().enumerate() {
        let from = Instant::now();
        let registered = storm.boto.persist(
            "ecs",
            "register_task_definition",
            &json!({"family": "storm", "networkMode": "host", "containerDefinitions": [{
                "name": "web", "image": image, "memory": 16, "stopTimeout": 2,
                "environment": [{"name": "ROLL", "value": roll.to_string()}],
                "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.5; done"],
                "healthCheck": {"command": ["CMD", "true"], "interval": 5, "timeout": 5, "retries": 3},
            }]}),
        );
        revision = registered["taskDefinition"]["revision"]
            .as_u64()
            .expect("a revision") as usize;
        match roll {
            0 => storm.boto.ask(
                "ecs",
                "create_service",
                &json!({"serviceName": "storm", "taskDefinition": "storm", "desiredCount": desired}),
            ),
            _ => storm.boto.persist(
                "ecs",
                "update_service",
                &json!({"service": "storm", "taskDefinition": "storm", "desiredCount": desired}),
            ),
        };
        storm.weather();
        // Every other roll comes to its end; the ones between are overtaken by the next, wherever they are.
        if roll % 2 == 0 {
            storm.calm(revision, desired);
        }
        eprintln!("  roll {roll} to {desired}: {:?}", from.elapsed());
    }
    // Once it is where it was asked to be, it stays there.
    let tasks = storm.tasks();
    storm.calm(revision, DESIRED[DESIRED.len() - 1]);
    assert_eq!(storm.tasks(), tasks);
    storm.boto.ask(
        "ecs",
        "delete_service",
        &json!({"service": "storm", "force": true}),
    );
    eventually(Duration::from_secs(60), "it drains", || {
        match storm.service()["status"] == "INACTIVE" {
            true => Ok(()),
            false => Err(storm.service().to_string()),
        }
    });
    eventually(
        Duration::from_secs(30),
        "nothing is left of it",
        || match storm.on_the_machine().len() {
            0 => Ok(()),
            _ => Err(format!("{:?}", storm.on_the_machine())),
        },
    );
}
