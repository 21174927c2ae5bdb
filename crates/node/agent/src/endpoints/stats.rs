//! What a container used, in the JSON of Docker's stats.
//!
//! What always holds: every number is the kernel's own. Where there was no earlier look, the members of
//! the earlier one are zero, as Docker gives them.

use std::time::Duration;

use gantry_env::Timestamp;
use gantry_network::Traffic;
use gantry_runtime::{BlockIoEntry, ContainerStats, CpuStats};
use serde_json::{Map, Value, json};

/// What Docker says of a look that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// One look at a container.
#[derive(Clone, Debug)]
pub struct Look {
    pub stats: ContainerStats,
    /// Of a container that has an interface of its own.
    pub traffic: Option<Traffic>,
}

/// Whose stats they are.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    pub id: &'a str,
    pub name: &'a str,
    /// What bounds a container that has no limit.
    pub machine_memory_bytes: u64,
}

pub fn document(whose: Whose<'_>, now: &Look, before: Option<&Look>) -> Value {
    let ContainerStats {
        at,
        cpu,
        memory,
        pids,
        block_io,
    } = &now.stats;
    let nothing = CpuStats::default();
    let before_cpu = before.map_or(&nothing, |before| &before.stats.cpu);
    let before_at = before.map(|before| before.stats.at.to_string());
    let mut document = json!({
        "read": at.to_string(),
        "preread": before_at.as_deref().unwrap_or(NEVER),
        "id": whose.id,
        "name": format!("/{}", whose.name),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": { "current": pids.current },
        "blkio_stats": {
            "io_service_bytes_recursive": block_list(block_io, |entry| entry.bytes),
            "io_serviced_recursive": block_list(block_io, |entry| entry.operations),
            "io_queue_recursive": [],
            "io_service_time_recursive": [],
            "io_wait_time_recursive": [],
            "io_merged_recursive": [],
            "io_time_recursive": [],
            "sectors_recursive": [],
        },
        "cpu_stats": cpu_document(cpu),
        "precpu_stats": cpu_document(before_cpu),
        "memory_stats": {
            "usage": memory.usage_bytes,
            "limit": memory.limit_bytes.unwrap_or(whose.machine_memory_bytes),
            "stats": memory.details,
        },
    });
    if let Some(limit) = pids.limit {
        document["pids_stats"]["limit"] = limit.into();
    }
    if let Some(most) = memory.max_usage_bytes {
        document["memory_stats"]["max_usage"] = most.into();
    }
    if memory.limit_reached > 0 {
        document["memory_stats"]["failcnt"] = memory.limit_reached.into();
    }
    if let Some(traffic) = now.traffic {
        document["networks"] = json!({ "eth0": interface(&traffic) });
        let earlier = before.and_then(|before| Some((before.traffic?, before.stats.at)));
        if let Some((earlier, since)) = earlier
            && let Some(rates) = rates(traffic, earlier, *at, since)
        {
            document["network_rate_stats"] = rates;
        }
    }
    document
}

fn cpu_document(cpu: &CpuStats) -> Value {
    let mut usage = Map::new();
    usage.insert("total_usage".to_owned(), cpu.total_ns.into());
    if !cpu.per_cpu_ns.is_empty() {
        usage.insert("percpu_usage".to_owned(), json!(cpu.per_cpu_ns));
    }
    usage.insert("usage_in_kernelmode".to_owned(), cpu.system_ns.into());
    usage.insert("usage_in_usermode".to_owned(), cpu.user_ns.into());
    let mut document = json!({
        "cpu_usage": usage,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    });
    if cpu.online_cpus > 0 {
        document["system_cpu_usage"] = cpu.machine_ns.into();
        document["online_cpus"] = cpu.online_cpus.into();
    }
    document
}

fn block_list(entries: &[BlockIoEntry], value: impl Fn(&BlockIoEntry) -> u64) -> Vec<Value> {
    entries
        .iter()
        .map(|entry| {
            json!({
                "major": entry.major,
                "minor": entry.minor,
                "op": entry.operation,
                "value": value(entry),
            })
        })
        .collect()
}

fn interface(traffic: &Traffic) -> Value {
    let Traffic {
        received_bytes,
        received_packets,
        received_errors,
        received_dropped,
        sent_bytes,
        sent_packets,
        sent_errors,
        sent_dropped,
    } = traffic;
    json!({
        "rx_bytes": received_bytes,
        "rx_packets": received_packets,
        "rx_errors": received_errors,
        "rx_dropped": received_dropped,
        "tx_bytes": sent_bytes,
        "tx_packets": sent_packets,
        "tx_errors": sent_errors,
        "tx_dropped": sent_dropped,
    })
}

/// ECS's own addition to what Docker says.
fn rates(now: Traffic, earlier: Traffic, at: Timestamp, since: Timestamp) -> Option<Value> {
    let passed = at.since(since);
    if passed < Duration::from_millis(1) {
        return None;
    }
    let rate = |now: u64, earlier: u64| now.saturating_sub(earlier) as f64 / passed.as_secs_f64();
    Some(json!({
        "rx_bytes_per_sec": rate(now.received_bytes, earlier.received_bytes),
        "tx_bytes_per_sec": rate(now.sent_bytes, earlier.sent_bytes),
    }))
}

#[cfg(test)]
mod tests {
    use gantry_runtime::{MemoryStats, PidsStats};

    use super::*;

    fn look(at: i64, total_ns: u64, received_bytes: u64) -> Look {
        Look {
            stats: ContainerStats {
                at: Timestamp::from_millis(at),
                cpu: CpuStats {
                    total_ns,
                    machine_ns: 10 * total_ns,
                    online_cpus: 2,
                    ..CpuStats::default()
                },
                memory: MemoryStats {
                    usage_bytes: 4096,
                    ..MemoryStats::default()
                },
                pids: PidsStats {
                    current: 1,
                    limit: None,
                },
                block_io: vec![BlockIoEntry {
                    major: 8,
                    minor: 0,
                    operation: "Read".to_owned(),
                    bytes: 512,
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
    fn two_looks_give_what_docker_gives() {
        let whose = Whose {
            id: "task-web",
            name: "web",
            machine_memory_bytes: 1 << 30,
        };
        let (before, now) = (look(1_000, 5, 100), look(3_000, 9, 300));
        let seen = document(whose, &now, Some(&before));
        assert_eq!(seen["cpu_stats"]["cpu_usage"]["total_usage"], 9);
        assert_eq!(seen["precpu_stats"]["cpu_usage"]["total_usage"], 5);
        assert_eq!(seen["precpu_stats"]["system_cpu_usage"], 50);
        assert_eq!(seen["memory_stats"]["limit"], 1 << 30);
        assert_eq!(seen["network_rate_stats"]["rx_bytes_per_sec"], 100.0);
        let io = &seen["blkio_stats"]["io_service_bytes_recursive"][0];
        assert_eq!((&io["op"], &io["value"]), (&json!("Read"), &json!(512)));
        assert_eq!(seen["preread"], "1970-01-01T00:00:01.000Z");
        let first = document(whose, &now, None);
        assert_eq!(first["preread"], NEVER);
        assert_eq!(first["precpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert_eq!(first["network_rate_stats"], Value::Null);
        assert_eq!(first["networks"]["eth0"]["rx_bytes"], 300);
    }
}
