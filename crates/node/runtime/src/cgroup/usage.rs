//! What a cgroup has used, read from the kernel's own counts.
//!
//! What always holds: v1 and v2 give the same members; only a cgroup that is not there is an error.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use gantry_env::Timestamp;

use super::layout::{Controller, Layout, Look, Version};
use crate::stats::{BlockIoEntry, ContainerStats, CpuStats, MemoryStats, PidsStats};

/// The kernel tells times in `/proc/stat` in hundredths of a second on every machine that ECS runs on.
const TICK_NS: u64 = 10_000_000;
/// v1 shows "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = i64::MAX as u64 - (64 << 10);

/// Reads all that there is. An error where no such cgroup exists.
pub(crate) fn read(layout: &Layout, cgroup: &str, at: Timestamp) -> io::Result<ContainerStats> {
    let layout = &layout.look();
    let exists = layout
        .controller("memory")
        .or_else(|| layout.controller("cpuacct"))
        .is_some_and(|controller| controller.folder(cgroup).is_dir());
    if !exists {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(ContainerStats {
        at,
        cpu: cpu(layout, cgroup),
        memory: layout
            .controller("memory")
            .map(|controller| memory(&controller, cgroup))
            .unwrap_or_default(),
        pids: layout
            .controller("pids")
            .map(|controller| pids(&controller.folder(cgroup)))
            .unwrap_or_default(),
        block_io: layout
            .controller("blkio")
            .map(|controller| block_io(&controller, cgroup))
            .unwrap_or_default(),
    })
}

fn cpu(layout: &Look<'_>, cgroup: &str) -> CpuStats {
    let mut stats = CpuStats::default();
    (stats.machine_ns, stats.online_cpus) =
        machine(&fs::read_to_string("/proc/stat").unwrap_or_default());
    if let Some(controller) = layout.controller("cpuacct") {
        let folder = controller.folder(cgroup);
        match controller.version {
            Version::V1 => {
                stats.total_ns = number(&folder.join("cpuacct.usage")).unwrap_or(0);
                stats.per_cpu_ns = fs::read_to_string(folder.join("cpuacct.usage_percpu"))
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(|word| word.parse().ok())
                    .collect();
                stats.user_ns = number(&folder.join("cpuacct.usage_user")).unwrap_or(0);
                stats.system_ns = number(&folder.join("cpuacct.usage_sys")).unwrap_or(0);
            }
            Version::V2 => {
                let counts = table(&folder.join("cpu.stat"));
                let us = |name: &str| counts.get(name).copied().unwrap_or(0) * 1000;
                stats.total_ns = us("usage_usec");
                stats.user_ns = us("user_usec");
                stats.system_ns = us("system_usec");
            }
        }
    }
    if let Some(controller) = layout.controller("cpu") {
        let counts = table(&controller.folder(cgroup).join("cpu.stat"));
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        stats.periods = count("nr_periods");
        stats.throttled_periods = count("nr_throttled");
        stats.throttled_ns = match controller.version {
            Version::V1 => count("throttled_time"),
            Version::V2 => count("throttled_usec") * 1000,
        };
    }
    stats
}

/// The time that all processors have spent, and how many they are.
fn machine(stat: &str) -> (u64, u32) {
    let total: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .into_iter()
        .flat_map(str::split_whitespace)
        // What comes after is counted in these already.
        .take(7)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    let processors = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count();
    (total * TICK_NS, processors as u32)
}

fn memory(controller: &Controller, cgroup: &str) -> MemoryStats {
    let folder = controller.folder(cgroup);
    let details = table(&folder.join("memory.stat"));
    let detail = |name: &str| details.get(name).copied();
    match controller.version {
        Version::V1 => MemoryStats {
            usage_bytes: number(&folder.join("memory.usage_in_bytes")).unwrap_or(0),
            max_usage_bytes: number(&folder.join("memory.max_usage_in_bytes")),
            limit_bytes: detail("hierarchical_memory_limit").filter(|limit| *limit < NO_LIMIT),
            cache_bytes: detail("total_cache").or(detail("cache")).unwrap_or(0),
            limit_reached: number(&folder.join("memory.failcnt")).unwrap_or(0),
            out_of_memory_kills: table(&folder.join("memory.oom_control"))
                .get("oom_kill")
                .copied()
                .unwrap_or(0),
            details,
        },
        Version::V2 => {
            let events = table(&folder.join("memory.events"));
            let event = |name: &str| events.get(name).copied().unwrap_or(0);
            MemoryStats {
                usage_bytes: number(&folder.join("memory.current")).unwrap_or(0),
                max_usage_bytes: number(&folder.join("memory.peak")),
                limit_bytes: lowest_limit(controller, &folder),
                cache_bytes: detail("file").unwrap_or(0),
                limit_reached: event("max"),
                out_of_memory_kills: event("oom_kill"),
                details,
            }
        }
    }
}

/// The lowest limit of the cgroup and those above it: `max`, which is none, is no number.
fn lowest_limit(controller: &Controller, folder: &Path) -> Option<u64> {
    folder
        .ancestors()
        .take_while(|above| *above != controller.mount)
        .filter_map(|above| number(&above.join("memory.max")))
        .min()
}

fn pids(folder: &Path) -> PidsStats {
    PidsStats {
        current: number(&folder.join("pids.current")).unwrap_or(0),
        limit: number(&folder.join("pids.max")),
    }
}

fn block_io(controller: &Controller, cgroup: &str) -> Vec<BlockIoEntry> {
    let folder = controller.folder(cgroup);
    let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    match controller.version {
        Version::V1 => block_io_v1(
            &text("blkio.throttle.io_service_bytes_recursive"),
            &text("blkio.throttle.io_serviced_recursive"),
        ),
        Version::V2 => block_io_v2(&text("io.stat")),
    }
}

/// Lines such as `8:0 Read 4096`; the last is a sum over all devices.
fn block_io_v1(bytes: &str, operations: &str) -> Vec<BlockIoEntry> {
    let mut entries: BTreeMap<(u32, u32, String), (u64, u64)> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(((major, minor), operation, value)) = words
                .next()
                .and_then(device)
                .zip(words.next())
                .zip(words.next().and_then(|word| word.parse::<u64>().ok()))
                .map(|((device, operation), value)| (device, operation, value))
            else {
                continue;
            };
            let entry = entries.entry((major, minor, operation.to_owned()));
            let entry = entry.or_default();
            *(if is_bytes { &mut entry.0 } else { &mut entry.1 }) = value;
        }
    }
    entries
        .into_iter()
        .map(
            |((major, minor, operation), (bytes, operations))| BlockIoEntry {
                major,
                minor,
                operation,
                bytes,
                operations,
            },
        )
        .collect()
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn block_io_v2(text: &str) -> Vec<BlockIoEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        let counts: BTreeMap<&str, u64> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        for (operation, bytes, operations) in [
            ("Discard", "dbytes", "dios"),
            ("Read", "rbytes", "rios"),
            ("Write", "wbytes", "wios"),
        ] {
            entries.push(BlockIoEntry {
                major,
                minor,
                operation: operation.to_owned(),
                bytes: count(bytes),
                operations: count(operations),
            });
        }
    }
    entries
}

