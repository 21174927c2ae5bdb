//! The protocols of AWS: how a request names its operation, and how values look on the wire.
//!
//! A protocol is chosen per request, never per service, because one service may arrive in
//! several. Each protocol is one file that implements [`Protocol`]; values go through the
//! schema-driven reader and writer of that file and know no service. What cannot be recognised
//! as a request to a known service is answered in the protocol that it comes closest to.

pub mod form;
pub mod json;
pub mod query;
pub mod timestamp;
pub mod xml;

use bytes::Bytes;
use http::request::Parts;

use crate::error::ApiError;
use crate::event_stream::{self, EventStream};
use crate::generated;
use crate::read::Missing;
use crate::schema::Schema;
use crate::service::{OperationModel, ServiceModel};
use crate::shape::Structure;

/// One way of putting requests and answers into HTTP.
pub trait Protocol: Send + Sync {
    /// As models name it: `json`, `query`.
    fn name(&self) -> &'static str;

    /// Fills the input of an operation. Members that are required and did not come are
    /// returned, because each service words that error in its own way.
    fn read_request(
        &self,
        operation: &OperationModel,
        parts: &Parts,
        body: &Bytes,
        input: &mut dyn Structure,
    ) -> Result<Vec<Missing>, ApiError>;

    fn write_response(
        &self,
        service: &ServiceModel,
        operation: &OperationModel,
        output: &dyn Structure,
        request_id: &str,
    ) -> Reply;

    fn write_error(
        &self,
        service: Option<&ServiceModel>,
        error: &ApiError,
        request_id: &str,
    ) -> Reply;

    /// An operation that no model has, in the words of this protocol.
    fn unknown_operation(&self, operation: &str, version: &str) -> ApiError;
}

impl std::fmt::Debug for dyn Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A whole HTTP answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// Sent in place of the body, for as long as it goes on.
    pub events: Option<EventStream>,
}

impl Reply {
    /// An answer that is a stream of events.
    pub fn of_events(events: &EventStream) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", event_stream::CONTENT_TYPE.to_owned())],
            body: Bytes::new(),
            events: Some(events.clone()),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Which operation of which service a request asks for, and in which protocol.
#[derive(Clone, Debug)]
pub struct Call {
    pub service: &'static ServiceModel,
    /// As the caller wrote it: it may be one that is not built or does not exist.
    pub operation: String,
    pub protocol: &'static dyn Protocol,
}

/// A request whose operation cannot be found out.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub protocol: &'static dyn Protocol,
    pub error: ApiError,
}

impl Rejection {
    pub fn reply(&self, request_id: &str) -> Reply {
        self.protocol.write_error(None, &self.error, request_id)
    }
}

/// Finds the service, operation and protocol of a request. `scope` is the service of its SigV4
/// scope, which tells services of the same API version apart.
pub fn detect(parts: &Parts, body: &[u8], scope: Option<&str>) -> Result<Call, Rejection> {
    if let Some(target) = parts.headers.get("x-amz-target") {
        return json::detect(target.to_str().unwrap_or_default(), content_type(parts));
    }
    if content_type(parts).contains("json") {
        return Err(Rejection {
            protocol: &json::JSON_1_1,
            error: ApiError::unknown_operation(),
        });
    }
    query::detect(parts, body, scope)
}

/// The media type, without its parameters.
pub(crate) fn content_type(parts: &Parts) -> &str {
    parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// The model of a service by its generated name.
pub fn model(name: &str) -> Option<&'static ServiceModel> {
    generated::MODELS
        .iter()
        .copied()
        .find(|model| model.name == name)
}

/// An operation's input or output that has no members.
pub static UNIT: Schema = Schema::structure("Unit", &[]);
