//! What every operation of the registry works on, and the limits that hold for all of them.

use std::sync::Arc;
use std::time::Duration;

use gantry_env::Env;
use gantry_store::{Snapshot, Store, Transaction};

use crate::blobs::BlobStore;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::settings::AccountSetting;
use crate::tables::AccountSettingRow;
use crate::uploads::Uploads;

/// The registry's intervals and limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a token is good for. AWS: 12 hours.
    pub token_lifetime: Duration,
    /// An open upload that nobody writes to for this long is given up.
    pub upload_idle_timeout: Duration,
    /// Uploads that may be open at once; each holds a file.
    pub uploads_open_max: usize,
    /// How long a layer is kept that no image of its repository uses. A push must finish within
    /// three quarters of it after its client found a layer to be there.
    pub layer_grace: Duration,
    /// How long a blob is kept that no repository has.
    pub blob_grace: Duration,
    /// How often the last pull's time of an image is written down.
    pub pull_record_interval: Duration,
    /// How often what is unreferenced is looked for.
    pub collection_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(12 * 3600),
            upload_idle_timeout: Duration::from_secs(3600),
            uploads_open_max: 1024,
            layer_grace: Duration::from_secs(24 * 3600),
            blob_grace: Duration::from_secs(3600),
            pull_record_interval: Duration::from_secs(24 * 3600),
            collection_interval: Duration::from_secs(600),
        }
    }
}

pub struct RegistryState {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: BlobStore,
    pub(crate) uploads: Uploads,
    pub(crate) env: Env,
    pub(crate) options: Options,
}

impl RegistryState {
    /// How often a transaction is decided anew after a conflict. Each conflict means that another
    /// one was committed, so this many in a row is a storm and not bad luck.
    pub(crate) const TRIES: usize = 100;

    /// Commits; false if what was read has changed.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<bool, RegistryError> {
        match self.store.commit(transaction).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(RegistryError::Store(error)),
        }
    }

    /// An account's setting, or its default.
    pub fn account_setting(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        setting: AccountSetting,
    ) -> String {
        let name = setting.name();
        match snapshot.read::<AccountSettingRow>(&place.account, &place.region, name) {
            Some(row) => row.value.clone(),
            None => setting.values()[0].to_owned(),
        }
    }
}
