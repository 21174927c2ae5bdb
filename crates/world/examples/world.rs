//! Runs the worlds of a range of seeds: `world FIRST COUNT`. Each seed plays one of tasks and one of services.
//! The first that fails prints its seed.

use gantry_world::{Settings, run};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: world FIRST COUNT");
        std::process::exit(2);
    };
    for seed in first..first + count {
        for settings in [Settings::default(), Settings::services()] {
            eprintln!("{:?}", run(seed, &settings));
        }
    }
}
