//! The program that libFuzzer drives: one for all targets, so that there is one to build. Which target
//! it runs, `GANTRY_FUZZ_TARGET` says.
//!
//! What always holds: an input that takes longer than a second, three times in a row, is a failure like
//! a panic. A busy machine alone is not one.

#![no_main]
#![allow(
    unsafe_code,
    reason = "libfuzzer-sys' macro exports the function that libFuzzer calls"
)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gantry_fuzz::{TARGETS, Target, find};

const LONGEST: Duration = Duration::from_secs(1);

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("GANTRY_FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!(
                "GANTRY_FUZZ_TARGET names no target; there are: {}",
                names.join(" ")
            );
            std::process::exit(2);
        })
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "how long a parser takes is measured in real time"
)]
fn takes_too_long(target: &Target, data: &[u8]) -> bool {
    let begun = Instant::now();
    (target.run)(data);
    begun.elapsed() > LONGEST
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = chosen();
    if data.len() <= target.bytes_max
        && takes_too_long(target, data)
        && takes_too_long(target, data)
        && takes_too_long(target, data)
    {
        panic!("this input takes more than {LONGEST:?}");
    }
});
