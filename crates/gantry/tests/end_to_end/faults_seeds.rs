//! Scenes from seeds: tasks of every kind, and `kill -9` of Gantry, of shims and of containers in every state.
//!
//! What always holds: a seed fixes what is run and who is killed at which sight; when the kernel lets that happen
//! is its own. The seed stands before what it did; `GANTRY_SEED=7` plays one again, `GANTRY_SEEDS=100` plays many.
//! What it leaves to others: what must be true of one task (`faults_tasks`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults_client::{Boto, id_of};
use crate::faults_left;
use crate::faults_tasks::{Asked, KINDS, Kind};
use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

/// Enough to meet every victim in every run of the tests.
const SEEDS: u64 = 3;
const TASKS: usize = 8;
const NETWORKS: [&str; 3] = ["none", "host", "bridge"];
/// How long a sight is waited for that may never come, because something else happened first.
const SIGHT_MAX: Duration = Duration::from_secs(2);

/// The seeds that this run plays.
pub fn seeds(most: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (number("GANTRY_SEED"), number("GANTRY_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(most)).collect(),
    }
}

/// SplitMix64: small, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    pub fn of<T: Copy>(&mut self, many: &[T]) -> T {
        many[self.below(many.len() as u64) as usize]
    }
}

/// What must be seen of a task before something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// It was just acknowledged.
    Asked,
    /// A layer is on its way.
    Pulling,
    /// Its shim is being started.
    Folder,
    /// A container is being made.
    Making,
    Started,
    Running,
    /// It was just told to stop.
    Stopping,
    /// A container has ended, as its shim wrote down; nobody may have told anybody yet.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Nobody,
    Gantry,
    /// And it stays away until the task's container has ended, if that is soon.
    GantryForLonger,
    Shim,
    Container,
    GantryAndShim,
    GantryAndContainer,
}

const SIGHTS: [Sight; 8] = [
    Sight::Asked,
    Sight::Pulling,
    Sight::Folder,
    Sight::Making,
    Sight::Started,
    Sight::Running,
    Sight::Stopping,
    Sight::Ended,
];

const VICTIMS: [Victim; 8] = [
    Victim::Nobody,
    Victim::Gantry,
    Victim::Gantry,
    Victim::GantryForLonger,
    Victim::Shim,
    Victim::Container,
    Victim::GantryAndShim,
    Victim::GantryAndContainer,
];

struct Scene {
    gantry: Installation,
    boto: Boto,
    chance: Chance,
    proof: PathBuf,
    asked: Vec<Asked>,
    /// Every task that was ever acknowledged, in all scenes.
    all: Vec<String>,
    /// How many lines of containers were read back, in all scenes.
    lines: usize,
}

impl Scene {
    fn task_dir(&self, arn: &str) -> PathBuf {
        self.gantry.data_dir().join("node/tasks").join(id_of(arn))
    }

    /// One task, and one fault when a certain sight comes.
    fn step(&mut self, seed: u64, number: usize) {
        let kind = self.chance.of(&KINDS);
        let network = self.chance.of(&NETWORKS);
        let code = 1 + self.chance.below(100);
        let (mut sight, victim) = (self.chance.of(&SIGHTS), self.chance.of(&VICTIMS));
        let run = format!("seed-{seed}-{number}");
        let mut asked = Asked::run(&mut self.boto, kind, network, &run, code);
        self.all.push(asked.arn.clone());
        // Of some kinds there is less to see.
        sight = match sight {
            Sight::Started | Sight::Running | Sight::Stopping | Sight::Ended if !kind.starts() => {
                Sight::Folder
            }
            Sight::Ended if !kind.ends() => Sight::Started,
            sight => sight,
        };
        if sight == Sight::Stopping {
            self.wait_for(&asked, Sight::Started);
            asked.stop(&mut self.boto);
        }
        let seen = self.wait_for(&asked, sight);
        eprintln!("  {run}: {kind:?} on {network}, {sight:?} (seen: {seen}), killed: {victim:?}");
        self.kill(&mut asked, victim);
        self.asked.push(asked);
        self.observe();
    }

