//! Removing what an installation left in the kernel, alive or dead: for `gantry down`.
//!
//! What always holds: only what carries the installation's id is touched; it is found in the kernel
//! itself, so the state on disk may be lost or half written; a second run finds nothing to do.

use std::path::Path;
use std::time::Duration;

use crate::conntrack;
use crate::error::{Doing, NetworkError};
use crate::firewall;
use crate::forwarding::{self, Turn};
use crate::installation::Installation;
use crate::namespace;
use crate::netlink::Routes;
use crate::records::Records;
use crate::routing;

/// How long interfaces have to go by themselves.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What was found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub links: usize,
    pub namespaces: usize,
    pub tables: usize,
    pub routes: usize,
}

/// Removes interfaces, namespaces, the table and the reserved range, switches forwarding back, and
/// deletes the state in `state_dir`. The containers must have ended before.
pub fn cleanup(installation: &Installation, state_dir: &Path) -> Result<Removed, NetworkError> {
    let mut removed = Removed::default();
    let routes = Routes::open().doing(|| "opening a netlink socket".to_owned())?;
    let links = || -> Result<Vec<String>, NetworkError> {
        let all = routing::links(&routes).doing(|| "listing interfaces".to_owned())?;
        let prefix = installation.link_prefix();
        Ok(all
            .into_iter()
            .filter(|name| name.starts_with(&prefix))
            .collect())
    };
    removed.links = links()?.len();
    for path in namespace::all_of(installation) {
        namespace::remove(&path).doing(|| format!("removing the namespace {}", path.display()))?;
        removed.namespaces += 1;
    }
    // The kernel removes the interfaces of namespaces that nobody is in any more, many at a time.
    let mut left = links()?;
    for _ in 0..LOOKS {
        if left.is_empty() {
            break;
        }
        gantry_env::pause_thread(LOOK_EVERY);
        left = links()?;
    }
    for link in &left {
        routing::remove_link(&routes, link).doing(|| format!("removing the interface {link}"))?;
    }
    let had_table =
        firewall::unload(installation).doing(|| "removing the nftables table".to_owned())?;
    removed.tables += usize::from(had_table);
    removed.routes =
        routing::release(&routes, installation).doing(|| "removing routes".to_owned())?;
    if let Ok(records) = Records::open(state_dir) {
        for record in records.all() {
            let address = records.pool.map(|pool| pool.address(record.slot));
            // What the kernel remembers of old connections, it forgets by itself in time.
            let _ = address.map(conntrack::forget_answers_of);
        }
    }
    forwarding::release(&Turn::wait()?, installation)?;
    match std::fs::remove_dir_all(state_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", state_dir.display()))
        }
        _ => Ok(removed),
    }
}
