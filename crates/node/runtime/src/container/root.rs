//! A container's root file system and the files that Docker lays over every image.
//!
//! What always holds: every path inside an image is opened inside its root, so no link of an image
//! leads out of it; every mount is in this process's own namespace.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::cannot_create;
use crate::error::RuntimeError;
use crate::spec::NetworkMode;
use crate::state::ContainerFile;

/// From here on, mounts are this process's own and its children's.
pub(super) fn own_mount_namespace() -> Result<(), RuntimeError> {
    // SAFETY: this process has one thread, so no other thread's view of the file system changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|error| cannot_create("making a mount namespace", error))?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|error| cannot_create("making mounts private", error))
}

/// For a network namespace that has just been made.
pub(super) fn bring_loopback_up() -> std::io::Result<()> {
    // SAFETY: plain system calls; the descriptor is owned from here on and the request lives through the calls.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What is to be at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Folder,
    File,
}

/// Links and folders together, before a path is given up.
const STEPS_MAX: usize = 255;

/// Makes what a path inside the root lacks, as Docker does for working directories and mounts. Links are followed
/// inside the root, also those that lead to nothing yet: `/etc/resolv.conf` of many images does.
pub(super) fn make_target(root: &File, path: &str, target: Target) -> Result<(), RuntimeError> {
    make_inside(root, path.trim_matches('/'), target, STEPS_MAX)
        .map_err(|error| cannot_create(&format!("making {path} in the root file system"), error))
}

fn make_inside(
    root: &File,
    path: &str,
    target: Target,
    steps_left: usize,
) -> rustix::io::Result<()> {
    let inside = |path: &str, flags: OFlags| {
        let mode = Mode::from_raw_mode(if flags.contains(OFlags::CREATE) {
            0o644
        } else {
            0
        });
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { "." } else { path };
        openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve)
    };
    // What is there already has to be of that kind: nothing could be mounted on it, or run in it.
    let kind = match target {
        Target::Folder => OFlags::PATH | OFlags::DIRECTORY,
        Target::File => OFlags::PATH,
    };
    match inside(path, kind) {
        Err(rustix::io::Errno::NOENT) if steps_left > 0 => {}
        found => return found.map(drop),
    }
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if let Ok(link) = inside(path, OFlags::PATH | OFlags::NOFOLLOW) {
        let leads_to = rustix::fs::readlinkat(&link, "", Vec::new())?;
        let leads_to = leads_to.to_string_lossy();
        let next = match leads_to.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{above}/{leads_to}"),
        };
        return make_inside(root, next.trim_matches('/'), target, steps_left - 1);
    }
    if matches!(name, "" | "." | "..") {
        return make_inside(root, above, Target::Folder, steps_left - 1);
    }
    make_inside(root, above, Target::Folder, steps_left - 1)?;
    // The folder above is opened inside the root, so what is made in it is inside as well.
    let above = inside(above, OFlags::PATH | OFlags::DIRECTORY)?;
    match target {
        Target::Folder => match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            made => made,
        },
        Target::File => inside(path, OFlags::CREATE | OFlags::WRONLY).map(drop),
    }
}

/// The files below `/etc` that a container gets from its runtime.
pub(super) const NETWORK_FILES: [&str; 3] = ["hosts", "resolv.conf", "hostname"];

/// Writes them into the container's folder; they are bound over the image's.
pub(super) fn write_network_files(file: &ContainerFile, dir: &Path) -> Result<(), RuntimeError> {
    let failed =
        |error: std::io::Error| cannot_create("writing the container's network files", error);
    let host_network = file.task.network == NetworkMode::Host;
    let mut hosts = if host_network {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        String::new()
    };
    if hosts.is_empty() {
        hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    }
    for (name, address) in &file.task.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let resolv = if host_network {
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        String::new()
    };
    let hostname = match &file.spec.hostname {
        Some(hostname) => hostname.clone(),
        None if host_network => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        None => super::oci::short_name(&file.spool_id),
    };
    if !host_network {
        hosts.push_str(&format!("127.0.0.1\t{}\n", names(&hostname)));
    }
    // What is given is given whole: whoever made the network knows its addresses.
    let hosts = file.spec.hosts.clone().unwrap_or(hosts);
    let resolv = file.spec.resolv_conf.clone().unwrap_or(resolv);
    for (name, text) in NETWORK_FILES
        .iter()
        .zip([hosts, resolv, format!("{hostname}\n")])
    {
        fs::write(dir.join(name), text).map_err(failed)?;
    }
    Ok(())
}

/// A name with a domain is followed by itself without, as Docker writes it.
fn names(hostname: &str) -> String {
    match hostname.split_once('.') {
        Some((short, _)) if !short.is_empty() => format!("{hostname}\t{short}"),
        _ => hostname.to_owned(),
    }
}
