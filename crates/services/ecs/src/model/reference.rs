//! How callers name things: a short name, an id or a full ARN, wherever AWS accepts each.
//!
//! What always holds: a reference that was parsed names something of the caller's own account and
//! region. Whether it exists is for the operation to find out.

use gantry_api::RequestContext;
use gantry_api::ecs::EcsError;
use gantry_arn::{
    AccountId, Arn, ClusterName, ContainerInstanceId, EcsResource, Family, Region, ServiceName,
    TaskId,
};

use super::refusal::{client, invalid};

/// Account and region: where every row of one request stands, and what every ARN begins with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub account: AccountId,
    pub region: Region,
}

impl Scope {
    pub fn of(ctx: &RequestContext) -> Self {
        Self {
            account: ctx.account,
            region: ctx.region.clone(),
        }
    }

    pub fn cluster_arn(&self, cluster: &ClusterName) -> String {
        Arn::cluster(&self.region, &self.account, cluster).to_string()
    }

    pub fn task_arn(&self, cluster: &ClusterName, task: &TaskId) -> String {
        Arn::task(&self.region, &self.account, cluster, task).to_string()
    }

    pub fn container_arn(&self, cluster: &ClusterName, task: &TaskId, container: &str) -> String {
        let resource = format!("container/{cluster}/{task}/{container}");
        Arn::new("ecs", &self.region, &self.account, resource).to_string()
    }

    pub fn container_instance_arn(
        &self,
        cluster: &ClusterName,
        instance: &ContainerInstanceId,
    ) -> String {
        Arn::container_instance(&self.region, &self.account, cluster, instance).to_string()
    }

    pub fn task_definition_arn(&self, family: &Family, revision: u32) -> String {
        Arn::task_definition(&self.region, &self.account, family, revision).to_string()
    }

    pub fn service_arn(&self, cluster: &ClusterName, service: &ServiceName) -> String {
        self.ecs_arn(format!("service/{cluster}/{service}"))
    }

    pub fn service_deployment_arn(
        &self,
        cluster: &ClusterName,
        service: &ServiceName,
        id: &str,
    ) -> String {
        self.ecs_arn(format!("service-deployment/{cluster}/{service}/{id}"))
    }

    pub fn service_revision_arn(
        &self,
        cluster: &ClusterName,
        service: &ServiceName,
        id: &str,
    ) -> String {
        self.ecs_arn(format!("service-revision/{cluster}/{service}/{id}"))
    }

    fn ecs_arn(&self, resource: String) -> String {
        Arn::new("ecs", &self.region, &self.account, resource).to_string()
    }

    /// The ARN, if the text is one of ECS in this account and region.
    pub fn own_arn(&self, text: &str) -> Result<Option<EcsResource>, EcsError> {
        if !text.starts_with("arn:") {
            return Ok(None);
        }
        let parsed = text.parse::<Arn>().ok();
        let own = parsed.filter(|arn| {
            arn.region == self.region.as_str() && arn.account == self.account.as_str()
        });
        match own.and_then(|arn| arn.ecs_resource()) {
            Some(resource) => Ok(Some(resource)),
            None => Err(invalid(
                "Invalid identifier: Unexpected ARN or identifier format.",
            )),
        }
    }

    /// A cluster's name or ARN. Nothing means `default`.
    pub fn cluster(&self, text: Option<&str>) -> Result<ClusterName, EcsError> {
        let text = match text {
            None | Some("") => return Ok(ClusterName::default()),
            Some(text) => text,
        };
        match self.own_arn(text)? {
            Some(EcsResource::Cluster(name)) => Ok(name),
            Some(_) => Err(invalid(
                "Invalid identifier: Identifier is for a different resource type. Expected: cluster.",
            )),
            None => text
                .parse()
                .map_err(|_| invalid("Cluster name contains invalid characters.")),
        }
    }

    /// A task's id or ARN, in `cluster`.
    pub fn task(&self, cluster: &ClusterName, text: &str) -> Result<TaskId, EcsError> {
        match self.own_arn(text)? {
            Some(EcsResource::Task(named, task)) => {
                same_cluster(&named, cluster)?;
                Ok(task)
            }
            Some(_) => Err(invalid(
                "Invalid identifier: Identifier is for a different resource type. Expected: task.",
            )),
            None => text
                .parse()
                .map_err(|_| invalid("taskId length should be one of [32,36]")),
        }
    }

    /// A container instance's id or ARN, in `cluster`.
    pub fn container_instance(
        &self,
        cluster: &ClusterName,
        text: &str,
    ) -> Result<ContainerInstanceId, EcsError> {
        match self.own_arn(text)? {
            Some(EcsResource::ContainerInstance(named, instance)) => {
                same_cluster(&named, cluster)?;
                Ok(instance)
            }
            Some(_) => Err(invalid(
                "Invalid identifier: Identifier is for a different resource type. Expected: container-instance.",
            )),
            None => text
                .parse()
                .map_err(|_| invalid("instanceId length should be one of [32,36]")),
        }
    }

    /// A service's name or ARN, in `cluster`.
    pub fn service(&self, cluster: &ClusterName, text: &str) -> Result<ServiceName, EcsError> {
        match self.own_arn(text)? {
            Some(EcsResource::Service(named, service)) => {
                same_cluster(&named, cluster)?;
                Ok(service)
            }
            Some(_) => Err(invalid(
                "Invalid identifier: Identifier is for a different resource type. Expected: service.",
            )),
            None if text.is_empty() => Err(invalid("Service can not be blank.")),
            None => text
                .parse()
                .map_err(|_| invalid("Service name contains invalid characters.")),
        }
    }

    /// A task definition: `family`, `family:revision` or its ARN.
    pub fn task_definition(&self, text: &str) -> Result<TaskDefinitionReference, EcsError> {
        if text.is_empty() {
            return Err(client("TaskDefinition can not be blank."));
        }
        if let Some(resource) = self.own_arn(text)? {
            return match resource {
                EcsResource::TaskDefinition(family, revision) => Ok(TaskDefinitionReference {
                    family,
                    revision: Some(revision),
                }),
                _ => Err(client(
                    "Invalid identifier: Identifier is for a different resource type. Expected: task-definition.",
                )),
            };
        }
        let (family, revision) = match text.rsplit_once(':') {
            None => (text, None),
            Some((family, number)) => match number.parse::<u32>() {
                Ok(revision) if revision > 0 => (family, Some(revision)),
                _ => return Err(client(format!("Invalid revision number. Number: {number}"))),
            },
        };
        let family = family
            .parse()
            .map_err(|_| client("Family contains invalid characters."))?;
        Ok(TaskDefinitionReference { family, revision })
    }
}

/// A family, and the revision where one is named; otherwise its latest ACTIVE one is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDefinitionReference {
    pub family: Family,
    pub revision: Option<u32>,
}

fn same_cluster(named: &ClusterName, asked: &ClusterName) -> Result<(), EcsError> {
    if named == asked {
        return Ok(());
    }
    Err(invalid(format!(
        "Identifier is for cluster {named}. Your cluster is {asked}"
    )))
}
