//! A control plane on a store in memory and on virtual time, and agents that report at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::Services;
use gantry_ecs::model::reference::Scope;
use gantry_ecs::tables::{Rollout, ServiceStateRow, TaskDesiredRow, TaskReportRow, TaskRow};
use gantry_ecs::{EcsOptions, EcsService};
use gantry_env::{Env, Timestamp, VirtualEnv};
use gantry_reconcile::{
    Controller as _, Drive, Driver, LeaseKeeper, LeaseTimes, Limits, Plan, Step,
};
use gantry_store::{Change, Changes, Key, MemoryStore, Store, Table, Transaction};

use crate::fleet::{self, Failure};

/// For how long, in virtual time, a plane is given to come to rest.
const DEADLINE: Duration = Duration::from_secs(3600);

pub struct Plane {
    venv: VirtualEnv,
    store: Arc<dyn Store>,
    service: EcsService,
    driver: Driver<Services>,
    /// The same controller once more, to be asked for single passes.
    controller: Services,
    keeper: LeaseKeeper,
    /// What the agents see.
    changes: Changes,
    real: Env,
    /// The time that the driver took, without the commits.
    stepping: Duration,
}

impl Plane {
    /// With instances that have room for 40 tasks each, and task definitions of five sizes.
    pub fn new(instances: u64) -> Result<Self, Failure> {
        let venv = VirtualEnv::seeded(1);
        venv.advance(Duration::from_secs(1_700_000_000));
        let env = venv.env();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let service = EcsService::new(store.clone(), env.clone(), EcsOptions::default());
        let context = fleet::context(&env);
        done(service.create_cluster(&context, ecs::CreateClusterRequest::default()))?;
        for n in 0..5 {
            let definition = fleet::definition(&format!("size-{n}"), 64 + n, 128 + n);
            done(service.register_task_definition(&context, definition))?;
        }
        done(fleet::join(&store, &env, instances))?;
        let keeper = LeaseKeeper::new("ecs", 0, "one", LeaseTimes::default());
        let driver = Driver::new(
            Services::of(&service),
            store.clone(),
            keeper.handle(),
            Limits::default(),
        );
        let changes = store
            .watch(&TaskRow::everywhere(), store.snapshot().revision())
            .also(&TaskDesiredRow::everywhere());
        Ok(Self {
            controller: Services::of(&service),
            venv,
            store,
            service,
            driver,
            keeper,
            changes,
            real: Env::real(),
            stepping: Duration::ZERO,
        })
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How many passes the driver has made.
    pub fn reconciled(&self) -> u64 {
        self.driver.counters().reconciled
    }

    /// How long the driver took for them: changes taken in, passes, places found.
    pub fn stepping(&self) -> Duration {
        self.stepping
    }

    pub fn create(&mut self, name: &str, definition: &str, tasks: u32) -> Result<(), Failure> {
        let input = ecs::CreateServiceRequest {
            service_name: name.to_owned(),
            task_definition: Some(definition.to_owned()),
            desired_count: Some(i32::try_from(tasks)?),
            ..Default::default()
        };
        let context = fleet::context(&self.venv.env());
        done(self.service.create_service(&context, input))?;
        self.work()?;
        Ok(())
    }

    pub fn scale(&mut self, name: &str, tasks: u32) -> Result<(), Failure> {
        self.update(ecs::UpdateServiceRequest {
            service: name.to_owned(),
            desired_count: Some(i32::try_from(tasks)?),
            ..Default::default()
        })
    }

    pub fn update(&mut self, input: ecs::UpdateServiceRequest) -> Result<(), Failure> {
        let context = fleet::context(&self.venv.env());
        done(self.service.update_service(&context, input))?;
        Ok(())
    }

    /// The keys of all services, in the order of their names; from here on, single passes know what the
    /// driver's would.
    pub fn keys(&self) -> Vec<Key> {
        self.controller.all_keys(&self.store.snapshot())
    }

    pub fn plan(&self, key: &Key) -> Plan {
        self.controller
            .reconcile(&self.store.snapshot(), self.venv.now(), key)
    }

    pub fn settled(&self, key: &Key) {
        self.controller.settled(key);
    }

    pub fn commit(&self, transaction: Transaction) -> Result<(), Failure> {
        done(self.store.commit(transaction))?;
        Ok(())
    }

    /// The first task that runs ends by itself.
    pub fn end_one(&mut self) -> Result<(), Failure> {
        let snapshot = self.store.snapshot();
        let reports = snapshot.list_everywhere::<TaskReportRow>();
        let running = reports.iter().find(|report| report.stopped_at.is_none());
        let key = running.map(|report| report.key.clone());
        self.report(&key.ok_or("no task runs")?, "STOPPED")
    }

    /// Every service has all its tasks, is steady, and has one deployment, which is COMPLETED; no
    /// instance holds more than it has, and together they hold the tasks that shall run.
    pub fn is_converged(&self, tasks: u64) -> Result<(), Failure> {
        let snapshot = self.store.snapshot();
        for state in snapshot.list_everywhere::<ServiceStateRow>() {
            let is_completed = matches!(
                state.deployments.as_slice(),
                [only] if only.rollout == Rollout::Completed
            );
            if !state.steady || !is_completed {
                return Err(format!("{} has not converged", state.name()).into());
            }
        }
        let reports = snapshot.list_everywhere::<TaskReportRow>();
        let running = reports.iter().filter(|it| it.stopped_at.is_none()).count();
        fleet::shares(&self.store)?;
        if running as u64 != tasks {
            return Err(format!("{running} tasks run, not {tasks}").into());
        }
        Ok(())
    }

    /// Works until nothing changes any more but by the clock's resyncs.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let end = self.venv.now() + DEADLINE;
        let resync = Limits::default().resync_every;
        let mut quiet = Duration::ZERO;
        while quiet < resync {
            let now = self.venv.now();
            if now > end {
                return Err("the services do not come to rest".into());
            }
            let (worked, due) = self.work()?;
            let wait = due.since(now).max(Duration::from_millis(1)).min(resync);
            quiet = if worked { Duration::ZERO } else { quiet + wait };
            self.venv.advance(wait);
        }
        Ok(())
    }

