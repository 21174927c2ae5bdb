//! Pulls an image and says how many milliseconds that took, until it would outlive a power failure:
//! `cargo run --release -p gantry-runtime --example pull REFERENCE DATA_DIR`. Run as root.

#![allow(clippy::print_stdout, reason = "the time is the result")]

use std::path::Path;

use gantry_env::Env;
use gantry_runtime::{ImageStore, RegistryAccess};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [reference, data_dir] = &args[..] else {
        eprintln!("usage: pull REFERENCE DATA_DIR");
        std::process::exit(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let env = Env::real();
    let reference = reference.parse().expect("the name of an image");
    let from = env.monotonic();
    let store = ImageStore::open(Path::new(data_dir), env.clone()).expect("a store of images");
    runtime
        .block_on(store.pull(&reference, &RegistryAccess::default()))
        .expect("the pull");
    println!("{:.1}", (env.monotonic() - from).as_secs_f64() * 1_000.0);
}
