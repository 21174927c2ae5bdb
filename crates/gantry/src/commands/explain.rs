//! `gantry explain task`: why a task is pending, or why it stopped.

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
    let credentials = DataDir::read_root_credentials(&options.data_dir)?;
    let keys = SigningCredentials {
        access_key_id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        session_token: None,
    };
    // A task's ARN says its region; an id is of the installation's own.
    let region = id
        .split(':')
        .nth(3)
        .unwrap_or(&credentials.region)
        .parse()
        .context("the region of the ARN")?;
    let client = Client::new(&credentials.endpoint, region, Arc::new(keys), Env::real())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explanation: Explanation = runtime.block_on(async {
        let mut socket = client.websocket(PATH, &[("task", id)]).await?;
        let message = socket
            .next()
            .await
            .context("Gantry closed the connection")??;
        anyhow::Ok(serde_json::from_str(message.to_text()?)?)
    })?;
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
