//! Join tokens for `gantry token`: a signed WebSocket that answers in one message.
//!
//! What always holds: only the root of the account makes, lists and revokes them, because a token lets a
//! machine in.
//! What it leaves to others: what a token is worth (`gantry_iam::Nodes`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::SinkExt;
use gantry_api::ecs::{DescribeClustersRequest, Ecs};
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext, auth};
use gantry_arn::ClusterName;
use gantry_iam::{JoinToken, Nodes};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

pub const TOKENS_PATH: &str = "/_gantry/tokens";

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TokensAnswer {
    Created { token: String, about: JoinToken },
    Tokens(Vec<JoinToken>),
    Revoked { nodes: usize },
    Refused { message: String },
}

/// The route itself.
pub struct TokensRoute {
    nodes: Nodes,
    ecs: Arc<dyn Ecs>,
}

impl TokensRoute {
    pub fn new(nodes: Nodes, ecs: Arc<dyn Ecs>) -> TokensRoute {
        TokensRoute { nodes, ecs }
    }

    async fn answer(&self, context: &RequestContext, query: &UpgradeQuery) -> TokensAnswer {
        let word = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let done = match word("action") {
            "create" => self.create(context, query).await,
            "list" => Ok(TokensAnswer::Tokens(self.nodes.tokens())),
            "revoke" => self.revoke(word("id"), word("nodes") == "true").await,
            other => Err(format!("'{other}' is nothing that can be done with tokens")),
        };
        done.unwrap_or_else(|message| TokensAnswer::Refused { message })
    }

    async fn create(
        &self,
        context: &RequestContext,
        query: &UpgradeQuery,
    ) -> Result<TokensAnswer, String> {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        let name = query.get("cluster").cloned().unwrap_or_default();
        let cluster: ClusterName = name
            .parse()
            .map_err(|_| format!("'{name}' is not the name of a cluster"))?;
        let request = DescribeClustersRequest {
            clusters: Some(vec![name.clone()]),
            ..DescribeClustersRequest::default()
        };
        let described = self.ecs.describe_clusters(context, request).await;
        let clusters = described
            .map_err(|error| error.to_string())?
            .clusters
            .unwrap_or_default();
        if !clusters
            .iter()
            .any(|cluster| cluster.status.as_deref() == Some("ACTIVE"))
        {
            return Err(format!(
                "there is no cluster {name} in {}; `aws ecs create-cluster --cluster-name {name}` makes it",
                context.region
            ));
        }
        let lifetime =
            number("lifetime_s").map_or(gantry_iam::nodes::TOKEN_LIFETIME, Duration::from_secs);
        let uses = number("uses")
            .and_then(|uses| u32::try_from(uses).ok())
            .unwrap_or(1)
            .max(1);
        let place = (context.account, context.region.clone(), cluster);
        let created = self.nodes.create_token(place, lifetime, uses).await;
        let (token, about) = created.map_err(|error| error.to_string())?;
        Ok(TokensAnswer::Created { token, about })
    }

    async fn revoke(&self, id: &str, with_nodes: bool) -> Result<TokensAnswer, String> {
        let revoked = self.nodes.revoke(id, with_nodes).await;
        match revoked.map_err(|error| error.to_string())? {
            Some(nodes) => Ok(TokensAnswer::Revoked { nodes }),
            None => Err(format!(
                "there is no token {id}; `gantry token list` shows those there are"
            )),
        }
    }
}

#[async_trait]
impl WebSocketRoute for TokensRoute {
    fn name(&self) -> &'static str {
        "tokens"
    }

    async fn admit(&self, context: &RequestContext, _query: &UpgradeQuery) -> Result<(), ApiError> {
        let root = auth::root_principal(context.account, "");
        if context.principal.arn == root.arn {
            return Ok(());
        }
        Err(ApiError::sender(
            "AccessDeniedException",
            format!(
                "User: {} is not the root of the account, who alone makes join tokens",
                context.principal.arn
            ),
        ))
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, mut socket: ServerSocket) {
        let answer = self.answer(&context, &query).await;
        let text = serde_json::to_string(&answer).unwrap_or_default();
        // A caller that is gone wants no answer any more.
        let _ = socket.send(Message::text(text)).await;
        let _ = socket.close(None).await;
    }
}
