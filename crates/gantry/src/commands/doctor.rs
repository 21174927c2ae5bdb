//! `gantry doctor`: what this machine lacks to run containers, and how to get it.

use anyhow::bail;

/// Prints one line a requirement; fails if one is not met.
#[expect(
    clippy::print_stdout,
    reason = "the findings are this command's result"
)]
pub fn run() -> anyhow::Result<()> {
    let mut lacking = 0;
    for requirement in gantry_runtime::requirements() {
        if requirement.is_met {
            println!("ok       {}", requirement.what);
        } else {
            lacking += 1;
            println!(
                "lacking  {}: {}",
                requirement.what, requirement.how_to_get_it
            );
        }
    }
    if lacking > 0 {
        bail!("this machine lacks {lacking} of what containers need");
    }
    println!("\nThis machine can run containers.");
    Ok(())
}
