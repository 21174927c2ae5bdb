//! What agents measured and found: kept in memory for as long as it is news, and bounded.
//!
//! What always holds: usage is never a row; of each container a short history is kept, of each
//! container instance a bounded number of containers, and what an agent has not published again for
//! a while is forgotten. The state of a container instance counts as long as the socket that told it
//! is open. After a restart of the control plane all of it comes again within one publishing interval.
//! What it leaves to others: the health of tasks, which is a row (`health`); the socket (`tcs`);
//! what a metrics service makes of it ([`ContainerStats`] is what it gets).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_api::acs::{ContainerMetric, InstanceStatus, PublishMetricsRequest, StatsSet};
use gantry_env::Timestamp;

/// Five minutes of what comes every 20 seconds.
pub const SAMPLES_KEPT: usize = 15;
/// More than any agent runs; what goes beyond is not kept.
pub const CONTAINERS_KEPT_AN_INSTANCE: usize = 2_000;
/// A container of which nothing was published for so long is over.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Which container of which task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerKey {
    pub task_arn: String,
    pub container: String,
}

/// Several measurements summed up, as CloudWatch takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub samples: u32,
}

impl Summary {
    fn of(set: Option<&StatsSet>) -> Option<Summary> {
        let set = set?;
        Some(Summary {
            min: set.min + set.overflow_min.unwrap_or_default(),
            max: set.max + set.overflow_max.unwrap_or_default(),
            sum: set.sum + set.overflow_sum.unwrap_or_default(),
            samples: u32::try_from(set.sample_count).unwrap_or_default(),
        })
    }

    pub fn average(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / f64::from(self.samples))
    }
}

/// What one container used between two publications.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContainerUsage {
    /// When the control plane got it: an agent's clock may be wrong.
    pub at: Timestamp,
    /// In percent of the whole machine: 100 is every core busy.
    pub cpu: Option<Summary>,
    /// In MiB.
    pub memory: Option<Summary>,
    pub received_bytes: Option<f64>,
    pub sent_bytes: Option<f64>,
    pub read_bytes: Option<f64>,
    pub written_bytes: Option<f64>,
    pub restarts: Option<u32>,
}

impl ContainerUsage {
    fn of(metric: &ContainerMetric, at: Timestamp) -> ContainerUsage {
        let sum = |set: Option<&StatsSet>| Summary::of(set).map(|summary| summary.sum);
        let network = metric.network_stats_set.as_ref();
        let storage = metric.storage_stats_set.as_ref();
        ContainerUsage {
            at,
            cpu: Summary::of(metric.cpu_stats_set.as_ref()),
            memory: Summary::of(metric.memory_stats_set.as_ref()),
            received_bytes: sum(network.and_then(|set| set.rx_bytes.as_ref())),
            sent_bytes: sum(network.and_then(|set| set.tx_bytes.as_ref())),
            read_bytes: sum(storage.and_then(|set| set.read_size_bytes.as_ref())),
            written_bytes: sum(storage.and_then(|set| set.write_size_bytes.as_ref())),
            restarts: metric
                .restart_stats_set
                .as_ref()
                .and_then(|set| u32::try_from(set.restart_count?).ok()),
        }
    }
}

/// The usage of containers, for a metrics service.
pub trait ContainerStats: Send + Sync {
    /// The newest usage of one container.
    fn latest(&self, container: &ContainerKey) -> Option<ContainerUsage>;

    /// What is kept of one container, oldest first.
    fn history(&self, container: &ContainerKey) -> Vec<ContainerUsage>;

    /// Everything that came after a moment, of every container: how a collector gets each usage once.
    fn since(&self, after: Timestamp) -> Vec<(ContainerKey, ContainerUsage)>;
}

/// One check of a container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCheck {
    pub kind: String,
    pub status: String,
    pub last_updated: Option<Timestamp>,
    pub last_status_change: Option<Timestamp>,
}

/// How many checks one agent may tell of.
const CHECKS_MAX: usize = 16;

type Samples = VecDeque<ContainerUsage>;

