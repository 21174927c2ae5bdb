//! The client's end of the agent protocol's sockets: a signed upgrade over the same connections.

use base64::Engine;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Client, ClientError, insert};
use crate::protocol::json;
use crate::server::RequestBody;
use crate::server::socket_config;
use crate::sigv4::push_encoded;

/// A client's end of a WebSocket.
pub type ClientSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

impl Client {
    /// Opens a WebSocket at `path` below the endpoint, signed for `ecs`. A refusal is the error
    /// that the service answered (`InactiveInstanceException`, say).
    pub async fn websocket(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<ClientSocket, ClientError> {
        let key = base64::engine::general_purpose::STANDARD.encode(self.env.entropy.bytes16());
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        insert(&mut headers, SEC_WEBSOCKET_KEY, &key)?;
        let query = encoded_query(query);
        let request = self
            .signed(Method::GET, path, &query, headers, Bytes::new(), "ecs")
            .await?;
        self.within_call(async {
            let response = self.send(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status().as_u16();
                let timeout = self.limits.stream_progress_timeout;
                let mut body = RequestBody::new(response.into_body(), self.env.clone(), timeout);
                let answer = body
                    .whole(self.limits.answer_bytes)
                    .await
                    .unwrap_or_default();
                return Err(ClientError::answered(json::read_error(status, &answer)));
            }
            let expected = derive_accept_key(key.as_bytes());
            let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
            if accept.is_none_or(|accept| accept.as_bytes() != expected.as_bytes()) {
                return Err(ClientError::unreadable("the peer does not speak WebSocket"));
            }
            let upgraded = hyper::upgrade::on(response)
                .await
                .map_err(|error| ClientError::unreachable(error.to_string()))?;
            let config = socket_config(self.limits.websocket_message_bytes);
            let io = TokioIo::new(upgraded);
            Ok(WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await)
        })
        .await
    }
}

fn encoded_query(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        push_encoded(&mut query, name.as_bytes());
        query.push('=');
        push_encoded(&mut query, value.as_bytes());
    }
    query
}
