//! Amazon Resource Names: `arn:partition:service:region:account:resource`.
//!
//! What always holds: `Display` gives back exactly the text that was parsed. Region and account
//! may be empty (S3, IAM) and an account may be the word `aws` (managed policies), so both are
//! plain text here, with typed readers beside them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    AccountId, ClusterName, ContainerInstanceId, Family, ParseError, Region, ServiceName, TaskId,
};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arn {
    pub partition: String,
    pub service: String,
    pub region: String,
    pub account: String,
    pub resource: String,
}

impl Arn {
    pub const EXPECTED: &'static str = "an ARN (arn:partition:service:region:account:resource)";

    /// An ARN in the partition of its region.
    pub fn new(
        service: &str,
        region: &Region,
        account: &AccountId,
        resource: impl Into<String>,
    ) -> Self {
        Self {
            partition: region.partition().as_str().to_owned(),
            service: service.to_owned(),
            region: region.as_str().to_owned(),
            account: account.as_str().to_owned(),
            resource: resource.into(),
        }
    }

    /// An ARN of a service that has no regions, such as IAM.
    pub fn global(service: &str, account: &AccountId, resource: impl Into<String>) -> Self {
        Self {
            partition: "aws".to_owned(),
            service: service.to_owned(),
            region: String::new(),
            account: account.as_str().to_owned(),
            resource: resource.into(),
        }
    }

    pub fn cluster(region: &Region, account: &AccountId, cluster: &ClusterName) -> Self {
        Self::new("ecs", region, account, format!("cluster/{cluster}"))
    }

    pub fn task(
        region: &Region,
        account: &AccountId,
        cluster: &ClusterName,
        task: &TaskId,
    ) -> Self {
        Self::new("ecs", region, account, format!("task/{cluster}/{task}"))
    }

    pub fn container_instance(
        region: &Region,
        account: &AccountId,
        cluster: &ClusterName,
        instance: &ContainerInstanceId,
    ) -> Self {
        let resource = format!("container-instance/{cluster}/{instance}");
        Self::new("ecs", region, account, resource)
    }

    pub fn task_definition(
        region: &Region,
        account: &AccountId,
        family: &Family,
        revision: u32,
    ) -> Self {
        let resource = format!("task-definition/{family}:{revision}");
        Self::new("ecs", region, account, resource)
    }

    pub fn account_id(&self) -> Option<AccountId> {
        self.account.parse().ok()
    }

    /// The region, or `None` for a service without regions.
    pub fn region_name(&self) -> Option<Region> {
        self.region.parse().ok()
    }

    /// The resource split at its first `/` or `:`: `("task", "default/0f…")`. A resource without
    /// a type (a queue, a bucket) has an empty one.
    pub fn typed_resource(&self) -> (&str, &str) {
        match self.resource.find(['/', ':']) {
            Some(at) => (&self.resource[..at], &self.resource[at + 1..]),
            None => ("", &self.resource),
        }
    }

    /// What this names, if it is an ECS resource in its present (cluster-qualified) form.
    pub fn ecs_resource(&self) -> Option<EcsResource> {
        if self.service != "ecs" {
            return None;
        }
        let (kind, rest) = self.typed_resource();
        match kind {
            "cluster" => Some(EcsResource::Cluster(rest.parse().ok()?)),
            "task" => {
                let (cluster, id) = rest.split_once('/')?;
                Some(EcsResource::Task(cluster.parse().ok()?, id.parse().ok()?))
            }
            "container-instance" => {
                let (cluster, id) = rest.split_once('/')?;
                Some(EcsResource::ContainerInstance(
                    cluster.parse().ok()?,
                    id.parse().ok()?,
                ))
            }
            "task-definition" => {
                let (family, revision) = rest.rsplit_once(':')?;
                Some(EcsResource::TaskDefinition(
                    family.parse().ok()?,
                    revision.parse().ok()?,
                ))
            }
            "service" => {
                let (cluster, name) = rest.split_once('/')?;
                Some(EcsResource::Service(
                    cluster.parse().ok()?,
                    name.parse().ok()?,
                ))
            }
            "service-deployment" | "service-revision" => {
                let (cluster, rest) = rest.split_once('/')?;
                let (service, id) = rest.split_once('/')?;
                let well_formed =
                    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                let (cluster, service) = (cluster.parse().ok()?, service.parse().ok()?);
                let id = well_formed.then(|| id.to_owned())?;
                Some(match kind {
                    "service-deployment" => EcsResource::ServiceDeployment(cluster, service, id),
                    _ => EcsResource::ServiceRevision(cluster, service, id),
                })
            }
            _ => None,
        }
    }
}

