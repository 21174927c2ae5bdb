//! The images of a runtime: pulling them, and removing those that none of its tasks uses.
//!
//! What always holds: an image that a container's file names, running, stopped or adopted, or that a pull or a
//! start in this process holds, is not removed. A file that cannot be read might name any image, so nothing is
//! removed then.
//! What it leaves to others: how images are kept (`image`), and when to look (the agent).

use std::io;
use std::path::{Path, PathBuf};

use crate::error::RuntimeError;
use crate::image::{
    Collected, CollectionPolicy, HeldImage, ImageReference, PulledImage, RegistryAccess,
};
use crate::runtime::Runtime;
use crate::state::{CONTAINER_FILE, CONTAINERS, ContainerFile, tasks_dir};

impl Runtime {
    /// Asks the registry what the reference stands for and fetches what this machine lacks of it.
    /// Calls for the same image share the work.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        access: &RegistryAccess,
    ) -> Result<PulledImage, RuntimeError> {
        self.0.images.pull(reference, access).await
    }

    /// The same, for whoever starts a container of it later: the image stays for as long as the answer lives, and
    /// from the container's start on for as long as its task is not removed.
    pub async fn pull_held(
        &self,
        reference: &ImageReference,
        access: &RegistryAccess,
    ) -> Result<HeldImage, RuntimeError> {
        self.0.images.pull_held(reference, access).await
    }

    /// What the reference stood for when it was last pulled, if all of it is still here. No network.
    pub async fn cached(&self, reference: &ImageReference) -> Option<PulledImage> {
        self.0.images.cached(reference)
    }

    /// Removes images that no task uses and that were not used for as long as the policy says.
    pub async fn collect_images(
        &self,
        policy: &CollectionPolicy,
    ) -> Result<Collected, RuntimeError> {
        let (images, policy) = (self.0.images.clone(), policy.clone());
        let tasks = tasks_dir(&self.0.options.data_dir);
        tokio::task::spawn_blocking(move || images.collect(&policy, || used_by_tasks(&tasks)))
            .await
            .map_err(|error| RuntimeError::runtime(error.to_string()))?
    }

    /// Whether so little of the disk is free that images go before their age.
    pub fn is_low_on_space_for_images(
        &self,
        policy: &CollectionPolicy,
    ) -> Result<bool, RuntimeError> {
        self.0.images.is_low_on_space(policy).map_err(|error| {
            RuntimeError::runtime(format!("what is free on the disk of images: {error}"))
        })
    }
}

/// The images and layers of every container on disk, as `sha256:…`.
fn used_by_tasks(tasks: &Path) -> Result<Vec<String>, RuntimeError> {
    let mut used = Vec::new();
    for task in folders_in(tasks)? {
        for container in folders_in(&task.join(CONTAINERS))? {
            let path = container.join(CONTAINER_FILE);
            let file: ContainerFile = match std::fs::read(&path) {
                Ok(bytes) => {
                    serde_json::from_slice(&bytes).map_err(|error| unknown(&path, &error))?
                }
                // It is written before anything of the container is made, and goes with its task.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(unknown(&path, &error)),
            };
            used.extend(file.layers.iter().map(|layer| format!("sha256:{layer}")));
            used.push(file.spec.image);
        }
    }
    Ok(used)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(unknown(folder, &error)),
    };
    entries
        .map(|entry| match entry {
            Ok(entry) => Ok(entry.path()),
            Err(error) => Err(unknown(folder, &error)),
        })
        .collect()
}

/// A task may be removed while this looks.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unknown(path: &Path, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::runtime(format!(
        "no image is removed, because it is not known what {} uses: {error}",
        path.display()
    ))
}
