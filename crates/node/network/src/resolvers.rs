//! What `/etc/resolv.conf` of a container says.
//!
//! What always holds: a resolver on the host's loopback is not named to a container, where loopback is the
//! container's own. In its place stands 169.254.169.253, from which the firewall leads to it.

use std::net::{IpAddr, Ipv4Addr};

/// Where containers reach a resolver that listens on the host's loopback only.
pub(crate) const STAND_IN: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// The host's resolvers, as far as containers may know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostResolvers {
    servers: Vec<Ipv4Addr>,
    /// The resolver behind the stand-in, where no other can be reached.
    pub loopback: Option<Ipv4Addr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl HostResolvers {
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let (mut loopback, mut any) = (None, false);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    any = true;
                    match words.next().and_then(|word| word.parse().ok()) {
                        Some(IpAddr::V4(server)) if server.is_loopback() => {
                            loopback = loopback.or(Some(server));
                        }
                        Some(IpAddr::V4(server)) => found.servers.push(server),
                        // Containers have no IPv6.
                        Some(IpAddr::V6(_)) | None => {}
                    }
                }
                // The last one counts, as the C library has it.
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        // Without a word about it, programs ask a resolver on 127.0.0.1.
        let loopback = loopback.or((!any).then_some(Ipv4Addr::LOCALHOST));
        found.loopback = loopback.filter(|_| found.servers.is_empty());
        found
    }

    /// A container's file. What the task definition names replaces what the host has.
    pub fn resolv_conf(&self, servers: &[String], search: &[String]) -> String {
        let servers: Vec<String> = if !servers.is_empty() {
            servers.to_vec()
        } else if self.loopback.is_some() {
            vec![STAND_IN.to_string()]
        } else {
            self.servers.iter().map(Ipv4Addr::to_string).collect()
        };
        let search = if search.is_empty() {
            &self.search
        } else {
            search
        };
        let mut text = String::new();
        for server in servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !search.is_empty() && search != [".".to_owned()] {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolvers_are_the_containers() {
        let host = HostResolvers::parse(
            "# made by hand\nnameserver 10.0.0.2\nnameserver fd00::1\nnameserver 127.0.0.1\nsearch a.example b.example\noptions edns0\n",
        );
        assert_eq!(host.loopback, None);
        assert_eq!(
            host.resolv_conf(&[], &[]),
            "nameserver 10.0.0.2\nsearch a.example b.example\noptions edns0\n"
        );
    }

    #[test]
    fn a_resolver_on_loopback_has_a_stand_in() {
        let host = HostResolvers::parse("nameserver 127.0.0.53\noptions edns0 trust-ad\n");
        assert_eq!(host.loopback, Some(Ipv4Addr::new(127, 0, 0, 53)));
        assert_eq!(
            host.resolv_conf(&[], &[]),
            "nameserver 169.254.169.253\noptions edns0 trust-ad\n"
        );
        assert_eq!(HostResolvers::parse("").loopback, Some(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_task_definition_may_name_others() {
        let host = HostResolvers::parse("nameserver 127.0.0.53\nsearch a.example\n");
        let servers = ["9.9.9.9".to_owned()];
        assert_eq!(
            host.resolv_conf(&servers, &["c.example".to_owned()]),
            "nameserver 9.9.9.9\nsearch c.example\n"
        );
        assert_eq!(
            host.resolv_conf(&servers, &[".".to_owned()]),
            "nameserver 9.9.9.9\n"
        );
    }
}
