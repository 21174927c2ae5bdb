//! `gantry explain`: why a task is pending, why it stopped, and why tasks found no place.

use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use gantry_api::client::Client;
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;
use serde::Deserialize;

use crate::cli::DataDirOption;
use crate::data_dir::DataDir;

const PATH: &str = "/_gantry/explain/task";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    task_arn: String,
    last_status: String,
    desired_status: String,
    sentences: Vec<String>,
}

/// Asks the running Gantry and prints its sentences.
#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
pub fn task(id: &str, options: &DataDirOption) -> anyhow::Result<()> {
    // A task's ARN says its region; an id is of the installation's own.
    let explanation: Explanation =
        serde_json::from_str(&ask(options, id, &[("task", id)])?).context("the explanation")?;
    println!("{}", explanation.task_arn);
    println!(
        "last status {}, desired status {}",
        explanation.last_status, explanation.desired_status
    );
    for sentence in explanation.sentences {
        println!("- {sentence}");
    }
    Ok(())
}

/// Which refused placements are asked for.
pub struct Refused {
    pub cluster: String,
    pub task_definition: Option<String>,
    pub started_by: Option<String>,
    pub group: Option<String>,
}

/// Asks the running Gantry why tasks found no place, and prints its sentences.
#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
pub fn placement(refused: &Refused, options: &DataDirOption) -> anyhow::Result<()> {
    let mut query = vec![("placement", refused.cluster.as_str())];
    let members = [
        ("taskDefinition", &refused.task_definition),
        ("startedBy", &refused.started_by),
        ("group", &refused.group),
    ];
    for (name, value) in members {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let sentences: Vec<String> = serde_json::from_str(&ask(options, &refused.cluster, &query)?)
        .context("the explanation")?;
    if sentences.is_empty() {
        println!("No such placement was refused, as far as they are kept.");
    }
    for sentence in sentences {
        println!("- {sentence}");
    }
    Ok(())
}

/// One question, of the region of `named` if that is an ARN, and what is answered.
fn ask(options: &DataDirOption, named: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
    let credentials = DataDir::read_root_credentials(&options.data_dir)?;
    let keys = SigningCredentials {
        access_key_id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        session_token: None,
    };
    let region = named
        .split(':')
        .nth(3)
        .unwrap_or(&credentials.region)
        .parse()
        .context("the region of the ARN")?;
    let client = Client::new(&credentials.endpoint, region, Arc::new(keys), Env::real())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut socket = client.websocket(PATH, query).await?;
        let message = socket
            .next()
            .await
            .context("Gantry closed the connection")??;
        Ok(message.to_text()?.to_owned())
    })
}
