//! Why a task or a service is as it is, or was refused a place, for `gantry explain`: a signed WebSocket that says it in one message.
//!
//! It is a WebSocket because those are verified by SigV4 like every API call, and an explanation tells as much
//! as DescribeTasks does.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::SinkExt;
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext};
use gantry_ecs::explain::{self, PlacementFilter};
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

    /// What there is to say, or why there is nothing.
    fn explanation(
        &self,
        context: &RequestContext,
        query: &UpgradeQuery,
    ) -> Result<String, ApiError> {
        let scope = Scope::of(context);
        let snapshot = self.store.snapshot();
        if let Some(service) = query.get("service") {
            let cluster = query.get("cluster").map(String::as_str);
            let told = explain::service(&snapshot, &scope, cluster, service, context.now)?;
            return serde_json::to_string(&told).map_err(ApiError::internal);
        }
        let text = match (query.get("task"), query.get("placement")) {
            (Some(task), _) => {
                let explanation = explain::task(&snapshot, &scope, task, context.now).ok_or_else(|| refused(
                    "There is no such task here: it may be of another region, or it stopped longer ago than stopped tasks are kept.",
                ))?;
                serde_json::to_string(&explanation)
            }
            (None, Some(cluster)) => {
                let cluster = scope
                    .cluster(Some(cluster))
                    .map_err(|_| refused("That is not the name of a cluster."))?;
                let filter = PlacementFilter {
                    task_definition: query.get("taskDefinition").cloned(),
                    started_by: query.get("startedBy").cloned(),
                    group: query.get("group").cloned(),
                };
                let name = cluster.as_str();
                let found = explain::placements(&snapshot, &scope, name, &filter, context.now)
                    .ok_or_else(|| refused(&format!("There is no cluster {name} here.")))?;
                serde_json::to_string(&found)
            }
            (None, None) => {
                return Err(refused(
                    "Name a task, a service, or the cluster of a placement.",
                ));
            }
        };
        text.map_err(ApiError::internal)
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::sender("InvalidParameterException", why)
}

#[async_trait]
impl WebSocketRoute for ExplainRoute {
    fn name(&self) -> &'static str {
        "explain"
    }

    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        self.explanation(context, query).map(drop)
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, mut socket: ServerSocket) {
        let text = self.explanation(&context, &query).unwrap_or_default();
        // A caller that is gone wants no explanation any more.
        let _ = socket.send(Message::text(text)).await;
        let _ = socket.close(None).await;
    }
}
