//! What an agent and a shim say to each other over a Unix socket.
//!
//! What always holds: a frame is a length (u32, little endian) and as many bytes of JSON. Shims outlive
//! upgrades, so members and variants are only ever added; what a shim does not know it answers with an
//! error, and what an agent does not know it skips. [`PROTOCOL`] grows with each addition.

use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Exit;
use crate::spec::{ContainerName, ExecSpec, LogSpec};
use crate::state::FailedFile;

/// 1: the first. 2: `State`, `Restart`, `Exec`, runs; an unknown verb is answered.
pub(crate) const PROTOCOL: u32 = 2;

/// Longer frames are no frames of ours.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u64,
    pub verb: Verb,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Verb {
    /// Is anybody there? Answered with `Done`.
    Hello,
    /// `container.json` is in the container's folder.
    Start {
        container: ContainerName,
        logs: LogSpec,
    },
    Signal {
        container: ContainerName,
        signal: i32,
    },
    /// `signal` now and SIGKILL after the grace.
    Stop {
        container: ContainerName,
        signal: i32,
        grace_ms: u64,
    },
    Trim {
        container: ContainerName,
        offset: u64,
    },
    /// Tell once the spool is longer than `offset`, or has ended.
    WatchLog {
        container: ContainerName,
        offset: u64,
    },
    /// Go when nothing runs any more.
    Close,
    /// Kill everything and go.
    Kill,
    /// What became of every container that it was ever told of.
    State,
    /// The same container once more, after its end: its writable layer, its spool.
    Restart { container: ContainerName },
    /// Run a program beside the container's own.
    Exec {
        container: ContainerName,
        exec: ExecSpec,
    },
}

impl Verb {
    /// The first protocol that knows it: an older shim would not.
    pub fn since(&self) -> u32 {
        match self {
            Verb::Hello
            | Verb::Start { .. }
            | Verb::Signal { .. }
            | Verb::Stop { .. }
            | Verb::Trim { .. }
            | Verb::WatchLog { .. }
            | Verb::Close
            | Verb::Kill => 1,
            Verb::State | Verb::Restart { .. } | Verb::Exec { .. } => 2,
        }
    }
}

/// What a request that this build does not know still tells.
#[derive(Debug, Deserialize)]
pub(crate) struct UnknownRequest {
    pub id: u64,
    verb: serde_json::Value,
}

impl UnknownRequest {
    /// The verb's name, as far as it has one.
    pub fn name(&self) -> &str {
        match &self.verb {
            serde_json::Value::String(name) => name,
            serde_json::Value::Object(members) => members.keys().next().map_or("", String::as_str),
            _ => "",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply { id: u64, answer: Answer },
    Event(Event),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Started {
        pid: i32,
        at: Timestamp,
        #[serde(default)]
        run: u32,
    },
    Failed {
        kind: String,
        message: String,
    },
    State {
        containers: Vec<ContainerState>,
    },
    Executed {
        exit_code: i32,
        /// In base64: it need not be text.
        output: String,
        timed_out: bool,
    },
}

/// One container as its shim knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub name: ContainerName,
    /// How often it was started again.
    pub run: u32,
    /// It is being made: neither started nor failed yet.
    pub is_being_made: bool,
    pub pid: Option<i32>,
    pub started_at: Option<Timestamp>,
    /// Of this run.
    pub exit: Option<Exit>,
    pub failed: Option<FailedFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The shim serves its socket.
    Ready { protocol: u32 },
    Exited {
        container: ContainerName,
        exit: Exit,
        #[serde(default)]
        run: u32,
    },
    Log {
        container: ContainerName,
        end: u64,
        ended: bool,
    },
    /// The shim goes because it was told to. Without this, an end of the stream is its death.
    Bye,
}

/// A frame with its length before it.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    // These types have no map with keys other than strings, so this cannot fail.
    if serde_json::to_writer(&mut bytes, value).is_err() {
        bytes.truncate(4);
    }
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Takes the first whole frame out of what has come in so far.
pub(crate) fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, FrameTooLong> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameTooLong);
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let frame = buffer[4..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some(frame))
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FrameTooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart_where_they_were_put_together() {
        let mut stream = encode(&Message::Event(Event::Bye));
        stream.extend(encode(&Message::Event(Event::Ready { protocol: 7 })));
        let last = stream.pop().unwrap();
        assert!(take_frame(&mut stream).unwrap().is_some());
        assert!(take_frame(&mut stream).unwrap().is_none());
        stream.push(last);
        let frame = take_frame(&mut stream).unwrap().unwrap();
        assert!(matches!(
            serde_json::from_slice(&frame).unwrap(),
            Message::Event(Event::Ready { protocol: 7 })
        ));
        assert!(stream.is_empty());
        assert_eq!(take_frame(&mut vec![0xff; 4]), Err(FrameTooLong));
    }
}
