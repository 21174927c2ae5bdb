//! The folders behind the volumes of tasks.
//!
//! ```text
//! volumes/task/TASK/named/VOLUME/data           goes with the task
//! volumes/task/TASK/image/CONTAINER/N/data      what the image of CONTAINER declares as a volume
//! volumes/shared/VOLUME/{data,volume.json}      stays
//! ```
//! What always holds: only `data` is ever seen by a container, so nothing a container does changes what
//! stands here besides; removing follows no symbolic link. Doing any of it again changes nothing. A
//! volume of the host's own path is never removed.
//! What it leaves to others: mounting into a container, and copying what its image has there (the runtime).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gantry_arn::TaskId;
use gantry_runtime::BindMount;
use serde::{Deserialize, Serialize};

use super::tmpfs;
use crate::core::plan::{
    ContainerPlan, DockerVolume, TaskPlan, VolumeBacking, VolumePlan, VolumeScope, VolumeSource,
};

pub(super) struct Volumes {
    root: PathBuf,
    /// What each container that has started mounts, for those that take their volumes from it.
    mounted: Mutex<BTreeMap<(TaskId, String), Vec<BindMount>>>,
}

/// What a container mounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prepared {
    pub mounts: Vec<BindMount>,
    /// Those of them that get what the image has at their target, if they are empty.
    pub copy_up: Vec<PathBuf>,
}

