//! The kernel's switch for forwarding packets between interfaces: on while an installation needs it,
//! and back as it was with the last.
//!
//! What always holds: Gantry switches it back only where Gantry had switched it on. That it did is kept in
//! the kernel beside the switch, as the table `inet gantry`, so it lasts exactly as long. Switching it on
//! makes no router of the machine: between the interfaces that there were until then, nothing is forwarded.
//! Whoever brings interfaces of their own later (Docker, libvirt) is not in the way of that rule.

use std::fs::File;
use std::io;

use crate::error::{Doing, NetworkError};
use crate::firewall::{nft, remove_table};
use crate::installation::{Installation, LINK_PREFIX};
use crate::netlink::Routes;
use crate::routing;

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
const TABLE: &str = "gantry";
/// Installations take turns with what they share: this switch and the choice of ranges.
const LOCK_DIR: &str = "/run/gantry";

/// Held while what installations share is looked at and changed.
pub(crate) struct Turn(#[expect(dead_code, reason = "the lock is let go when it is closed")] File);

impl Turn {
    pub fn wait() -> Result<Self, NetworkError> {
        let lock = || {
            std::fs::create_dir_all(LOCK_DIR)?;
            let file = File::create(format!("{LOCK_DIR}/network.lock"))?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
            Ok::<_, io::Error>(file)
        };
        lock().map(Self).doing(|| format!("locking {LOCK_DIR}"))
    }
}

/// Sees to it that packets are forwarded, on behalf of the installation.
pub(crate) fn require(
    _turn: &Turn,
    installation: &Installation,
    routes: &Routes,
) -> Result<(), NetworkError> {
    let number = installation.number();
    if users()?.is_some() {
        let text = format!("add element inet {TABLE} installations {{ {number} }}\n");
        nft(&["-f", "-"], &text, "the table of what is shared")?;
    } else if is_on() {
        return Ok(());
    } else {
        let links = routing::links(routes).doing(|| "listing interfaces".to_owned())?;
        let there: Vec<String> = links
            .iter()
            .filter(|name| !name.starts_with(LINK_PREFIX))
            .map(|name| format!("{name:?}"))
            .collect();
        let text = format!(
            r#"table inet {TABLE} {{
  set installations {{ type mark; elements = {{ {number} }} }}
  set unrouted {{ type ifname; elements = {{ {} }} }}
  chain as_before {{
    type filter hook forward priority filter; policy accept;
    iifname @unrouted oifname @unrouted drop
  }}
}}
"#,
            there.join(", ")
        );
        nft(&["-f", "-"], &text, "the table of what is shared")?;
    }
    switch("1")
}

/// The installation needs it no longer.
pub(crate) fn release(_turn: &Turn, installation: &Installation) -> Result<(), NetworkError> {
    let number = installation.number();
    let Some(mut users) = users()? else {
        return Ok(());
    };
    if users.contains(&number) {
        let text = format!("delete element inet {TABLE} installations {{ {number} }}\n");
        nft(&["-f", "-"], &text, "the table of what is shared")?;
    }
    users.retain(|user| *user != number);
    if users.is_empty() {
        switch("0")?;
        remove_table(TABLE).doing(|| format!("removing the table {TABLE}"))?;
    }
    Ok(())
}

/// The installations on whose behalf it was switched on; `None` where Gantry did not.
fn users() -> Result<Option<Vec<u32>>, NetworkError> {
    let set = ["-j", "list", "set", "inet", TABLE, "installations"];
    let text = match nft(&set, "", "listing the table of what is shared") {
        Ok(text) => text,
        // There is none. Without nft there never was.
        Err(NetworkError::Nft { message, .. }) if message.contains("No such file") => {
            return Ok(None);
        }
        Err(NetworkError::NftMissing(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = parsed["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array());
    Ok(Some(
        elements
            .flatten()
            .filter_map(|element| u32::try_from(element.as_u64()?).ok())
            .collect(),
    ))
}

fn is_on() -> bool {
    std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1")
}

fn switch(to: &str) -> Result<(), NetworkError> {
    if std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == to) {
        return Ok(());
    }
    std::fs::write(SWITCH, to).doing(|| format!("writing {to} to {SWITCH}"))
}

/// Whether iptables (as Docker sets it up) drops what it does not know: then containers reach nobody
/// outside, because a packet must pass everybody's rules.
pub(crate) fn is_dropped_by_iptables() -> bool {
    let chain = ["-j", "list", "chain", "ip", "filter", "FORWARD"];
    let listed = nft(&chain, "", "listing the FORWARD chain").unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let mut objects = parsed["nftables"].as_array().into_iter().flatten();
    objects.any(|object| object["chain"]["policy"] == "drop")
}
