//! `gantry doctor`: what this machine lacks to run containers, and how to get it.

use anyhow::bail;

/// Prints one line a requirement; fails if one is not met.
#[expect(
    clippy::print_stdout,
    reason = "the findings are this command's result"
)]
pub fn run() -> anyhow::Result<()> {
    let mut lacking = 0;
    let runtime = gantry_runtime::requirements().into_iter();
    let network = gantry_network::requirements().into_iter();
    let all = runtime
        .map(|need| (need.what, need.is_met, need.how_to_get_it))
        .chain(network.map(|need| (need.what, need.is_met, need.how_to_get_it)));
    for (what, is_met, how_to_get_it) in all {
        if is_met {
            println!("ok       {what}");
        } else {
            lacking += 1;
            println!("lacking  {what}: {how_to_get_it}");
        }
    }
    if lacking > 0 {
        bail!("this machine lacks {lacking} of what containers need");
    }
    println!("\nThis machine can run containers.");
    Ok(())
}