/// What a shared volume was made as.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SharedVolume {
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Volumes {
    pub fn new(data_dir: &Path) -> Volumes {
        Volumes {
            root: root(data_dir),
            mounted: Mutex::default(),
        }
    }

    /// Makes what is missing and says where it belongs in the container.
    pub fn prepare(
        &self,
        task: TaskId,
        task_plan: &TaskPlan,
        plan: &ContainerPlan,
        image_volumes: &[String],
    ) -> Result<Prepared, String> {
        let mut prepared = Prepared::default();
        let mut taken: BTreeMap<PathBuf, ()> = BTreeMap::new();
        for mount in &plan.mounts {
            let target = PathBuf::from(&mount.path);
            if taken.insert(normalized(&target), ()).is_some() {
                return Err(cannot(format!("two volumes are mounted at {}", mount.path)));
            }
            let volume = task_plan
                .volumes
                .iter()
                .find(|volume| volume.name == mount.volume)
                .ok_or_else(|| cannot(format!("there is no volume '{}'", mount.volume)))?;
            let place = self.place(task, volume).map_err(cannot)?;
            if place.is_ours {
                prepared.copy_up.push(target.clone());
            }
            prepared.mounts.push(BindMount {
                source: place.source,
                target,
                read_only: mount.read_only || place.read_only,
            });
        }
        for from in &plan.volumes_from {
            let others = lock(&self.mounted)
                .get(&(task, from.container.clone()))
                .cloned()
                .ok_or_else(|| {
                    cannot(format!(
                        "volumesFrom: container '{}' has not started",
                        from.container
                    ))
                })?;
            for mut mount in others {
                // What the container mounts by itself comes before what it takes over.
                if taken.insert(normalized(&mount.target), ()).is_none() {
                    mount.read_only |= from.read_only;
                    prepared.mounts.push(mount);
                }
            }
        }
        for (index, path) in image_volumes.iter().enumerate() {
            let target = PathBuf::from(path);
            if !target.is_absolute() || taken.insert(normalized(&target), ()).is_some() {
                continue;
            }
            let folder = self.task_dir(task).join("image").join(&plan.name);
            let source = folder.join(index.to_string()).join("data");
            make(&source).map_err(|error| cannot(format!("volume {path}: {error}")))?;
            prepared.copy_up.push(target.clone());
            prepared.mounts.push(BindMount {
                source,
                target,
                read_only: false,
            });
        }
        // A mount below another one's target has to come after it.
        prepared
            .mounts
            .sort_by_key(|mount| mount.target.components().count());
        self.remember(task, &plan.name, prepared.mounts.clone());
        Ok(prepared)
    }

    /// What a container mounts that was started by an earlier agent.
    pub fn remember(&self, task: TaskId, container: &str, mounts: Vec<BindMount>) {
        lock(&self.mounted).insert((task, container.to_owned()), mounts);
    }

    /// What a container mounts.
    pub fn mounts(&self, task: TaskId, container: &str) -> Vec<BindMount> {
        let mounted = lock(&self.mounted);
        let found = mounted.get(&(task, container.to_owned()));
        found.cloned().unwrap_or_default()
    }

    /// Removes the task's own volumes. Blocks.
    pub fn remove(&self, task: TaskId) -> io::Result<()> {
        lock(&self.mounted).retain(|(of, _), _| *of != task);
        remove_task_dir(&self.task_dir(task))
    }

    /// Removes the volumes of tasks that are no more. Blocks.
    pub fn keep_only(&self, tasks: &[TaskId]) {
        for entry in entries(&self.root.join("task")) {
            let name = entry.file_name();
            let kept = tasks
                .iter()
                .any(|task| name.to_str() == Some(task.as_str()));
            if !kept && let Err(error) = remove_task_dir(&entry.path()) {
                tracing::warn!(folder = %entry.path().display(), %error, "a task's volumes could not be removed");
            }
        }
    }

    fn task_dir(&self, task: TaskId) -> PathBuf {
        self.root.join("task").join(task.as_str())
    }

    fn place(&self, task: TaskId, volume: &VolumePlan) -> Result<Place, String> {
        let name = &volume.name;
        // The name is part of a path; the control plane has looked at it, and this is the last look.
        let is_plain = !name.starts_with('.') && !name.contains('/') && name.len() <= 255;
        if !is_plain {
            return Err(format!("'{name}' is not the name of a volume"));
        }
        let failed = |error: io::Error| format!("volume '{name}': {error}");
        let own = self.task_dir(task).join("named").join(name);
        match &volume.source {
            VolumeSource::HostPath(path) => {
                let path = PathBuf::from(path);
                // As Docker does; an administrator who names a path means it to be there.
                if !path.exists() {
                    fs::create_dir_all(&path).map_err(failed)?;
                }
                Ok(Place::of_the_host(path, false))
            }
            VolumeSource::TaskFolder => Ok(Place::ours(make(&own.join("data")).map_err(failed)?)),
            VolumeSource::Docker(docker) => {
                let folder = match docker.scope {
                    VolumeScope::Task => own,
                    VolumeScope::Shared => self.shared(name, docker)?,
                };
                match &docker.backing {
                    VolumeBacking::Folder => {
                        Ok(Place::ours(make(&folder.join("data")).map_err(failed)?))
                    }
                    VolumeBacking::Tmpfs { options } => {
                        let data = make(&folder.join("data")).map_err(failed)?;
                        tmpfs::mount(&data, options)
                            .map_err(|error| format!("volume '{name}': {error}"))?;
                        Ok(Place::ours(data))
                    }
                    VolumeBacking::Bind { device, read_only } => {
                        let path = PathBuf::from(device);
                        if !path.exists() {
                            return Err(format!("volume '{name}': there is no {device}"));
                        }
                        Ok(Place::of_the_host(path, *read_only))
                    }
                }
            }
        }
    }

    /// The folder of a shared volume, which is the one that is meant or made now.
    fn shared(&self, name: &str, docker: &DockerVolume) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("volume '{name}': {error}");
        let folder = self.root.join("shared").join(name);
        let file = folder.join("volume.json");
        let wanted = SharedVolume {
            driver_opts: docker.driver_opts.clone(),
            labels: docker.labels.clone(),
        };
        match fs::read(&file) {
            Ok(bytes) => {
                let there: SharedVolume =
                    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
                // Only who may make it says how it is made.
                if docker.autoprovision && there != wanted {
                    return Err(format!(
                        "volume '{name}' is there already with other driver options or labels"
                    ));
                }
                Ok(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !docker.autoprovision {
                    return Err(format!(
                        "there is no shared volume '{name}', and autoprovision is false"
                    ));
                }
                fs::create_dir_all(&folder).map_err(failed)?;
                let fresh = folder.join("volume.json.new");
                let bytes = serde_json::to_vec(&wanted).map_err(|error| failed(error.into()))?;
                fs::write(&fresh, bytes).map_err(failed)?;
                fs::rename(&fresh, &file).map_err(failed)?;
                Ok(folder)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Where a volume's content is on this machine.
struct Place {
    source: PathBuf,
    /// Made here, and so filled with what the image has.
    is_ours: bool,
    read_only: bool,
}

impl Place {
    fn ours(source: PathBuf) -> Place {
        Place {
            source,
            is_ours: true,
            read_only: false,
        }
    }

    fn of_the_host(source: PathBuf, read_only: bool) -> Place {
        Place {
            source,
            is_ours: false,
            read_only,
        }
    }
}

/// Unmounts everything and removes the volumes of tasks; shared ones stay. For `gantry down`. Blocks.
pub fn cleanup(data_dir: &Path) -> io::Result<()> {
    let root = root(data_dir);
    for entry in entries(&root.join("shared")) {
        tmpfs::unmount(&entry.path().join("data"))?;
    }
    for entry in entries(&root.join("task")) {
        remove_task_dir(&entry.path())?;
    }
    Ok(())
}

fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("volumes")
}

fn remove_task_dir(dir: &Path) -> io::Result<()> {
    for entry in entries(&dir.join("named")) {
        tmpfs::unmount(&entry.path().join("data"))?;
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

fn make(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

/// `/a//b/./c` and `/a/b/d/../c/` are one place, as the runtime sees it.
fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn cannot(reason: String) -> String {
    format!("CannotCreateContainerError: {reason}")
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
