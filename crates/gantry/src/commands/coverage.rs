//! `gantry coverage`: which operations of each service are built.

use anyhow::bail;
use gantry_api::Coverage;

/// Prints the table on stdout; with `all`, every operation by name.
#[expect(clippy::print_stdout, reason = "the table is this command's result")]
pub fn run(service: Option<&str>, all: bool) -> anyhow::Result<()> {
    let table: Vec<Coverage> = gantry_api::coverage()
        .into_iter()
        .filter(|coverage| service.is_none_or(|name| coverage.service == name))
        .collect();
    if table.is_empty() {
        let known: Vec<&str> = gantry_api::coverage()
            .iter()
            .map(|coverage| coverage.service)
            .collect();
        bail!(
            "no service is called {:?} here; there are {}",
            service.unwrap_or_default(),
            known.join(", ")
        );
    }
    println!("{:<8} {:>5} {:>9}  of AWS", "service", "built", "not built");
    for coverage in &table {
        let (built, not_built) = (coverage.built.len(), coverage.not_built.len());
        println!(
            "{:<8} {built:>5} {not_built:>9}  {}",
            coverage.service, coverage.full_name
        );
    }
    if all {
        for coverage in &table {
            println!("\n{}", coverage.full_name);
            for operation in &coverage.built {
                println!("  built      {operation}");
            }
            for operation in coverage.not_built {
                match gantry_api::refusals::reason(coverage.service, operation) {
                    Some(reason) => println!("  not built  {operation}: {reason}"),
                    None => println!("  not built  {operation}"),
                }
            }
        }
    } else {
        println!(
            "\n`gantry coverage --all` names every operation. One that is not built answers with an error that names it."
        );
    }
    Ok(())
}
