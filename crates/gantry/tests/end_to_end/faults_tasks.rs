//! The tasks of a scene, and what must be true of each of them at its end, whatever was killed.
//!
//! What always holds: a container writes down that it ran, by itself and outside of Gantry, so that running twice
//! cannot be hidden; it numbers its lines, so that a lost or a doubled one is seen.

use std::path::Path;

use serde_json::{Value, json};

use crate::faults_client::{Boto, awslogs, id_of};

/// How many lines one that ends by itself writes.
const LINES: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes its lines and ends with a code of its own.
    Short,
    /// The same, after a container that must succeed first.
    Chain,
    /// The same, beside one that runs until it is stopped.
    Pair,
    /// Ends when it is told to, with 5.
    Long,
    /// The same, with a health check.
    Checked,
    /// Does not listen to SIGTERM.
    Stubborn,
    /// The kernel's out-of-memory killer ends it.
    Hog,
    /// Has no such program.
    NoProgram,
    /// Has no such image.
    NoImage,
}

pub const KINDS: [Kind; 9] = [
    Kind::Short,
    Kind::Chain,
    Kind::Pair,
    Kind::Long,
    Kind::Checked,
    Kind::Stubborn,
    Kind::Hog,
    Kind::NoProgram,
    Kind::NoImage,
];

impl Kind {
    pub fn starts(self) -> bool {
        !matches!(self, Kind::NoProgram | Kind::NoImage)
    }

    /// Whether it ends if nobody stops it.
    pub fn ends(self) -> bool {
        !matches!(self, Kind::Long | Kind::Checked | Kind::Stubborn)
    }

    fn containers(self, image: &str) -> Vec<Value> {
        let ran = |name: &str| format!("echo $RUN {name} >> /proof/runs");
        let short = format!(
            "{}; i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit $CODE",
            ran("c")
        );
        let counts = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done";
        let long = |name: &str| format!("trap 'exit 5' TERM; {}; {counts}", ran(name));
        let container = |name: &str, command: &str| {
            json!({"name": name, "image": image, "memory": 32, "stopTimeout": 10, "command": ["sh", "-c", command],
                "mountPoints": [{"sourceVolume": "proof", "containerPath": "/proof"}], "logConfiguration": awslogs("/seeds")})
        };
        let with = |mut container: Value, member: &str, value: Value| {
            container[member] = value;
            container
        };
        match self {
            Kind::Short => vec![container("c", &short)],
            Kind::Chain => {
                let init = container("init", &format!("{}; exit 0", ran("init")));
                let after = json!([{"containerName": "init", "condition": "SUCCESS"}]);
                vec![
                    with(container("c", &short), "dependsOn", after),
                    with(init, "essential", json!(false)),
                ]
            }
            Kind::Pair => vec![
                container("c", &format!("sleep 0.3; {short}")),
                with(container("side", &long("side")), "essential", json!(false)),
            ],
            Kind::Long => vec![container("c", &long("c"))],
            Kind::Checked => {
                let check = json!({"command": ["CMD-SHELL", "true"], "interval": 5, "timeout": 5, "retries": 2});
                vec![with(container("c", &long("c")), "healthCheck", check)]
            }
            Kind::Stubborn => {
                let command = format!("trap '' TERM; {}; {counts}", ran("c"));
                vec![with(container("c", &command), "stopTimeout", json!(2))]
            }
            Kind::Hog => {
                let command = format!("{}; exec tail /dev/zero", ran("c"));
                vec![with(container("c", &command), "memory", json!(16))]
            }
            Kind::NoProgram => {
                vec![with(
                    container("c", ""),
                    "command",
                    json!(["/no/such/program"]),
                )]
            }
            Kind::NoImage => {
                let absent = format!("{}-absent", image);
                vec![with(container("c", ""), "image", json!(absent))]
            }
        }
    }

    pub fn family(self, network: &str) -> String {
        format!("{self:?}-{network}")
    }

    pub fn define(self, boto: &mut Boto, network: &str, image: &str, proof: &Path) {
        let with = json!({"family": self.family(network), "networkMode": network,
            "volumes": [{"name": "proof", "host": {"sourcePath": proof}}], "containerDefinitions": self.containers(image)});
        boto.ask("ecs", "register_task_definition", &with);
    }
}

/// A task that was asked for and acknowledged, and what was done to it.
#[derive(Debug)]
pub struct Asked {
    pub arn: String,
    pub kind: Kind,
    /// What it calls itself where it writes that it ran.
    pub run: String,
    pub code: u64,
    pub stopped: bool,
    pub shim_killed: bool,
    pub container_killed: bool,
    /// The furthest status that was told of it.
    pub seen: usize,
}

const STATUSES: [&str; 7] = [
    "PROVISIONING",
    "PENDING",
    "ACTIVATING",
    "RUNNING",
    "DEACTIVATING",
    "STOPPING",
    "STOPPED",
];

