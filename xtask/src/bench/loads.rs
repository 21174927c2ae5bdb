//! What is measured inside one process, by an example of the crate that it is about: placements
//! and log events. Each prints one object of JSON.

use anyhow::Context;
use serde_json::Value;

use super::Bench;
use super::report::Report;
use crate::shell::{self, command, say};

pub fn placements(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("50,000 placements on 5,000 container instances, each durable");
    let seen = example(bench, "placements", &["5000", "50000", "16"])?;
    report.at_least(
        "placements, each committed durably, 5,000 instances and 50,000 tasks",
        number(&seen, "/durable/placements_per_second")?,
        "/s",
        8_100.0,
    );
    for strategy in ["default", "binpack", "random"] {
        report.at_most(
            &format!("pure cost of a placement at 10,000 instances over 1,000, {strategy}"),
            number(&seen, &format!("/pure/{strategy}/ratio"))?,
            "×",
            2.0,
        );
    }
    Ok(())
}

pub fn logs(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("1 GiB of log events through PutLogEvents, then looked through");
    let seen = example(bench, "logs_load", &["1024"])?;
    report.at_least(
        "PutLogEvents, durable, messages for each core of processor time (client included)",
        number(&seen, "/put_mib_per_core_s")?,
        "MiB/s",
        20.0,
    );
    for (what, pointer) in [
        ("a rare word", "/filter_term_s"),
        ("a JSON selector", "/filter_json_s"),
        ("a regular expression", "/filter_regex_s"),
    ] {
        report.at_most(
            &format!("FilterLogEvents over 1 GiB, {what}"),
            number(&seen, pointer)?,
            "s",
            2.0,
        );
    }
    Ok(())
}

pub fn example(bench: &Bench, name: &str, words: &[&str]) -> anyhow::Result<Value> {
    let mut example = command(bench.release.join("examples").join(name));
    Ok(serde_json::from_str(&shell::output(example.args(words))?)?)
}

pub fn number(seen: &Value, pointer: &str) -> anyhow::Result<f64> {
    seen.pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("no number at {pointer} in {seen}"))
}
