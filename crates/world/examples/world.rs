//! Runs the worlds of a range of seeds: `world FIRST COUNT`. The first that fails prints its seed.

use gantry_world::{Settings, run};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: world FIRST COUNT");
        std::process::exit(2);
    };
    for seed in first..first + count {
        eprintln!("{:?}", run(seed, &Settings::default()));
    }
}
