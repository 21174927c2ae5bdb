//! What has gone through the containers' interfaces, as the kernel counts it.
//!
//! What always holds: it is told from the container's side, so what the host's end sent is what the
//! container received. One look at the kernel is enough for all containers.
//! What it leaves to others: rates.

use std::collections::BTreeMap;
use std::io;

use gantry_arn::TaskId;

use crate::network::Network;

/// Since the interface was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_errors: u64,
    pub received_dropped: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_errors: u64,
    pub sent_dropped: u64,
}

impl Network {
    /// Of every container that has an interface.
    pub fn traffic(&self) -> io::Result<BTreeMap<(TaskId, String), Traffic>> {
        let names = self.interfaces();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Of the thread, because a thread of this process may be in another namespace for a moment.
        let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        let mut counted: BTreeMap<&str, Traffic> = text.lines().filter_map(line).collect();
        Ok(names
            .into_iter()
            .filter_map(|(key, name)| Some((key, counted.remove(name.as_str())?)))
            .collect())
    }
}

/// One line of `/proc/net/dev`, turned round.
fn line(line: &str) -> Option<(&str, Traffic)> {
    let (name, counts) = line.split_once(':')?;
    let mut counts = counts.split_whitespace().map(|count| count.parse().ok());
    let mut of: [u64; 16] = [0; 16];
    for place in &mut of {
        *place = counts.next()??;
    }
    let traffic = Traffic {
        received_bytes: of[8],
        received_packets: of[9],
        received_errors: of[10],
        received_dropped: of[11],
        sent_bytes: of[0],
        sent_packets: of[1],
        sent_errors: of[2],
        sent_dropped: of[3],
    };
    Some((name.trim(), traffic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_is_told_from_the_other_side() {
        let text = "gd00dfeed1: 100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16";
        let (name, traffic) = line(text).unwrap();
        assert_eq!(name, "gd00dfeed1");
        assert_eq!((traffic.sent_bytes, traffic.sent_packets), (100, 2));
        assert_eq!(
            (traffic.received_bytes, traffic.received_dropped),
            (900, 12)
        );
        assert_eq!(line("Inter-|   Receive  |  Transmit"), None);
        assert_eq!(line("eth0: 1 2 3"), None);
    }
}
