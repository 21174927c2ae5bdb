//! Ids that must be unique and may not be drawn: digests of the service's incarnation and a number.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_arn::TaskId;
use sha2::{Digest, Sha256};

use crate::tables::task_id_prefix;

/// Where the ids of one service come from. The number only grows, and is stored with what it named.
pub(super) struct Derived<'a> {
    pub incarnation: &'a str,
    pub next: &'a mut u64,
}

impl Derived<'_> {
    fn bytes(&mut self) -> [u8; 32] {
        let digest = Sha256::digest(format!("{}/{}", self.incarnation, self.next));
        *self.next += 1;
        digest.into()
    }

    pub(super) fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// An id that begins as those of all tasks of this service do, and goes on with its number: tasks
    /// stand in the order in which they were made, in the store and so mostly in memory, where looking
    /// at thousands of them in turn is several times quicker than jumping about.
    pub(super) fn task(&mut self) -> TaskId {
        let number = u32::try_from(*self.next & u64::from(u32::MAX)).unwrap_or_default();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.bytes()[..16]);
        let common = hex::decode(task_id_prefix(self.incarnation)).unwrap_or_default();
        let begins = common.into_iter().chain(number.to_be_bytes());
        for (byte, given) in bytes.iter_mut().zip(begins) {
            *byte = given;
        }
        TaskId::from_random(bytes)
    }

    pub(super) fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.bytes()[..16]);
        crate::api::identity::uuid_of(bytes)
    }
}

/// The name of a deployment's hook at a stage: who asks again gets the same one.
pub(super) fn hook_id(incarnation: &str, deployment: &str, stage: &str, at: usize) -> String {
    let digest = Sha256::digest(format!("{incarnation}/{deployment}/{stage}/{at}"));
    format!("ecs-pause-{}", URL_SAFE_NO_PAD.encode(digest))
}
