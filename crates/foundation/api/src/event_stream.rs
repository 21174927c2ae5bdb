//! Answers that go on: events in AWS's binary framing, `application/vnd.amazon.eventstream`.
//!
//! A frame is its two lengths and their checksum, headers, a payload, and a checksum over all of
//! it. What always holds: the first frame of a JSON protocol is `initial-response`, because clients
//! wait for it before they show anything; an error after that is a frame of its own kind and the
//! last one. What it leaves to others: which events there are, and when.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;

use crate::error::ApiError;
use crate::protocol::{UNIT, json};
use crate::schema::Schema;
use crate::shape::{Structure, Value};

pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// One event: the name of its member in the stream's shape, and what it carries.
pub struct Event {
    pub kind: &'static str,
    pub payload: Box<dyn Structure>,
}

impl Event {
    pub fn new(kind: &'static str, payload: impl Structure) -> Self {
        Self {
            kind,
            payload: Box::new(payload),
        }
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<Event, ApiError>> + Send>>;

/// What an operation answers whose output is a stream of events. Cloning shares it; who takes the
/// frames first has them.
#[derive(Clone)]
pub struct EventStream {
    events: Arc<Mutex<Option<Events>>>,
}

impl EventStream {
    /// An error ends the stream; its code is the name of the exception.
    pub fn new(events: impl Stream<Item = Result<Event, ApiError>> + Send + 'static) -> Self {
        Self {
            events: Arc::new(Mutex::new(Some(Box::pin(events)))),
        }
    }

    /// The bytes to be sent. Empty for who comes second.
    pub fn frames(&self) -> Frames {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        Frames {
            events: events.take(),
            begun: false,
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventStream")
    }
}

/// So that it travels through the dispatch table like any other answer. It has no members.
impl Structure for EventStream {
    fn schema(&self) -> &'static Schema {
        &UNIT
    }

    fn member(&self, _: usize) -> Option<&dyn Value> {
        None
    }

    fn member_mut(&mut self, _: usize) -> Option<&mut dyn Value> {
        None
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An event stream as bytes.
pub struct Frames {
    /// `None` once it has ended.
    events: Option<Events>,
    begun: bool,
}

impl Stream for Frames {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(events) = &mut this.events else {
            return Poll::Ready(None);
        };
        if !this.begun {
            this.begun = true;
            return Poll::Ready(Some(Ok(event_frame("initial-response", b"{}"))));
        }
        match events.as_mut().poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(event))) => {
                let payload = json::write(event.payload.as_ref());
                Poll::Ready(Some(Ok(event_frame(event.kind, &payload))))
            }
            Poll::Ready(Some(Err(error))) => {
                this.events = None;
                let payload = serde_json::json!({ "message": error.message }).to_string();
                let headers = [
                    (":message-type", "exception"),
                    (":exception-type", error.code.as_str()),
                    (":content-type", "application/json"),
                ];
                Poll::Ready(Some(Ok(frame(&headers, payload.as_bytes()))))
            }
            Poll::Ready(None) => {
                this.events = None;
                Poll::Ready(None)
            }
        }
    }
}

fn event_frame(kind: &str, payload: &[u8]) -> Bytes {
    let headers = [
        (":message-type", "event"),
        (":event-type", kind),
        (":content-type", "application/json"),
    ];
    frame(&headers, payload)
}

/// What a header's value is: 7 is a text of at most 64 KiB.
const TEXT: u8 = 7;
const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut head = BytesMut::new();
    for (name, value) in headers {
        // Names and values are our own and short.
        head.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.put_slice(name.as_bytes());
        head.put_u8(TEXT);
        head.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        head.put_slice(value.as_bytes());
    }
    let length = PRELUDE_BYTES + head.len() + payload.len() + CHECKSUM_BYTES;
    let mut frame = BytesMut::with_capacity(length);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
    let prelude = checksum(&frame);
    frame.put_u32(prelude);
    frame.put_slice(&head);
    frame.put_slice(payload);
    let whole = checksum(&frame);
    frame.put_u32(whole);
    frame.freeze()
}

/// CRC-32 as in Ethernet and zip.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (crc >> 8) ^ TABLE[usize::from((crc as u8) ^ byte)]
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0xEDB8_8320
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::logs::SessionTimeoutException;

    #[test]
    fn the_checksum_is_the_one_that_everybody_uses() {
        assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    }

    /// Takes a frame apart, checking both checksums.
    fn parse(frame: &[u8]) -> (Vec<(String, String)>, Vec<u8>) {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, frame.len());
        assert_eq!(word(8), checksum(&frame[..8]));
        assert_eq!(word(frame.len() - 4), checksum(&frame[..frame.len() - 4]));
        let end = 12 + word(4) as usize;
        let (mut at, mut headers) = (12, Vec::new());
        while at < end {
            let name_end = at + 1 + usize::from(frame[at]);
            let name = String::from_utf8(frame[at + 1..name_end].to_vec()).unwrap();
            assert_eq!(frame[name_end], TEXT);
            let length = u16::from_be_bytes([frame[name_end + 1], frame[name_end + 2]]);
            at = name_end + 3 + usize::from(length);
            let value = String::from_utf8(frame[name_end + 3..at].to_vec()).unwrap();
            headers.push((name, value));
        }
        (headers, frame[end..frame.len() - 4].to_vec())
    }

    #[tokio::test]
    async fn a_stream_begins_with_its_response_and_ends_with_its_error() {
        let event = Event::new(
            "sessionStart",
            SessionTimeoutException {
                message: Some("grüß".into()),
            },
        );
        let error = ApiError::sender("SessionTimeoutException", "three hours");
        let unseen = Event::new("sessionStart", SessionTimeoutException::default());
        let events = futures_util::stream::iter([Ok(event), Err(error), Ok(unseen)]);
        let stream = EventStream::new(events);
        let frames: Vec<Bytes> = stream.frames().map(Result::unwrap).collect().await;
        let parsed: Vec<_> = frames.iter().map(|frame| parse(frame)).collect();
        let said = |at: usize, name: &str| {
            let found = parsed[at].0.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(parsed.len(), 3);
        assert_eq!(said(0, ":event-type"), Some("initial-response"));
        assert_eq!(said(1, ":event-type"), Some("sessionStart"));
        assert_eq!(parsed[1].1, r#"{"message":"grüß"}"#.as_bytes());
        assert_eq!(said(2, ":exception-type"), Some("SessionTimeoutException"));
        assert!(stream.frames().next().await.is_none());
    }
}
