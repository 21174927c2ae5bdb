//! A fuzz target for every parser that reads what a stranger sent, and what must hold of each.
//!
//! What always holds: a target takes any bytes and panics only where a law of its parser is broken. It
//! keeps nothing between two inputs and touches nothing outside its own temporary folder, so that an
//! input alone replays what it showed. Inputs of several parts are lines, so that people can write seeds.
//! What it leaves to others: which inputs to try (`main.rs` with libFuzzer, run by `cargo xtask fuzz`),
//! and the committed seeds (`seeds/`), which the tests run without libFuzzer.

#![forbid(unsafe_code)]

mod agent;
mod endpoints;
mod image;
mod logs;
mod names;
mod policies;
mod registry;
mod requests;
mod saml;
mod signatures;
mod task_definitions;
mod tokens;
mod web_tokens;

/// One parser, or several that must agree.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Longer inputs are not tried.
    pub bytes_max: usize,
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, bytes_max: usize, run: fn(&[u8])) -> Target {
    Target {
        name,
        bytes_max,
        run,
    }
}

/// Every target, in the order in which they run.
pub const TARGETS: &[Target] = &[
    target("json-requests", 4096, requests::json),
    target("query-requests", 4096, requests::query),
    target("error-answers", 1024, requests::answers),
    target("event-streams", 4096, requests::event_streams),
    target("timestamps", 64, requests::timestamps),
    target("hosts", 256, endpoints::hosts),
    target("sigv4-presented", 2048, signatures::presented),
    target("sigv4-round-trip", 2048, signatures::round_trip),
    target("names", 512, names::names),
    target("page-tokens", 512, tokens::pages),
    target("registry-tokens", 1024, tokens::registry),
    target("join-tokens", 1024, tokens::join),
    target("spool-tokens", 256, tokens::spool),
    target("acs-frames", 8192, agent::acs_frames),
    target("acs-session", 8192, agent::acs_session),
    target("tcs-frames", 8192, agent::tcs_frames),
    target("docker-configs", 4096, agent::docker_configs),
    target("task-plans", 8192, agent::task_plans),
    target("agent-core", 8192, agent::core),
    target("datetime-patterns", 512, agent::datetime_patterns),
    target("task-definitions", 8192, task_definitions::registered),
    target("run-requests", 4096, task_definitions::run_requests),
    target("placement-queries", 1024, task_definitions::queries),
    target("endpoint-paths", 512, endpoints::paths),
    target("image-references", 1024, image::references),
    target("image-manifests", 8192, image::manifests),
    target("image-configurations", 4096, image::configurations),
    target("image-users", 2048, image::users),
    target("challenges", 1024, image::challenges),
    target("tar-entries", 16 << 10, image::tar_entries),
    target("layers", 16 << 10, image::layers),
    target("compressed-layers", 16 << 10, image::compressed_layers),
    target("shim-frames", 4096, image::shim_frames),
    target("spool-records", 4096, image::spool_records),
    target("registry-routes", 1024, registry::routes),
    target("registry-ranges", 256, registry::ranges),
    target("registry-uploads", 512, registry::uploads),
    target("lifecycle-policies", 4096, registry::lifecycle_policies),
    target("filter-patterns", 2048, logs::filter_patterns),
    target("policy-documents", 4096, policies::documents),
    target("web-tokens", 4096, web_tokens::tokens),
    target("trust-policies", 4096, web_tokens::trust_policies),
    target("saml-responses", 8192, saml::responses),
    target("saml-metadata", 8192, saml::metadata),
];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The input as text; targets of parsers that take only text leave every other input.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The first line, and everything after it.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Whether two documents are the same but for the last digits of fractions, which a reader of JSON
/// may round.
fn same_but_for_rounding(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (one, other) {
        (Number(a), Number(b)) if a != b => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-12,
            _ => false,
        },
        (Array(a), Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_but_for_rounding(a, b))
        }
        (Object(a), Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, value)| {
                    b.get(name)
                        .is_some_and(|other| same_but_for_rounding(value, other))
                })
        }
        (one, other) => one == other,
    }
}
