//! The Gantry binary.
fn main() {}
