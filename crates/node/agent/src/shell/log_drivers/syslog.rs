//! The syslog driver: RFC 3164 and RFC 5424 over UDP, TCP and Unix sockets.
//!
//! A datagram is a message; on a stream a message ends with a line feed. Standard error is an error,
//! standard output is information, as with Docker.

use std::io;

use gantry_env::Env;
use gantry_runtime::LogStream;

use super::lines::{Batch, Line};
use super::network::{Wire, host_name};
use super::time::Moment;
use super::{Retries, retry};
use crate::core::plan::{SyslogFormat, SyslogPlan};

pub(super) struct Syslog {
    plan: SyslogPlan,
    host: String,
    wire: tokio::sync::Mutex<Wire>,
}

impl Syslog {
    pub fn new(plan: SyslogPlan) -> Self {
        Self {
            wire: tokio::sync::Mutex::new(Wire::to(plan.address.clone())),
            host: host_name(),
            plan,
        }
    }

    pub async fn deliver(&self, batch: &Batch, env: &Env) {
        let retries = Retries::without_end();
        retry(env, retries, "syslog", || self.send(batch, env)).await;
    }

    async fn send(&self, batch: &Batch, env: &Env) -> io::Result<()> {
        let mut wire = self.wire.lock().await;
        if wire.is_datagram() {
            for line in &batch.lines {
                let message = message(&self.plan, &self.host, line);
                wire.send(message.as_bytes(), env).await?;
            }
            return Ok(());
        }
        let mut all = String::new();
        for line in &batch.lines {
            all.push_str(&message(&self.plan, &self.host, line));
            all.push('\n');
        }
        wire.send(all.as_bytes(), env).await
    }
}

const ERROR: u8 = 3;
const INFORMATION: u8 = 6;

fn message(plan: &SyslogPlan, host: &str, line: &Line) -> String {
    let severity = match line.stream {
        LogStream::Stdout => INFORMATION,
        LogStream::Stderr => ERROR,
    };
    let priority = plan.facility * 8 + severity;
    let moment = Moment::of(line.at_ms);
    let (tag, pid, text) = (&plan.source.tag, std::process::id(), &line.message);
    match plan.format {
        SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: {text}", moment.stamp()),
        SyslogFormat::Rfc3164 => {
            format!("<{priority}>{} {host} {tag}[{pid}]: {text}", moment.stamp())
        }
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            let digits = match plan.format {
                SyslogFormat::Rfc5424Micro => 6,
                _ => 0,
            };
            let time = moment.rfc3339(digits);
            format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - {text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::{Address, LogSource};

    #[test]
    fn messages_are_those_of_the_two_standards() {
        let line = |stream| Line {
            message: "hello".into(),
            at_ms: 1_767_225_600_123,
            stream,
            partial: false,
            end: 0,
            clean: true,
        };
        let plan = |format| SyslogPlan {
            address: Address::UnixDatagram {
                path: String::new(),
            },
            facility: 16,
            format,
            source: LogSource {
                tag: "web".into(),
                ..LogSource::default()
            },
        };
        let pid = std::process::id();
        let of = |format, stream| message(&plan(format), "box", &line(stream));
        assert_eq!(
            of(SyslogFormat::Rfc3164, LogStream::Stdout),
            format!("<134>Jan  1 00:00:00 box web[{pid}]: hello")
        );
        assert_eq!(
            of(SyslogFormat::Local, LogStream::Stderr),
            format!("<131>Jan  1 00:00:00 web[{pid}]: hello")
        );
        assert_eq!(
            of(SyslogFormat::Rfc5424, LogStream::Stdout),
            format!("<134>1 2026-01-01T00:00:00Z box web {pid} web - hello")
        );
        assert_eq!(
            of(SyslogFormat::Rfc5424Micro, LogStream::Stdout),
            format!("<134>1 2026-01-01T00:00:00.123000Z box web {pid} web - hello")
        );
    }
}
