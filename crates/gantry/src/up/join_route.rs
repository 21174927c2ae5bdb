//! Joining: an agent exchanges its token for the key of a node, `POST /_gantry/join`.
//!
//! What always holds: whoever asks has nothing but the token, so this is the one thing of Gantry's own
//! that is not signed; a refusal says what is wrong with the token and nothing else.
//! What it leaves to others: what a token is worth (`gantry_iam::Nodes`).

use async_trait::async_trait;
use gantry_api::server::{RawRoute, RequestBody, RequestFacts, ResponseBody};
use gantry_iam::{JoinError, Nodes};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

pub const JOIN_PATH: &str = "/_gantry/join";
/// A token and a nonce are some hundred bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// What an agent sends.
#[derive(Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: String,
    /// In hexadecimal digits: what the agent drew to be known by when it asks again.
    pub nonce: String,
}

/// What it gets where it is refused.
#[derive(Serialize, Deserialize)]
pub struct JoinRefusal {
    pub message: String,
}

/// The route itself.
pub struct JoinRoute {
    nodes: Nodes,
}

impl JoinRoute {
    pub fn new(nodes: Nodes) -> JoinRoute {
        JoinRoute { nodes }
    }

    async fn join(&self, request: Request<RequestBody>) -> Result<String, (StatusCode, String)> {
        let bad = |message: &str| (StatusCode::BAD_REQUEST, message.to_owned());
        if request.method() != Method::POST {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "joining is a POST".to_owned(),
            ));
        }
        let mut body = request.into_body();
        let bytes = body
            .whole(BODY_BYTES_MAX)
            .await
            .map_err(|error| bad(&error.to_string()))?;
        let asked: JoinRequest = serde_json::from_slice(&bytes)
            .map_err(|error| bad(&format!("the request cannot be read: {error}")))?;
        let nonce = unhex(&asked.nonce)
            .ok_or_else(|| bad("the nonce is not a text of hexadecimal digits"))?;
        match self.nodes.join(&asked.token, &nonce).await {
            Ok(key) => {
                tracing::info!(node = key.node, cluster = %key.cluster, "a node joined");
                serde_json::to_string(&key).map_err(|error| bad(&error.to_string()))
            }
            Err(JoinError::Store(error)) => {
                tracing::error!(%error, "a node could not join");
                let message = "the join could not be written down; try again".to_owned();
                Err((StatusCode::INTERNAL_SERVER_ERROR, message))
            }
            Err(error @ JoinError::Nonce) => Err(bad(&error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "a node was refused");
                Err((StatusCode::FORBIDDEN, error.to_string()))
            }
        }
    }
}

#[async_trait]
impl RawRoute for JoinRoute {
    fn name(&self) -> &'static str {
        "join"
    }

    async fn handle(
        &self,
        request: Request<RequestBody>,
        _facts: RequestFacts,
    ) -> Response<ResponseBody> {
        let (status, text) = match self.join(request).await {
            Ok(text) => (StatusCode::OK, text),
            Err((status, message)) => {
                // One text always encodes.
                let refusal = serde_json::to_string(&JoinRefusal { message });
                (status, refusal.unwrap_or_default())
            }
        };
        let mut response = Response::new(ResponseBody::full(text));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 256 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn only_pairs_of_digits_are_bytes() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        for bad in ["0", "0g", "é", &"0".repeat(258)] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
