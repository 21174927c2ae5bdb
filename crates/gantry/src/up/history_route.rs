//! The history of a service for `gantry history`: a signed WebSocket that sends it in pages and closes.
//!
//! It tells as much as DescribeTasks and DescribeServices do, to whoever may sign for the account.

use async_trait::async_trait;
use futures_util::SinkExt;
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{ClusterName, ServiceName};
use gantry_ecs::history::History;
use gantry_ecs::model::reference::Scope;
use gantry_env::Timestamp;
use tokio_tungstenite::tungstenite::Message;

use crate::commands::history::Page;

pub const HISTORY_PATH: &str = "/_gantry/history/service";

/// The route itself.
pub struct HistoryRoute {
    history: History,
}

impl HistoryRoute {
    pub fn new(history: History) -> HistoryRoute {
        HistoryRoute { history }
    }

    fn named(scope: &Scope, query: &UpgradeQuery) -> Result<(ClusterName, ServiceName), ApiError> {
        let cluster = query.get("cluster").map(String::as_str);
        let service = query.get("service").map(String::as_str);
        Ok(scope.service_in(cluster, service.unwrap_or_default())?)
    }

    async fn send(
        &self,
        context: &RequestContext,
        query: &UpgradeQuery,
        socket: &mut ServerSocket,
    ) -> Result<(), String> {
        let scope = Scope::of(context);
        let (cluster, service) = Self::named(&scope, query).map_err(|error| error.message)?;
        let since = query.get("since").and_then(|text| text.parse().ok());
        let since = Timestamp::from_millis(since.unwrap_or(0));
        let mut from = Some(0);
        while let Some(offset) = from {
            let page = self
                .history
                .page(&scope, &cluster, &service, since, offset)
                .await;
            let (events, next) = page.map_err(|error| error.to_string())?;
            say(socket, &Page::Events(events)).await?;
            from = next;
        }
        Ok(())
    }
}

async fn say(socket: &mut ServerSocket, page: &Page) -> Result<(), String> {
    let text = serde_json::to_string(page).map_err(|error| error.to_string())?;
    let sent = socket.send(Message::text(text)).await;
    sent.map_err(|error| error.to_string())
}

#[async_trait]
impl WebSocketRoute for HistoryRoute {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        let scope = Scope::of(context);
        let (cluster, service) = Self::named(&scope, query)?;
        let known = self.history.is_known(&scope, &cluster, &service).await;
        if known.map_err(ApiError::internal)? {
            return Ok(());
        }
        let message = format!(
            "Nothing is known of a service {service} in cluster {cluster}, as far as the history goes back."
        );
        Err(ApiError::sender("ServiceNotFoundException", message))
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, mut socket: ServerSocket) {
        if let Err(why) = self.send(&context, &query, &mut socket).await {
            // A caller that is gone wants no history any more.
            let _ = say(&mut socket, &Page::Failed(why)).await;
        }
        let _ = socket.close(None).await;
    }
}
