//! What a machine must offer for bridge mode, for `gantry doctor`.

use crate::firewall::nft;

/// One thing that is needed, whether it is there, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub what: &'static str,
    pub is_met: bool,
    pub how_to_get_it: &'static str,
}

/// Looks at this machine and changes nothing.
pub fn requirements() -> Vec<Requirement> {
    // Only checked, never applied.
    const PROBE: &str = "table inet gantry-probe {
  map m { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain c { type nat hook prerouting priority dstnat; policy accept;
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @m
  }
  chain d { type nat hook postrouting priority srcnat; policy accept; masquerade
  }
}
";
    let has_nft = nft(&["--version"], "", "its version").is_ok();
    let can_translate =
        has_nft && nft(&["--check", "-f", "-"], PROBE, "a table that translates").is_ok();
    vec![
        Requirement {
            what: "nft, for tasks in bridge mode",
            is_met: has_nft,
            how_to_get_it: "install the package nftables",
        },
        Requirement {
            what: "nftables with address translation, for tasks in bridge mode",
            is_met: can_translate,
            how_to_get_it: "run gantry as root on a kernel with nf_tables, nft_nat, nft_fib and nf_conntrack; they are in every distribution's",
        },
    ]
}
