//! Calls a second over eight connections, against moto's server: the same calls, the same client.
//!
//! moto keeps everything in memory and verifies no signature; Gantry verifies each, and what it
//! registers is on disk before it answers.

use serde::Deserialize;

use super::Bench;
use super::installation::Installation;
use super::moto::Moto;
use super::report::{Report, median};
use crate::shell::{self, command, say};

const CONNECTIONS: &str = "8";
const SECONDS: &str = "4";
/// Rows in the store when many are.
const STORED_TASKS: usize = 5_000;
/// What is registered, again and again.
const FAMILY: &str = r#"{"family":"bench","networkMode":"host","containerDefinitions":[{"name":"a","image":"a:1","memory":16}]}"#;

/// What the load generator prints.
#[derive(Deserialize)]
struct Seen {
    per_second: f64,
    p50_ms: f64,
}

/// Someone to call: Gantry or moto.
struct Callee<'a> {
    bench: &'a Bench,
    endpoint: String,
    access_key_id: String,
    secret_access_key: String,
}

impl<'a> Callee<'a> {
    fn of(bench: &'a Bench, gantry: &Installation) -> anyhow::Result<Callee<'a>> {
        let exports = gantry.exports()?;
        let export = |name: &str| {
            let found = exports.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Ok(Callee {
            bench,
            endpoint: gantry.endpoint().to_owned(),
            access_key_id: export("AWS_ACCESS_KEY_ID"),
            secret_access_key: export("AWS_SECRET_ACCESS_KEY"),
        })
    }

    /// The call over eight connections for some seconds.
    fn call(&self, operation: &str, body: &str) -> anyhow::Result<Seen> {
        self.calls(
            operation,
            body,
            &["--connections", CONNECTIONS, "--seconds", SECONDS],
        )
    }

    fn calls(&self, operation: &str, body: &str, extent: &[&str]) -> anyhow::Result<Seen> {
        let mut load = command(self.bench.release.join("examples/calls"));
        load.args(["--endpoint", &self.endpoint])
            .args(extent)
            .args(["--operation", operation, "--body", body])
            .env("AWS_ACCESS_KEY_ID", &self.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_access_key);
        Ok(serde_json::from_str(&shell::output(&mut load)?)?)
    }
}

/// What is described: one task where there is no other, one and a hundred among five thousand.
struct Tasks {
    one: String,
    hundred: String,
}

impl Tasks {
    fn of(arns: &[String]) -> Tasks {
        let body = |arns: &[String]| serde_json::json!({ "tasks": arns }).to_string();
        Tasks {
            one: body(&arns[..1]),
            hundred: body(&arns[..arns.len().min(100)]),
        }
    }
}

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let moto = bench.peer("moto", || Moto::start(&bench.folder.join("moto")));
    let gantry = Installation::start(&bench.folder.join("api"), &bench.release)?;
    gantry.load(&["prepare"])?;
    let ours = Callee::of(bench, &gantry)?;
    let theirs = moto.as_ref().map(|moto| Callee {
        bench,
        endpoint: moto.endpoint().to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: "test".to_owned(),
    });
    let rounds = bench.rounds.div_ceil(5).max(3);

    say("DescribeTasks of the only task");
    let our_first = Tasks::of(&gantry_tasks(&gantry, 1)?);
    let their_first = theirs_of(&moto, &theirs, 1)?;
    let describe = compare(
        rounds,
        &ours,
        &theirs,
        "DescribeTasks",
        |whose| match whose {
            Whose::Ours => our_first.one.clone(),
            Whose::Theirs => first(&their_first),
        },
    )?;
    report.rates(
        "DescribeTasks of one, 8 connections, against moto",
        "/s",
        &describe.our_rates,
        &describe.their_rates,
        30.0,
    );
    say(&format!("DescribeTasks among {STORED_TASKS} tasks"));
    let our_many = Tasks::of(&gantry_tasks(&gantry, STORED_TASKS)?);
    let their_many = theirs_of(&moto, &theirs, STORED_TASKS)?;
    let hundred = compare(
        rounds,
        &ours,
        &theirs,
        "DescribeTasks",
        |whose| match whose {
            Whose::Ours => our_many.hundred.clone(),
            Whose::Theirs => their_many
                .as_ref()
                .map(|arns| Tasks::of(arns).hundred)
                .unwrap_or_default(),
        },
    )?;
    report.times(
        "DescribeTasks of 100 among 5,000, median of a call, against moto",
        &hundred.our_ms,
        &hundred.their_ms,
        25.0,
    );
    // In turns with another installation that still has but one: what the machine does meanwhile slows both.
    let other = Installation::start(&bench.folder.join("api-one"), &bench.release)?;
    other.load(&["prepare"])?;
    let alone = Callee::of(bench, &other)?;
    let only = Tasks::of(&gantry_tasks(&other, 1)?);
    let (mut among_one, mut among_many) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        among_one.push(alone.call("DescribeTasks", &only.one)?.p50_ms);
        among_many.push(ours.call("DescribeTasks", &our_many.one)?.p50_ms);
    }
    other.stop()?;
    report.at_most(
        "DescribeTasks of one among 5,000, as a multiple of that among 1",
        median(&among_many) / median(&among_one),
        "×",
        1.2,
    );

