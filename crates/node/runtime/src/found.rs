//! What the files of one container say became of it.
//!
//! What always holds: they are read together, because an end counts only for the latest run that was begun.

use std::path::Path;

use crate::event::Exit;
use crate::state::{
    EXIT_FILE, ExitFile, FAILED_FILE, FailedFile, STARTED_FILE, STARTING_FILE, StartedFile,
    read_json,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct OnDisk {
    /// The latest run, as far as it began: its program may have run, or still does.
    pub started: Option<StartedFile>,
    pub exit: Option<Exit>,
    pub failed: Option<FailedFile>,
}

impl OnDisk {
    pub fn of(container_dir: &Path) -> OnDisk {
        let starting = read_json::<StartedFile>(&container_dir.join(STARTING_FILE));
        let started = read_json::<StartedFile>(&container_dir.join(STARTED_FILE));
        let latest = match (starting, started) {
            // The moment of the second is the one that was told.
            (Some(starting), Some(started)) if starting.run > started.run => Some(starting),
            (starting, started) => started.or(starting),
        };
        let run = latest.as_ref().map_or(0, |latest| latest.run);
        let exit = read_json::<ExitFile>(&container_dir.join(EXIT_FILE));
        let failed = read_json::<FailedFile>(&container_dir.join(FAILED_FILE));
        OnDisk {
            started: latest,
            exit: exit.filter(|exit| exit.run == run).map(|exit| exit.exit),
            // A run may fail before it is known to begin.
            failed: failed.filter(|failed| failed.run >= run),
        }
    }

    pub fn run(&self) -> u32 {
        self.started.as_ref().map_or(0, |started| started.run)
    }

    /// It began and did not end, as far as anybody knows.
    pub fn was_running(&self) -> bool {
        self.started.is_some() && self.exit.is_none() && self.failed.is_none()
    }

    /// Something is known of it.
    pub fn is_settled(&self) -> bool {
        self.started.is_some() || self.exit.is_some() || self.failed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use gantry_env::Timestamp;

    use super::*;
    use crate::state::{Durability, write_json};

    fn started(run: u32) -> StartedFile {
        StartedFile {
            pid: 10 + run as i32,
            start_ticks: 1,
            at: Timestamp::from_millis(i64::from(run)),
            run,
        }
    }

    fn ended(run: u32) -> ExitFile {
        ExitFile {
            exit: Exit {
                exit_code: run as i32,
                signal: None,
                out_of_memory: false,
                at: Timestamp::from_millis(9),
            },
            run,
        }
    }

    #[test]
    fn an_end_is_of_the_latest_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, value: &dyn Fn(&Path)| value(&dir.path().join(file));
        assert!(!OnDisk::of(dir.path()).is_settled());
        put(STARTING_FILE, &|path| {
            write_json(path, &started(0), Durability::Process).unwrap()
        });
        assert!(OnDisk::of(dir.path()).was_running());
        put(STARTED_FILE, &|path| {
            write_json(path, &started(0), Durability::Process).unwrap()
        });
        put(EXIT_FILE, &|path| {
            write_json(path, &ended(0), Durability::Process).unwrap()
        });
        assert_eq!(OnDisk::of(dir.path()).exit.unwrap().exit_code, 0);
        put(STARTING_FILE, &|path| {
            write_json(path, &started(1), Durability::Process).unwrap()
        });
        let found = OnDisk::of(dir.path());
        assert!(found.was_running());
        assert_eq!((found.run(), found.started.unwrap().pid), (1, 11));
        put(EXIT_FILE, &|path| {
            write_json(path, &ended(1), Durability::Process).unwrap()
        });
        assert_eq!(OnDisk::of(dir.path()).exit.unwrap().exit_code, 1);
    }

    #[test]
    fn files_of_an_older_build_are_of_the_first_run() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write(STARTED_FILE, r#"{"pid":7,"start_ticks":8,"at":9}"#);
        write(
            EXIT_FILE,
            r#"{"exit_code":3,"signal":null,"out_of_memory":false,"at":10}"#,
        );
        let found = OnDisk::of(dir.path());
        assert_eq!((found.run(), found.exit.unwrap().exit_code), (0, 3));
    }
}
