//! Questions to a running Gantry that are no AWS calls: a signed WebSocket that is answered in messages.

use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use gantry_api::client::Client;
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;
use tokio_tungstenite::tungstenite::Message;

use crate::cli::DataDirOption;
use crate::data_dir::DataDir;

/// Asks in the region of `named` if that is an ARN, otherwise in the installation's own, and gives every
/// message of the answer to `heard`.
pub fn ask(
    options: &DataDirOption,
    path: &str,
    named: &str,
    query: &[(&str, &str)],
    mut heard: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
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
        let mut socket = client.websocket(path, query).await?;
        loop {
            match socket
                .next()
                .await
                .context("Gantry closed the connection")??
            {
                Message::Text(text) => heard(&text)?,
                // Whoever has said all says so; a connection that just ends was cut off.
                Message::Close(_) => return Ok(()),
                _ => {}
            }
        }
    })
}
