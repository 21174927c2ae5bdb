//! The options of one driver, taken one after the other; what is left is not known.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Address;
use crate::core::plan::size;
use crate::core::plan::unknown::not_built;

pub(super) struct Options<'a> {
    container: &'a str,
    driver: &'a str,
    left: BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    pub fn new(container: &'a str, driver: &'a str, left: BTreeMap<String, String>) -> Self {
        Self {
            container,
            driver,
            left,
        }
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    pub fn required(&mut self, name: &str) -> Result<String, String> {
        self.take(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                format!(
                    "container '{}': log driver {} requires option '{name}'",
                    self.container, self.driver
                )
            })
    }

    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(self.bad(name, other)),
        }
    }

    /// `10m`, as Docker reads sizes.
    pub fn size(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        size(&value).map(Some).ok_or_else(|| self.bad(name, &value))
    }

    pub fn number(&mut self, name: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.trim().parse();
        number.map(Some).map_err(|_| self.bad(name, &value))
    }

    /// `1s`, `500ms`, `1m30s`, or a number of milliseconds where `bare` says so.
    pub fn duration(&mut self, name: &str, default: Duration) -> Result<Duration, String> {
        let Some(value) = self.take(name) else {
            return Ok(default);
        };
        duration(&value).ok_or_else(|| self.bad(name, &value))
    }

    /// An address with a scheme; one without is TCP where `bare_is_tcp` says so.
    pub fn address(
        &self,
        name: &str,
        value: &str,
        default_port: Option<u16>,
    ) -> Result<Address, String> {
        let (scheme, rest) = value.split_once("://").unwrap_or(("tcp", value));
        let bad = || self.bad(name, value);
        match scheme {
            "unix" => Ok(Address::Unix {
                path: rest.to_owned(),
            }),
            "unixgram" => Ok(Address::UnixDatagram {
                path: rest.to_owned(),
            }),
            "tcp" | "udp" => {
                let (host, port) = host_and_port(rest, default_port).ok_or_else(bad)?;
                Ok(match scheme {
                    "tcp" => Address::Tcp { host, port },
                    _ => Address::Udp { host, port },
                })
            }
            _ => Err(not_built(
                &format!("log option '{name}' with"),
                &format!("{scheme}://"),
                Some(self.container),
            )),
        }
    }

    pub fn bad(&self, name: &str, value: &str) -> String {
        format!(
            "container '{}': log option '{name}' has no meaning with value '{value}'",
            self.container
        )
    }

    /// Says which option is not known, if one is left.
    pub fn end(self) -> Result<(), String> {
        match self.left.keys().next() {
            Some(name) => Err(not_built("log option", name, Some(self.container))),
            None => Ok(()),
        }
    }
}

/// `host`, `host:port` or `[v6]:port`.
pub(super) fn host_and_port(text: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None => default_port?,
        };
        return Some((host.to_owned(), port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, default_port?),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Some((host.to_owned(), port))
}

/// Go's form of durations.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &unit[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_addresses_are_read_as_docker_does() {
        for (text, ms) in [
            ("1s", 1000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("0.5s", 500),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "1x", "-1s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        let local = |port| Some(("localhost".to_owned(), port));
        assert_eq!(host_and_port("localhost:7", None), local(7));
        assert_eq!(host_and_port(":7", None), local(7));
        assert_eq!(host_and_port("localhost", Some(9)), local(9));
        assert_eq!(host_and_port("[::1]:7", None), Some(("::1".to_owned(), 7)));
        for bad in ["localhost", "localhost:x", "[::1", "a:70000"] {
            assert_eq!(host_and_port(bad, None), None, "{bad}");
        }
    }
}
