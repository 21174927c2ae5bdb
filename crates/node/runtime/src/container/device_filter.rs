//! A cgroup's rules of devices on cgroup v2, where a small program stands in for v1's controller.
//!
//! What always holds: what no rule allows is refused; the program belongs to the cgroup and ends with it. libcontainer's own
//! would need libbpf and libelf for these few steps.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::devices::{Kind, Rule};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    code: u8,
    /// The target in the lower half, the source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// What the kernel asks about: `struct bpf_cgroup_dev_ctx`, at the address in register 1.
const ASKED: u8 = 1;
const KIND_AND_ACCESS_AT: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;
const KINDS: i32 = 0xffff;
const ACCESS_SHIFT: i32 = 16;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_NUMBER: u8 = 0x55;
const JUMP_UNLESS_EQUAL: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Where the program keeps what it compares.
const VERDICT: u8 = 0;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const COMMAND_LOAD: libc::c_long = 5;
const COMMAND_ATTACH: libc::c_long = 8;
const PROGRAM_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of cgroups above stay in force.
const ALLOW_MULTI: u32 = 2;

/// What `bpf` is given to load a program, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct LoadArguments {
    kind: u32,
    steps: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachArguments {
    cgroup: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Puts the rules in force for the cgroup of this folder.
pub(super) fn attach(cgroup: &Path, rules: &[Rule]) -> io::Result<()> {
    let steps = program(rules);
    let load = LoadArguments {
        kind: PROGRAM_CGROUP_DEVICE,
        steps: steps.len() as u32,
        program: steps.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        attach_type: ATTACH_CGROUP_DEVICE,
        ..LoadArguments::default()
    };
    // SAFETY: the kernel reads as many steps as are there, and a licence that ends with a NUL; both outlive the call.
    let program = unsafe { bpf(COMMAND_LOAD, &load) }?;
    // SAFETY: a descriptor that the kernel has just made, and nobody else's.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let cgroup = File::open(cgroup)?;
    let attach = AttachArguments {
        cgroup: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: two open descriptors.
    unsafe { bpf(COMMAND_ATTACH, &attach) }?;
    Ok(())
}

/// # Safety
/// The arguments must be those of the command, and what they point to must outlive the call.
unsafe fn bpf<T>(command: libc::c_long, arguments: &T) -> io::Result<i32> {
    // SAFETY: by this function's own contract.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(arguments),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn program(rules: &[Rule]) -> Vec<Step> {
    let step = |code, to: u8, from: u8, offset, immediate| Step {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    };
    let end = |verdict| {
        [
            step(MOVE_NUMBER, VERDICT, 0, 0, verdict),
            step(EXIT, 0, 0, 0, 0),
        ]
    };
    let mut steps = vec![
        step(LOAD_WORD, KIND, ASKED, KIND_AND_ACCESS_AT, 0),
        step(MOVE, ACCESS, KIND, 0, 0),
        step(AND, KIND, 0, 0, KINDS),
        step(SHIFT_RIGHT, ACCESS, 0, 0, ACCESS_SHIFT),
        step(LOAD_WORD, MAJOR, ASKED, MAJOR_AT, 0),
        step(LOAD_WORD, MINOR, ASKED, MINOR_AT, 0),
    ];
    for rule in rules {
        let kind = match rule.kind {
            Kind::Block => 1,
            Kind::Character => 2,
        };
        let mut checks = vec![
            step(JUMP_UNLESS_NUMBER, KIND, 0, 0, kind),
            // Nothing is asked for beyond what the rule gives.
            step(MOVE, SCRATCH, ACCESS, 0, 0),
            step(AND, SCRATCH, 0, 0, bits(&rule.access)),
            step(JUMP_UNLESS_EQUAL, SCRATCH, ACCESS, 0, 0),
        ];
        for (register, wanted) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(wanted) = wanted {
                checks.push(step(JUMP_UNLESS_NUMBER, register, 0, 0, wanted as i32));
            }
        }
        checks.extend(end(1));
        // What does not pass goes on after this rule.
        let length = checks.len();
        for (at, check) in checks.iter_mut().enumerate() {
            if matches!(check.code, JUMP_UNLESS_NUMBER | JUMP_UNLESS_EQUAL) {
                check.offset = (length - at - 1) as i16;
            }
        }
        steps.append(&mut checks);
    }
    steps.extend(end(0));
    steps
}

fn bits(access: &str) -> i32 {
    access.chars().fold(0, |bits, one| {
        bits | match one {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A cgroup v2 of this machine, also where v1 has the controllers; it goes with the test.
    struct Cgroup(std::path::PathBuf);

    impl Cgroup {
        fn new() -> Option<Self> {
            let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
            let root = roots.into_iter().find(|root| {
                root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists()
            })?;
            let folder = root.join(format!("gantry-device-filter-{}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            Some(Self(folder))
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn only_what_a_rule_allows_can_be_opened() {
        let Some(cgroup) = Cgroup::new() else {
            eprintln!("this machine has no cgroup v2");
            return;
        };
        let rule = |major, minor, access: &str| Rule {
            kind: Kind::Character,
            major: Some(major),
            minor: Some(minor),
            access: access.to_owned(),
        };
        attach(&cgroup.0, &[rule(1, 3, "rwm"), rule(1, 7, "r")]).unwrap();
        let script = "echo $$ > \"$0/cgroup.procs\"
            : < /dev/null && : > /dev/null && : < /dev/full || exit 1
            if : 2>&- > /dev/full; then exit 2; fi
            if : 2>&- < /dev/zero; then exit 3; fi
            if : 2>&- < /dev/urandom; then exit 4; fi
            exit 0";
        // A failed redirection ends dash, but not within a function's own shell.
        let script = script
            .replace("if : 2>&- ", "if (: ")
            .replace("; then exit", ") 2>&-; then exit");
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .arg(&cgroup.0)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0));
    }
}
