//! The uploads that are open in this process.
//!
//! What always holds: a session is in the table or in the hands of the one request that writes
//! to it. A request that ends in any way but giving it back or finishing it, its connection dying
//! included, leaves it where the last one that was answered did.
//! What it leaves to others: rows. An upload has none; a process that dies takes its uploads
//! along, the client starts again, and the next start clears the files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_env::{Env, Timestamp};

use crate::blobs::BlobWriter;
use crate::error::RegistryError;
use crate::model::upload::{UploadId, UploadRefusal, UploadState};
use crate::tables::RepositoryId;

/// One upload: where it stands and what it has written.
pub struct Session {
    pub state: UploadState,
    pub writer: BlobWriter,
    /// The object that `writer` makes.
    pub object: String,
    pub parts: Parts,
}

/// What the parts of the API's own upload must keep to: all but the last have a least size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    last_is_small: bool,
    too_small: bool,
}

impl Parts {
    const BYTES_MIN: u64 = 5 * 1024 * 1024;

    pub fn note(&mut self, length: u64) {
        self.too_small |= self.last_is_small;
        self.last_is_small = length < Self::BYTES_MIN;
    }

    /// Whether a part that another one followed was too small.
    pub fn too_small(self) -> bool {
        self.too_small
    }
}

enum Slot {
    Idle(Box<Session>),
    Writing,
}

/// Keyed by repository too, so nobody reaches an upload through another repository.
type Slots = BTreeMap<(RepositoryId, UploadId), Slot>;

#[derive(Clone)]
pub struct Uploads {
    slots: Arc<Mutex<Slots>>,
    open_max: usize,
    env: Env,
}

impl Uploads {
    pub fn new(open_max: usize, env: Env) -> Self {
        Self {
            slots: Arc::default(),
            open_max,
            env,
        }
    }

    /// Whether one more may be begun.
    pub fn admit(&self) -> Result<(), RegistryError> {
        if self.lock().len() >= self.open_max {
            return Err(RegistryError::TooManyUploads);
        }
        Ok(())
    }

    pub fn insert(&self, repository: RepositoryId, upload: UploadId, session: Session) {
        self.lock()
            .insert((repository, upload), Slot::Idle(Box::new(session)));
    }

    /// Takes an upload to write `range` to it, or whatever comes.
    pub fn take(
        &self,
        repository: &str,
        upload: UploadId,
        range: Option<Range<u64>>,
    ) -> Result<Lease, RegistryError> {
        let key = (repository.to_owned(), upload);
        let mut slots = self.lock();
        let slot = slots.get_mut(&key).ok_or(RegistryError::UploadUnknown)?;
        if let Slot::Idle(session) = slot {
            session.state.open_chunk(range)?;
        }
        match std::mem::replace(slot, Slot::Writing) {
            Slot::Idle(session) => Ok(Lease {
                slots: self.slots.clone(),
                key,
                session: Some(session),
                env: self.env.clone(),
            }),
            Slot::Writing => Err(UploadRefusal::Busy.into()),
        }
    }

    /// How many bytes an upload has received.
    pub fn received(&self, repository: &str, upload: UploadId) -> Result<u64, RegistryError> {
        match self.lock().get(&(repository.to_owned(), upload)) {
            Some(Slot::Idle(session)) => Ok(session.state.received()),
            Some(Slot::Writing) => Err(UploadRefusal::Busy.into()),
            None => Err(RegistryError::UploadUnknown),
        }
    }

    /// Takes out the uploads that nobody has come back to.
    pub fn take_abandoned(&self, now: Timestamp, idle_timeout: Duration) -> Vec<BlobWriter> {
        let mut slots = self.lock();
        let abandoned = |slot: &Slot| matches!(slot, Slot::Idle(session) if session.state.is_abandoned(now, idle_timeout));
        let keys: Vec<_> = slots
            .iter()
            .filter(|(_, slot)| abandoned(slot))
            .map(|(key, _)| key.clone())
            .collect();
        let taken = keys.iter().filter_map(|key| slots.remove(key));
        taken
            .filter_map(|slot| match slot {
                Slot::Idle(session) => Some(session.writer),
                Slot::Writing => None,
            })
            .collect()
    }

    pub fn open(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload in the hands of one request.
pub struct Lease {
    slots: Arc<Mutex<Slots>>,
    key: (RepositoryId, UploadId),
    session: Option<Box<Session>>,
    env: Env,
}

impl Lease {
    pub fn session(&mut self) -> Result<&mut Session, RegistryError> {
        self.session
            .as_deref_mut()
            .ok_or(RegistryError::UploadUnknown)
    }

    /// How many bytes the upload has received.
    pub fn received(&self) -> u64 {
        let session = self.session.as_ref();
        session.map_or(0, |session| session.state.received())
    }

    /// The request's part is written; another may follow.
    pub fn give_back(mut self, now: Timestamp) -> Result<u64, RegistryError> {
        let session = self.session()?;
        session.state.close_chunk(now)?;
        session.writer.acknowledge();
        let received = session.state.received();
        self.put_back();
        Ok(received)
    }

    fn put_back(&mut self) {
        if let Some(session) = self.session.take() {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.insert(self.key.clone(), Slot::Idle(session));
        }
    }

    /// Ends the upload; the caller finishes or aborts the writer.
    pub fn finish(mut self) -> Result<Session, RegistryError> {
        let session = self.session.take().ok_or(RegistryError::UploadUnknown)?;
        self.forget();
        Ok(*session)
    }

    fn forget(&self) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever still holds the session did not end well.
        if let Some(session) = &mut self.session {
            session.state.break_off(self.env.now());
            session.writer.rewind();
            self.put_back();
        }
    }
}
