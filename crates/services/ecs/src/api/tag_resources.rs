//! Tags of clusters, task definitions, tasks, services and container instances.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, ListTagsForResourceRequest, ListTagsForResourceResponse, Tag, TagResourceRequest,
    TagResourceResponse, UntagResourceRequest, UntagResourceResponse,
};
use gantry_arn::{Arn, EcsResource};
use gantry_store::Transaction;

use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::tags;
use crate::service::EcsService;
use crate::tables::{
    ClusterRow, ContainerInstanceRow, ServiceRow, TaskDefinitionRow, TaskRow, task_name,
};

pub(super) async fn tag_resource(
    service: &EcsService,
    ctx: &RequestContext,
    input: TagResourceRequest,
) -> Result<TagResourceResponse, EcsError> {
    tags::validate(&input.tags)?;
    change(service, ctx, &input.resource_arn, |old| {
        let merged = tags::merge(old, &input.tags);
        tags::validate_count(merged.len())?;
        Ok(merged)
    })
    .await?;
    Ok(TagResourceResponse {})
}

pub(super) async fn untag_resource(
    service: &EcsService,
    ctx: &RequestContext,
    input: UntagResourceRequest,
) -> Result<UntagResourceResponse, EcsError> {
    for key in &input.tag_keys {
        tags::validate_key(key)?;
    }
    change(service, ctx, &input.resource_arn, |old| {
        let stays = |tag: &&Tag| {
            !input
                .tag_keys
                .iter()
                .any(|key| tag.key.as_ref() == Some(key))
        };
        Ok(old.iter().filter(stays).cloned().collect())
    })
    .await?;
    Ok(UntagResourceResponse {})
}

pub(super) async fn list_tags_for_resource(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let resource = resource(&scope, &input.resource_arn)?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    let tags = match &resource {
        EcsResource::Cluster(name) => rows.cluster(name).map(|row| row.tags.clone()),
        EcsResource::Task(cluster, id) => rows.task(cluster, id).map(|task| task.spec.tags.clone()),
        EcsResource::ContainerInstance(cluster, id) => rows
            .container_instance(cluster, id)
            .map(|row| row.tags.clone()),
        EcsResource::TaskDefinition(family, revision) => rows
            .task_definition(family, *revision)
            .map(|row| row.tags.clone()),
        EcsResource::Service(cluster, name) => {
            rows.service(cluster, name).map(|row| row.tags.clone())
        }
        EcsResource::ServiceDeployment(..) | EcsResource::ServiceRevision(..) => None,
    };
    let tags = tags.ok_or_else(|| not_found(&resource))?;
    Ok(ListTagsForResourceResponse { tags: Some(tags) })
}

fn resource(scope: &Scope, text: &str) -> Result<EcsResource, EcsError> {
    let arn: Arn = text
        .parse()
        .map_err(|_| invalid("Invalid resource ARN: it must be the ARN of an ECS resource."))?;
    if arn.account != scope.account.as_str() || arn.region != scope.region.as_str() {
        return Err(invalid(
            "Invalid resource ARN: it is of another account or region.",
        ));
    }
    arn.ecs_resource().ok_or_else(|| {
        invalid("Resource type is not supported, or the ARN is not in the long format.")
    })
}

fn not_found(resource: &EcsResource) -> EcsError {
    match resource {
        EcsResource::Cluster(_) => EcsError::cluster_not_found_exception("Cluster not found."),
        EcsResource::Task(..) => invalid("The specified task is not found."),
        EcsResource::ContainerInstance(..) => {
            invalid("The specified container instance is not found.")
        }
        EcsResource::TaskDefinition(..) => invalid("The specified task definition is not found."),
        EcsResource::Service(..) => invalid("The specified service is not found."),
        // They have no tags of their own, at AWS neither.
        EcsResource::ServiceDeployment(..) | EcsResource::ServiceRevision(..) => {
            invalid("Resource type is not supported, or the ARN is not in the long format.")
        }
    }
}

/// Gives the resource the tags that `new_tags` makes of its old ones.
async fn change(
    service: &EcsService,
    ctx: &RequestContext,
    arn: &str,
    new_tags: impl Fn(&[Tag]) -> Result<Vec<Tag>, EcsError> + Send + Sync,
) -> Result<(), EcsError> {
    let scope = Scope::of(ctx);
    let resource = resource(&scope, arn)?;
    macro_rules! retag {
        ($table:ty, $read:expr, $transaction:expr) => {{
            let read = $read.ok_or_else(|| not_found(&resource))?;
            let mut row = (*read.row).clone();
            row.tags = new_tags(&row.tags)?;
            if row.tags != read.tags {
                $transaction.update::<$table>(&read, &row);
            }
        }};
    }
    service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let mut transaction = Transaction::new();
            match &resource {
                EcsResource::Cluster(name) => {
                    retag!(ClusterRow, rows.cluster(name), transaction);
                }
                EcsResource::Task(cluster, id) => {
                    let read = rows.read::<TaskRow>(&task_name(cluster, id));
                    retag!(TaskRow, read, transaction);
                }
                EcsResource::ContainerInstance(cluster, id) => {
                    let read = rows.container_instance(cluster, id);
                    retag!(ContainerInstanceRow, read, transaction);
                }
                EcsResource::TaskDefinition(family, revision) => {
                    let read = rows.task_definition(family, *revision);
                    retag!(TaskDefinitionRow, read, transaction);
                }
                EcsResource::Service(cluster, name) => {
                    let read = rows.service(cluster, name);
                    retag!(ServiceRow, read, transaction);
                }
                EcsResource::ServiceDeployment(..) | EcsResource::ServiceRevision(..) => {
                    return Err(not_found(&resource));
                }
            }
            Ok((transaction, ()))
        })
        .await
}
