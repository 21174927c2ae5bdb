//! A copy of the rows of ECS for `gantry rehearse`: a signed WebSocket that sends them and closes.
//!
//! What always holds: all rows are of one revision. Only the root of the account gets them, because task
//! definitions may hold what their owners keep to themselves.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::SinkExt;
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext, auth};
use gantry_ecs::model::reference::Scope;
use gantry_store::Store;
use gantry_world::rehearsal::CopiedRow;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

pub const ROWS_PATH: &str = "/_gantry/rows/ecs";

/// About how many bytes of rows one message has: far less than a socket takes.
const MESSAGE_BYTES: usize = 256 * 1024;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RowsAnswer {
    /// The first: whose they are, and what time it is.
    Of {
        account: String,
        region: String,
        now_ms: i64,
    },
    Rows(Vec<CopiedRow>),
    /// The last. Whoever did not get it does not have all.
    End,
}

/// The route itself.
pub struct RowsRoute {
    store: Arc<dyn Store>,
}

impl RowsRoute {
    pub fn new(store: Arc<dyn Store>) -> RowsRoute {
        RowsRoute { store }
    }

    async fn send(
        &self,
        context: &RequestContext,
        socket: &mut ServerSocket,
    ) -> anyhow::Result<()> {
        let scope = Scope::of(context);
        let of = RowsAnswer::Of {
            account: scope.account.to_string(),
            region: scope.region.to_string(),
            now_ms: context.now.as_millis(),
        };
        say(socket, &of).await?;
        let rows: Vec<CopiedRow> = CopiedRow::all(&self.store.snapshot(), &scope);
        let (mut some, mut bytes) = (Vec::new(), 0);
        for row in rows {
            bytes += row.name.len() + row.value.len();
            some.push(row);
            if bytes >= MESSAGE_BYTES {
                say(socket, &RowsAnswer::Rows(std::mem::take(&mut some))).await?;
                bytes = 0;
            }
        }
        say(socket, &RowsAnswer::Rows(some)).await?;
        say(socket, &RowsAnswer::End).await
    }
}

async fn say(socket: &mut ServerSocket, answer: &RowsAnswer) -> anyhow::Result<()> {
    let text = serde_json::to_string(answer)?;
    Ok(socket.send(Message::text(text)).await?)
}

#[async_trait]
impl WebSocketRoute for RowsRoute {
    fn name(&self) -> &'static str {
        "rows"
    }

    async fn admit(&self, context: &RequestContext, _query: &UpgradeQuery) -> Result<(), ApiError> {
        let root = auth::root_principal(context.account, "");
        if context.principal.arn == root.arn {
            return Ok(());
        }
        let message = format!(
            "User: {} is not the root of the account, who alone may copy its state",
            context.principal.arn
        );
        Err(ApiError::sender("AccessDeniedException", message))
    }

    async fn serve(&self, context: RequestContext, _query: UpgradeQuery, mut socket: ServerSocket) {
        // A caller that is gone wants no rows any more.
        let _ = self.send(&context, &mut socket).await;
        let _ = socket.close(None).await;
    }
}
