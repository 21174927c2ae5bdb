//! What `/etc/hosts` of a container says.
//!
//! What always holds: no line is made of what could end a line or begin another name.

use std::net::{IpAddr, Ipv4Addr};

use crate::attachment::AttachRequest;
use crate::error::NetworkError;

/// As in Docker. The container has no IPv6 but on loopback.
const EVERYBODYS: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// A name for a container that has none, in the way of EC2.
pub(crate) fn default_hostname(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}")
}

/// `links` are names and the address that each stands for.
pub(crate) fn hosts(
    address: Ipv4Addr,
    hostname: &str,
    extra: &[(String, String)],
    links: &[(Vec<String>, Ipv4Addr)],
) -> String {
    let mut text = EVERYBODYS.to_owned();
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for (names, address) in links {
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    text.push_str(&format!("{address}\t{hostname}\n"));
    text
}

/// Refuses what cannot be written into the files.
pub(crate) fn validate(request: &AttachRequest) -> Result<(), NetworkError> {
    for (name, address) in &request.extra_hosts {
        check("extraHosts", name, is_name(name), "a host name")?;
        let is_address = address.parse::<IpAddr>().is_ok();
        check("extraHosts", address, is_address, "an IP address")?;
    }
    for server in &request.dns_servers {
        let is_address = server.parse::<IpAddr>().is_ok();
        check("dnsServers", server, is_address, "an IP address")?;
    }
    for domain in &request.dns_search_domains {
        // `.` is how Docker says that there shall be none.
        let is_domain = domain == "." || is_name(domain);
        check("dnsSearchDomains", domain, is_domain, "a domain")?;
    }
    for link in &request.links {
        check("links", &link.alias, is_name(&link.alias), "a name")?;
    }
    if let Some(hostname) = &request.hostname {
        check("hostname", hostname, is_name(hostname), "a host name")?;
    }
    Ok(())
}

fn check(
    member: &'static str,
    value: &str,
    is_right: bool,
    expected: &'static str,
) -> Result<(), NetworkError> {
    if is_right {
        return Ok(());
    }
    Err(NetworkError::Value {
        member,
        value: value.chars().take(255).collect(),
        expected,
    })
}

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_programs_look_for_them() {
        let text = hosts(
            Ipv4Addr::new(10, 0, 0, 2),
            "web",
            &[("db.local".to_owned(), "10.1.1.1".to_owned())],
            &[(
                vec!["cache".to_owned(), "redis".to_owned()],
                Ipv4Addr::new(10, 0, 0, 3),
            )],
        );
        assert!(text.ends_with("10.1.1.1\tdb.local\n10.0.0.3\tcache redis\n10.0.0.2\tweb\n"));
    }

    #[test]
    fn a_value_that_would_be_another_line_is_refused() {
        let hostile = "a\n8.8.8.8 bank.example".to_owned();
        let requests = [
            AttachRequest {
                hostname: Some(hostile.clone()),
                ..AttachRequest::default()
            },
            AttachRequest {
                extra_hosts: vec![(hostile.clone(), "10.0.0.1".to_owned())],
                ..AttachRequest::default()
            },
            AttachRequest {
                dns_servers: vec!["10.0.0.1\noptions rotate".to_owned()],
                ..AttachRequest::default()
            },
            AttachRequest {
                dns_search_domains: vec![hostile],
                ..AttachRequest::default()
            },
        ];
        for request in requests {
            assert!(matches!(
                validate(&request),
                Err(NetworkError::Value { .. })
            ));
        }
    }
}
