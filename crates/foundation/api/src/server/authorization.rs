//! Whether a verified caller may do what it asks for.
//!
//! What always holds: where a server has an [`Authorizer`], every operation of every service and
//! every WebSocket passes it, after the signature was verified and the input read, and before
//! anything is done.
//! What it leaves to others: the rules. Raw routes authenticate by themselves and decide by themselves.

use std::sync::Arc;

use super::UpgradeQuery;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::service::{Dispatch, DispatchFuture, OperationModel, ServiceModel};
use crate::shape::Structure;

/// The rules. They are asked on every call, so they look at memory only.
pub trait Authorizer: Send + Sync {
    fn call(
        &self,
        context: &RequestContext,
        service: &'static ServiceModel,
        operation: &'static OperationModel,
        input: &dyn Structure,
    ) -> Result<(), ApiError>;

    /// `route` is the name of the WebSocket's route.
    fn websocket(
        &self,
        context: &RequestContext,
        route: &'static str,
        query: &UpgradeQuery,
    ) -> Result<(), ApiError>;
}

/// A service whose operations are asked for first.
pub(crate) struct Authorized {
    pub(crate) model: &'static ServiceModel,
    pub(crate) inner: Arc<dyn Dispatch>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

impl Dispatch for Authorized {
    fn dispatch<'a>(
        &'a self,
        operation: usize,
        context: &'a RequestContext,
        input: Box<dyn Structure>,
    ) -> DispatchFuture<'a> {
        let Some(asked) = self.model.operations.get(operation) else {
            return crate::service::no_such_index(operation);
        };
        match self
            .authorizer
            .call(context, self.model, asked, input.as_ref())
        {
            Ok(()) => self.inner.dispatch(operation, context, input),
            Err(refused) => Box::pin(async move { Err(refused) }),
        }
    }
}

impl ApiError {
    /// AWS's words for a caller that may not do this. `action` is `ecs:RunTask`.
    pub fn access_denied(
        context: &RequestContext,
        service: &ServiceModel,
        action: &str,
        resource: &str,
    ) -> ApiError {
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource}",
            context.principal.arn
        );
        // The services that speak Query have a code and a status of their own.
        if service.protocols.contains(&"json") {
            ApiError::sender("AccessDeniedException", message)
        } else {
            ApiError::sender("AccessDenied", message).with_status(403)
        }
    }
}
