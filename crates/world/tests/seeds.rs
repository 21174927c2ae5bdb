//! A hundred seeds, in parts that run side by side: sixty are worlds of tasks and forty of services, which take four times
//! as long; and one seed of each twice.
//!
//! `WORLD_SEED=17` runs both worlds of that one instead; `WORLD_SEEDS=5000` runs so many, from 1000 on, in the
//! first part.

use gantry_world::{Faults, Report, Settings, run};

/// So many of the ten parts are worlds of tasks.
const TASKS: u64 = 6;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is to be a number, not '{value}'")),
    )
}

fn part(of_ten: u64) {
    let seeds = match (number("WORLD_SEED"), number("WORLD_SEEDS")) {
        (Some(seed), _) if of_ten == 0 => seed..seed + 1,
        (None, Some(many)) if of_ten == 0 => 1_000..1_000 + many,
        (None, None) => of_ten * 10..of_ten * 10 + 10,
        _ => return,
    };
    let asked = number("WORLD_SEED").is_some() || number("WORLD_SEEDS").is_some();
    for seed in seeds {
        if asked || of_ten < TASKS {
            let report = run(seed, &Settings::default());
            assert_that_tasks_ran(&report);
            eprintln!("{report:?}");
        }
        if asked || of_ten >= TASKS {
            let report = run(seed, &Settings::services());
            assert_that_services_were_kept(&report);
            eprintln!("{report:?}");
        }
    }
}

/// A world in which nothing happens proves nothing.
fn assert_that_tasks_ran(report: &Report) {
    assert!(report.tasks > 60, "few tasks: {report:?}");
    assert!(report.ran * 2 > report.tasks, "few tasks ran: {report:?}");
    assert!(
        report.faults.values().sum::<u64>() > 50,
        "few faults: {report:?}"
    );
}

fn assert_that_services_were_kept(report: &Report) {
    assert!(report.services >= 3, "few services: {report:?}");
    assert!(report.completed >= 3, "few deployments: {report:?}");
    assert!(report.ran > 60, "few tasks ran: {report:?}");
    assert!(report.checks > 20, "few checks: {report:?}");
    assert!(
        report.faults.values().sum::<u64>() > 50,
        "few faults: {report:?}"
    );
}

macro_rules! parts {
    ($($name:ident = $part:literal),*) => { $(#[test] fn $name() { part($part); })* };
}

parts!(
    seeds_0_to_9 = 0,
    seeds_10_to_19 = 1,
    seeds_20_to_29 = 2,
    seeds_30_to_39 = 3,
    seeds_40_to_49 = 4,
    seeds_50_to_59 = 5,
    seeds_60_to_69 = 6,
    seeds_70_to_79 = 7,
    seeds_80_to_89 = 8,
    seeds_90_to_99 = 9
);

#[test]
fn one_seed_gives_one_history() {
    for settings in [Settings::default(), Settings::services()] {
        let first = run(7, &settings);
        assert_eq!(first, run(7, &settings));
        assert_ne!(first.digest, run(8, &settings).digest);
    }
}

#[test]
#[should_panic(expected = "is acknowledged and not on the disk")]
fn what_must_not_be_is_found() {
    let faults = Faults {
        disks_lie: true,
        ..Faults::default()
    };
    run(
        7,
        &Settings {
            faults,
            ..Settings::default()
        },
    );
}
