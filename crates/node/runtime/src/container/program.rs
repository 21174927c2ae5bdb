//! What a container's first process is: image and definition together, as Docker puts them.
//!
//! What always holds: a program is looked for where the container will find it, also in its volumes, which are not mounted
//! yet; a link of an image or of a volume is followed as the container would, never on the host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, open, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::user::User;
use crate::error::{ErrorKind, RuntimeError};
use crate::state::ContainerFile;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    volumes: Vec<Volume>,
}

/// What will be mounted over the image; nothing is in a tmpfs before the program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    target: PathBuf,
    source: Option<PathBuf>,
}

/// An entry point of the definition replaces the image's and drops the image's command; a command of
/// the definition replaces the image's. Variables of the definition win over the image's.
pub(super) fn of(file: &ContainerFile, user: &User) -> Process {
    let (spec, image) = (&file.spec, &file.image);
    let mut args = spec
        .entry_point
        .clone()
        .unwrap_or_else(|| image.entrypoint.clone());
    match (&spec.command, &spec.entry_point) {
        (Some(command), _) => args.extend(command.iter().cloned()),
        (None, None) => args.extend(image.cmd.iter().cloned()),
        (None, Some(_)) => {}
    }
    let mut env: Vec<String> = Vec::new();
    let mut set = |variable: String| {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        match env
            .iter_mut()
            .find(|known| known.split('=').next() == Some(name.as_str()))
        {
            Some(known) => *known = variable,
            None => env.push(variable),
        }
    };
    set(DEFAULT_PATH.to_owned());
    if let Some(hostname) = &spec.hostname {
        set(format!("HOSTNAME={hostname}"));
    }
    if spec.terminal {
        set("TERM=xterm".to_owned());
    }
    set(format!("HOME={}", user.home));
    for variable in &image.env {
        set(variable.clone());
    }
    for (name, value) in &spec.environment {
        set(format!("{name}={value}"));
    }
    let cwd = spec
        .working_directory
        .clone()
        .unwrap_or_else(|| image.working_dir.clone());
    let cwd = if cwd.starts_with('/') {
        cwd
    } else {
        format!("/{cwd}")
    };
    let binds = spec.mounts.iter().map(|bind| Volume {
        target: bind.target.clone(),
        source: Some(bind.source.clone()),
    });
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| Volume {
        target: tmpfs.path.clone(),
        source: None,
    });
    let mut volumes: Vec<Volume> = binds.chain(tmpfs).collect();
    // As they are mounted: what lies deeper comes later.
    volumes.sort_by_key(|volume| volume.target.components().count());
    Process {
        args,
        env,
        cwd,
        volumes,
    }
}

/// Says in Docker's words why the program could not be run, before anything is mounted.
pub(super) fn check(root: &File, process: &Process) -> Result<(), RuntimeError> {
    let failed = |message: String| Err(RuntimeError::new(ErrorKind::CannotStartContainer, message));
    let Some(program) = process.args.first() else {
        return failed(
            "no command specified: neither the image nor the container definition has one"
                .to_owned(),
        );
    };
    let view = View::of(root, &process.volumes);
    if program.contains('/') {
        let path = if program.starts_with('/') {
            program.clone()
        } else {
            format!("{}/{program}", process.cwd)
        };
        return match view.look(&path) {
            Look::Program => Ok(()),
            Look::Absent => failed(format!(
                "exec: {program:?}: stat {program}: no such file or directory: unknown"
            )),
            Look::NotAProgram => failed(format!("exec: {program:?}: permission denied: unknown")),
        };
    }
    let path = process
        .env
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or_default();
    let found = path
        .split(':')
        .any(|folder| matches!(view.look(&format!("{folder}/{program}")), Look::Program));
    if found {
        Ok(())
    } else {
        failed(format!(
            "exec: {program:?}: executable file not found in $PATH: unknown"
        ))
    }
}

enum Look {
    Program,
    NotAProgram,
    Absent,
}

/// A path of the container without links, by its names; empty is the root.
type Names = Vec<String>;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// The container's file system as it will be.
struct View<'a> {
    root: &'a File,
    /// In the order in which they are mounted.
    mounted: Vec<Mounted>,
}

struct Mounted {
    at: Names,
    /// `None`: there is nothing in it.
    source: Option<OwnedFd>,
}

impl<'a> View<'a> {
    fn of(root: &'a File, volumes: &[Volume]) -> Self {
        let mut view = Self {
            root,
            mounted: Vec::new(),
        };
        for volume in volumes {
            let path = volume.target.to_string_lossy();
            // A target is made where it is missing, so there is no link then and the name counts. One that has links
            // without end is refused when it is mounted.
            let Ok(at) = view.resolve(&path) else {
                continue;
            };
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let source = volume.source.as_ref();
            let source = source.and_then(|source| open(source, flags, Mode::empty()).ok());
            view.mounted.push(Mounted { at, source });
        }
        view
    }

    fn look(&self, path: &str) -> Look {
        let found = self.resolve(path).and_then(|names| self.open(&names));
        let Ok(file) = found else {
            return Look::Absent;
        };
        match statat(&file, "", AtFlags::EMPTY_PATH) {
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_mode & 0o111 != 0 =>
            {
                Look::Program
            }
            Ok(_) => Look::NotAProgram,
            Err(_) => Look::Absent,
        }
    }

    /// Follows every link; names that lead to nothing stay as they are.
    fn resolve(&self, path: &str) -> rustix::io::Result<Names> {
        let names = |path: &str| -> Names { path.rsplit('/').map(str::to_owned).collect() };
        let mut resolved = Names::new();
        // The next name comes last.
        let mut ahead = names(path);
        let mut links_left = LINKS_MAX;
        while let Some(name) = ahead.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop();
                    continue;
                }
                _ => resolved.push(name),
            }
            let Ok(found) = self.open(&resolved) else {
                continue;
            };
            let Ok(leads_to) = readlinkat(&found, "", Vec::new()) else {
                continue;
            };
            links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
            let leads_to = leads_to.to_string_lossy();
            if leads_to.starts_with('/') {
                resolved.clear();
            } else {
                resolved.pop();
            }
            ahead.extend(names(&leads_to));
        }
        Ok(resolved)
    }

    /// What is there, itself; a link is not followed.
    fn open(&self, names: &[String]) -> rustix::io::Result<OwnedFd> {
        // What was mounted last lies on top.
        let over = |mounted: &&Mounted| names.starts_with(&mounted.at);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = |folder: &OwnedFd, names: &[String]| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            openat2(folder, names.join("/"), flags, Mode::empty(), resolve)
        };
        match self.mounted.iter().rev().find(over) {
            Some(Mounted { source: None, .. }) => Err(Errno::NOENT),
            Some(Mounted {
                at,
                source: Some(source),
            }) => match &names[at.len()..] {
                [] => Ok(rustix::io::fcntl_dupfd_cloexec(source, 0)?),
                rest => inside(source, rest),
            },
            None => {
                let root = rustix::io::fcntl_dupfd_cloexec(self.root, 0)?;
                match names {
                    [] => Ok(root),
                    names => inside(&root, names),
                }
            }
        }
    }
}