    /// Looks as often as it can, because some of these are there for a moment only.
    fn wait_for(&mut self, asked: &Asked, sight: Sight) -> bool {
        let deadline = Instant::now() + SIGHT_MAX;
        loop {
            let c = self.task_dir(&asked.arn).join("c/c");
            let is_there = match sight {
                Sight::Asked | Sight::Stopping => true,
                Sight::Pulling => {
                    let partial = self.gantry.data_dir().join("node/images/partial");
                    std::fs::read_dir(partial).is_ok_and(|mut files| files.next().is_some())
                }
                Sight::Folder => self.task_dir(&asked.arn).exists(),
                Sight::Making => c.join("container.json").exists(),
                Sight::Started => c.join("started.json").exists(),
                Sight::Running => self.boto.task(&asked.arn)["lastStatus"] == "RUNNING",
                Sight::Ended => c.join("exit.json").exists(),
            };
            if is_there || Instant::now() > deadline {
                return is_there;
            }
            std::thread::yield_now();
        }
    }

    fn kill(&mut self, asked: &mut Asked, victim: Victim) {
        let kills_gantry = matches!(
            victim,
            Victim::Gantry
                | Victim::GantryForLonger
                | Victim::GantryAndShim
                | Victim::GantryAndContainer
        );
        if kills_gantry {
            self.gantry.signal_and_wait("KILL");
        }
        let dir = self.task_dir(&asked.arn);
        match victim {
            Victim::Shim | Victim::GantryAndShim => {
                asked.shim_killed |= kill_of(&dir, "shim.json", id_of(&asked.arn));
            }
            Victim::Container | Victim::GantryAndContainer => {
                asked.container_killed |= kill_of(&dir, "c/c/started.json", id_of(&asked.arn));
            }
            Victim::GantryForLonger if asked.kind.ends() => {
                self.wait_for(asked, Sight::Ended);
            }
            _ => {}
        }
        if kills_gantry {
            self.gantry.start();
        }
    }

    /// Everything that is told now, held against what was told before.
    fn observe(&mut self) -> Vec<Value> {
        let arns: Vec<&str> = self.asked.iter().map(|asked| asked.arn.as_str()).collect();
        let with = json!({ "tasks": arns });
        let answer = self.boto.persist("ecs", "describe_tasks", &with);
        let tasks = answer["tasks"].as_array().expect("tasks").clone();
        assert_eq!(tasks.len(), arns.len(), "a task is forgotten: {answer}");
        for asked in &mut self.asked {
            let task = tasks.iter().find(|task| task["taskArn"] == asked.arn);
            asked.observe(task.expect("it is among them"));
        }
        tasks
    }

    /// No more faults: everything ends, and then everything that was told is true.
    fn settle(&mut self) {
        for asked in &mut self.asked {
            if !asked.kind.ends() && !asked.stopped {
                asked.stop(&mut self.boto);
            }
        }
        let tasks = eventually(Duration::from_secs(60), "every task stops", || {
            let tasks = self.observe();
            let open: Vec<&Value> = tasks
                .iter()
                .filter(|task| task["lastStatus"] != "STOPPED")
                .collect();
            match open.is_empty() {
                true => Ok(tasks.clone()),
                false => Err(format!("{open:?}")),
            }
        });
        let id = self.gantry.installation_id();
        let folder = self.gantry.data_dir().join("node/tasks");
        eventually(Duration::from_secs(30), "nothing is left of them", || {
            let mut left: Vec<String> = std::fs::read_dir(&folder)
                .expect("the tasks")
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect();
            left.extend(faults_left::processes(&[
                &format!("gantry-{id}/"),
                &folder.display().to_string(),
            ]));
            for cgroup in faults_left::cgroups(&id) {
                let below = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
                let groups = below.filter(|entry| entry.path().is_dir());
                left.extend(groups.map(|entry| entry.path().display().to_string()));
            }
            match left.is_empty() {
                true => Ok(()),
                false => Err(format!("{left:#?}")),
            }
        });
        let runs = std::fs::read_to_string(self.proof.join("runs")).unwrap_or_default();
        let runs: Vec<String> = runs.lines().map(str::to_owned).collect();
        for asked in &self.asked {
            let task = tasks.iter().find(|task| task["taskArn"] == asked.arn);
            let task = task.expect("it is among them");
            self.lines += asked.check(&mut self.boto, task, &runs);
        }
        self.asked.clear();
        self.check_instance();
    }

