//! Service revisions: what a deployment deploys, never changed.
//!
//! What always holds: a revision shows every member that a service can have here. The image digests are those that its
//! deployment's first tasks found, which is what its later tasks run.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    ContainerImage, DescribeServiceRevisionsRequest, DescribeServiceRevisionsResponse, EcsError,
    ServiceRevision,
};
use gantry_arn::{ClusterName, EcsResource, ServiceName};

use super::lookup::Rows;
use super::service_deployments::{missing, some_of_them};
use crate::model::absent::items;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::service::EcsService;
use crate::tables::{ServiceDeploymentStateRow, ServiceRevisionRow, service_part_name};

pub(super) async fn describe_service_revisions(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeServiceRevisionsRequest,
) -> Result<DescribeServiceRevisionsResponse, EcsError> {
    let scope = Scope::of(ctx);
    some_of_them(input.service_revision_arns.len(), "serviceRevisionArns")?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in &input.service_revision_arns {
        let Some(EcsResource::ServiceRevision(cluster, name, id)) = scope.own_arn(arn)? else {
            return Err(invalid("Invalid service revision ARN."));
        };
        match rows.read::<ServiceRevisionRow>(&service_part_name(&cluster, &name, &id)) {
            Some(row) => found.push(revision(&rows, arn, &cluster, &name, &row)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeServiceRevisionsResponse {
        service_revisions: Some(found),
        failures: Some(failures),
    })
}

fn revision(
    rows: &Rows<'_>,
    arn: &str,
    cluster: &ClusterName,
    name: &ServiceName,
    row: &ServiceRevisionRow,
) -> ServiceRevision {
    let scope = rows.scope;
    let (family, number) = (&row.reference.family, row.reference.task_definition);
    let definition = rows.task_definition(family, number);
    let containers = definition.iter().flat_map(|definition| {
        items(&definition.row.definition.container_definitions)
            .iter()
            .map(|container| ContainerImage {
                container_name: container.name.clone(),
                image: container.image.clone(),
                image_digest: None,
            })
            .collect::<Vec<_>>()
    });
    ServiceRevision {
        service_revision_arn: Some(arn.to_owned()),
        service_arn: Some(scope.service_arn(cluster, name)),
        cluster_arn: Some(scope.cluster_arn(cluster)),
        task_definition: Some(scope.task_definition_arn(family, number)),
        launch_type: Some(row.launch_type.clone()),
        container_images: Some(with_digests(rows, cluster, name, row, containers.collect())),
        service_connect_configuration: row.service_connect.clone(),
        guard_duty_enabled: Some(false),
        created_at: Some(row.created_at),
        ..ServiceRevision::default()
    }
}

/// The digests that the revision's tasks run: as its deployment found them, or, of one that has just begun, none yet.
fn with_digests(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    name: &ServiceName,
    row: &ServiceRevisionRow,
    mut images: Vec<ContainerImage>,
) -> Vec<ContainerImage> {
    let deployment = service_part_name(cluster, name, &row.service_deployment);
    let state = rows.read::<ServiceDeploymentStateRow>(&deployment);
    for image in &mut images {
        let name = image.container_name.as_deref().unwrap_or_default();
        image.image_digest = state.as_ref().and_then(|it| it.digests.get(name).cloned());
    }
    images
}
