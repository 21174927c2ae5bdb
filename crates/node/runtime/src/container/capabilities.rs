//! Which capabilities a container's processes may have.
//!
//! What always holds: Docker's default set, more only by name, and never one that Gantry does not hold itself: asked
//! for by its own name it is refused, as part of `ALL` it is left out.

use rustix::thread::CapabilitySet;

use crate::spec::ContainerSpec;

/// Docker's default set.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// Every capability that has a name; the kernel has no others so far.
pub(super) const EVERY: CapabilitySet =
    CapabilitySet::from_bits_retain(CapabilitySet::CHECKPOINT_RESTORE.bits() * 2 - 1);

const ALL: &str = "ALL";

/// The set of a container, or why it cannot have what it asks for. `held` is what Gantry has to give.
///
/// As in Docker, a name that is both added and dropped is there, `ALL` added is all but what is dropped, and `ALL` dropped is
/// nothing but what is added.
pub(super) fn of(spec: &ContainerSpec, held: CapabilitySet) -> Result<CapabilitySet, String> {
    let named = |names: &[String], what: &str| {
        names.iter().map(|name| plain(name)).try_fold(
            (CapabilitySet::empty(), false),
            |(set, all), name| match name.as_str() {
                ALL => Ok((set, true)),
                name => match by_name(name) {
                    Some(one) => Ok((set | one, all)),
                    None => Err(format!(
                        "invalid {what}: unknown capability: \"CAP_{name}\""
                    )),
                },
            },
        )
    };
    let (added, all_added) = named(&spec.capabilities_add, "CapAdd")?;
    let (dropped, all_dropped) = named(&spec.capabilities_drop, "CapDrop")?;
    if spec.privileged {
        return Ok(held);
    }
    if let Some((name, _)) = added.difference(held).iter_names().next() {
        return Err(format!(
            "capability CAP_{name} cannot be added: this agent does not have it itself"
        ));
    }
    let kept = match (all_added, all_dropped) {
        (true, _) => held.difference(dropped),
        (false, true) => CapabilitySet::empty(),
        (false, false) => (DEFAULT & held).difference(dropped),
    };
    Ok(kept | added)
}

/// What this process may give to others.
pub(super) fn held() -> std::io::Result<CapabilitySet> {
    let mine = rustix::thread::capabilities(None)?.permitted;
    // What left the bounding set cannot be had by a program that is executed.
    let bounded = (mine & EVERY)
        .iter()
        .filter(|one| rustix::thread::capability_is_in_bounding_set(*one).unwrap_or(false))
        .collect();
    Ok(bounded)
}

fn plain(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

fn by_name(name: &str) -> Option<CapabilitySet> {
    CapabilitySet::from_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(add: &[&str], drop: &[&str]) -> Result<CapabilitySet, String> {
        let mut spec = ContainerSpec::new("a".parse().unwrap(), "i");
        spec.capabilities_add = add.iter().map(|name| (*name).to_owned()).collect();
        spec.capabilities_drop = drop.iter().map(|name| (*name).to_owned()).collect();
        of(&spec, EVERY.difference(CapabilitySet::SYS_RESOURCE))
    }

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(asked(&[], &[]).unwrap().bits(), 0xa804_25fb);
    }

    #[test]
    fn names_are_added_and_dropped() {
        let net = asked(&["cap_net_admin"], &["MKNOD", "ALL"]).unwrap();
        assert_eq!(net, CapabilitySet::NET_ADMIN);
        assert!(
            !asked(&[], &["CAP_MKNOD"])
                .unwrap()
                .contains(CapabilitySet::MKNOD)
        );
        let most = asked(&["ALL"], &["SYS_ADMIN"]).unwrap();
        let missing = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_RESOURCE;
        assert_eq!(most, EVERY.difference(missing));
    }

    #[test]
    fn what_cannot_be_given_is_named() {
        assert!(asked(&["FLY"], &[]).unwrap_err().contains("\"CAP_FLY\""));
        assert!(asked(&[], &["FLY"]).unwrap_err().contains("CapDrop"));
        assert!(
            asked(&["SYS_RESOURCE"], &[])
                .unwrap_err()
                .contains("CAP_SYS_RESOURCE")
        );
    }
}
