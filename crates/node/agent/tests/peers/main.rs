//! Both cores of the agent protocol, talking to one another through everything that can go wrong.
//!
//! What always holds: a seed replays a run. The seed of a failure is in its message; a run with it
//! alone is `PEERS_SEED=n cargo nextest run -p gantry-agent --test peers`.
//! What it leaves to others: rows and transactions (the world has those).

mod chance;
mod node;
mod plane;
mod scene;

use scene::{Faults, Scene};

/// Enough to meet every pair of faults, and few enough for every run of the tests.
const SEEDS: u64 = 300;
const STEPS: u32 = 1_500;

fn seeds() -> Vec<u64> {
    match std::env::var("PEERS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => vec![seed],
        None => (0..SEEDS).collect(),
    }
}

#[test]
fn nothing_is_lost_doubled_or_forgotten_whatever_fails() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        for _ in 0..STEPS {
            scene.step(Faults::Everything);
        }
        scene.settle();
        scene.check_settled();
    }
}

#[test]
fn without_faults_every_task_runs_and_ends() {
    for seed in seeds().into_iter().take(50) {
        let mut scene = Scene::new(seed);
        for _ in 0..STEPS {
            scene.step(Faults::None);
        }
        scene.settle();
        scene.check_settled();
        scene.check_all_ran();
    }
}
