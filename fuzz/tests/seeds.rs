//! Every committed seed through its target, so that what was found once stays fixed without libFuzzer.

use std::collections::BTreeSet;
use std::path::Path;

use gantry_fuzz::TARGETS;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds"))
}

#[test]
fn every_target_has_a_folder_of_seeds_and_every_folder_a_target() {
    let folders: BTreeSet<String> = folder()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let targets = TARGETS.iter().map(|target| target.name.to_owned());
    assert_eq!(folders, targets.collect());
}

#[test]
fn no_committed_seed_breaks_a_law() {
    for target in TARGETS {
        let mut seeds = 0;
        for entry in folder().join(target.name).read_dir().unwrap() {
            let path = entry.unwrap().path();
            // The last one that is named is the one that failed.
            eprintln!("{}", path.display());
            let seed = std::fs::read(&path).unwrap();
            assert!(seed.len() <= target.bytes_max, "it is never tried");
            (target.run)(&seed);
            seeds += 1;
        }
        assert!(seeds > 0, "{} has no seed", target.name);
    }
}
