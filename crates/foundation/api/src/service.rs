//! A service as the server sees it: its model, and a table of operations that can be called.
//!
//! Generated modules supply the [`ServiceModel`] and the [`Dispatch`]; everything between the
//! bytes of a request and the typed operation is here and knows no service by name. An
//! operation that AWS has and Gantry does not is answered with an error that names it.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;

use crate::context::RequestContext;
use crate::error::ApiError;
use crate::event_stream::EventStream;
use crate::protocol::{Call, Protocol, Reply};
use crate::schema::Schema;
use crate::server::{Authorized, Authorizer};
use crate::shape::Structure;
use crate::validate::{self, ValidationStyle};

/// What is known of a service from its model.
#[derive(Debug)]
pub struct ServiceModel {
    /// The name of its generated module and of its rows: `ecs`.
    pub name: &'static str,
    pub full_name: &'static str,
    /// The service in a SigV4 scope.
    pub signing_name: &'static str,
    pub endpoint_prefix: &'static str,
    pub api_version: &'static str,
    /// The part of `X-Amz-Target` before the dot, for awsJson.
    pub target_prefix: Option<&'static str>,
    pub xml_namespace: Option<&'static str>,
    /// The protocols of the model, in AWS's order.
    pub protocols: &'static [&'static str],
    /// awsJson 1.0 or 1.1.
    pub json_version: Option<&'static str>,
    /// Errors carry the code of the Query protocol they replaced in a header.
    pub query_compatible: bool,
    pub validation: ValidationStyle,
    /// Built operations, sorted by name.
    pub operations: &'static [&'static OperationModel],
    /// Operations of the model that are not built, sorted by name.
    pub not_built: &'static [&'static str],
}

impl ServiceModel {
    /// The built operation of this name and its place in the dispatch table.
    pub fn operation(&self, name: &str) -> Option<(usize, &'static OperationModel)> {
        let index = self
            .operations
            .binary_search_by(|operation| operation.name.cmp(name))
            .ok()?;
        Some((index, self.operations[index]))
    }

    pub fn knows(&self, name: &str) -> bool {
        self.operation(name).is_some() || self.not_built.binary_search(&name).is_ok()
    }
}

/// What is known of an operation from its model.
#[derive(Debug)]
pub struct OperationModel {
    pub name: &'static str,
    pub input: &'static Schema,
    pub output: &'static Schema,
    /// The element that holds the output in a Query answer.
    pub result_wrapper: Option<&'static str>,
    pub readonly: bool,
    pub new_input: fn() -> Box<dyn Structure>,
    pub new_output: fn() -> Box<dyn Structure>,
}

/// Ties an operation's types together, for callers: `client.call::<RunTask>(input)`.
pub trait Operation {
    type Input: Structure + Default;
    type Output: Structure + Default;
    type Error: From<ApiError>;
    const NAME: &'static str;
    fn model() -> &'static OperationModel;
    fn service() -> &'static ServiceModel;
}

pub type DispatchFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn Structure>, ApiError>> + Send + 'a>>;

/// Calls the typed operation at an index of the model's table. Implemented by generated code.
pub trait Dispatch: Send + Sync {
    fn dispatch<'a>(
        &'a self,
        operation: usize,
        context: &'a RequestContext,
        input: Box<dyn Structure>,
    ) -> DispatchFuture<'a>;
}

/// A service that can be called: a model and its implementation.
#[derive(Clone)]
pub struct Service {
    model: &'static ServiceModel,
    dispatch: Arc<dyn Dispatch>,
}

impl Service {
    pub fn new(model: &'static ServiceModel, dispatch: Arc<dyn Dispatch>) -> Self {
        Self { model, dispatch }
    }

    pub fn model(&self) -> &'static ServiceModel {
        self.model
    }

    /// The same service behind rules that are asked before each operation.
    pub(crate) fn authorized_by(self, authorizer: Arc<dyn Authorizer>) -> Self {
        let Service { model, dispatch } = self;
        let dispatch = Arc::new(Authorized {
            model,
            inner: dispatch,
            authorizer,
        });
        Service { model, dispatch }
    }

    /// Reads the input, checks it, runs the operation and writes its answer. Every failure on
    /// the way becomes an answer of the same protocol; the error is returned beside it so that
    /// the server can log its cause.
    pub async fn handle(
        &self,
        context: &RequestContext,
        call: &Call,
        parts: &Parts,
        body: &Bytes,
    ) -> (Reply, Option<ApiError>) {
        match self.run(context, call, parts, body).await {
            Ok(reply) => (reply, None),
            Err(error) => {
                let reply =
                    call.protocol
                        .write_error(Some(self.model), &error, &context.request_id);
                (reply, Some(error))
            }
        }
    }

    async fn run(
        &self,
        context: &RequestContext,
        call: &Call,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Reply, ApiError> {
        let Some((index, operation)) = self.model.operation(&call.operation) else {
            return Err(self.no_such_operation(call.protocol, &call.operation));
        };
        let mut input = (operation.new_input)();
        let missing = call
            .protocol
            .read_request(operation, parts, body, input.as_mut())?;
        validate::check(self.model.validation, input.as_ref(), &missing)?;
        let output = self.dispatch.dispatch(index, context, input).await?;
        if let Some(events) = output.as_any().downcast_ref::<EventStream>() {
            return Ok(Reply::of_events(events));
        }
        Ok(call.protocol.write_response(
            self.model,
            operation,
            output.as_ref(),
            &context.request_id,
        ))
    }

    fn no_such_operation(&self, protocol: &dyn Protocol, operation: &str) -> ApiError {
        if self.model.knows(operation) {
            ApiError::not_built(self.model.name, operation)
        } else {
            protocol.unknown_operation(operation, self.model.api_version)
        }
    }
}

/// The typed input of a dispatched call. The table guarantees the type, so a mismatch is a
/// fault of generated code and is reported as one.
pub fn downcast<T: Structure>(input: Box<dyn Structure>) -> Result<T, ApiError> {
    let name = input.schema().name;
    let any: Box<dyn Any> = input.into_any();
    match any.downcast::<T>() {
        Ok(input) => Ok(*input),
        Err(_) => Err(ApiError::internal(format!(
            "dispatch table holds another type than {name}"
        ))),
    }
}

/// A typed answer as the table gives it.
pub fn answer<T: Structure, E: Into<ApiError>>(
    outcome: Result<T, E>,
) -> Result<Box<dyn Structure>, ApiError> {
    outcome
        .map(|output| Box::new(output) as Box<dyn Structure>)
        .map_err(Into::into)
}

/// The table is only asked for indices of its own model.
pub fn no_such_index<'a>(index: usize) -> DispatchFuture<'a> {
    Box::pin(async move {
        Err(ApiError::internal(format!(
            "no operation has index {index}"
        )))
    })
}

/// What is built of a service and what is not.
#[derive(Clone, Debug)]
pub struct Coverage {
    pub service: &'static str,
    pub full_name: &'static str,
    pub built: Vec<&'static str>,
    pub not_built: &'static [&'static str],
}

/// Coverage of every service, for `gantry coverage`.
pub fn coverage() -> Vec<Coverage> {
    crate::generated::MODELS
        .iter()
        .map(|model| Coverage {
            service: model.name,
            full_name: model.full_name,
            built: model
                .operations
                .iter()
                .map(|operation| operation.name)
                .collect(),
            not_built: model.not_built,
        })
        .collect()
}