    /// All that is to be done at this moment; whether that was anything, and when there is more.
    fn work(&mut self) -> Result<(bool, Timestamp), Failure> {
        let now = self.venv.now();
        let mut worked = false;
        loop {
            while let Some(transaction) = self.keeper.step(&self.store.snapshot(), now) {
                let outcome = done(self.store.commit(transaction));
                self.keeper.committed(now, &outcome);
            }
            let began = self.real.monotonic();
            let step = self.driver.step(now);
            self.stepping += self.real.monotonic() - began;
            match step {
                Step::Commit(ticket, transaction) => {
                    worked = true;
                    let outcome = done(self.store.commit(transaction));
                    if let Err(error) = &outcome {
                        return Err(format!("nobody else writes, and yet {error}").into());
                    }
                    self.driver.committed(now, ticket, outcome);
                    self.answer()?;
                }
                Step::Idle(due) => return Ok((worked, due.min(self.keeper.next_step()))),
            }
        }
    }

    /// The agents do what the rows say.
    fn answer(&mut self) -> Result<(), Failure> {
        while let Some(change) = self.changes.try_next() {
            let Change::Rows(rows) = change else {
                return Err("the agents missed changes".into());
            };
            for row in rows.iter().filter(|row| row.row.is_some()) {
                match TaskDesiredRow::holds(&row.key) {
                    true => self.report(&row.key, "STOPPED")?,
                    false if row.previous.is_none() => self.report(&row.key, "RUNNING")?,
                    false => {}
                }
            }
        }
        Ok(())
    }

    /// The key is that of any row of the task.
    fn report(&self, key: &Key, status: &str) -> Result<(), Failure> {
        let context = fleet::context(&self.venv.env());
        let (cluster, task) = key.name().split_once('/').unwrap_or_default();
        let input = ecs::SubmitTaskStateChangeRequest {
            cluster: Some(cluster.to_owned()),
            task: Some(Scope::of(&context).task_arn(&cluster.parse()?, &task.parse()?)),
            status: Some(status.to_owned()),
            ..Default::default()
        };
        done(self.service.submit_task_state_change(&context, input))?;
        Ok(())
    }
}

/// A store in memory commits when it is polled.
fn done<T>(future: impl Future<Output = T>) -> T {
    #[allow(clippy::expect_used, reason = "the store's promise")]
    future
        .now_or_never()
        .expect("a store in memory never waits")
}