fn device(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file of lines with a name and a number.
fn table(path: &Path) -> BTreeMap<String, u64> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(7);

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_first_version_is_read() {
        let root = tree(&[
            ("cpuacct/g/c/cpuacct.usage", "3000\n"),
            ("cpuacct/g/c/cpuacct.usage_percpu", "1000 2000 \n"),
            ("cpuacct/g/c/cpuacct.usage_user", "2500\n"),
            ("cpuacct/g/c/cpuacct.usage_sys", "500\n"),
            (
                "cpu/g/c/cpu.stat",
                "nr_periods 9\nnr_throttled 4\nthrottled_time 77\n",
            ),
            ("memory/g/c/memory.usage_in_bytes", "8192\n"),
            ("memory/g/c/memory.max_usage_in_bytes", "9000\n"),
            ("memory/g/c/memory.failcnt", "2\n"),
            (
                "memory/g/c/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            ),
            (
                "memory/g/c/memory.stat",
                "cache 1\nhierarchical_memory_limit 65536\ntotal_cache 4096\n",
            ),
            ("pids/g/c/pids.current", "3\n"),
            ("pids/g/c/pids.max", "max\n"),
            (
                "blkio/g/c/blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
            ),
            (
                "blkio/g/c/blkio.throttle.io_serviced_recursive",
                "8:0 Read 1\n8:0 Write 0\nTotal 1\n",
            ),
        ]);
        let stats = read(&Layout::at(root.path()), "/g/c", AT).unwrap();
        let cpu = &stats.cpu;
        assert_eq!(
            (cpu.total_ns, cpu.user_ns, cpu.system_ns),
            (3000, 2500, 500)
        );
        assert_eq!(
            (cpu.periods, cpu.throttled_periods, cpu.throttled_ns),
            (9, 4, 77)
        );
        assert_eq!(cpu.per_cpu_ns, [1000, 2000]);
        let memory = &stats.memory;
        assert_eq!(
            (memory.usage_bytes, memory.max_usage_bytes),
            (8192, Some(9000))
        );
        assert_eq!(
            (memory.limit_bytes, memory.cache_bytes),
            (Some(65536), 4096)
        );
        assert_eq!((memory.limit_reached, memory.out_of_memory_kills), (2, 1));
        assert_eq!(
            stats.pids,
            PidsStats {
                current: 3,
                limit: None
            }
        );
        let read = &stats.block_io[0];
        assert_eq!(
            (read.operation.as_str(), read.bytes, read.operations),
            ("Read", 4096, 1)
        );
        assert_eq!(stats.block_io.len(), 2);
    }

    #[test]
    fn the_second_version_is_read_with_the_lowest_limit_above() {
        let root = tree(&[
            ("cgroup.controllers", "cpu io memory pids"),
            ("g/t/memory.max", "65536\n"),
            ("g/t/c/memory.max", "max\n"),
            ("g/t/c/memory.current", "8192\n"),
            ("g/t/c/memory.stat", "anon 1\nfile 4096\n"),
            (
                "g/t/c/memory.events",
                "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n",
            ),
            (
                "g/t/c/cpu.stat",
                "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\n",
            ),
            ("g/t/c/pids.current", "3\n"),
            ("g/t/c/pids.max", "100\n"),
            (
                "g/t/c/io.stat",
                "254:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n",
            ),
        ]);
        let stats = read(&Layout::at(root.path()), "/g/t/c", AT).unwrap();
        let cpu = &stats.cpu;
        assert_eq!(
            (cpu.total_ns, cpu.user_ns, cpu.system_ns),
            (3000, 2000, 1000)
        );
        assert_eq!(
            (cpu.periods, cpu.throttled_periods, cpu.throttled_ns),
            (9, 4, 7000)
        );
        let memory = &stats.memory;
        assert_eq!(
            (memory.limit_bytes, memory.max_usage_bytes),
            (Some(65536), None)
        );
        assert_eq!((memory.usage_bytes, memory.cache_bytes), (8192, 4096));
        assert_eq!((memory.limit_reached, memory.out_of_memory_kills), (5, 1));
        assert_eq!(
            stats.pids,
            PidsStats {
                current: 3,
                limit: Some(100)
            }
        );
        let write = &stats.block_io[2];
        assert_eq!(
            (write.major, write.operation.as_str(), write.bytes),
            (254, "Write", 1024)
        );
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error() {
        let root = tree(&[("cgroup.controllers", "cpu memory")]);
        assert!(read(&Layout::at(root.path()), "/g/c", AT).is_err());
    }

    #[test]
    fn the_machines_time_is_the_sum_of_all_processors() {
        let stat = "cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 1 1 1\ncpu1 1 1 1\nintr 5\n";
        assert_eq!(machine(stat), (28 * TICK_NS, 2));
    }
}
