//! `gantry version`.

/// Prints the version on stdout.
#[expect(clippy::print_stdout, reason = "the version is this command's result")]
pub fn run() {
    println!("gantry {}", env!("CARGO_PKG_VERSION"));
}
