//! Why a task is as it is, for `gantry explain`: a signed WebSocket that says it in one message.
//!
//! It is a WebSocket because those are verified by SigV4 like every API call, and an explanation tells as much
//! as DescribeTasks does.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::SinkExt;
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext};
use gantry_ecs::explain;
use gantry_ecs::model::reference::Scope;
use gantry_store::Store;
use tokio_tungstenite::tungstenite::Message;

pub const EXPLAIN_PATH: &str = "/_gantry/explain/task";

/// The route itself.
pub struct ExplainRoute {
    store: Arc<dyn Store>,
}

impl ExplainRoute {
    pub fn new(store: Arc<dyn Store>) -> ExplainRoute {
        ExplainRoute { store }
    }

    fn explanation(
        &self,
        context: &RequestContext,
        query: &UpgradeQuery,
    ) -> Option<explain::Explanation> {
        let scope = Scope::of(context);
        let task = query.get("task")?;
        explain::task(&self.store.snapshot(), &scope, task, context.now)
    }
}

#[async_trait]
impl WebSocketRoute for ExplainRoute {
    fn name(&self) -> &'static str {
        "explain"
    }

    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        match self.explanation(context, query) {
            Some(_) => Ok(()),
            None => Err(ApiError::sender(
                "InvalidParameterException",
                "There is no such task here: it may be of another region, or it stopped more than an hour ago.",
            )),
        }
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, mut socket: ServerSocket) {
        let text = self
            .explanation(&context, &query)
            .and_then(|explanation| serde_json::to_string(&explanation).ok())
            .unwrap_or_default();
        // A caller that is gone wants no explanation any more.
        let _ = socket.send(Message::text(text)).await;
        let _ = socket.close(None).await;
    }
}
