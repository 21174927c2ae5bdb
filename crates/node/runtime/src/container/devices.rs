//! Which devices a container has, and which it may use.
//!
//! What always holds: nothing but what every program expects (null, zero, full, random, urandom, tty and its own
//! terminals), unless a definition names a device or is privileged. A node that a container makes itself cannot be opened, because the
//! rules are the cgroup's: on v1 the devices controller's, on v2 a program's (`device_filter`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::refused;
use crate::error::RuntimeError;
use crate::spec::{ContainerSpec, Device};

/// Folders of `/dev` that a container has of its own, and what is no device of the machine's.
const NOT_OF_THE_MACHINE: [&str; 7] =
    ["pts", "ptmx", "shm", "fd", "mqueue", "console", "hugepages"];
/// As deep as a machine's `/dev` goes.
const DEPTH_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Character,
    Block,
}

/// What may be done with which devices; `None` is any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// A node to make in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    path: PathBuf,
    kind: Kind,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Devices {
    nodes: Vec<Node>,
    /// Nodes outside of `/dev`: the host's own, bound there.
    binds: Vec<(PathBuf, PathBuf)>,
    /// Everything is allowed; otherwise only what the rules say.
    pub all: bool,
    pub rules: Vec<Rule>,
}

impl Devices {
    /// What a definition's devices are on this machine.
    pub(super) fn of(spec: &ContainerSpec) -> Result<Self, RuntimeError> {
        let mut devices = Self {
            all: spec.privileged,
            rules: usual(),
            ..Self::default()
        };
        if spec.privileged {
            for (host, _) in found_below(Path::new("/dev"), DEPTH_MAX) {
                // A device that went in the meantime is not missed.
                if let Some(node) = node(&host, host.clone()) {
                    devices.nodes.push(node);
                }
            }
        }
        for device in &spec.devices {
            devices.add(device)?;
        }
        Ok(devices)
    }

    fn add(&mut self, device: &Device) -> Result<(), RuntimeError> {
        let host = &device.host_path;
        let gathering = |why: &str| {
            refused(format!(
                "error gathering device information while adding custom device \"{}\": {why}",
                host.display()
            ))
        };
        if device.permissions.is_empty()
            || !device
                .permissions
                .chars()
                .all(|one| matches!(one, 'r' | 'w' | 'm'))
        {
            return Err(gathering(&format!(
                "invalid permissions \"{}\"",
                device.permissions
            )));
        }
        let inside = if device.container_path.as_os_str().is_empty() {
            host.clone()
        } else {
            device.container_path.clone()
        };
        if !host.is_absolute() || !inside.is_absolute() {
            return Err(gathering("not an absolute path"));
        }
        let meta = fs::metadata(host).map_err(|_| gathering("no such file or directory"))?;
        // Docker takes every device below a folder.
        let sources = if meta.is_dir() {
            found_below(host, DEPTH_MAX)
                .into_iter()
                .map(|(path, below)| (path, inside.join(below)))
                .collect()
        } else {
            vec![(host.clone(), inside)]
        };
        if sources.is_empty() {
            return Err(gathering("not a device node"));
        }
        for (host, inside) in sources {
            let node = node(&host, inside.clone()).ok_or_else(|| gathering("not a device node"))?;
            self.rules.push(Rule {
                kind: node.kind,
                major: Some(node.major),
                minor: Some(node.minor),
                access: device.permissions.clone(),
            });
            if inside.starts_with("/dev") {
                self.nodes.retain(|known| known.path != inside);
                self.nodes.push(node);
            } else {
                self.binds.push((host, inside));
            }
        }
        Ok(())
    }

