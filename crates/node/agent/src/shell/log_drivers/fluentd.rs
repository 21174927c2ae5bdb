//! The fluentd driver: the forward protocol, a batch a message of many entries.
//!
//! What always holds: with `fluentd-request-ack` a batch counts as delivered when the receiver has
//! confirmed it; without, when it has been written, as with Docker.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_env::Env;
use gantry_runtime::LogStream;

use super::lines::{Batch, Line};
use super::network::Wire;
use super::{Retries, retry};
use crate::core::plan::FluentdPlan;

pub(super) struct Fluentd {
    plan: FluentdPlan,
    wire: tokio::sync::Mutex<Wire>,
}

impl Fluentd {
    pub fn new(plan: FluentdPlan) -> Self {
        Self {
            wire: tokio::sync::Mutex::new(Wire::to(plan.address.clone())),
            plan,
        }
    }

    pub async fn deliver(&self, batch: &Batch, env: &Env) {
        // The same name each time, so that a receiver may know a repeat.
        let chunk = STANDARD.encode(env.entropy.bytes16());
        let message = message(&self.plan, &batch.lines, &chunk);
        let retries = Retries {
            max: self.plan.max_retries,
            wait: (
                self.plan.retry_wait,
                self.plan.retry_wait.saturating_mul(60),
            ),
        };
        retry(env, retries, "fluentd", || self.send(&message, &chunk, env)).await;
    }

    async fn send(&self, message: &[u8], chunk: &str, env: &Env) -> io::Result<()> {
        let mut wire = self.wire.lock().await;
        wire.send(message, env).await?;
        if self.plan.request_ack {
            let mut expected = Packed::default();
            expected.map(1);
            expected.text("ack");
            expected.text(chunk);
            let mut answer = vec![0; expected.0.len()];
            wire.receive(&mut answer, env).await?;
            if answer != expected.0 {
                wire.disconnect();
                return Err(io::Error::other(
                    "the receiver has confirmed something else",
                ));
            }
        }
        Ok(())
    }
}

/// `[tag, [[time, record], …], {"size": n, "chunk": id}]`.
fn message(plan: &FluentdPlan, lines: &[Line], chunk: &str) -> Vec<u8> {
    let mut packed = Packed::default();
    packed.array(3);
    packed.text(&plan.source.tag);
    packed.array(lines.len());
    for line in lines {
        packed.array(2);
        packed.time(line.at_ms, plan.sub_second_precision);
        let attributes = &plan.source.attributes;
        packed.map(4 + usize::from(line.partial) + attributes.len());
        packed.pair("container_id", &plan.source.container_id);
        packed.pair(
            "container_name",
            &format!("/{}", plan.source.container_name),
        );
        let source = match line.stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        };
        packed.pair("source", source);
        packed.pair("log", &line.message);
        if line.partial {
            packed.pair("partial_message", "true");
        }
        for (name, value) in attributes {
            packed.pair(name, value);
        }
    }
    packed.map(1 + usize::from(plan.request_ack));
    packed.text("size");
    packed.unsigned(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    if plan.request_ack {
        packed.pair("chunk", chunk);
    }
    packed.0
}

/// The few types of MessagePack that the protocol needs.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    /// A length in its shortest form: in the first byte, or in two or four more.
    fn length(&mut self, length: usize, in_byte: (usize, u8), two: u8, four: u8) {
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if length < in_byte.0 => self.0.push(in_byte.1 | short),
            (_, Ok(length)) => {
                self.0.push(two);
                self.0.extend(length.to_be_bytes());
            }
            _ => {
                self.0.push(four);
                // Batches are of a mebibyte.
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                self.0.extend(length.to_be_bytes());
            }
        }
    }

    fn array(&mut self, length: usize) {
        self.length(length, (16, 0x90), 0xdc, 0xdd);
    }

    fn map(&mut self, length: usize) {
        self.length(length, (16, 0x80), 0xde, 0xdf);
    }

    fn text(&mut self, text: &str) {
        self.length(text.len(), (32, 0xa0), 0xda, 0xdb);
        self.0.extend(text.as_bytes());
    }

    fn pair(&mut self, name: &str, value: &str) {
        self.text(name);
        self.text(value);
    }

    fn unsigned(&mut self, number: u32) {
        self.0.push(0xce);
        self.0.extend(number.to_be_bytes());
    }

    /// Seconds, or Fluentd's EventTime: seconds and nanoseconds in an extension of type 0.
    fn time(&mut self, ms: i64, sub_second: bool) {
        let seconds = u32::try_from(ms.div_euclid(1000)).unwrap_or_default();
        if sub_second {
            let nanoseconds = u32::try_from(ms.rem_euclid(1000)).unwrap_or_default() * 1_000_000;
            self.0.extend([0xd7, 0x00]);
            self.0.extend(seconds.to_be_bytes());
            self.0.extend(nanoseconds.to_be_bytes());
        } else {
            self.unsigned(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_messagepack() {
        let mut packed = Packed::default();
        packed.array(1);
        packed.map(17);
        packed.text("ab");
        packed.text(&"x".repeat(40));
        packed.time(1_000_001_500, true);
        packed.time(2_000, false);
        let mut expected = vec![0x91, 0xde, 0, 17, 0xa2, b'a', b'b', 0xda, 0, 40];
        expected.extend([b'x'; 40]);
        expected.extend([0xd7, 0, 0, 0x0f, 0x42, 0x41, 0x1d, 0xcd, 0x65, 0]);
        expected.extend([0xce, 0, 0, 0, 2]);
        assert_eq!(packed.0, expected);
    }
}