/// The ECS resources that an ARN can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EcsResource {
    Cluster(ClusterName),
    Task(ClusterName, TaskId),
    ContainerInstance(ClusterName, ContainerInstanceId),
    TaskDefinition(Family, u32),
    Service(ClusterName, ServiceName),
    /// Of a service, by its id.
    ServiceDeployment(ClusterName, ServiceName, String),
    /// Of a service, by its id.
    ServiceRevision(ClusterName, ServiceName, String),
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "arn:{}:{}:{}:{}:{}",
            self.partition, self.service, self.region, self.account, self.resource
        )
    }
}

impl FromStr for Arn {
    type Err = ParseError;

    fn from_str(value: &str) -> Result<Self, ParseError> {
        let refused = || ParseError::new(value, Self::EXPECTED);
        let mut parts = value.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(refused);
        let prefix = next()?;
        let arn = Self {
            partition: next()?.to_owned(),
            service: next()?.to_owned(),
            region: next()?.to_owned(),
            account: next()?.to_owned(),
            resource: next()?.to_owned(),
        };
        let named = [&arn.partition, &arn.service, &arn.resource];
        if prefix != "arn" || named.iter().any(|part| part.is_empty()) {
            return Err(refused());
        }
        Ok(arn)
    }
}

impl Serialize for Arn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Arn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_parses_prints_the_same(
            text in "arn:[a-z-]{1,8}:[a-z0-9]{1,8}:[a-z0-9-]{0,9}:[0-9]{0,12}:[ -~]{1,40}",
        ) {
            prop_assert_eq!(text.parse::<Arn>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,60}") {
            if let Ok(arn) = text.parse::<Arn>() {
                prop_assert_eq!(arn.to_string(), text);
                let _ = arn.ecs_resource();
            }
        }
    }

    #[test]
    fn the_forms_of_ecs() {
        let (region, account) = (Region::default(), AccountId::default());
        let (cluster, task) = (ClusterName::default(), TaskId::from_random([0xab; 16]));
        let arn = Arn::task(&region, &account, &cluster, &task);
        assert_eq!(
            arn.to_string(),
            format!(
                "arn:aws:ecs:us-east-1:000000000000:task/default/{}",
                "ab".repeat(16)
            )
        );
        assert_eq!(arn.ecs_resource(), Some(EcsResource::Task(cluster, task)));

        let arn = Arn::task_definition(&region, &account, &Family::new("web").unwrap(), 7);
        assert!(arn.to_string().ends_with(":task-definition/web:7"));
        let named = EcsResource::TaskDefinition(Family::new("web").unwrap(), 7);
        assert_eq!(arn.ecs_resource(), Some(named));

        let of = |resource: &str| Arn::new("ecs", &region, &account, resource).ecs_resource();
        let (cluster, web) = (ClusterName::default(), ServiceName::new("web").unwrap());
        let service = EcsResource::Service(cluster.clone(), web.clone());
        assert_eq!(of("service/default/web"), Some(service));
        let deployment = EcsResource::ServiceDeployment(cluster, web, "a-1".to_owned());
        assert_eq!(of("service-deployment/default/web/a-1"), Some(deployment));
        assert_eq!(of("service-revision/default/web/a/b"), None);
        assert_eq!(of("service/web"), None);
    }

    #[test]
    fn managed_policies_and_incomplete_texts() {
        let policy: Arn = "arn:aws:iam::aws:policy/AdministratorAccess"
            .parse()
            .unwrap();
        assert_eq!(policy.account_id(), None);
        assert_eq!(policy.region_name(), None);
        assert_eq!(policy.typed_resource(), ("policy", "AdministratorAccess"));
        for bad in [
            "",
            "arn:aws:ecs:us-east-1:000000000000",
            "urn:aws:ecs:a:b:c",
            "arn::ecs:::x",
        ] {
            assert!(bad.parse::<Arn>().is_err(), "{bad}");
        }
    }
}