    say("RegisterTaskDefinition");
    let register = compare(rounds, &ours, &theirs, "RegisterTaskDefinition", |_| {
        FAMILY.to_owned()
    })?;
    report.rates(
        "RegisterTaskDefinition (durable here), 8 connections, against moto",
        "/s",
        &register.our_rates,
        &register.their_rates,
        10.0,
    );
    gantry.stop()
}

enum Whose {
    Ours,
    Theirs,
}

#[derive(Default)]
struct Compared {
    our_rates: Vec<f64>,
    our_ms: Vec<f64>,
    their_rates: Vec<f64>,
    their_ms: Vec<f64>,
}

/// The same operation of both, in turns.
fn compare(
    rounds: usize,
    ours: &Callee<'_>,
    theirs: &Option<Callee<'_>>,
    operation: &str,
    body: impl Fn(Whose) -> String,
) -> anyhow::Result<Compared> {
    let mut compared = Compared::default();
    for _ in 0..rounds {
        let seen = ours.call(operation, &body(Whose::Ours))?;
        compared.our_rates.push(seen.per_second);
        compared.our_ms.push(seen.p50_ms);
        if let Some(theirs) = theirs {
            let seen = theirs.call(operation, &body(Whose::Theirs))?;
            compared.their_rates.push(seen.per_second);
            compared.their_ms.push(seen.p50_ms);
        }
    }
    Ok(compared)
}

fn theirs_of(
    moto: &Option<Moto>,
    callee: &Option<Callee<'_>>,
    count: usize,
) -> anyhow::Result<Option<Vec<String>>> {
    let both = moto.as_ref().zip(callee.as_ref());
    both.map(|(moto, callee)| moto_tasks(moto, callee, count))
        .transpose()
}

fn first(arns: &Option<Vec<String>>) -> String {
    arns.as_ref()
        .map(|arns| Tasks::of(arns).one)
        .unwrap_or_default()
}

/// The ARNs of tasks that have run, so many of them made now.
fn gantry_tasks(gantry: &Installation, count: usize) -> anyhow::Result<Vec<String>> {
    match count {
        1 => gantry.load(&["one"])?,
        more => gantry.load(&["fill", "--count", &more.to_string()])?,
    };
    let listed = gantry.load(&["stopped"])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// The same at moto, where they are only rows.
fn moto_tasks(moto: &Moto, callee: &Callee<'_>, count: usize) -> anyhow::Result<Vec<String>> {
    moto.aws(&["ecs", "create-cluster"])?;
    moto.aws(&[
        "ecs",
        "register-task-definition",
        "--cli-input-json",
        FAMILY,
    ])?;
    let subnets = moto.aws(&["ec2", "describe-subnets"])?;
    let run = serde_json::json!({
        "taskDefinition": "bench",
        "launchType": "FARGATE",
        "count": count.min(10),
        "networkConfiguration": {
            "awsvpcConfiguration": { "subnets": [subnets["Subnets"][0]["SubnetId"]] }
        },
    });
    let calls = count.div_ceil(10).to_string();
    callee.calls(
        "RunTask",
        &run.to_string(),
        &["--connections", "1", "--calls", &calls],
    )?;
    let listed = moto.aws(&["ecs", "list-tasks"])?;
    let arns = listed["taskArns"].as_array().cloned().unwrap_or_default();
    anyhow::ensure!(arns.len() >= count, "moto has {} tasks", arns.len());
    Ok(arns
        .iter()
        .filter_map(|arn| Some(arn.as_str()?.to_owned()))
        .collect())
}
