//! The program that the kernel runs on every system call of a container.
//!
//! What always holds: an architecture that is not expected ends the process; the rest is looked up by a
//! binary search over ranges of numbers, so a call costs about eight comparisons, and building it some microseconds.
//! What it leaves to others: what is allowed (`policy`).

use std::collections::BTreeMap;
use std::io;

use super::numbers::{Abi, NEWEST, numbers};
use super::policy::{Check, ENOSYS, EPERM, Verdict};

/// A filter, ready to be loaded.
#[derive(Debug, Clone)]
pub(in crate::container) struct Filter {
    program: Vec<libc::sock_filter>,
}

/// Where the kernel keeps what a filter looks at (`struct seccomp_data`, little-endian).
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_NOT_BELOW: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From a number to the next range's: one verdict.
type Range = (u32, Verdict);

impl Filter {
    /// Everything that is not named is refused; of two rules for a name the later counts.
    pub(super) fn new(abis: &[Abi], rules: &[(&'static str, Verdict)]) -> Self {
        let mut program = vec![step(LOAD, ARCHITECTURE_AT)];
        for abi in abis {
            let mut block = vec![step(LOAD, NUMBER_AT)];
            block.extend(search(&ranges(*abi, rules)));
            // The block may be longer than what a comparison can jump over.
            program.push(branch(JUMP_EQUAL, abi.audit(), 1, 0));
            program.push(step(JUMP, length(&block)));
            program.append(&mut block);
        }
        program.push(step(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
        Self { program }
    }

    /// Puts it in force for this process and whatever it becomes. Needs CAP_SYS_ADMIN or no_new_privs.
    pub(in crate::container) fn load(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: self.program.len() as u16,
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: the program outlives the call, which only reads it.
        let loaded = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &program as *const libc::sock_fprog,
            )
        };
        if loaded < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Every number has a range; neighbours with the same verdict are one.
fn ranges(abi: Abi, rules: &[(&'static str, Verdict)]) -> Vec<Range> {
    let numbers = numbers(abi);
    let verdicts: BTreeMap<u32, Verdict> = rules
        .iter()
        .filter_map(|(name, verdict)| Some((*numbers.get(name)?, *verdict)))
        .collect();
    let unnamed = |number| {
        if number > NEWEST {
            Verdict::Errno(ENOSYS)
        } else {
            Verdict::Errno(EPERM)
        }
    };
    let mut ranges: Vec<Range> = vec![(0, unnamed(0))];
    let mut from = |number: u32, verdict: Verdict| match ranges.last_mut() {
        Some((at, last)) if *at == number => *last = verdict,
        Some((_, last)) if *last == verdict => {}
        _ => ranges.push((number, verdict)),
    };
    let mut newest_is_passed = false;
    for (number, verdict) in &verdicts {
        if *number > NEWEST && !newest_is_passed {
            from(NEWEST + 1, unnamed(NEWEST + 1));
            newest_is_passed = true;
        }
        from(*number, *verdict);
        from(number + 1, unnamed(number + 1));
    }
    from(
        NEWEST.max(verdicts.last_key_value().map_or(0, |(last, _)| *last)) + 1,
        unnamed(u32::MAX),
    );
    ranges
}

/// Finds the range of the number that was loaded, and ends with its verdict.
fn search(ranges: &[Range]) -> Vec<libc::sock_filter> {
    if let [(_, verdict)] = ranges {
        return end(*verdict);
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let below_steps = search(below);
    let mut steps = match u8::try_from(below_steps.len()) {
        Ok(over) => vec![branch(JUMP_NOT_BELOW, above[0].0, over, 0)],
        Err(_) => vec![
            branch(JUMP_NOT_BELOW, above[0].0, 0, 1),
            step(JUMP, length(&below_steps)),
        ],
    };
    steps.extend(below_steps);
    steps.extend(search(above));
    steps
}

fn end(verdict: Verdict) -> Vec<libc::sock_filter> {
    let refused = step(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(EPERM));
    let allowed = step(RETURN, libc::SECCOMP_RET_ALLOW);
    let load = |argument: u8| step(LOAD, ARGUMENTS_AT + ARGUMENT_BYTES * u32::from(argument));
    match verdict {
        Verdict::Allow => vec![allowed],
        Verdict::Errno(errno) => vec![step(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(errno))],
        Verdict::AllowIf(Check::NoneOf { argument, bits }) => vec![
            load(argument),
            branch(JUMP_ANY_BIT, bits, 0, 1),
            refused,
            allowed,
        ],
        Verdict::AllowIf(Check::Not { argument, value }) => vec![
            load(argument),
            branch(JUMP_EQUAL, value, 0, 1),
            refused,
            allowed,
        ],
        Verdict::AllowIf(Check::OneOf { argument, values }) => {
            let mut steps = vec![load(argument)];
            for (at, value) in values.iter().enumerate() {
                let to_allowed = (values.len() - at) as u8;
                steps.push(branch(JUMP_EQUAL, *value, to_allowed, 0));
            }
            steps.extend([refused, allowed]);
            steps
        }
    }
}

fn step(code: u16, k: u32) -> libc::sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, over_if_true: u8, over_if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: over_if_true,
        jf: over_if_false,
        k,
    }
}

fn length(steps: &[libc::sock_filter]) -> u32 {
    steps.len() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::thread::CapabilitySet;

    use super::super::policy::{Kernel, rules};
    use super::*;

    /// What the kernel would do: a small interpreter of the few steps that are used.
    fn run(filter: &Filter, abi: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut value) = (0_usize, 0_u32);
        loop {
            let step = filter.program[at];
            at += 1;
            match step.code {
                LOAD if step.k == NUMBER_AT => value = number,
                LOAD if step.k == ARCHITECTURE_AT => value = abi,
                LOAD => {
                    value = arguments[((step.k - ARGUMENTS_AT) / ARGUMENT_BYTES) as usize] as u32
                }
                JUMP => at += step.k as usize,
                RETURN => return step.k,
                code => {
                    let holds = match code {
                        JUMP_EQUAL => value == step.k,
                        JUMP_NOT_BELOW => value >= step.k,
                        JUMP_ANY_BIT => value & step.k != 0,
                        other => panic!("unknown step {other}"),
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                }
            }
        }
    }

    const NEW: Kernel = Kernel { major: 6, minor: 1 };

    fn expected(
        rules: &[(&'static str, Verdict)],
        numbers: &BTreeMap<&'static str, u32>,
        at: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let verdict = rules
            .iter()
            .rev()
            .find(|(name, _)| numbers.get(name) == Some(&at))
            .map(|(_, verdict)| *verdict);
        let argument = |number: u8| arguments[usize::from(number)] as u32;
        let allowed = match verdict {
            None if at > NEWEST => return libc::SECCOMP_RET_ERRNO | u32::from(ENOSYS),
            None => false,
            Some(Verdict::Errno(errno)) => return libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Some(Verdict::Allow) => true,
            Some(Verdict::AllowIf(Check::NoneOf { argument: n, bits })) => argument(n) & bits == 0,
            Some(Verdict::AllowIf(Check::Not { argument: n, value })) => argument(n) != value,
            Some(Verdict::AllowIf(Check::OneOf {
                argument: n,
                values,
            })) => values.contains(&argument(n)),
        };
        if allowed {
            libc::SECCOMP_RET_ALLOW
        } else {
            libc::SECCOMP_RET_ERRNO | u32::from(EPERM)
        }
    }

    #[test]
    fn every_number_gets_the_verdict_of_its_rule() {
        for capabilities in [
            CapabilitySet::empty(),
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::all(),
        ] {
            let rules: Vec<_> = rules(capabilities, NEW).collect();
            for pair in [[Abi::X86_64, Abi::X86], [Abi::Aarch64, Abi::Arm]] {
                let filter = Filter::new(&pair, &rules);
                // The kernel takes 4096.
                assert!(filter.program.len() < 2048, "{}", filter.program.len());
                for abi in pair {
                    let numbers = numbers(abi);
                    let odd = [
                        NEWEST + 1,
                        0x3fff_ffff,
                        0x4000_0000,
                        0x4000_0001,
                        0xf_0005,
                        u32::MAX,
                    ];
                    for at in (0..=NEWEST).chain(odd) {
                        for first in [0, 8, 40, 0x1000_0000, 0x0200_0011, 0xffff_ffff] {
                            let arguments = [first, 0, 0, 0, 0, 0];
                            assert_eq!(
                                run(&filter, abi.audit(), at, arguments),
                                expected(&rules, &numbers, at, arguments),
                                "{abi:?} {at} {first:#x}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn another_architecture_ends_the_process() {
        let rules: Vec<_> = rules(CapabilitySet::all(), NEW).collect();
        let filter = Filter::new(&[Abi::X86_64, Abi::X86], &rules);
        assert_eq!(
            run(&filter, Abi::Arm.audit(), 1, [0; 6]),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }

    proptest! {
        #[test]
        fn any_rules_compile_to_what_they_say(
            picked in proptest::collection::vec((0..4_usize, any::<proptest::sample::Index>()), 0..200),
            at in 0..480_u32,
            first in any::<u64>(),
        ) {
            let all: Vec<_> = rules(CapabilitySet::all(), NEW).collect();
            let verdicts = [
                Verdict::Allow,
                Verdict::Errno(7),
                Verdict::AllowIf(Check::NoneOf { argument: 0, bits: 0x7e02_0000 }),
                Verdict::AllowIf(Check::Not { argument: 0, value: 40 }),
            ];
            let picked: Vec<_> =
                picked.iter().map(|(verdict, name)| (name.get(&all).0, verdicts[*verdict])).collect();
            let filter = Filter::new(&[Abi::X86_64, Abi::X86], &picked);
            let arguments = [first, 0, 0, 0, 0, 0];
            for abi in [Abi::X86_64, Abi::X86] {
                prop_assert_eq!(
                    run(&filter, abi.audit(), at, arguments),
                    expected(&picked, &numbers(abi), at, arguments)
                );
            }
        }
    }
}
