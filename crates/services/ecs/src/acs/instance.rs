//! The container instance that an agent names when it opens a socket.
//!
//! What always holds: it is one of the caller's own account and region, and it is registered and not
//! deregistered; everything else is refused before the upgrade, in words that the Amazon ECS agent
//! knows (`InvalidInstanceException`, and `InactiveInstanceException`, which keeps it away for an hour).
//! What it leaves to others: whether this caller may speak for it (`permissions`).

use gantry_api::server::UpgradeQuery;
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{Arn, ClusterName, ContainerInstanceId, EcsResource};
use gantry_store::Snapshot;

use crate::tables::{ContainerInstanceRow, ContainerInstanceStatus, container_instance_name};

/// The instance of one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectingInstance {
    pub arn: String,
    pub cluster: ClusterName,
    pub id: ContainerInstanceId,
}

impl ConnectingInstance {
    /// Reads it from the query of the upgrade request, where it is called `member`.
    pub fn read(
        context: &RequestContext,
        query: &UpgradeQuery,
        member: &str,
    ) -> Result<ConnectingInstance, ApiError> {
        let arn = query.get(member).ok_or_else(|| {
            ApiError::sender("InvalidParameterException", format!("{member} is missing."))
        })?;
        let parsed = arn.parse::<Arn>().ok();
        let here = parsed.filter(|arn| {
            arn.account_id() == Some(context.account) && arn.region == context.region.as_str()
        });
        match here.and_then(|arn| arn.ecs_resource()) {
            Some(EcsResource::ContainerInstance(cluster, id)) => Ok(ConnectingInstance {
                arn: arn.clone(),
                cluster,
                id,
            }),
            _ => Err(ApiError::sender(
                "InvalidParameterException",
                format!(
                    "{member} '{arn}' is not the ARN of a container instance of this account and region."
                ),
            )),
        }
    }

    /// The name of its rows.
    pub fn row_name(&self) -> String {
        container_instance_name(&self.cluster, &self.id)
    }

    /// Whether it may be spoken for at all.
    pub fn check(&self, context: &RequestContext, snapshot: &Snapshot) -> Result<(), ApiError> {
        let instance = snapshot.read::<ContainerInstanceRow>(
            &context.account,
            &context.region,
            &self.row_name(),
        );
        match instance.map(|row| row.status) {
            None => Err(ApiError::sender(
                "InvalidInstanceException",
                format!("The container instance {} was not found.", self.arn),
            )),
            Some(ContainerInstanceStatus::Inactive) => Err(ApiError::sender(
                "InactiveInstanceException",
                format!("The container instance {} is not active.", self.arn),
            )),
            Some(ContainerInstanceStatus::Active | ContainerInstanceStatus::Draining) => Ok(()),
        }
    }
}