#[derive(Default)]
struct Instance {
    containers: BTreeMap<ContainerKey, Samples>,
    /// The newest socket of this instance.
    connection: u64,
    connected: bool,
    checks: Vec<InstanceCheck>,
}

/// The memory itself.
#[derive(Default)]
pub struct Telemetry {
    instances: Mutex<BTreeMap<String, Instance>>,
}

impl Telemetry {
    /// A socket of this container instance is open. The number is for [`Telemetry::disconnected`].
    pub fn connected(&self, container_instance: &str, now: Timestamp) -> u64 {
        let mut instances = self.lock();
        forget(&mut instances, now);
        let instance = instances.entry(container_instance.to_owned()).or_default();
        instance.connection += 1;
        instance.connected = true;
        instance.connection
    }

    /// That socket is closed. Where a newer one is open, nothing changes.
    pub fn disconnected(&self, container_instance: &str, connection: u64, now: Timestamp) {
        let mut instances = self.lock();
        if let Some(instance) = instances.get_mut(container_instance)
            && instance.connection == connection
        {
            instance.connected = false;
            instance.checks.clear();
        }
        forget(&mut instances, now);
    }

    /// Keeps what was measured. `is_its_own` tells whether a task is on this container instance.
    pub fn keep_usage(
        &self,
        container_instance: &str,
        message: &PublishMetricsRequest,
        now: Timestamp,
        is_its_own: impl Fn(&str) -> bool,
    ) {
        let mut instances = self.lock();
        let instance = instances.entry(container_instance.to_owned()).or_default();
        for task in &message.task_metrics {
            let Some(task_arn) = task.task_arn.as_deref().filter(|arn| is_its_own(arn)) else {
                continue;
            };
            for metric in &task.container_metrics {
                let Some(container) = metric.container_name.clone() else {
                    continue;
                };
                let key = ContainerKey {
                    task_arn: task_arn.to_owned(),
                    container,
                };
                if !instance.containers.contains_key(&key)
                    && instance.containers.len() >= CONTAINERS_KEPT_AN_INSTANCE
                {
                    instance.forget(now);
                    if instance.containers.len() >= CONTAINERS_KEPT_AN_INSTANCE {
                        continue;
                    }
                }
                let samples = instance.containers.entry(key).or_default();
                if samples.len() == SAMPLES_KEPT {
                    samples.pop_front();
                }
                samples.push_back(ContainerUsage::of(metric, now));
            }
        }
        // The last message of a round: what was not told of for long is gone.
        if message
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.fin == Some(true))
        {
            instance.forget(now);
        }
    }

    /// Keeps what an agent says of its container instance.
    pub fn keep_status(&self, container_instance: &str, statuses: &[InstanceStatus]) {
        let mut instances = self.lock();
        let instance = instances.entry(container_instance.to_owned()).or_default();
        let checks = statuses
            .iter()
            .take(CHECKS_MAX)
            .map(|status| InstanceCheck {
                kind: status.kind.clone().unwrap_or_default(),
                status: status
                    .status
                    .clone()
                    .unwrap_or_else(|| "INSUFFICIENT_DATA".to_owned()),
                last_updated: status.last_updated.map(|time| time.0),
                last_status_change: status.last_status_change.map(|time| time.0),
            });
        instance.checks = checks.collect();
    }

    /// What the agent of a container instance says of it, as long as it is there to say it.
    pub fn checks(&self, container_instance: &str) -> Vec<InstanceCheck> {
        self.lock()
            .get(container_instance)
            .map(|instance| instance.checks.clone())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(instances: &mut BTreeMap<String, Instance>, now: Timestamp) {
    instances.retain(|_, instance| {
        instance.forget(now);
        instance.connected || !instance.containers.is_empty()
    });
}

impl Instance {
    fn forget(&mut self, now: Timestamp) {
        self.containers.retain(|_, samples| {
            samples
                .back()
                .is_some_and(|last| now.since(last.at) < FORGOTTEN_AFTER)
        });
    }
}

impl ContainerStats for Telemetry {
    fn latest(&self, container: &ContainerKey) -> Option<ContainerUsage> {
        let instances = self.lock();
        let samples = instances
            .values()
            .filter_map(|i| i.containers.get(container));
        samples
            .filter_map(|samples| samples.back().copied())
            .max_by_key(|usage| usage.at)
    }

    fn history(&self, container: &ContainerKey) -> Vec<ContainerUsage> {
        let instances = self.lock();
        let samples = instances
            .values()
            .filter_map(|i| i.containers.get(container));
        samples.flatten().copied().collect()
    }

    fn since(&self, after: Timestamp) -> Vec<(ContainerKey, ContainerUsage)> {
        let instances = self.lock();
        let containers = instances.values().flat_map(|i| &i.containers);
        containers
            .flat_map(|(key, samples)| samples.iter().map(move |usage| (key, usage)))
            .filter(|(_, usage)| usage.at > after)
            .map(|(key, usage)| (key.clone(), *usage))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::acs::{TaskMetric, TelemetryMetadata};

    use super::*;

    fn metrics(tasks: &[String]) -> PublishMetricsRequest {
        let task = |arn: &String| TaskMetric {
            task_arn: Some(arn.clone()),
            container_metrics: vec![ContainerMetric {
                container_name: Some("web".into()),
                cpu_stats_set: Some(StatsSet {
                    min: 1.0,
                    max: 3.0,
                    sample_count: 2,
                    sum: 4.0,
                    ..StatsSet::default()
                }),
                ..ContainerMetric::default()
            }],
            ..TaskMetric::default()
        };
        PublishMetricsRequest {
            metadata: Some(TelemetryMetadata {
                fin: Some(true),
                ..TelemetryMetadata::default()
            }),
            task_metrics: tasks.iter().map(task).collect(),
            timestamp: None,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000) + Duration::from_secs(seconds)
    }

    fn key(task: &str) -> ContainerKey {
        ContainerKey {
            task_arn: task.into(),
            container: "web".into(),
        }
    }

    #[test]
    fn a_short_history_is_kept_and_an_old_one_forgotten() {
        let telemetry = Telemetry::default();
        for round in 0..40 {
            telemetry.keep_usage("i", &metrics(&["t".into()]), at(round * 20), |_| true);
        }
        let history = telemetry.history(&key("t"));
        assert_eq!(history.len(), SAMPLES_KEPT);
        assert_eq!(history.last().unwrap().at, at(39 * 20));
        assert_eq!(history[0].cpu.unwrap().average(), Some(2.0));
        assert_eq!(telemetry.since(at(38 * 20)).len(), 1);
        telemetry.keep_usage("i", &metrics(&[]), at(39 * 20 + 599), |_| true);
        assert!(telemetry.latest(&key("t")).is_some());
        telemetry.keep_usage("i", &metrics(&[]), at(39 * 20 + 600), |_| true);
        assert_eq!(telemetry.latest(&key("t")), None);
    }

    #[test]
    fn no_agent_fills_the_memory_or_speaks_for_another() {
        let telemetry = Telemetry::default();
        let many: Vec<String> = (0..CONTAINERS_KEPT_AN_INSTANCE + 50)
            .map(|n| format!("t{n:05}"))
            .collect();
        telemetry.keep_usage("i", &metrics(&many), at(0), |_| true);
        assert_eq!(
            telemetry.since(Timestamp::EPOCH).len(),
            CONTAINERS_KEPT_AN_INSTANCE
        );
        telemetry.keep_usage("j", &metrics(&["x".into()]), at(0), |_| false);
        assert_eq!(telemetry.latest(&key("x")), None);
    }

    #[test]
    fn the_state_of_an_instance_counts_while_its_newest_socket_is_open() {
        let telemetry = Telemetry::default();
        let ok = [InstanceStatus {
            kind: Some("CONTAINER_RUNTIME".into()),
            status: Some("OK".into()),
            ..InstanceStatus::default()
        }];
        let first = telemetry.connected("i", at(0));
        telemetry.keep_status("i", &ok);
        let second = telemetry.connected("i", at(1));
        telemetry.disconnected("i", first, at(2));
        assert_eq!(telemetry.checks("i")[0].status, "OK");
        telemetry.disconnected("i", second, at(3));
        assert_eq!(telemetry.checks("i"), []);
        assert!(telemetry.lock().is_empty());
    }
}
