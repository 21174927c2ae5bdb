//! What a container's first process is: image and definition together, as Docker puts them.

use std::fs::File;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat};

use super::user::User;
use crate::error::{ErrorKind, RuntimeError};
use crate::state::ContainerFile;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
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
    Process { args, env, cwd }
}

/// Says in Docker's words why the program could not be run, before anything is made.
pub(super) fn check(root: &File, process: &Process) -> Result<(), RuntimeError> {
    let failed = |message: String| Err(RuntimeError::new(ErrorKind::CannotStartContainer, message));
    let Some(program) = process.args.first() else {
        return failed(
            "no command specified: neither the image nor the container definition has one"
                .to_owned(),
        );
    };
    if program.contains('/') {
        let path = if program.starts_with('/') {
            program.clone()
        } else {
            format!("{}/{program}", process.cwd)
        };
        return match look(root, &path) {
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
        .any(|folder| matches!(look(root, &format!("{folder}/{program}")), Look::Program));
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

fn look(root: &File, path: &str) -> Look {
    let opened = openat2(
        root,
        path.trim_start_matches('/'),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let Ok(file) = opened else {
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
