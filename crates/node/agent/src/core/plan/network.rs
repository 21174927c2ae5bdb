//! A container's place in the network: ports, names, links.
//!
//! What always holds: a port is one of 1 to 65535 in a container; 0 on the host means that the network
//! chooses one.
//! What it leaves to others: namespaces, addresses and forwarding (`gantry_network`).

use gantry_api::acs;

use super::unknown::not_built;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    Host,
    None,
    /// Each container has a namespace of its own, and its ports are mapped.
    Bridge,
}

/// What `/etc/hosts` and `/etc/resolv.conf` of a container say besides the network's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesPlan {
    /// Name and address.
    pub extra_hosts: Vec<(String, String)>,
    pub dns_servers: Vec<String>,
    pub dns_search_domains: Vec<String>,
}

impl NamesPlan {
    pub fn is_empty(&self) -> bool {
        *self == NamesPlan::default()
    }
}

/// Another container of the task, and the name by which this one finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    pub container: String,
    pub alias: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    pub container_port: u16,
    /// 0: any that is free, in bridge mode.
    pub host_port: u16,
    pub protocol: String,
}

/// Consecutive ports of a container, which the network leads to as many of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
    pub protocol: String,
}

pub(super) fn mode(text: Option<&str>) -> Result<NetworkMode, String> {
    match text {
        Some("host") => Ok(NetworkMode::Host),
        Some("none") => Ok(NetworkMode::None),
        // Docker's own name for it is `default`.
        None | Some("" | "bridge" | "default") => Ok(NetworkMode::Bridge),
        Some(other) => Err(not_built("networkMode", other, None)),
    }
}

pub(super) fn names(
    extra_hosts: &[String],
    dns_servers: Vec<String>,
    dns_search_domains: Vec<String>,
    container: &str,
) -> Result<NamesPlan, String> {
    let extra_hosts = extra_hosts
        .iter()
        .map(|entry| match entry.split_once(':') {
            // A newline would be a line of its own in the container's file.
            Some((host, address)) if is_word(host) && is_address(address) => {
                Ok((host.to_owned(), address.to_owned()))
            }
            _ => Err(format!(
                "container '{container}': extraHosts '{entry}' is not NAME:ADDRESS"
            )),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(bad) = dns_servers.iter().find(|server| !is_address(server)) {
        return Err(format!(
            "container '{container}': '{bad}' of dnsServers is not an address"
        ));
    }
    if let Some(bad) = dns_search_domains.iter().find(|domain| !is_word(domain)) {
        return Err(format!(
            "container '{container}': '{bad}' of dnsSearchDomains is not a domain"
        ));
    }
    Ok(NamesPlan {
        extra_hosts,
        dns_servers,
        dns_search_domains,
    })
}

/// An address is only a number here; nothing is opened.
fn is_address(text: &str) -> bool {
    text.parse::<::core::net::IpAddr>().is_ok()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

pub(super) fn links(links: &[String], container: &str) -> Result<Vec<LinkPlan>, String> {
    links
        .iter()
        .map(|link| {
            let (other, alias) = link.split_once(':').unwrap_or((link, link));
            if !is_word(other) || !is_word(alias) {
                return Err(format!(
                    "container '{container}': link '{link}' is not NAME or NAME:ALIAS"
                ));
            }
            Ok(LinkPlan {
                container: other.to_owned(),
                alias: alias.to_owned(),
            })
        })
        .collect()
}

/// Single ports, and ranges. With the host's network a port on the host is the container's own; nothing is mapped, it is
/// only told.
pub(super) fn ports(
    mappings: &[acs::PortMapping],
    mode: NetworkMode,
    container: &str,
) -> Result<(Vec<PortBinding>, Vec<PortRange>), String> {
    let (mut ports, mut ranges) = (Vec::new(), Vec::new());
    for mapping in mappings {
        let acs::PortMapping {
            container_port,
            container_port_range,
            host_port,
            name: _,
            protocol,
        } = mapping;
        let protocol = protocol.clone().unwrap_or_else(|| "tcp".to_owned());
        if let Some(range) = container_port_range {
            let (first, last) = port_range(range).ok_or_else(|| {
                format!("container '{container}': '{range}' is not a range of ports")
            })?;
            if mode != NetworkMode::Bridge {
                return Err(not_built(
                    "containerPortRange",
                    "outside of bridge mode",
                    Some(container),
                ));
            }
            ranges.push(PortRange {
                first,
                last,
                protocol,
            });
            continue;
        }
        let Some(container_port) = container_port else {
            continue;
        };
        let bad = |port: i64| format!("container '{container}': {port} is not a port");
        let inside = u16::try_from(*container_port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| bad(*container_port))?;
        let outside = host_port.unwrap_or(0);
        let outside = u16::try_from(outside).map_err(|_| bad(outside))?;
        ports.push(PortBinding {
            container_port: inside,
            host_port: match (mode, outside) {
                (NetworkMode::Bridge, port) => port,
                (_, 0) => inside,
                (_, port) => port,
            },
            protocol,
        });
    }
    Ok((ports, ranges))
}

/// `FIRST-LAST`. The control plane has refused others; an agent does not rest on that.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}
