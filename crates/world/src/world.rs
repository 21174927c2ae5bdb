//! The loop of the world: the next event happens, everybody takes it in, and the invariants are checked.
//!
//! What always holds: one event at a time, on one thread; every decision comes from the seed.
//! What it leaves to others: what a machine, the control plane or a user does (`machine`, `control`,
//! `user`), what may go wrong (`faults`), and what must hold (`invariants`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gantry_agent::core::Identity;
use gantry_agent::core::step::Input;
use gantry_api::acs::Frame;
use gantry_ecs::model::last_status::LastStatus;
use gantry_ecs::tables::{ContainerReport, SERVICE, TaskReportRow, TaskRow};
use gantry_env::VirtualEnv;
use gantry_store::{Change, Changes, Prefix, RowChange};

use crate::chance::Chance;
use crate::control::{ConnectionId, ControlPlane};
use crate::event::Event;
use crate::faults::{Fault, Faults};
use crate::founding::{self, Size};
use crate::invariants::Invariants;
use crate::machine::{self, Incarnation, Machine};
use crate::network::Network;
use crate::schedule::Schedule;
use crate::services::{ServiceLaws, ServiceUsers, Shown};
use crate::trace::Trace;
use crate::user::Users;

mod havoc;
mod promises;
mod rest;
mod steadiness;
mod telemetry;
mod traffic;

/// What the users of a world are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// They run tasks; in the end everything has stopped.
    Tasks,
    /// They keep services; in the end each is as it was asked for, and stays so.
    Services,
}

/// A controller that has looked at a service rests for some milliseconds before it looks again.
const JUDGED_AFTER: Duration = Duration::from_millis(300);

/// How large the world is, and how bad.
#[derive(Clone, Debug)]
pub struct Settings {
    pub subject: Subject,
    pub machines: usize,
    /// How long users act and faults happen.
    pub faulty_for: Duration,
    /// A user does something so often, about.
    pub user_acts_every: Duration,
    pub faults: Faults,
    /// After the last fault, everything must be over within this.
    pub converges_within: Duration,
    /// What services show is looked at so often, while something about them changes.
    pub looks_every: Duration,
    /// So long nothing may happen to services that have come to rest.
    pub rests_for: Duration,
}

impl Settings {
    /// A world of services: smaller, because a service's time is counted in minutes.
    pub fn services() -> Self {
        Settings {
            subject: Subject::Services,
            machines: 10,
            faulty_for: Duration::from_secs(12 * 60),
            user_acts_every: Duration::from_secs(4),
            faults: Faults {
                every: Duration::from_secs(9),
                ..Faults::default()
            },
            converges_within: Duration::from_secs(30 * 60),
            looks_every: Duration::from_secs(1),
            rests_for: Duration::from_secs(75 * 60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            subject: Subject::Tasks,
            machines: 100,
            faulty_for: Duration::from_secs(150),
            user_acts_every: Duration::from_millis(400),
            faults: Faults::default(),
            converges_within: Duration::from_secs(20 * 60),
            looks_every: Duration::ZERO,
            rests_for: Duration::ZERO,
        }
    }
}

/// What came of a run. A run that broke something does not come back: it panics, with its seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub events: u64,
    /// How many faults happened, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Tasks that users were promised, or that their services made.
    pub tasks: usize,
    /// Tasks of which a container ran.
    pub ran: usize,
    /// Tasks that found no place.
    pub unplaced: usize,
    /// How often a container was started again.
    pub restarts: usize,
    /// How often the health of one was checked.
    pub checks: usize,
    /// Services that were created, deployments that were completed, circuit breakers that opened, and rollbacks.
    pub services: usize,
    pub completed: u64,
    pub opened: u64,
    pub rolled_back: u64,
    /// From the last fault to rest.
    pub converged_after: Duration,
    /// Of every line of the trace: the same for the same seed.
    pub digest: u64,
}

/// Runs the world of one seed.
pub fn run(seed: u64, settings: &Settings) -> Report {
    let mut world = World::new(seed, settings.clone());
    world.begin();
    world.run_for(settings.faulty_for);
    world.heal();
    match settings.subject {
        Subject::Tasks => world.converge(),
        Subject::Services => world.keep_steady(),
    }
}

