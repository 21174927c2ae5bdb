//! What happened: the last lines of it for people, and a digest of all of it for comparison.

use std::collections::VecDeque;
use std::time::Duration;

const KEPT: usize = 60;

/// Printed unless the world came to its end.
#[derive(Debug)]
pub struct Trace {
    seed: u64,
    last: VecDeque<String>,
    digest: u64,
    pub events: u64,
    pub is_over: bool,
}

impl Trace {
    pub fn new(seed: u64) -> Self {
        // FNV-1a: what is compared comes from one program, so nobody wants to collide it.
        Self {
            seed,
            last: VecDeque::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            events: 0,
            is_over: false,
        }
    }

    pub fn note(&mut self, moment: Duration, line: String) {
        let line = format!("{:>12.6} {line}", moment.as_secs_f64());
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.events += 1;
        self.last.push_back(line);
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.is_over {
            for line in &self.last {
                eprintln!("{line}");
            }
            let seed = self.seed;
            eprintln!("world: seed {seed} failed; run again with WORLD_SEED={seed}");
        }
    }
}
