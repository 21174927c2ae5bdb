//! What containers used between two looks, in the sums that TCS takes.
//!
//! What always holds: a container is told of from its second look on, because before it there is nothing
//! to compare with; counters that went back, as after a restart, count from zero.

use std::collections::BTreeMap;

use gantry_api::acs::{
    ContainerMetric, NetworkStatsSet, RestartStatsSet, StatsSet, StorageStatsSet, TaskMetric,
};
use gantry_arn::TaskId;
use gantry_network::Traffic;
use gantry_runtime::ContainerStats;

use super::super::Onlooker;
use super::super::driver::Driver;
use super::super::network::Networks;
use crate::core::{AgentCore, ContainerStatus};
use crate::endpoints::stats::Look;

const MIB: f64 = (1u64 << 20) as f64;

/// The looks before.
#[derive(Default)]
pub(super) struct Usage {
    looks: BTreeMap<(TaskId, String), Look>,
}

/// A task with containers that run.
struct Running {
    id: TaskId,
    metric: TaskMetric,
    /// Name, ARN, and how often it was started again where there is a policy for that.
    containers: Vec<(String, Option<String>, Option<u32>)>,
}

impl Usage {
    /// Looks at every container that runs. `None` if the agent has ended.
    pub async fn measure(
        &mut self,
        onlooker: &Onlooker,
        driver: &Driver,
        networks: &Networks,
    ) -> Option<Vec<TaskMetric>> {
        let running = onlooker.look(running).await?;
        let mut traffic = if running.is_empty() {
            BTreeMap::new()
        } else {
            let networks = networks.clone();
            let traffic = tokio::task::spawn_blocking(move || networks.traffic());
            traffic.await.unwrap_or_default()
        };
        let mut looks = BTreeMap::new();
        let mut tasks = Vec::new();
        for task in running {
            let Some(handle) = driver.handle(task.id) else {
                continue;
            };
            let mut metric = task.metric;
            for (name, container_arn, restarts) in task.containers {
                let Ok(container) = name.parse() else {
                    continue;
                };
                // One that has just ended has no usage.
                let Ok(stats) = handle.stats(&container).await else {
                    continue;
                };
                let key = (task.id, name.clone());
                let traffic = traffic.remove(&key);
                let now = Look { stats, traffic };
                if let Some(before) = self.looks.get(&key) {
                    metric.container_metrics.push(ContainerMetric {
                        container_arn,
                        container_name: Some(name),
                        restart_stats_set: restarts.map(|count| RestartStatsSet {
                            restart_count: Some(i64::from(count)),
                        }),
                        ..between(before, &now)
                    });
                }
                looks.insert(key, now);
            }
            if !metric.container_metrics.is_empty() {
                tasks.push(metric);
            }
        }
        self.looks = looks;
        Some(tasks)
    }
}

fn running(core: &AgentCore) -> Vec<Running> {
    let running = core.tasks().map(|(id, task)| Running {
        id: *id,
        metric: TaskMetric {
            task_arn: task.payload.arn.clone(),
            cluster_arn: Some(task.cluster.clone()),
            task_definition_family: task.payload.family.clone(),
            task_definition_version: task.payload.version.clone(),
            container_metrics: Vec::new(),
        },
        containers: task
            .payload
            .containers
            .iter()
            .filter_map(|container| {
                let name = container.name.clone()?;
                let state = task.state.containers.get(&name)?;
                let restarts = container.restart_policy.as_ref().map(|_| state.restarts);
                let runs = state.status == ContainerStatus::Running;
                runs.then(|| (name, container.container_arn.clone(), restarts))
            })
            .collect(),
    });
    running.filter(|task| !task.containers.is_empty()).collect()
}

/// Processor time as the Amazon agent tells it: in percent of the whole machine.
fn between(before: &Look, now: &Look) -> ContainerMetric {
    let passed = now.stats.at.since(before.stats.at).as_secs_f64();
    let cores = f64::from(now.stats.cpu.online_cpus.max(1));
    let cpu_s = rise(before.stats.cpu.total_ns, now.stats.cpu.total_ns) / 1e9;
    let memory = &now.stats.memory;
    let used = memory.usage_bytes.saturating_sub(memory.cache_bytes) as f64 / MIB;
    let read = |look: &Look| moved(&look.stats, "Read");
    let written = |look: &Look| moved(&look.stats, "Write");
    ContainerMetric {
        cpu_stats_set: (passed > 0.0).then(|| one(100.0 * cpu_s / passed / cores)),
        memory_stats_set: Some(one(used)),
        network_stats_set: before
            .traffic
            .zip(now.traffic)
            .map(|(before, now)| network(&before, &now, passed)),
        storage_stats_set: Some(StorageStatsSet {
            read_size_bytes: Some(one(rise(read(before), read(now)))),
            write_size_bytes: Some(one(rise(written(before), written(now)))),
        }),
        ..ContainerMetric::default()
    }
}