pub(crate) struct Node {
    machine: Machine,
    arn: String,
    /// The connection that its agent has opened or is opening.
    socket: Option<ConnectionId>,
    is_cut_off: bool,
    disk_is_free_at: Duration,
    /// The telemetry socket brings what it brings in order.
    health_arrives: Duration,
    /// Which of its agents is about to tell all of its health again.
    tells_again: Option<Incarnation>,
    /// The last frames that told its agent of tasks.
    delivered: VecDeque<Frame>,
}

pub(crate) struct World {
    trace: Trace,
    settings: Settings,
    faults: Faults,
    venv: VirtualEnv,
    chance: Chance,
    schedule: Schedule<Event>,
    pub(crate) control: ControlPlane,
    network: Network,
    nodes: Vec<Node>,
    by_instance: BTreeMap<String, usize>,
    users: Users,
    service_users: ServiceUsers,
    pub(crate) laws: ServiceLaws,
    shown: Shown,
    /// Services that changed and have not been looked at yet.
    touched: BTreeSet<String>,
    look_again_at: Duration,
    /// By when the controllers must have judged the deployment of a service that has changed.
    unjudged: BTreeMap<String, Duration>,
    users_act: bool,
    invariants: Invariants,
    /// Every commit, whoever lives.
    commits: Changes,
    /// A request of this event found no place for a task of this size.
    unplaced: Option<Size>,
    look_at: Duration,
    happened: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> World {
        let venv = VirtualEnv::seeded(seed);
        let control = ControlPlane::new(venv.clone());
        let (account, region) = control.place();
        let everything = Prefix::service(account, region, SERVICE);
        let beginning = control.store().snapshot().revision();
        World {
            trace: Trace::new(seed),
            faults: settings.faults.clone(),
            commits: control.store().watch(&everything, beginning),
            unplaced: None,
            control,
            venv,
            chance: Chance::seeded(seed),
            schedule: Schedule::default(),
            network: Network::default(),
            nodes: Vec::new(),
            by_instance: BTreeMap::new(),
            users: Users::default(),
            service_users: ServiceUsers::default(),
            laws: ServiceLaws::default(),
            shown: Shown::default(),
            touched: BTreeSet::new(),
            look_again_at: Duration::ZERO,
            unjudged: BTreeMap::new(),
            users_act: true,
            invariants: Invariants::default(),
            look_at: Duration::MAX,
            happened: BTreeMap::new(),
            settings,
        }
    }

    /// The control plane comes up, with a cluster. Gives what a container instance must have.
    pub(crate) fn open(&mut self) -> Vec<gantry_api::ecs::Attribute> {
        self.control.start();
        let required = founding::cluster_and_definitions(&self.control);
        self.settle();
        required
    }