    /// Nobody runs that nobody asked for, and the machine has given back all that it gave.
    fn check_instance(&mut self) {
        let mut listed = Vec::new();
        for status in ["RUNNING", "STOPPED"] {
            let mut with = json!({ "desiredStatus": status });
            loop {
                let page = self.boto.persist("ecs", "list_tasks", &with);
                let arns = page["taskArns"].as_array().expect("ARNs").clone();
                listed.extend(
                    arns.iter()
                        .filter_map(|arn| arn.as_str().map(str::to_owned)),
                );
                match &page["nextToken"] {
                    Value::Null => break,
                    token => with["nextToken"] = token.clone(),
                }
            }
        }
        let mut wanted = self.all.clone();
        wanted.sort();
        listed.sort();
        assert_eq!(listed, wanted, "the tasks that there are");
        let with = self
            .boto
            .persist("ecs", "list_container_instances", &json!({}));
        let with = json!({"containerInstances": with["containerInstanceArns"]});
        let answer = self
            .boto
            .persist("ecs", "describe_container_instances", &with);
        let instances = answer["containerInstances"].as_array().expect("instances");
        assert_eq!(instances.len(), 1, "{answer}");
        let of = |key: &str| {
            let resources = instances[0][key].as_array().expect("resources").iter();
            resources
                .map(|resource| {
                    let ports = &resource["stringSetValue"];
                    format!("{} {} {ports}", resource["name"], resource["integerValue"])
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(of("remainingResources"), of("registeredResources"));
    }
}

/// Kills the process that a file of a task names, if it still is of that task.
pub fn kill_of(task_dir: &std::path::Path, file: &str, task: &str) -> bool {
    let Ok(text) = std::fs::read(task_dir.join(file)) else {
        return false;
    };
    let value: Value = serde_json::from_slice(&text).expect("JSON");
    let pid = value["pid"].as_u64().expect("a pid") as u32;
    let read = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default())
            .into_owned()
    };
    if !read("cmdline").contains(task) && !read("cgroup").contains(task) {
        return false;
    }
    // It may end between the look and the kill, with its own code; either is allowed for then.
    let status = std::process::Command::new("kill")
        .arg("-KILL")
        .arg(pid.to_string())
        .stderr(std::process::Stdio::null())
        .status();
    status.expect("kill").success()
}

#[test]
fn whatever_is_killed_in_whichever_state_every_task_ends_once_and_as_told() {
    // Images are collected as soon as no task uses them, so that each scene pulls, and pulls beside collections.
    let gantry = Installation::up_with(
        &[
            ("ECS_IMAGE_CLEANUP_INTERVAL", "1s"),
            ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1s"),
        ],
        &[],
    );
    let image = push_busybox(&gantry, "seeds", &[]);
    let proof = gantry.scratch("proof");
    std::fs::create_dir_all(&proof).expect("a folder");
    let mut scene = Scene {
        boto: Boto::of(&gantry),
        gantry,
        chance: Chance(0),
        proof,
        asked: Vec::new(),
        all: Vec::new(),
        lines: 0,
    };
    for kind in KINDS {
        for network in NETWORKS {
            kind.define(&mut scene.boto, network, &image, &scene.proof);
        }
    }
    for seed in seeds(SEEDS) {
        let from = Instant::now();
        eprintln!("seed {seed}; GANTRY_SEED={seed} plays it again");
        scene.chance = Chance(seed);
        for number in 0..TASKS {
            scene.step(seed, number);
        }
        scene.settle();
        eprintln!("  as it must be, after {:?}", from.elapsed());
    }
    assert!(scene.lines > 0, "no container wrote anything");
    eprintln!("{} tasks, {} lines", scene.all.len(), scene.lines);
    // `down` leaves nothing either, of an `up` that is dead and of a task that still runs.
    let last = Asked::run(&mut scene.boto, Kind::Stubborn, "bridge", "last", 0);
    scene.boto.until(&last.arn, "RUNNING");
    let Scene { mut gantry, .. } = scene;
    let id = gantry.installation_id();
    gantry.signal_and_wait("KILL");
    let down = gantry.gantry(&["down"]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    let left = faults_left::everything(&id, &gantry.data_dir());
    assert!(left.is_empty(), "{left:#?}");
}
