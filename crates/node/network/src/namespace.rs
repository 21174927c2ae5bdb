//! Network namespaces that last without a process, because a mount holds them.
//!
//! They are where `ip netns` looks, so `ip netns exec gantry-…` works on them.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::carrier::Carrier;
use crate::installation::{Installation, NAMESPACES};
use crate::netlink::Routes;
use crate::routing;

/// A namespace that was just made.
pub(crate) struct Made {
    pub file: File,
    /// A socket inside.
    pub routes: Routes,
    pub carrier: Carrier,
}

/// As Docker sets them: programs that do not run as root may serve on low ports and send pings, since
/// the ports are the container's own. Interfaces made later have no IPv6; loopback keeps it.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Makes a namespace with loopback up, held at `path`.
pub(crate) fn make(path: &Path) -> io::Result<Made> {
    std::fs::create_dir_all(NAMESPACES)?;
    File::create(path)?;
    // A thread changes its namespace for good, so it is one that ends.
    let in_the_thread = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount_bind("/proc/thread-self/ns/net", path)?;
        let routes = Routes::open()?;
        routing::loopback_up(&routes)?;
        for (file, value) in SETTINGS {
            match std::fs::write(file, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(Made {
            file: File::open(path)?,
            carrier: Carrier::open()?,
            routes,
        })
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, in_the_thread)?
            .join()
            .map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
    })
}

/// Whether a namespace is held there: an empty file is what a crash leaves.
pub(crate) fn is_there(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS_MAGIC)
}

/// Lets go of a namespace. It ends with the last process in it. Gone already is what is wanted.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    // Nothing is mounted there, or nothing is there at all.
    while unmount(path, UnmountFlags::DETACH).is_ok() {}
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The names of those that carry the installation's id.
pub(crate) fn all_of(installation: &Installation) -> Vec<std::path::PathBuf> {
    let prefix = installation.namespace_prefix();
    let entries = std::fs::read_dir(NAMESPACES)
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(&prefix))
        })
        .map(|entry| entry.path())
        .collect()
}