fn network(before: &Traffic, now: &Traffic, passed: f64) -> NetworkStatsSet {
    let risen = |count: fn(&Traffic) -> u64| Some(one(rise(count(before), count(now))));
    let rate = |count: fn(&Traffic) -> u64| {
        (passed > 0.0).then(|| one(rise(count(before), count(now)) / passed))
    };
    NetworkStatsSet {
        rx_bytes: risen(|t| t.received_bytes),
        rx_bytes_per_second: rate(|t| t.received_bytes),
        rx_dropped: risen(|t| t.received_dropped),
        rx_errors: risen(|t| t.received_errors),
        rx_packets: risen(|t| t.received_packets),
        tx_bytes: risen(|t| t.sent_bytes),
        tx_bytes_per_second: rate(|t| t.sent_bytes),
        tx_dropped: risen(|t| t.sent_dropped),
        tx_errors: risen(|t| t.sent_errors),
        tx_packets: risen(|t| t.sent_packets),
    }
}

/// What was read from or written to all devices.
fn moved(stats: &ContainerStats, operation: &str) -> u64 {
    let entries = stats.block_io.iter();
    entries
        .filter(|entry| entry.operation == operation)
        .map(|entry| entry.bytes)
        .sum()
}

fn rise(before: u64, now: u64) -> f64 {
    let rise = if now < before { now } else { now - before };
    rise as f64
}

/// A single measurement.
fn one(value: f64) -> StatsSet {
    StatsSet {
        min: value,
        max: value,
        sample_count: 1,
        sum: value,
        ..StatsSet::default()
    }
}

#[cfg(test)]
mod tests {
    use gantry_env::Timestamp;
    use gantry_runtime::{BlockIoEntry, CpuStats, MemoryStats, PidsStats};

    use super::*;

    fn look(at: i64, total_ns: u64, received_bytes: u64, read: u64) -> Look {
        Look {
            stats: ContainerStats {
                at: Timestamp::from_millis(at),
                cpu: CpuStats {
                    total_ns,
                    online_cpus: 2,
                    ..CpuStats::default()
                },
                memory: MemoryStats {
                    usage_bytes: 3 << 20,
                    cache_bytes: 1 << 20,
                    ..MemoryStats::default()
                },
                pids: PidsStats::default(),
                block_io: vec![BlockIoEntry {
                    major: 8,
                    minor: 0,
                    operation: "Read".to_owned(),
                    bytes: read,
                    operations: 1,
                }],
            },
            traffic: Some(Traffic {
                received_bytes,
                ..Traffic::default()
            }),
        }
    }

    #[test]
    fn what_is_told_is_the_difference_of_two_looks() {
        let seen = between(&look(0, 0, 100, 50), &look(20_000, 10_000_000_000, 500, 70));
        // Ten seconds of one of two processors in twenty.
        assert_eq!(seen.cpu_stats_set, Some(one(25.0)));
        assert_eq!(seen.memory_stats_set, Some(one(2.0)));
        let network = seen.network_stats_set.unwrap();
        assert_eq!(network.rx_bytes, Some(one(400.0)));
        assert_eq!(network.rx_bytes_per_second, Some(one(20.0)));
        assert_eq!(network.tx_bytes, Some(one(0.0)));
        let storage = seen.storage_stats_set.unwrap();
        assert_eq!(storage.read_size_bytes, Some(one(20.0)));
    }

    /// What the agent sends and what the control plane reads are two crates' words for one number: percent of the whole
    /// machine, also where a container keeps one of many processors busy. It goes over the wire as text.
    #[test]
    fn the_control_plane_reads_the_unit_that_is_sent() {
        use gantry_api::acs::PublishMetricsRequest;
        use gantry_ecs::acs::{ContainerKey, ContainerStats as _, Telemetry};
        let sent = PublishMetricsRequest {
            task_metrics: vec![TaskMetric {
                task_arn: Some("task".into()),
                container_metrics: vec![ContainerMetric {
                    container_name: Some("web".into()),
                    ..between(&look(0, 0, 100, 50), &look(20_000, 10_000_000_000, 500, 70))
                }],
                ..TaskMetric::default()
            }],
            ..PublishMetricsRequest::default()
        };
        let text = serde_json::to_string(&sent).unwrap();
        assert!(text.contains("cpuStatsSet"), "{text}");
        let read: PublishMetricsRequest = serde_json::from_str(&text).unwrap();
        let telemetry = Telemetry::default();
        telemetry.keep_usage("instance", &read, Timestamp::from_millis(20_000), |_| true);
        let usage = telemetry.latest(&ContainerKey {
            task_arn: "task".into(),
            container: "web".into(),
        });
        let usage = usage.unwrap();
        // Ten seconds of one of two processors in twenty are a quarter of the machine; memory is in MiB.
        assert_eq!(usage.cpu.unwrap().average(), Some(25.0));
        assert_eq!(usage.memory.unwrap().average(), Some(2.0));
        assert_eq!(usage.received_bytes, Some(400.0));
    }

    #[test]
    fn a_counter_that_went_back_counts_from_zero() {
        let seen = between(&look(0, 9, 900, 9), &look(1_000, 4, 30, 0));
        assert_eq!(seen.network_stats_set.unwrap().rx_bytes, Some(one(30.0)));
    }
}