    /// The nodes, in the OCI's form.
    pub(super) fn nodes(&self) -> Vec<Value> {
        self.nodes
            .iter()
            .map(|node| {
                json!({
                    "path": node.path, "type": letter(node.kind), "major": node.major, "minor": node.minor,
                    "fileMode": node.mode, "uid": node.uid, "gid": node.gid,
                })
            })
            .collect()
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = Value> {
        self.binds.iter().map(|(host, inside)| {
            json!({"destination": inside, "type": "bind", "source": host, "options": ["bind", "rprivate", "rw", "nosuid", "noexec"]})
        })
    }

    /// The rules, in the OCI's form.
    pub(super) fn rules(&self) -> Vec<Value> {
        let mut rules = vec![json!({"allow": self.all, "access": "rwm"})];
        if !self.all {
            rules.extend(self.rules.iter().map(|rule| {
                json!({
                    "allow": true, "type": letter(rule.kind), "major": rule.major, "minor": rule.minor,
                    "access": rule.access,
                })
            }));
        }
        rules
    }

    /// What no rule allows with this one character device, of `r`, `w` and `m`.
    pub(super) fn refused(&self, major: u32, minor: u32) -> String {
        let given = |one: char| {
            self.all
                || self.rules.iter().any(|rule| {
                    rule.kind == Kind::Character
                        && rule.major == Some(major)
                        && rule.minor.is_none_or(|any| any == minor)
                        && rule.access.contains(one)
                })
        };
        "rwm".chars().filter(|one| !given(*one)).collect()
    }
}

/// Any node may be made; only these may be used.
fn usual() -> Vec<Rule> {
    let rule = |kind, major, minor, access: &str| Rule {
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![
        rule(Kind::Character, None, None, "m"),
        rule(Kind::Block, None, None, "m"),
        // Pseudo-terminals.
        rule(Kind::Character, Some(136), None, "rwm"),
    ];
    // null, zero, full, random, urandom; tty, console, ptmx.
    let used = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ];
    rules.extend(used.map(|(major, minor)| rule(Kind::Character, Some(major), Some(minor), "rwm")));
    rules
}

fn letter(kind: Kind) -> &'static str {
    match kind {
        Kind::Character => "c",
        Kind::Block => "b",
    }
}

fn node(host: &Path, path: PathBuf) -> Option<Node> {
    let meta = fs::metadata(host).ok()?;
    let kind = if meta.file_type().is_char_device() {
        Kind::Character
    } else if meta.file_type().is_block_device() {
        Kind::Block
    } else {
        return None;
    };
    Some(Node {
        path,
        kind,
        major: libc::major(meta.rdev()),
        minor: libc::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Every device below a folder, and its name there. Links are not followed.
fn found_below(folder: &Path, depth: usize) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let (Ok(kind), name) = (entry.file_type(), PathBuf::from(entry.file_name())) else {
            continue;
        };
        if kind.is_char_device() || kind.is_block_device() {
            if !NOT_OF_THE_MACHINE.iter().any(|no| name == Path::new(no)) {
                found.push((entry.path(), name));
            }
        } else if kind.is_dir()
            && depth > 1
            && !NOT_OF_THE_MACHINE.iter().any(|no| name == Path::new(no))
        {
            let below = found_below(&entry.path(), depth - 1);
            found.extend(
                below
                    .into_iter()
                    .map(|(path, inside)| (path, name.join(inside))),
            );
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, inside: &str, permissions: &str) -> Result<Devices, String> {
        let mut spec = ContainerSpec::new("a".parse().unwrap(), "i");
        spec.devices = vec![Device {
            host_path: host.into(),
            container_path: inside.into(),
            permissions: permissions.to_owned(),
        }];
        Devices::of(&spec).map_err(|error| error.message)
    }

    #[test]
    fn a_named_device_is_a_node_and_a_rule() {
        let devices = asked("/dev/null", "/dev/nothing", "r").unwrap();
        assert_eq!(devices.nodes.len(), 1);
        assert_eq!((devices.nodes[0].major, devices.nodes[0].minor), (1, 3));
        assert_eq!(devices.rules.last().unwrap().access, "r");
        assert_eq!(devices.refused(10, 200), "rwm");
        assert_eq!(asked("/dev/null", "", "r").unwrap().refused(1, 3), "");
        let elsewhere = asked("/dev/null", "/opt/nothing", "rw").unwrap();
        assert_eq!((elsewhere.nodes.len(), elsewhere.mounts().count()), (0, 1));
    }

    #[test]
    fn what_is_no_device_is_named() {
        assert!(
            asked("/dev/absent", "", "rwm")
                .unwrap_err()
                .contains("\"/dev/absent\"")
        );
        assert!(
            asked("/etc/passwd", "", "rwm")
                .unwrap_err()
                .contains("not a device node")
        );
        assert!(
            asked("/dev/null", "", "x")
                .unwrap_err()
                .contains("permissions")
        );
        assert!(asked("dev/null", "", "r").unwrap_err().contains("absolute"));
    }
}