impl Asked {
    /// RunTask under a token, as often as it takes.
    pub fn run(boto: &mut Boto, kind: Kind, network: &str, run: &str, code: u64) -> Asked {
        let environment =
            json!([{"name": "RUN", "value": run}, {"name": "CODE", "value": code.to_string()}]);
        let names: &[&str] = match kind {
            Kind::Chain => &["c", "init"],
            Kind::Pair => &["c", "side"],
            _ => &["c"],
        };
        let overrides: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": name, "environment": environment}))
            .collect();
        let with = json!({"taskDefinition": kind.family(network), "clientToken": run,
            "overrides": {"containerOverrides": overrides}});
        let answer = boto.persist("ecs", "run_task", &with);
        Asked {
            arn: crate::faults_client::arn_of(&answer),
            kind,
            run: run.to_owned(),
            code,
            stopped: false,
            shim_killed: false,
            container_killed: false,
            seen: 0,
        }
    }

    pub fn stop(&mut self, boto: &mut Boto) {
        boto.persist("ecs", "stop_task", &json!({"task": self.arn}));
        self.stopped = true;
    }

    /// What is told of a task never goes back.
    pub fn observe(&mut self, task: &Value) {
        let status = task["lastStatus"].as_str().unwrap_or_default();
        let at = STATUSES
            .iter()
            .position(|known| *known == status)
            .unwrap_or_else(|| panic!("an unknown status: {task}"));
        assert!(
            at >= self.seen,
            "{self:?} went back from {}: {task}",
            STATUSES[self.seen]
        );
        self.seen = at;
    }

    /// What must be true of a task that has stopped. `runs` is what the containers wrote themselves. The number of
    /// lines that were read.
    pub fn check(&self, boto: &mut Boto, task: &Value, runs: &[String]) -> usize {
        let mut read = 0;
        let says = format!("{self:?}: {task}");
        assert_eq!(task["lastStatus"], "STOPPED", "{says}");
        let containers = task["containers"].as_array().expect("containers");
        let undisturbed = !self.stopped && !self.shim_killed && !self.container_killed;
        for container in containers {
            let name = container["name"].as_str().expect("a name");
            let code = container["exitCode"].as_u64();
            let ran = runs
                .iter()
                .filter(|line| **line == format!("{} {name}", self.run))
                .count();
            assert!(ran <= 1, "{name} ran {ran} times; {says}");
            if let Some(code) = code {
                let codes = self.codes(name);
                assert!(
                    codes.contains(&code),
                    "{name} {code}, not of {codes:?}; {says}"
                );
            }
            if code.is_some_and(|code| code != 137) {
                assert_eq!(ran, 1, "{name} has ended and never ran; {says}");
            }
            // Who was not disturbed has an end, and Gantry's own death is no disturbance.
            if undisturbed && self.kind.starts() {
                assert!(code.is_some(), "{name} has no exit code; {says}");
                assert_eq!(ran, 1, "{says}");
            }
            let stream = format!("p/{name}/{}", id_of(&self.arn));
            let lines = boto.lines("/seeds", &stream);
            read += lines.len();
            let wanted: Vec<String> = (0..lines.len()).map(|at| format!("line {at}")).collect();
            assert_eq!(lines, wanted, "the lines of {name}; {says}");
            if name == "c"
                && self.ends_with_its_code()
                && code == Some(self.code)
                && !self.shim_killed
            {
                assert_eq!(lines.len(), LINES, "the lines of {name}; {says}");
            }
        }
        self.check_words(task, &says);
        read
    }

    fn ends_with_its_code(&self) -> bool {
        matches!(self.kind, Kind::Short | Kind::Chain | Kind::Pair)
    }

    /// The exit codes that may be true.
    fn codes(&self, container: &str) -> Vec<u64> {
        let mut codes = match (self.kind, container) {
            (Kind::Chain, "init") => vec![0],
            // It is stopped when its neighbour has ended; it may not have got to its trap yet.
            (Kind::Pair, "side") => vec![5, 137],
            (Kind::Short | Kind::Chain | Kind::Pair, _) => vec![self.code],
            (Kind::Hog, _) => vec![137],
            (Kind::Long | Kind::Checked, _) if self.stopped => vec![5, 137],
            (Kind::Stubborn, _) if self.stopped => vec![137],
            _ => Vec::new(),
        };
        if self.container_killed || self.stopped {
            codes.push(137);
        }
        codes
    }

    fn check_words(&self, task: &Value, says: &str) {
        let stop_code = task["stopCode"].as_str().unwrap_or_default();
        let reason = task["stoppedReason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "no reason: {says}");
        let of_container = task["containers"][0]["reason"].as_str().unwrap_or_default();
        let out_of_memory = task["containers"].to_string().contains("OutOfMemory");
        match self.kind {
            Kind::Hog => {}
            _ => assert!(!out_of_memory, "{says}"),
        }
        if self.stopped {
            return;
        }
        assert_ne!(stop_code, "UserInitiated", "nobody stopped it: {says}");
        if self.shim_killed {
            return;
        }
        match self.kind {
            Kind::NoImage | Kind::NoProgram => {
                assert_eq!(stop_code, "TaskFailedToStart", "{says}");
                let wanted = match self.kind {
                    Kind::NoImage => "CannotPullContainerError",
                    _ => "CannotStartContainerError",
                };
                assert!(of_container.starts_with(wanted), "{says}");
            }
            _ => assert_eq!(stop_code, "EssentialContainerExited", "{says}"),
        }
        if self.kind == Kind::Hog && !self.container_killed {
            assert!(of_container.starts_with("OutOfMemoryError"), "{says}");
        }
    }
}
