//! Whom the kernel killed for want of memory: its counts say how many, its log says who.
//!
//! What always holds: an answer is given only where the log is readable, numbers processes as this shim does, and
//! reaches back to the container's start. Otherwise the counts have to do.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Duration;

/// The first pid namespace's number in every kernel.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// The log's clock and the monotonic one may drift apart a little.
const DRIFT: Duration = Duration::from_secs(5);
/// Longer records do not exist.
const RECORD_BYTES_MAX: usize = 8192;

/// Whether the process was such a victim since then; `None` where that cannot be known.
pub(super) fn was_victim(pid: i32, since: Duration) -> Option<bool> {
    let own = std::fs::metadata("/proc/self/ns/pid").ok()?;
    if own.ino() != FIRST_PID_NAMESPACE {
        return None;
    }
    let mut log = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/kmsg")
        .ok()?;
    // SAFETY: moves this descriptor to the oldest record.
    unsafe { libc::lseek(log.as_raw_fd(), 0, libc::SEEK_SET) };
    let since = since.saturating_sub(DRIFT);
    let mut record = [0; RECORD_BYTES_MAX];
    let mut reaches_back = false;
    loop {
        let text = match log.read(&mut record) {
            Ok(0) => return reaches_back.then_some(false),
            Ok(length) => String::from_utf8_lossy(&record[..length]),
            Err(error) => match error.raw_os_error() {
                // The end for now.
                Some(libc::EAGAIN) => return reaches_back.then_some(false),
                // Overwritten while this was reading: the next read goes on with what is there.
                Some(libc::EPIPE) => {
                    reaches_back = false;
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return None,
            },
        };
        let Some((at, victim)) = parse(&text) else {
            continue;
        };
        if at < since {
            reaches_back = true;
        } else if victim == Some(pid) {
            return Some(true);
        }
    }
}

/// When a record was written, and the process that it says was killed for want of memory.
fn parse(record: &str) -> Option<(Duration, Option<i32>)> {
    let (head, text) = record.split_once(';')?;
    let at = head.split(',').nth(2)?.parse().ok()?;
    let victim = text
        .split_once("ut of memory: Killed process ")
        .and_then(|(_, rest)| rest.split_once(' '))
        .and_then(|(pid, _)| pid.parse().ok());
    Some((Duration::from_micros(at), victim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_is_read_from_the_kernels_words() {
        let at = Duration::from_micros(9_902_898_508);
        let of = |text| parse(&format!("3,6000,9902898508,-;{text}\n")).unwrap();
        let container = "Memory cgroup out of memory: Killed process 4242 (tail) total-vm:1kB";
        assert_eq!(of(container), (at, Some(4242)));
        let machine = "Out of memory: Killed process 17 (a) b) total-vm:1kB";
        assert_eq!(of(machine), (at, Some(17)));
        assert_eq!(of("oom_reaper: reaped process 4242 (tail)"), (at, None));
        assert_eq!(parse("no record"), None);
    }
}
