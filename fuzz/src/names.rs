//! ARNs, ids and names: a text that is one is written as it was read.

use std::fmt::Display;
use std::str::FromStr;

use gantry_api::Principal;
use gantry_api::auth::node::{NodePrincipal, is_node};
use gantry_arn::{
    AccountId, Arn, ClusterName, ContainerInstanceId, EcsResource, Family, LogGroupName,
    LogStreamName, Region, RepositoryName, RoleName, TaskId,
};
use gantry_ecr::model::{Digest, ImageTag, Reference, upload::UploadId};
use gantry_ecs::model::reference::Scope;
use gantry_logs::model::names;

use crate::text;

fn as_it_was<T: FromStr + Display>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    assert_eq!(read.to_string(), text);
    Some(read)
}

pub fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    as_it_was::<AccountId>(text);
    as_it_was::<Region>(text);
    as_it_was::<ClusterName>(text);
    as_it_was::<Family>(text);
    as_it_was::<LogGroupName>(text);
    as_it_was::<LogStreamName>(text);
    as_it_was::<RoleName>(text);
    as_it_was::<Digest>(text);
    as_it_was::<ImageTag>(text);
    as_it_was::<Reference>(text);
    as_it_was::<UploadId>(text);
    if let Some(repository) = as_it_was::<RepositoryName>(text) {
        // It is part of paths and of URLs.
        let parts: Vec<&str> = repository.as_str().split('/').collect();
        assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")));
    }
    for id in [
        as_it_was::<TaskId>(text).map(|id| id.to_string()),
        as_it_was::<ContainerInstanceId>(text).map(|id| id.to_string()),
    ] {
        assert!(id.is_none_or(|id| id.len() == 32));
    }
    if let Some(arn) = as_it_was::<Arn>(text) {
        arns(&arn);
    }
    scoped(text);
}

fn arns(arn: &Arn) {
    let principal = Principal {
        arn: arn.clone(),
        user_id: String::new(),
        access_key_id: String::new(),
    };
    if let Some(node) = NodePrincipal::of(&principal) {
        assert!(is_node(arn));
        assert_eq!(
            NodePrincipal::of(&Principal {
                arn: node.arn(),
                ..principal
            }),
            Some(node)
        );
    }
    // What it names is named by the same ARN again.
    let (Some(region), Some(account)) = (arn.region_name(), arn.account_id()) else {
        return;
    };
    let again = match arn.ecs_resource() {
        Some(EcsResource::Cluster(cluster)) => Arn::cluster(&region, &account, &cluster),
        Some(EcsResource::Task(cluster, task)) => Arn::task(&region, &account, &cluster, &task),
        Some(EcsResource::ContainerInstance(cluster, instance)) => {
            Arn::container_instance(&region, &account, &cluster, &instance)
        }
        Some(EcsResource::TaskDefinition(family, revision)) => {
            Arn::task_definition(&region, &account, &family, revision)
        }
        _ => return,
    };
    assert_eq!(again.ecs_resource(), arn.ecs_resource());
}

/// A name and the ARN that is made of it mean the same.
fn scoped(text: &str) {
    let scope = Scope {
        account: AccountId::default(),
        region: Region::default(),
    };
    let cluster = scope.cluster(Some(text));
    if let Ok(cluster) = &cluster {
        assert_eq!(
            scope
                .cluster(Some(&scope.cluster_arn(cluster)))
                .ok()
                .as_ref(),
            Some(cluster)
        );
    }
    let cluster = ClusterName::default();
    if let Ok(task) = scope.task(&cluster, text) {
        assert_eq!(
            scope.task(&cluster, &scope.task_arn(&cluster, &task)).ok(),
            Some(task)
        );
    }
    if let Ok(id) = scope.container_instance(&cluster, text) {
        let arn = scope.container_instance_arn(&cluster, &id);
        assert_eq!(scope.container_instance(&cluster, &arn).ok(), Some(id));
    }
    if let Ok(reference) = scope.task_definition(text)
        && let Some(revision) = reference.revision
    {
        let arn = scope.task_definition_arn(&reference.family, revision);
        assert_eq!(scope.task_definition(&arn).ok(), Some(reference));
    }
    if let Ok(group) = names::group_of_identifier(text, &scope.region, &scope.account) {
        let arn = names::group_arn(&scope.region, &scope.account, &group).to_string();
        let again = names::group_of_identifier(&arn, &scope.region, &scope.account);
        assert_eq!(again.ok(), Some(group));
    }
}
