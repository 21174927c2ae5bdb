//! The seccomp filter of a container: an allow list as tight as Docker's default profile.
//!
//! What always holds: it depends on nothing but the container's capabilities and the kernel's version. It is
//! compiled here rather than by libseccomp, because that takes longer than everything else about a start and does not know
//! the kernel's newest calls. What it leaves to others: putting it in force at the right moment (`confinement`).

mod filter;
mod numbers;
mod policy;

pub(super) use filter::Filter;
use rustix::thread::CapabilitySet;

/// The filter for a container with these capabilities on this machine.
pub(super) fn filter(capabilities: CapabilitySet) -> Filter {
    let rules: Vec<_> = policy::rules(capabilities, kernel()).collect();
    Filter::new(&numbers::Abi::HERE, &rules)
}

/// This kernel's version; a version that cannot be read counts as old.
fn kernel() -> policy::Kernel {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    policy::Kernel {
        major: parts.next().unwrap_or(0),
        minor: parts.next().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::policy::{Check, Kernel, Verdict, rules};
    use super::*;

    fn verdict(name: &str, capabilities: CapabilitySet, kernel: Kernel) -> Option<Verdict> {
        let found: Vec<_> = rules(capabilities, kernel)
            .filter(|rule| rule.0 == name)
            .collect();
        found.last().map(|rule| rule.1)
    }

    const NEW: Kernel = Kernel { major: 6, minor: 1 };

    #[test]
    fn capabilities_open_what_they_are_for() {
        let none = CapabilitySet::empty();
        for (name, capability) in [
            ("mount", CapabilitySet::SYS_ADMIN),
            ("clone3", CapabilitySet::SYS_ADMIN),
            ("chroot", CapabilitySet::SYS_CHROOT),
            ("init_module", CapabilitySet::SYS_MODULE),
            ("bpf", CapabilitySet::BPF),
            ("settimeofday", CapabilitySet::SYS_TIME),
            ("open_by_handle_at", CapabilitySet::DAC_READ_SEARCH),
        ] {
            assert_ne!(verdict(name, none, NEW), Some(Verdict::Allow), "{name}");
            assert_eq!(
                verdict(name, capability, NEW),
                Some(Verdict::Allow),
                "{name}"
            );
        }
        let clone = verdict("clone", none, NEW);
        assert!(matches!(
            clone,
            Some(Verdict::AllowIf(Check::NoneOf { .. }))
        ));
    }

    #[test]
    fn some_calls_are_nobodys() {
        for name in [
            "io_uring_setup",
            "userfaultfd",
            "kexec_load",
            "keyctl",
            "swapon",
            "pivot_root",
        ] {
            assert_eq!(verdict(name, CapabilitySet::all(), NEW), None, "{name}");
        }
    }

    #[test]
    fn an_old_kernel_does_not_trace() {
        let old = Kernel { major: 4, minor: 4 };
        assert_eq!(verdict("ptrace", CapabilitySet::empty(), old), None);
        assert_eq!(
            verdict("ptrace", CapabilitySet::SYS_PTRACE, old),
            Some(Verdict::Allow)
        );
        assert_eq!(
            verdict("ptrace", CapabilitySet::empty(), NEW),
            Some(Verdict::Allow)
        );
        assert!(kernel() > Kernel { major: 4, minor: 0 });
    }
}
