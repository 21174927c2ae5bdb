//! `gantry token`: join tokens, with which agents on this and other machines join a cluster.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use gantry_api::client::Client;
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;

use crate::cli::{DataDirOption, TokenAction, TokenOptions};
use crate::data_dir::DataDir;
use crate::up::{TOKENS_PATH, TokensAnswer};

/// Asks the running Gantry and prints what it answers.
#[expect(clippy::print_stdout, reason = "the token is this command's result")]
pub fn run(options: &TokenOptions) -> anyhow::Result<()> {
    match &options.action {
        None => {
            let lifetime = lifetime(&options.expires)?.as_secs().to_string();
            let uses = options.uses.to_string();
            let query = [
                ("action", "create"),
                ("cluster", &options.cluster),
                ("lifetime_s", &lifetime),
                ("uses", &uses),
            ];
            if let TokensAnswer::Created { token, about } = ask(&options.data_dir, &query)? {
                println!("{token}");
                eprintln!(
                    "gantry: {} of cluster {}, for {} until {}; revoke it with: gantry token revoke {}",
                    about.id,
                    about.cluster,
                    nodes(about.uses),
                    about.expires_at,
                    about.id
                );
            }
        }
        Some(TokenAction::List(data_dir)) => {
            if let TokensAnswer::Tokens(tokens) = ask(data_dir, &[("action", "list")])? {
                for token in tokens {
                    let state = if token.revoked { "revoked" } else { "" };
                    println!(
                        "{}  {}  {}  used {} of {}  until {}  {state}",
                        token.id,
                        token.region,
                        token.cluster,
                        token.used,
                        token.uses,
                        token.expires_at
                    );
                }
            }
        }
        Some(TokenAction::Revoke {
            id,
            nodes: with_nodes,
            data_dir,
        }) => {
            let with_nodes = with_nodes.to_string();
            let query = [("action", "revoke"), ("id", id), ("nodes", &with_nodes)];
            if let TokensAnswer::Revoked { nodes: ended } = ask(data_dir, &query)? {
                println!(
                    "revoked {id} and the keys of {}",
                    nodes(u32::try_from(ended)?)
                );
            }
        }
    }
    Ok(())
}

fn nodes(count: u32) -> String {
    match count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    }
}

fn ask(options: &DataDirOption, query: &[(&str, &str)]) -> anyhow::Result<TokensAnswer> {
    let credentials = DataDir::read_root_credentials(&options.data_dir)?;
    let keys = SigningCredentials {
        access_key_id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        session_token: None,
    };
    let region = credentials.region.parse().context("the region")?;
    let client = Client::new(&credentials.endpoint, region, Arc::new(keys), Env::real())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let mut socket = client.websocket(TOKENS_PATH, query).await?;
        let message = socket
            .next()
            .await
            .context("Gantry closed the connection")??;
        anyhow::Ok(serde_json::from_str(message.to_text()?)?)
    })?;
    match answer {
        TokensAnswer::Refused { message } => bail!(message),
        answer => Ok(answer),
    }
}

/// `90s`, `30m`, `1h`, `7d`.
fn lifetime(text: &str) -> anyhow::Result<Duration> {
    let lifetime = crate::duration::parse(text)?;
    if lifetime.is_zero() || lifetime > gantry_iam::nodes::LONGEST_TOKEN_LIFETIME {
        bail!("a token is good for some time, and for at most 30 days");
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(lifetime("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(lifetime("1h").unwrap(), Duration::from_secs(3600));
        assert_eq!(lifetime("30d").unwrap(), Duration::from_secs(30 * 86_400));
        for bad in [
            "",
            "1",
            "h",
            "1y",
            "0s",
            "31d",
            "-1h",
            "1é",
            "99999999999999999d",
        ] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
