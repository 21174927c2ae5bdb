//! The json-file driver: files below the data directory, in Docker's form, a line an object.
//!
//! What always holds: a file has whole lines only, also after the disk was full; there are never more
//! than `max-file` files of about `max-size`. The files of a container that has ended stay for three
//! hours, as long as the Amazon agent keeps a stopped container.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_env::Env;
use gantry_runtime::LogStream;
use serde::Serialize;
use tracing::warn;

use super::lines::{Batch, Line};
use super::time::Moment;
use crate::core::plan::JsonFilePlan;

const KEPT_AFTER_END: Duration = Duration::from_secs(3 * 60 * 60);
/// Says by its age when the container ended.
const ENDED: &str = "ended";

/// All files of an agent.
#[derive(Clone, Debug)]
pub struct JsonFiles {
    root: PathBuf,
}

impl JsonFiles {
    /// `container-logs/TASK/CONTAINER/CONTAINER-json.log` in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            root: directory.join("container-logs"),
        }
    }

    fn folder(&self, task: &str, container: &str) -> PathBuf {
        self.root.join(task).join(container)
    }

    pub(super) fn prepare(&self, task: &str, container: &str, env: &Env) -> io::Result<()> {
        if let Err(error) = self.sweep(env) {
            warn!(%error, "files of ended containers could not be removed");
        }
        std::fs::create_dir_all(self.folder(task, container))
    }

    /// Removes what has been kept for long enough.
    fn sweep(&self, env: &Env) -> io::Result<()> {
        let now = u64::try_from(env.now().as_millis()).unwrap_or(0);
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
        let Ok(tasks) = std::fs::read_dir(&self.root) else {
            return Ok(());
        };
        for task in tasks {
            let task = task?.path();
            for container in std::fs::read_dir(&task)? {
                let container = container?.path();
                let ended = std::fs::metadata(container.join(ENDED)).and_then(|it| it.modified());
                let age = ended.ok().and_then(|ended| now.duration_since(ended).ok());
                if age.is_some_and(|age| age > KEPT_AFTER_END) {
                    std::fs::remove_dir_all(&container)?;
                }
            }
            // It goes with its last container, and stays while it has one.
            let _ = std::fs::remove_dir(&task);
        }
        Ok(())
    }

    pub(super) fn open(&self, task: &str, container: &str, plan: JsonFilePlan) -> JsonFile {
        let folder = self.folder(task, container);
        JsonFile {
            path: folder.join(format!("{container}-json.log")),
            folder,
            attributes: attributes(&plan),
            plan,
            open: None,
            done: (0, 0),
        }
    }
}

/// What Docker writes with each line: what was asked for, and the tag only where one was.
fn attributes(plan: &JsonFilePlan) -> BTreeMap<String, String> {
    let mut attributes = plan.source.attributes.clone();
    let default = plan
        .source
        .container_id
        .chars()
        .take(12)
        .collect::<String>();
    if plan.source.tag != default {
        attributes.insert("tag".to_owned(), plan.source.tag.clone());
    }
    attributes
}

/// The files of one container.
pub(super) struct JsonFile {
    folder: PathBuf,
    path: PathBuf,
    attributes: BTreeMap<String, String>,
    plan: JsonFilePlan,
    /// The file that is written to, and its length.
    open: Option<(File, u64)>,
    /// How many lines of the batch that began there have been written, should it come again.
    done: (u64, usize),
}

#[derive(Serialize)]
struct Entry<'a> {
    log: String,
    stream: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
    time: String,
}

