//! A container's root file system and the files that Docker lays over every image.
//!
//! What always holds: every path inside an image is opened inside its root, so no link of an image
//! leads out of it; every mount is in this process's own namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
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

/// Docker makes a working directory that the image lacks.
pub(super) fn make_working_directory(root: &File, cwd: &str) -> Result<(), RuntimeError> {
    let mut at = root
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| cannot_create("opening the root", error))?;
    let mut path = String::new();
    for part in cwd
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        // The parent is opened inside the root, so the new folder is inside as well.
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                return Err(cannot_create(
                    &format!("making the working directory {cwd}"),
                    error,
                ));
            }
        }
        path.push_str(part);
        at = openat2(
            root,
            path.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(|error| cannot_create(&format!("making the working directory {cwd}"), error))?;
        path.push('/');
    }
    Ok(())
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
