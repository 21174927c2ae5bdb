//! How long attaching and detaching containers takes. Run it as root, in a network namespace of its own:
//! `unshare --net --mount target/release/examples/attachments 200`.
#![allow(clippy::print_stdout, reason = "the figures are the result")]
#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::time::{Duration, Instant};

use gantry_network::{Network, Options, PortRequest, Protocol};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 100,
    };
    let dir = std::env::temp_dir().join(format!("gantry-measure-{}", std::process::id()));
    let installation = format!("{:08x}", std::process::id()).parse()?;
    let network = Network::open(Options::new(installation, &dir))?;
    let request = vec![PortRequest {
        container_port: 80,
        host_port: None,
        protocol: Protocol::Tcp,
    }]
    .into();
    let timed = |what: &str, run: &dyn Fn(u32) -> Result<(), gantry_network::NetworkError>| {
        let mut times = Vec::new();
        for n in 0..count {
            let start = Instant::now();
            run(n)?;
            times.push(start.elapsed());
        }
        // The first one sets up what all of them share.
        let first = times.remove(0);
        times.sort();
        let at = |part: usize| times.get(times.len() * part / 100).copied();
        let total: Duration = times.iter().sum();
        println!(
            "{what}: first {first:?}, median {:?}, p95 {:?}, mean {:?} of {count}",
            at(50).unwrap_or_default(),
            at(95).unwrap_or_default(),
            total / count.max(2).saturating_sub(1),
        );
        Ok::<_, gantry_network::NetworkError>(())
    };
    let task = |n: u32| format!("{n:032x}").parse().expect("an id of 32 digits");
    timed("attach", &|n| {
        network.attach(task(n), "web", &request).map(drop)
    })?;
    timed("attach again", &|n| {
        network.attach(task(n), "web", &request).map(drop)
    })?;
    timed("detach", &|n| network.detach_task(task(n)))?;
    drop(network);
    let installation = format!("{:08x}", std::process::id()).parse()?;
    println!("{:?}", gantry_network::cleanup(&installation, &dir)?);
    Ok(())
}
