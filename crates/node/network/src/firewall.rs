//! The one nftables table of an installation: what it lets through, and what it translates.
//!
//! What always holds: the table is replaced as a whole or not at all, so no packet meets half of it; it
//! names no container by itself, since those are elements of its sets (`elements`).

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use netlink_sys::protocols;

use crate::elements::{Element, attribute, netfilter_header, netlink_message};
use crate::error::{Doing, NetworkError};
use crate::installation::Installation;
use crate::netlink::Netlink;
use crate::pool::Pool;
use crate::resolvers::STAND_IN;
use crate::{CONTROL_PLANE_PORT, ENDPOINT};

/// What the table is made of besides the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub pool: Pool,
    /// Where the metadata and credentials endpoints listen on 127.0.0.1.
    pub endpoint_port: Option<u16>,
    /// Where what leads to the control plane listens on 127.0.0.1.
    pub control_plane_port: Option<u16>,
    pub loopback_resolver: Option<Ipv4Addr>,
}

/// Puts the table in the place of the one that may be there.
pub(crate) fn load(
    installation: &Installation,
    terms: &Terms,
    elements: &[Element],
) -> Result<(), NetworkError> {
    let table = installation.table();
    let text = format!(
        "table inet {table}\ndelete table inet {table}\n{}",
        text(installation, terms, elements)
    );
    nft(&["-f", "-"], &text, "the installation's table").map(drop)
}

fn text(installation: &Installation, terms: &Terms, elements: &[Element]) -> String {
    let table = installation.table();
    let ours = format!("\"{}*\"", installation.link_prefix());
    let Terms {
        pool,
        endpoint_port,
        control_plane_port,
        loopback_resolver,
    } = terms;
    let host = pool.host();
    let set = |name: &str| {
        let all: Vec<String> = elements
            .iter()
            .filter(|element| element.set() == name)
            .map(in_words)
            .collect();
        if all.is_empty() {
            String::new()
        } else {
            format!("elements = {{ {} }}", all.join(", "))
        }
    };
    let endpoint = |dport: u16, to: &Option<u16>| {
        to.map_or_else(String::new, |port| {
            format!(
                "iifname {ours} ip daddr {ENDPOINT} tcp dport {dport} dnat ip to 127.0.0.1:{port}"
            )
        })
    };
    let control_plane = endpoint(CONTROL_PLANE_PORT, control_plane_port);
    let endpoint = endpoint(80, endpoint_port);
    let (to_resolver, from_localhost) = loopback_resolver.map_or_else(Default::default, |resolver| {
        (
            format!(
                "iifname {ours} ip daddr {STAND_IN} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {resolver}"
            ),
            // A resolver on loopback may answer nobody else.
            format!("ip saddr {pool} ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 snat ip to 127.0.0.1"),
        )
    });
    format!(
        r#"table inet {table} {{
  set owners {{ type ifname . ipv4_addr; {owners} }}
  set selves {{ type ipv4_addr . ipv4_addr; {selves} }}
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; {ports} }}

  chain from_containers {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {ours} accept
    meta nfproto != ipv4 drop
    iifname . ip saddr != @owners drop
    ip daddr 127.0.0.0/8 drop
  }}

  chain inward {{
    type nat hook prerouting priority dstnat; policy accept;
    {endpoint}
    {control_plane}
    {to_resolver}
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}

  chain from_the_host {{
    type nat hook output priority -100; policy accept;
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}

  chain to_the_host {{
    type nat hook input priority 100; policy accept;
    {from_localhost}
  }}

  chain outward {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {ours} ip saddr 127.0.0.0/8 snat ip to {host}
    ip saddr . ip daddr @selves snat ip to {host}
    ip saddr {pool} oifname != {ours} masquerade
  }}

  chain between {{
    type filter hook forward priority filter; policy accept;
    iifname {ours} ip daddr {{ {ENDPOINT}, {STAND_IN} }} reject
    oifname != {ours} accept
    ct state established,related accept
    ct status dnat accept
    iifname {ours} accept
    drop
  }}
}}
"#,
        owners = set("owners"),
        selves = set("selves"),
        ports = set("ports"),
    )
}

fn in_words(element: &Element) -> String {
    match element {
        Element::Owner { link, address } => format!("\"{link}\" . {address}"),
        Element::SelfTraffic { address } => format!("{address} . {address}"),
        Element::Port {
            protocol,
            host_port,
            address,
            container_port,
        } => format!("{protocol} . {host_port} : {address} . {container_port}"),
    }
}

/// Removes the table, and says whether there was one. Needs no `nft`.
pub(crate) fn unload(installation: &Installation) -> io::Result<bool> {
    remove_table(&installation.table())
}

pub(crate) fn remove_table(name: &str) -> io::Result<bool> {
    const SUBSYSTEM: u16 = 10;
    const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
    let mut payload = netfilter_header(1, 0);
    payload.extend(attribute(1, &[name.as_bytes(), &[0]].concat()));
    let batch = [
        netlink_message(16, 1, &netfilter_header(0, SUBSYSTEM)),
        netlink_message(DELETE_TABLE, 1 | 4, &payload),
        netlink_message(17, 1, &netfilter_header(0, SUBSYSTEM)),
    ]
    .concat();
    match Netlink::open(protocols::NETLINK_NETFILTER)?.tell(&batch, 1) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs `nft` and gives back what it printed.
pub(crate) fn nft(
    arguments: &[&str],
    input: &str,
    what: &'static str,
) -> Result<String, NetworkError> {
    let mut child = spawn(arguments).map_err(NetworkError::NftMissing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where nft has gone already, what it says tells why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .doing(|| "waiting for nft".to_owned())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NetworkError::Nft {
        what,
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// `nft` from the search path, or from where Debian has it, which is not on every user's path.
fn spawn(arguments: &[&str]) -> io::Result<std::process::Child> {
    let run = |program: &str| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    match run("nft") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => run("/usr/sbin/nft"),
        result => result,
    }
}
