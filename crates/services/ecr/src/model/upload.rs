//! The state of one blob's upload between and during its requests.
//!
//! What always holds: bytes arrive in order and without gaps, one request writes at a time, and
//! what was acknowledged stays so: a request that breaks off leaves the upload where the last one
//! that was answered left it, and the next goes on from there.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use gantry_env::Timestamp;

/// ECR's largest layer: 52,000 MiB.
pub const BLOB_BYTES_MAX: u64 = 52_000 * 1024 * 1024;

/// Drawn from the environment's entropy; in the form of a UUID, as ECR's upload ids are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId([u8; 16]);

impl UploadId {
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex::encode(self.0);
        let (a, b, c, d, e) = (
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        );
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for UploadId {
    type Err = InvalidUploadId;

    fn from_str(value: &str) -> Result<Self, InvalidUploadId> {
        let parsed = hex::decode(value.replace('-', "")).ok();
        let id = parsed
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(InvalidUploadId)?;
        // One upload has one name, so that a name in another form is never taken for it.
        if id.to_string() == value {
            Ok(id)
        } else {
            Err(InvalidUploadId)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id")]
pub struct InvalidUploadId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadRefusal {
    #[error("another request is writing to this upload")]
    Busy,
    #[error("the chunk does not begin at byte {expected}, where the last one ended")]
    OutOfOrder { expected: u64 },
    #[error("the chunk's body is not as long as its Content-Range says")]
    LengthMismatch,
    #[error("what was sent again is not what a request that broke off had sent; begin anew")]
    Changed,
    #[error("a layer may have at most {limit} bytes")]
    TooLarge { limit: u64 },
}

/// One upload. Its bytes and its hash are kept beside it by `uploads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadState {
    received: u64,
    /// What its client was told of.
    acknowledged: u64,
    limit: u64,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Idle {
        since: Timestamp,
    },
    /// A request is writing; it must end exactly at `ends_at`, where that was said.
    Writing {
        ends_at: Option<u64>,
    },
}

impl UploadState {
    pub fn begin(now: Timestamp, limit: u64) -> Self {
        Self {
            received: 0,
            acknowledged: 0,
            limit,
            phase: Phase::Idle { since: now },
        }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// A request wants to write `range`, or whatever comes.
    pub fn open_chunk(&mut self, range: Option<Range<u64>>) -> Result<(), UploadRefusal> {
        if matches!(self.phase, Phase::Writing { .. }) {
            return Err(UploadRefusal::Busy);
        }
        if let Some(range) = &range {
            if range.start != self.received {
                return Err(UploadRefusal::OutOfOrder {
                    expected: self.received,
                });
            }
            if range.end > self.limit {
                return Err(UploadRefusal::TooLarge { limit: self.limit });
            }
        }
        self.phase = Phase::Writing {
            ends_at: range.map(|range| range.end),
        };
        Ok(())
    }

    /// Bytes have come; they are written only if this allows it.
    pub fn receive(&mut self, length: usize) -> Result<(), UploadRefusal> {
        let received = self.received.saturating_add(length as u64);
        if received > self.limit {
            return Err(UploadRefusal::TooLarge { limit: self.limit });
        }
        if let Phase::Writing { ends_at: Some(end) } = self.phase
            && received > end
        {
            return Err(UploadRefusal::LengthMismatch);
        }
        self.received = received;
        Ok(())
    }

    /// The request's body has ended.
    pub fn close_chunk(&mut self, now: Timestamp) -> Result<(), UploadRefusal> {
        if let Phase::Writing { ends_at: Some(end) } = self.phase
            && self.received != end
        {
            return Err(UploadRefusal::LengthMismatch);
        }
        self.acknowledged = self.received;
        self.phase = Phase::Idle { since: now };
        Ok(())
    }

    /// The request ended without an answer that tells of its bytes.
    pub fn break_off(&mut self, now: Timestamp) {
        self.received = self.acknowledged;
        self.phase = Phase::Idle { since: now };
    }

    /// Whether nobody has come back to it for so long that it is given up.
    pub fn is_abandoned(&self, now: Timestamp, idle_timeout: Duration) -> bool {
        match self.phase {
            Phase::Idle { since } => now - since >= idle_timeout,
            Phase::Writing { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: Timestamp = Timestamp::from_millis(0);

    #[test]
    fn chunks_follow_each_other() {
        let mut upload = UploadState::begin(T0, 100);
        upload.open_chunk(Some(0..10)).unwrap();
        assert_eq!(upload.open_chunk(None), Err(UploadRefusal::Busy));
        upload.receive(10).unwrap();
        assert_eq!(upload.receive(1), Err(UploadRefusal::LengthMismatch));
        upload.close_chunk(T0).unwrap();
        assert_eq!(
            upload.open_chunk(Some(5..10)),
            Err(UploadRefusal::OutOfOrder { expected: 10 })
        );
        upload.open_chunk(Some(10..20)).unwrap();
        assert_eq!(upload.close_chunk(T0), Err(UploadRefusal::LengthMismatch));
        upload.receive(4).unwrap();
        upload.break_off(T0);
        assert_eq!(upload.received(), 10);
        upload.open_chunk(Some(10..20)).unwrap();
    }

    #[test]
    fn an_upload_in_work_is_not_abandoned() {
        let (hour, later) = (Duration::from_secs(3600), T0 + Duration::from_secs(3600));
        let mut upload = UploadState::begin(T0, 100);
        assert!(upload.is_abandoned(later, hour));
        upload.open_chunk(None).unwrap();
        assert!(!upload.is_abandoned(later, hour));
        upload.close_chunk(later).unwrap();
        assert!(!upload.is_abandoned(later, hour));
    }

    #[test]
    fn an_id_has_one_form() {
        let id = UploadId::from_random([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "../x", &"ab".repeat(16), &id.to_string().to_uppercase()] {
            assert_eq!(bad.parse::<UploadId>(), Err(InvalidUploadId), "{bad}");
        }
    }

    proptest! {
        /// Whatever the order of requests, what was received never passes the limit and never
        /// shrinks but to what was acknowledged, and a declared range is kept to the byte.
        #[test]
        fn what_is_received_is_bounded(steps in prop::collection::vec((0u8..4, 0u64..60), 0..60)) {
            let mut upload = UploadState::begin(T0, 100);
            let mut acknowledged = 0;
            for (step, n) in steps {
                let before = upload.received();
                match step {
                    0 => { let _ = upload.open_chunk(Some(before..before + n)); }
                    1 => { let _ = upload.receive(n as usize); }
                    2 => {
                        if upload.close_chunk(T0).is_ok() {
                            acknowledged = upload.received();
                        }
                    }
                    _ => {
                        upload.break_off(T0);
                        prop_assert_eq!(upload.received(), acknowledged);
                        continue;
                    }
                }
                prop_assert!(upload.received() >= before && upload.received() <= 100);
            }
        }
    }
}
