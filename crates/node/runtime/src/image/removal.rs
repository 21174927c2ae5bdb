//! Taking images off the disk.
//!
//! What always holds: whenever the process dies, an image is either all there or nothing. Its documents go
//! first, so that nobody finds it; then its layers leave their place by a rename each, and only after the file
//! system was synced is anything deleted in them. What a crash leaves is found by the next collection as belonging
//! to nobody. What it leaves to others: what may go (`collection`), and who uses what.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::collection::{CollectionPolicy, StoredImage, images_to_remove, left_over};
use super::digest::Digest;
use super::files::ImageFiles;
use super::holds::Collecting;
use super::platform::Platform;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The digests of images that are gone.
    pub images: Vec<String>,
    pub layers: usize,
}

/// When an image was last used, in a file by its digest.
#[derive(Serialize, Deserialize)]
struct UseRecord {
    digest: String,
    used_at: Timestamp,
}

/// One step of a removal: the disk is consistent before and after each.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Unlink(PathBuf),
    /// Out of its place, into what is deleted later.
    MoveAway(Digest),
}

/// One cycle of collection, while `collecting` says what is held.
pub(super) struct Removal<'a> {
    pub files: &'a ImageFiles,
    pub platform: &'a Platform,
    pub policy: &'a CollectionPolicy,
    pub collecting: &'a Collecting<'a>,
    /// Images and layers that tasks use.
    pub users: &'a BTreeSet<Digest>,
    pub now: Timestamp,
    pub unique: &'a dyn Fn() -> [u8; 16],
}

impl Removal<'_> {
    pub fn run(&self, is_low_on_space: bool) -> io::Result<Collected> {
        let mut in_use = self.collecting.held();
        in_use.extend(self.users.iter().cloned());
        let mut images = self.inventory(&in_use)?;
        let mut collected = Collected::default();
        for digest in images_to_remove(&images, &in_use, is_low_on_space, self.policy, self.now) {
            let Some(at) = images.iter().position(|image| image.digest == digest) else {
                continue;
            };
            let image = images.remove(at);
            let others: BTreeSet<&Digest> = images.iter().flat_map(|i| &i.blobs).collect();
            let shared = others.contains(&digest);
            let removed = self.collecting.unless_held(image.blobs.iter(), || {
                self.carry_out(&self.steps_of_image(&digest, shared)?)
            });
            match removed {
                Some(result) => {
                    result?;
                    collected.images.push(digest.to_string());
                }
                // Somebody wants it after all.
                None => images.push(image),
            }
        }
        collected.layers = self.sweep(&images, &in_use)?;
        Ok(collected)
    }

    /// Every image that is whole. One that is used counts as used now.
    fn inventory(&self, in_use: &BTreeSet<Digest>) -> io::Result<Vec<StoredImage>> {
        // A store that is older than these records begins to count now.
        let referred = self.files.referred()?;
        for digest in &referred {
            if self.files.used_at(digest).is_none() {
                self.record_use(digest)?;
            }
        }
        let mut images = Vec::new();
        let mut known = self.files.with_use_record()?;
        // Also those of which nothing could be written down: whoever is not known here loses their layers.
        known.extend(referred);
        known.extend(self.users.iter().cloned());
        for digest in known {
            let Some(contents) = self.files.contents(&digest, self.platform) else {
                // What a crash left of an image, or a layer's name.
                let record = self.files.use_record(&digest);
                self.collecting
                    .unless_held([&digest].into_iter(), || unlink(&record))
                    .transpose()?;
                continue;
            };
            let mut image = StoredImage {
                used_at: self.files.used_at(&digest).unwrap_or(self.now),
                blobs: contents.blobs,
                layers: contents.layers,
                digest,
            };
            if image.is_among(in_use) {
                image.used_at = self.now;
                self.record_use(&image.digest)?;
            }
            images.push(image);
        }
        Ok(images)
    }

    /// A full disk refuses this too, and that is just when images must go: it is written in the next cycle.
    fn record_use(&self, digest: &Digest) -> io::Result<()> {
        match self.files.write_used_at(digest, self.now, (self.unique)()) {
            Err(error) if is_for_want_of_space(&error) => Ok(()),
            written => written,
        }
    }

    /// What makes an image nothing. Its document goes last: until then it is still whole.
    fn steps_of_image(&self, digest: &Digest, is_part_of_another: bool) -> io::Result<Vec<Step>> {
        let mut steps: Vec<Step> = self
            .files
            .references_to(digest)?
            .into_iter()
            .map(Step::Unlink)
            .collect();
        steps.push(Step::Unlink(self.files.use_record(digest)));
        if !is_part_of_another {
            steps.push(Step::Unlink(self.files.blob(digest)));
        }
        Ok(steps)
    }

    /// Removes documents and layers of no image that stays. The number of layers.
    fn sweep(&self, staying: &[StoredImage], in_use: &BTreeSet<Digest>) -> io::Result<usize> {
        let blobs = staying.iter().flat_map(|image| image.blobs.iter().cloned());
        for blob in left_over(self.files.blobs()?, &blobs.collect(), in_use) {
            let step = Step::Unlink(self.files.blob(&blob));
            self.unless_held(&blob, step)?;
        }
        let layers = staying
            .iter()
            .flat_map(|image| image.layers.iter().cloned());
        let mut moved = 0;
        for layer in left_over(self.files.layers()?, &layers.collect(), in_use) {
            if self.unless_held(&layer, Step::MoveAway(layer.clone()))? {
                moved += 1;
            }
        }
        if moved > 0 {
            self.files.sync()?;
        }
        self.files.delete_moved_away()?;
        self.sweep_partial(in_use)?;
        Ok(moved)
    }

    /// What killed pulls had of a blob, when nobody has gone on with it for as long as an image may lie unused.
    fn sweep_partial(&self, in_use: &BTreeSet<Digest>) -> io::Result<()> {
        for (path, blob, changed) in self.files.partial_blobs()? {
            let changed = changed
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(Timestamp::EPOCH, |since| Timestamp::EPOCH + since);
            if !in_use.contains(&blob) && self.now.since(changed) >= self.policy.age_min {
                self.unless_held(&blob, Step::Unlink(path))?;
            }
        }
        Ok(())
    }

    fn unless_held(&self, digest: &Digest, step: Step) -> io::Result<bool> {
        let done = self
            .collecting
            .unless_held([digest].into_iter(), || self.carry_out(&[step]));
        done.transpose().map(|done| done.is_some())
    }

    fn carry_out(&self, steps: &[Step]) -> io::Result<()> {
        for step in steps {
            match step {
                Step::Unlink(path) => unlink(path)?,
                Step::MoveAway(layer) => self.files.move_away(layer, (self.unique)())?,
            }
            #[cfg(test)]
            tests::died_here()?;
        }
        Ok(())
    }
}

fn is_for_want_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn unlink(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl ImageFiles {
    pub fn write_used_at(
        &self,
        digest: &Digest,
        at: Timestamp,
        unique: [u8; 16],
    ) -> io::Result<()> {
        let record = UseRecord {
            digest: digest.to_string(),
            used_at: at,
        };
        self.replace(
            &self.use_record(digest),
            &serde_json::to_vec(&record)?,
            unique,
        )
    }

    fn used_at(&self, digest: &Digest) -> Option<Timestamp> {
        let bytes = fs::read(self.use_record(digest)).ok()?;
        let record: UseRecord = serde_json::from_slice(&bytes).ok()?;
        (record.digest == digest.to_string()).then_some(record.used_at)
    }
}

#[cfg(test)]
mod tests;
