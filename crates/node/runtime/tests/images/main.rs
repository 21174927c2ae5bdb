//! Images from a registry to folders on disk: what is shared, what is refused, what is left after a
//! failure. Run as root, because owners, set-user-id and whiteouts are root's.

mod docker_registry;
mod hostile;
mod layers;
#[allow(dead_code, reason = "shared with the tests of containers")]
mod patience;
mod pulls;
mod refusals;
mod registry;
mod resumed;
mod unpacking;

use std::path::{Path, PathBuf};

use gantry_env::Env;
use gantry_runtime::{ImageStore, PulledImage, RegistryAccess, RuntimeError};
use tempfile::TempDir;

use layers::{Layer, image};
use patience::patience;
use registry::TestRegistry;

/// A store in a folder of its own, and a registry.
struct Fixture {
    dir: TempDir,
    store: ImageStore,
    registry: TestRegistry,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: ImageStore::open(&dir.path().join("images"), Env::real()).unwrap(),
            registry: TestRegistry::start().await,
            dir,
        }
    }

    async fn pull(&self, name: &str) -> Result<PulledImage, RuntimeError> {
        self.pull_with(name, &RegistryAccess::default()).await
    }

    async fn pull_with(
        &self,
        name: &str,
        access: &RegistryAccess,
    ) -> Result<PulledImage, RuntimeError> {
        let reference = self.registry.reference(name);
        tokio::time::timeout(patience(), self.store.pull(&reference, access))
            .await
            .expect("the pull does not end")
    }

    /// Pulls an image of this one layer and says where it is.
    async fn pull_layer(&self, tar: &[u8]) -> Result<PathBuf, RuntimeError> {
        image(&[Layer::plain(tar)]).put(&self.registry, "layer", "1");
        let pulled = self.pull("layer:1").await?;
        Ok(self.store.lowers(&pulled.digest)?.remove(0))
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// Nothing that counts, and nothing half done.
    fn assert_empty(&self) {
        for part in [
            "temporary",
            "pending",
            "partial",
            "removed",
            "layers/sha256",
            "references",
            "used",
        ] {
            assert_eq!(
                names(&self.images().join(part)),
                Vec::<String>::new(),
                "{part}"
            );
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