    pub(crate) fn machines(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn instance(&self, machine: usize) -> String {
        self.nodes[machine].arn.clone()
    }

    /// Nothing goes wrong by chance on this machine any more.
    pub(crate) fn calm(&mut self, machine: usize) -> usize {
        self.nodes[machine].machine.calm_down();
        machine
    }

    pub(crate) fn events(&self) -> u64 {
        self.trace.events
    }

    /// It was as it should be, unless it failed.
    pub(crate) fn end(&mut self, failed: bool) {
        self.trace.is_over = !failed;
    }

    fn begin(&mut self) {
        let required = self.open();
        if self.settings.subject == Subject::Services {
            self.service_users.prepare(&self.control);
        }
        for number in 0..self.settings.machines {
            let (size, zone) = match self.settings.subject {
                Subject::Tasks => (founding::machine(&mut self.chance), None),
                Subject::Services => founding::machine_of_services(number, &mut self.chance),
            };
            self.add_machine(&required, size, zone);
        }
        self.after(Duration::from_secs(2), Event::UserActs);
        self.after(Duration::from_secs(2), Event::FaultHappens);
        self.settle();
    }

    /// A machine, whose agent starts soon.
    pub(crate) fn add_machine(
        &mut self,
        required: &[gantry_api::ecs::Attribute],
        size: Size,
        zone: Option<&str>,
    ) {
        let number = self.nodes.len();
        let instance = founding::container_instance(&self.control, required, number, size, zone);
        let arn = instance.container_instance_arn.expect("an ARN");
        let identity = Identity {
            cluster_arn: founding::cluster_arn(&self.control),
            container_instance_arn: arn.clone(),
        };
        let id = arn.rsplit('/').next().unwrap_or_default().to_owned();
        self.by_instance.insert(id, number);
        self.nodes.push(Node {
            machine: Machine::new(identity, number as u64, size),
            arn,
            socket: None,
            is_cut_off: false,
            disk_is_free_at: Duration::ZERO,
            health_arrives: Duration::ZERO,
            tells_again: None,
            delivered: VecDeque::new(),
        });
        let soon = self.chance.duration(Duration::ZERO..Duration::from_secs(1));
        self.after(soon, Event::AgentStarts { machine: number });
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let until = self.monotonic() + duration;
        while self
            .schedule
            .next_moment()
            .is_some_and(|next| next <= until)
        {
            self.next();
        }
        self.venv.advance(until.saturating_sub(self.monotonic()));
    }

    /// One event, and everything that follows at once.
    fn next(&mut self) {
        let Some((moment, event)) = self.schedule.pop() else {
            return;
        };
        self.venv.advance(moment.saturating_sub(self.monotonic()));
        self.trace.note(moment, event.summary());
        self.happen(event);
        self.settle();
    }

    fn happen(&mut self, event: Event) {
        let now = self.venv.now();
        match event {
            Event::Machine { machine, event } => {
                let wishes = self.nodes[machine]
                    .machine
                    .happen(now, event, &mut self.chance);
                self.grant(machine, wishes);
            }
            Event::DiskWritten {
                machine,
                incarnation,
            } if self.lives(machine, incarnation) => {
                let wishes = self.nodes[machine].machine.persisted(
                    now,
                    self.faults.disks_lie,
                    &mut self.chance,
                );
                self.grant(machine, wishes);
            }
            Event::AgentTimer {
                machine,
                incarnation,
                timer,
                generation,
            } if self.lives(machine, incarnation) => {
                let wishes =
                    self.nodes[machine]
                        .machine
                        .timer(now, timer, generation, &mut self.chance);
                self.grant(machine, wishes);
            }
            Event::Dialled { connection } => self.dialled(connection),
            Event::Opened { connection } => {
                if let Some(machine) = self.agent_of(connection) {
                    self.input(machine, Input::Connected);
                }
            }
            Event::Closed {
                machine,
                incarnation,
                connection,
            } => {
                let node = &mut self.nodes[machine];
                if node.machine.incarnation() == incarnation && node.socket == Some(connection) {
                    node.socket = None;
                    self.input(
                        machine,
                        Input::Disconnected {
                            reason: "simulated".to_owned(),
                        },
                    );
                }
            }
            Event::HungUp { connection } => {
                self.network.close(connection);
                self.control.disconnected(connection);
            }
            Event::ToAgent { connection, frame } => {
                if let Some(machine) = self.agent_of(connection) {
                    self.keep(machine, &frame);
                    self.input(machine, Input::Frame(frame));
                }
            }
            Event::ToControl { connection, frame } => {
                if self.network.get(connection).is_some() {
                    let wishes = self.control.frame(connection, frame);
                    self.grant_control(wishes);
                }
            }
            Event::Call {
                machine,
                incarnation,
                call,
                request,
            } => self.called(machine, incarnation, call, *request),
            Event::Reply {
                machine,
                incarnation,
                call,
                result,
            } if self.lives(machine, incarnation) => {
                self.input(machine, Input::Reply { call, result });
            }
            Event::SessionTimer {
                connection,
                timer,
                generation,
            } => {
                let wishes = self.control.timer(connection, timer, generation);
                self.grant_control(wishes);
            }
            Event::HealthTold { machine, told } => self.health_told(machine, &told),
            Event::HealthAgain {
                machine,
                incarnation,
            } if self.lives(machine, incarnation) => {
                self.nodes[machine].tells_again = None;
                self.tell_health(machine, true);
            }
            Event::UserActs if self.users_act => self.user_acts(),
            Event::FaultHappens if self.faults.every != Duration::MAX => {
                self.fault();
                let pause = self.chance.duration(Duration::ZERO..self.faults.every * 2);
                self.after(pause, Event::FaultHappens);
            }
            Event::AgentStarts { machine } => self.start_agent(machine),
            Event::ControlStarts => {
                if !self.control.is_up() {
                    self.control.start();
                }
            }
            Event::PartitionHeals { machine } => self.nodes[machine].is_cut_off = false,
            // What is due anyway after every event, and what belongs to an agent that is no more.
            Event::Look
            | Event::DiskWritten { .. }
            | Event::AgentTimer { .. }
            | Event::Reply { .. }
            | Event::HealthAgain { .. }
            | Event::UserActs
            | Event::FaultHappens => {}
        }
    }

    /// Everybody takes in what changed, and what must hold is checked.
    pub(crate) fn settle(&mut self) {
        loop {
            let wishes = self.control.settle();
            let is_settled = wishes.is_empty();
            self.grant_control(wishes);
            if is_settled {
                break;
            }
        }
        self.check();
        if let Some(look) = self.control.next_look()
            && (look < self.look_at || self.look_at <= self.monotonic())
        {
            self.look_at = look;
            self.schedule.at(look, Event::Look);
        }
    }

    fn check(&mut self) {
        while let Some(change) = self.commits.try_next() {
            match change {
                Change::Rows(changes) => self.check_rows(&changes),
                Change::Lost => panic!("more was committed in one event than a store keeps"),
            }
        }
        let mut touched = self.laws.take_touched();
        let now = self.monotonic();
        for name in &touched {
            self.unjudged.insert(name.clone(), now + JUDGED_AFTER);
        }
        let mut due = BTreeSet::new();
        self.unjudged.retain(|name, at| {
            let is_due = *at <= now;
            if is_due {
                due.insert(name.clone());
            }
            !is_due
        });
        if self.control.drives() {
            self.laws.check_breakers(&due);
        }
        self.touched.append(&mut touched);
        let is_due = self.monotonic() >= self.look_again_at;
        if self.control.is_up() && is_due && !self.touched.is_empty() {
            let touched = std::mem::take(&mut self.touched);
            self.shown.check(&self.control, &touched);
            self.look_again_at = self.monotonic() + self.settings.looks_every;
        }
        if let Some(size) = self.unplaced.take() {
            self.invariants.check_unplaced(&self.control, size);
        }
    }

    fn check_rows(&mut self, changes: &[RowChange]) {
        let snapshot = self.control.store().snapshot();
        let (account, region) = self.control.place();
        self.invariants.check(&snapshot, &self.control, changes);
        self.laws.check(changes, self.venv.now());
        // What is told to have stopped does not run.
        for change in changes
            .iter()
            .filter(|change| change.key.kind() == "task-report")
        {
            let name = change.key.name();
            let Some(report) = snapshot.read::<TaskReportRow>(account, region, name) else {
                continue;
            };
            let Some(task) = snapshot.read::<TaskRow>(account, region, name) else {
                continue;
            };
            if report.status >= LastStatus::Stopped {
                let number = self.by_instance[&task.container_instance.to_string()];
                let runtime = self.nodes[number].machine.runtime();
                assert!(
                    !runtime.runs(&task.id),
                    "{name} is reported STOPPED, and runs on machine {number}"
                );
                let told = |container: &&ContainerReport| container.exit_code.is_some();
                for container in report.containers.iter().filter(told) {
                    let code = runtime.exit_code(task.id, &container.name);
                    assert!(
                        code.is_none() || code == container.exit_code,
                        "{name}: '{}' ended with {code:?}, not {:?}",
                        container.name,
                        container.exit_code
                    );
                }
            }
        }
    }

    fn user_acts(&mut self) {
        if self.settings.subject == Subject::Services {
            let arns: Vec<String> = self.nodes.iter().map(|node| node.arn.clone()).collect();
            self.service_users
                .act(&self.control, &arns, &mut self.chance);
            let pause = self.settings.user_acts_every * 2;
            let pause = self.chance.duration(Duration::ZERO..pause);
            return self.after(pause, Event::UserActs);
        }
        let lost = self.chance.per_mille(self.faults.losses.answer_per_mille);
        let dies = self
            .chance
            .per_mille(self.faults.death_after_commit_per_mille);
        let unplaced = self
            .users
            .act(&self.control, &mut self.chance, lost || dies);
        self.unplaced = unplaced.filter(|_| !dies);
        if dies {
            self.apply(Fault::ControlDies {
                back_after: Duration::from_secs(1),
            });
        }
        let pause = self
            .chance
            .duration(Duration::ZERO..self.settings.user_acts_every * 2);
        self.after(pause, Event::UserActs);
    }

    /// Every tag stands for another image from now on.
    pub(crate) fn push_images(&mut self) {
        for node in &mut self.nodes {
            node.machine.pushed();
        }
    }

    fn start_agent(&mut self, machine: usize) {
        let node = &mut self.nodes[machine];
        if !node.machine.has_agent() {
            let wishes = node.machine.start_agent(self.venv.now(), &mut self.chance);
            self.grant(machine, wishes);
        }
    }

    fn input(&mut self, machine: usize, input: Input) {
        let wishes = self.nodes[machine]
            .machine
            .input(self.venv.now(), input, &mut self.chance);
        self.grant(machine, wishes);
    }

    /// What a machine wants of the world.
    fn grant(&mut self, machine: usize, wishes: Vec<machine::Wish>) {
        let incarnation = self.nodes[machine].machine.incarnation();
        for wish in wishes {
            match wish {
                machine::Wish::Connect => self.dial(machine, incarnation),
                machine::Wish::Disconnect => self.hang_up(machine),
                machine::Wish::Send(frame) => self.send(machine, frame),
                machine::Wish::Call { call, request } => {
                    self.call(machine, incarnation, call, request)
                }
                machine::Wish::Timer {
                    after,
                    timer,
                    generation,
                } => {
                    self.after(
                        after,
                        Event::AgentTimer {
                            machine,
                            incarnation,
                            timer,
                            generation,
                        },
                    );
                }
                machine::Wish::TellHealth => self.tell_health(machine, false),
                machine::Wish::Persist => {
                    let takes = if self.chance.per_mille(self.faults.slow_disk_per_mille) {
                        self.chance
                            .duration(Duration::from_millis(100)..Duration::from_secs(3))
                    } else {
                        self.chance
                            .duration(Duration::from_micros(100)..Duration::from_millis(5))
                    };
                    let free_at = self.nodes[machine].disk_is_free_at.max(self.monotonic()) + takes;
                    self.nodes[machine].disk_is_free_at = free_at;
                    self.schedule.at(
                        free_at,
                        Event::DiskWritten {
                            machine,
                            incarnation,
                        },
                    );
                }
                machine::Wish::Stopping { task } => self.check_wanted(machine, task),
                machine::Wish::Machine { after, event } => {
                    self.after(after, Event::Machine { machine, event })
                }
            }
        }
        self.invariants
            .check_machine(machine, &self.nodes[machine].machine);
    }

    /// The machine whose agent has this connection open.
    fn agent_of(&self, connection: ConnectionId) -> Option<usize> {
        let open = self.network.get(connection)?;
        let node = &self.nodes[open.machine];
        (node.socket == Some(connection) && node.machine.incarnation() == open.incarnation)
            .then_some(open.machine)
    }

    fn lives(&self, machine: usize, incarnation: Incarnation) -> bool {
        self.nodes[machine].machine.incarnation() == incarnation
    }

    fn after(&mut self, after: Duration, event: Event) {
        self.schedule.at(self.monotonic() + after, event);
    }

    fn monotonic(&self) -> Duration {
        self.venv.monotonic()
    }
}
