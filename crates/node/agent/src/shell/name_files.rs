//! `/etc/hosts` and `/etc/resolv.conf` of a container that is not in bridge mode and has names of its own.
//!
//! What always holds: what the task definition adds comes after what the network mode gives; name
//! servers and search domains replace the host's, as in Docker.
//! What it leaves to others: bridge mode (`gantry_network`), containers that add nothing (the runtime).

use crate::core::plan::{NamesPlan, NetworkMode};

/// Whole contents; `None` is what the runtime writes by itself.
pub(super) struct NameFiles {
    pub hosts: Option<String>,
    pub resolv_conf: Option<String>,
}

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

pub(super) fn of_this_host(mode: NetworkMode, names: &NamesPlan) -> NameFiles {
    let read = |path: &str| match mode {
        NetworkMode::Host => std::fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    };
    NameFiles {
        hosts: (!names.extra_hosts.is_empty()).then(|| hosts(&read("/etc/hosts"), names)),
        resolv_conf: (!names.dns_servers.is_empty() || !names.dns_search_domains.is_empty())
            .then(|| resolv_conf(&read("/etc/resolv.conf"), names)),
    }
}

fn hosts(base: &str, names: &NamesPlan) -> String {
    let mut text = match base {
        "" => LOOPBACK.to_owned(),
        base => base.to_owned(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in &names.extra_hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

fn resolv_conf(base: &str, names: &NamesPlan) -> String {
    let replaced = |line: &&str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        (word == "nameserver" && !names.dns_servers.is_empty())
            || (matches!(word, "search" | "domain") && !names.dns_search_domains.is_empty())
    };
    let mut text = String::new();
    for server in &names.dns_servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !names.dns_search_domains.is_empty() {
        text.push_str(&format!("search {}\n", names.dns_search_domains.join(" ")));
    }
    for line in base.lines().filter(|line| !replaced(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_replaces_the_hosts_own_and_the_rest_stays() {
        let names = NamesPlan {
            extra_hosts: vec![("db".into(), "10.0.0.9".into())],
            dns_servers: vec!["10.0.0.2".into()],
            dns_search_domains: Vec::new(),
        };
        assert_eq!(
            resolv_conf("nameserver 1.1.1.1\nsearch corp\noptions ndots:2\n", &names),
            "nameserver 10.0.0.2\nsearch corp\noptions ndots:2\n"
        );
        assert_eq!(
            hosts("127.0.0.1 localhost", &names),
            "127.0.0.1 localhost\n10.0.0.9\tdb\n"
        );
    }
}