impl JsonFile {
    /// Writes what has not been written of a batch.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        if self.done.0 != batch.start {
            self.done = (batch.start, 0);
        }
        while let Some(line) = batch.lines.get(self.done.1) {
            self.write(line)?;
            self.done.1 += 1;
        }
        // The next batch of nothing but the same place would be another one.
        self.done = (batch.end, 0);
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let entry = Entry {
            log: format!("{}{}", line.message, if line.partial { "" } else { "\n" }),
            stream: match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            },
            attrs: &self.attributes,
            time: Moment::of(line.at_ms).rfc3339(9),
        };
        let mut text = serde_json::to_vec(&entry)?;
        text.push(b'\n');
        let max_bytes = self.plan.max_bytes;
        let (mut file, length) = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let is_full = max_bytes.is_some_and(|max| length > 0 && length + text.len() as u64 > max);
        if is_full {
            drop(file);
            self.rotate()?;
            return self.write(line);
        }
        match file.write_all(&text) {
            Ok(()) => {
                self.open = Some((file, length + text.len() as u64));
                Ok(())
            }
            Err(error) => {
                // Half a line would make the whole file unreadable.
                let _ = file.set_len(length);
                Err(error)
            }
        }
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        std::fs::create_dir_all(&self.folder)?;
        let _ = std::fs::remove_file(self.folder.join(ENDED));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2`, and what would be one too many goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| match number {
            0 => self.path.clone(),
            number => PathBuf::from(format!("{}.{number}", self.path.display())),
        };
        let last = self.plan.max_files - 1;
        match std::fs::remove_file(numbered(last)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for number in (0..last).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The container has ended.
    pub fn close(&mut self, _env: &Env) {
        self.open = None;
        if self.folder.is_dir()
            && let Err(error) = std::fs::write(self.folder.join(ENDED), b"")
        {
            warn!(%error, "the end of a container's file could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::LogSource;

    fn plan(max_bytes: Option<u64>, max_files: u32) -> JsonFilePlan {
        JsonFilePlan {
            max_bytes,
            max_files,
            source: LogSource {
                container_id: "0123456789abcdef-web".into(),
                tag: "0123456789ab".into(),
                ..LogSource::default()
            },
        }
    }

    fn batch(start: u64, texts: &[&str]) -> Batch {
        let line = |(index, text): (usize, &&str)| Line {
            message: (*text).to_owned(),
            at_ms: 1_767_225_600_123,
            stream: LogStream::Stderr,
            partial: false,
            end: start + index as u64 + 1,
            clean: true,
        };
        Batch {
            start,
            end: start + texts.len() as u64,
            lines: texts.iter().enumerate().map(line).collect(),
        }
    }

    #[test]
    fn files_are_dockers_and_so_many_of_so_much() {
        let directory = tempfile::tempdir().unwrap();
        let files = JsonFiles::in_directory(directory.path());
        let mut file = files.open("t", "web", plan(Some(200), 3));
        file.append(&batch(0, &["grüß \"x\"\u{1b}"])).unwrap();
        let path = directory.path().join("container-logs/t/web/web-json.log");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"log\":\"grüß \\\"x\\\"\\u001b\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:00.123000000Z\"}\n"
        );
        for n in 1..20 {
            file.append(&batch(n, &["a line of some words"])).unwrap();
        }
        let sizes: Vec<u64> = ["", ".1", ".2"]
            .iter()
            .map(|end| {
                std::fs::metadata(format!("{}{end}", path.display()))
                    .unwrap()
                    .len()
            })
            .collect();
        assert!(
            sizes.iter().all(|size| (90..=200).contains(size)),
            "{sizes:?}"
        );
        assert!(!PathBuf::from(format!("{}.3", path.display())).exists());
        // Another process goes on in the same file.
        let mut again = files.open("t", "web", plan(None, 1));
        again.append(&batch(20, &["more"])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().last().unwrap().contains("more") && text.lines().count() > 1);
    }

    #[test]
    fn the_files_of_the_ended_go_in_time_and_those_of_the_living_stay() {
        let directory = tempfile::tempdir().unwrap();
        let files = JsonFiles::in_directory(directory.path());
        let env = Env::real();
        for (task, ended) in [("old", true), ("new", true), ("alive", false)] {
            let mut file = files.open(task, "web", plan(None, 1));
            file.append(&batch(0, &["x"])).unwrap();
            if ended {
                file.close(&env);
            }
        }
        let marker = File::options()
            .write(true)
            .open(files.folder("old", "web").join(ENDED))
            .unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        marker.set_modified(long_ago).unwrap();
        files.prepare("next", "web", &env).unwrap();
        let exists = |task: &str| directory.path().join("container-logs").join(task).exists();
        assert_eq!(
            ["old", "new", "alive", "next"].map(exists),
            [false, true, true, true]
        );
    }
}
