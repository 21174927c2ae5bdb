//! Service deployments and service revisions: describe, list, and stop with a rollback.
//!
//! What always holds: the requests write what is asked for; how far a deployment is, the service
//! controller writes. A deployment that it has not taken up is PENDING.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    ContainerImage, DescribeServiceDeploymentsRequest, DescribeServiceDeploymentsResponse,
    DescribeServiceRevisionsRequest, DescribeServiceRevisionsResponse, EcsError, Failure,
    ListServiceDeploymentsRequest, ListServiceDeploymentsResponse, Rollback, ServiceDeployment,
    ServiceDeploymentAlarms, ServiceDeploymentBrief, ServiceDeploymentCircuitBreaker,
    ServiceDeploymentRollbackMonitorsStatus as Monitor, ServiceDeploymentStatus as Status,
    ServiceRevision, ServiceRevisionSummary, StopServiceDeploymentRequest,
    StopServiceDeploymentResponse, StopServiceDeploymentStopType,
};
use gantry_arn::{ClusterName, EcsResource, ServiceName};
use gantry_store::{Transaction, Versioned};

use super::lookup::Rows;
use super::service_instances::desired_count;
use crate::model::absent::items;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::{invalid, not_built};
use crate::model::service::failures::threshold;
use crate::model::service::view::{Counts, deployments, number};
use crate::service::EcsService;
use crate::tables::{
    DeploymentState, ServiceDeploymentRow, ServiceDeploymentStateRow, ServiceRevisionRow,
    ServiceRow, service_part_name,
};

const DESCRIBED_MAX: usize = 20;
const PAGE_MAX: usize = 100;

/// One service deployment, with the rows around it.
struct Joined<'a> {
    rows: &'a Rows<'a>,
    cluster: &'a ClusterName,
    service: &'a ServiceName,
    row: Versioned<ServiceDeploymentRow>,
    state: Option<Versioned<ServiceDeploymentStateRow>>,
    spec: Option<Versioned<ServiceRow>>,
}

impl<'a> Joined<'a> {
    fn read(
        rows: &'a Rows<'a>,
        cluster: &'a ClusterName,
        service: &'a ServiceName,
        id: &str,
    ) -> Option<Self> {
        let name = service_part_name(cluster, service, id);
        let row = rows.read::<ServiceDeploymentRow>(&name)?;
        Some(Self {
            rows,
            cluster,
            service,
            state: rows.read::<ServiceDeploymentStateRow>(&name),
            spec: rows
                .service(cluster, service)
                .filter(|spec| spec.incarnation == row.incarnation),
            row,
        })
    }

    fn arn(&self) -> String {
        let id = &self.row.target.service_deployment;
        let scope = self.rows.scope;
        scope.service_deployment_arn(self.cluster, self.service, id)
    }

    fn revision_arn(&self, id: &str) -> String {
        let scope = self.rows.scope;
        scope.service_revision_arn(self.cluster, self.service, id)
    }

    fn status(&self) -> Status {
        let status = self.state.as_ref().map(|state| state.status.clone());
        match status.unwrap_or(Status::Pending) {
            // The wish is there, and the controller has not come by.
            Status::Pending | Status::InProgress if self.row.rollback_requested_at.is_some() => {
                Status::RollbackRequested
            }
            status => status,
        }
    }

    /// Those of the service's deployments that belong to this one: itself, and its rollback.
    fn deployments(&self) -> Vec<DeploymentState> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        let state = self.rows.service_state(spec).map(|state| state.row);
        deployments(spec, state.as_deref())
    }

    fn summary(&self, revision: &str) -> ServiceRevisionSummary {
        let mut counts = Counts::default();
        if let Some(spec) = &self.spec {
            let deployments = self.deployments();
            let of_revision = |by: Option<&str>| {
                deployments
                    .iter()
                    .any(|it| it.revision.id == revision && Some(it.id.as_str()) == by)
            };
            let tasks = self.rows.service_tasks(spec);
            counts = Counts::of(
                tasks
                    .iter()
                    .filter(|task| of_revision(task.spec.started_by.as_deref())),
            );
        }
        ServiceRevisionSummary {
            arn: Some(self.revision_arn(revision)),
            requested_task_count: Some(number(counts.running + counts.pending)),
            running_task_count: Some(number(counts.running)),
            pending_task_count: Some(number(counts.pending)),
            ..ServiceRevisionSummary::default()
        }
    }

    fn breaker(&self) -> ServiceDeploymentCircuitBreaker {
        let given = self.row.configuration.deployment_circuit_breaker.as_ref();
        let desired = self
            .spec
            .as_ref()
            .map_or(0, |spec| desired_count(self.rows, spec));
        let state = self.state.as_ref();
        let status = match (given.is_some_and(|it| it.enable), state) {
            (false, _) => Monitor::Disabled,
            (true, Some(state)) if state.triggered => Monitor::Triggered,
            (true, Some(state)) if state.finished_at.is_some() => Monitor::MonitoringComplete,
            (true, _) => Monitor::Monitoring,
        };
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        ServiceDeploymentCircuitBreaker {
            status: Some(status),
            failure_count: Some(count(state.map_or(0, |state| state.failures))),
            threshold: Some(count(threshold(given, desired))),
        }
    }

    fn describe(&self) -> ServiceDeployment {
        let (row, state) = (&self.row, self.state.as_ref());
        let scope = self.rows.scope;
        ServiceDeployment {
            service_deployment_arn: Some(self.arn()),
            service_arn: Some(scope.service_arn(self.cluster, self.service)),
            cluster_arn: Some(scope.cluster_arn(self.cluster)),
            created_at: Some(row.target.at),
            started_at: state.map(|state| state.started_at),
            finished_at: state.and_then(|state| state.finished_at),
            stopped_at: state.and_then(|state| state.stopped_at),
            updated_at: Some(state.map_or(row.target.at, |state| state.updated_at)),
            source_service_revisions: Some(row.sources.iter().map(|it| self.summary(it)).collect()),
            target_service_revision: Some(self.summary(&row.target.revision.id)),
            status: Some(self.status()),
            status_reason: state.and_then(|state| state.reason.clone()),
            deployment_configuration: Some(row.configuration.clone()),
            rollback: state
                .and_then(|state| state.rollback.as_ref())
                .map(|rollback| Rollback {
                    reason: Some(rollback.reason.clone()),
                    started_at: Some(rollback.started_at),
                    service_revision_arn: Some(self.revision_arn(&rollback.revision)),
                }),
            deployment_circuit_breaker: Some(self.breaker()),
            alarms: Some(ServiceDeploymentAlarms {
                status: Some(Monitor::Disabled),
                ..ServiceDeploymentAlarms::default()
            }),
            ..ServiceDeployment::default()
        }
    }

    fn brief(&self) -> ServiceDeploymentBrief {
        let (whole, revision) = (self.describe(), &self.row.target.revision.id);
        ServiceDeploymentBrief {
            service_deployment_arn: whole.service_deployment_arn,
            service_arn: whole.service_arn,
            cluster_arn: whole.cluster_arn,
            created_at: whole.created_at,
            started_at: whole.started_at,
            finished_at: whole.finished_at,
            target_service_revision_arn: Some(self.revision_arn(revision)),
            status: whole.status,
            status_reason: whole.status_reason,
        }
    }
}

pub(super) async fn describe_service_deployments(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeServiceDeploymentsRequest,
) -> Result<DescribeServiceDeploymentsResponse, EcsError> {
    let scope = Scope::of(ctx);
    let asked = &input.service_deployment_arns;
    some_of_them(asked.len(), "serviceDeploymentArns")?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in asked {
        let (cluster, name, id) = deployment_of(&scope, arn)?;
        match Joined::read(&rows, &cluster, &name, &id) {
            Some(joined) => found.push(joined.describe()),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeServiceDeploymentsResponse {
        service_deployments: Some(found),
        failures: Some(failures),
    })
}

pub(super) async fn list_service_deployments(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListServiceDeploymentsRequest,
) -> Result<ListServiceDeploymentsResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let name = scope.service(&cluster, &input.service)?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    if rows.service(&cluster, &name).is_none() {
        return Err(EcsError::service_not_found_exception("Service not found."));
    }
    let all = rows.list::<ServiceDeploymentRow>(&service_part_name(&cluster, &name, ""));
    let (after, before) = input
        .created_at
        .map_or((None, None), |at| (at.after, at.before));
    let statuses = items(&input.status);
    let mut briefs: Vec<(String, ServiceDeploymentBrief)> = all
        .iter()
        .filter(|row| after.is_none_or(|after| row.target.at >= after))
        .filter(|row| before.is_none_or(|before| row.target.at <= before))
        .filter_map(|row| {
            let id = &row.target.service_deployment;
            let joined = Joined::read(&rows, &cluster, &name, id)?;
            let wanted = statuses.is_empty() || statuses.contains(&joined.status());
            // Newest first: the cursor grows as the time gets less.
            let age = u64::MAX - row.target.at.as_epoch_seconds_f64().mul_add(1000.0, 0.0) as u64;
            wanted.then(|| (format!("{age:020} {id}"), joined.brief()))
        })
        .collect();
    briefs.sort_by(|one, other| one.0.cmp(&other.0));
    let (found, next_token) = page(
        &service.page_key,
        &format!(
            "service deployments {} {} {cluster} {name} {statuses:?} {after:?} {before:?}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results.or(Some(20)),
            limit: PAGE_MAX,
        },
        briefs,
    )?;
    Ok(ListServiceDeploymentsResponse {
        service_deployments: Some(found),
        next_token,
    })
}

pub(super) async fn stop_service_deployment(
    service: &EcsService,
    ctx: &RequestContext,
    input: StopServiceDeploymentRequest,
) -> Result<StopServiceDeploymentResponse, EcsError> {
    let scope = Scope::of(ctx);
    if input.stop_type == Some(StopServiceDeploymentStopType::Abort) {
        return Err(not_built("stopType ABORT of StopServiceDeployment"));
    }
    let (cluster, name, id) = deployment_of(&scope, &input.service_deployment_arn)?;
    let arn = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(joined) = Joined::read(&rows, &cluster, &name, &id) else {
                return Err(EcsError::service_deployment_not_found_exception(
                    "The service deployment was not found.",
                ));
            };
            let mut transaction = Transaction::new();
            match joined.status() {
                Status::Pending | Status::InProgress => {
                    let mut row = (*joined.row.row).clone();
                    row.rollback_requested_at = Some(ctx.now);
                    transaction.update::<ServiceDeploymentRow>(&joined.row, &row);
                }
                Status::RollbackRequested | Status::RollbackInProgress => {}
                over => {
                    return Err(EcsError::ConflictException(
                        gantry_api::ecs::ConflictException {
                            message: Some(format!(
                                "The service deployment cannot be stopped because its status is {over}."
                            )),
                            resource_ids: Some(vec![joined.arn()]),
                        },
                    ));
                }
            }
            Ok((transaction, joined.arn()))
        })
        .await?;
    Ok(StopServiceDeploymentResponse {
        service_deployment_arn: Some(arn),
    })
}

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
        guard_duty_enabled: Some(false),
        created_at: Some(row.created_at),
        ..ServiceRevision::default()
    }
}

/// The digests that the revision is pinned to, while one of the service's deployments runs it.
fn with_digests(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    name: &ServiceName,
    row: &ServiceRevisionRow,
    mut images: Vec<ContainerImage>,
) -> Vec<ContainerImage> {
    let spec = rows.service(cluster, name);
    let state = spec.and_then(|spec| rows.service_state(&spec));
    let deployment = state.as_ref().and_then(|state| {
        let mut all = state.deployments.iter();
        all.find(|it| it.revision.id == row.reference.id)
    });
    for image in &mut images {
        let name = image.container_name.as_deref().unwrap_or_default();
        image.image_digest = deployment.and_then(|it| it.digests.get(name).cloned());
    }
    images
}

fn some_of_them(count: usize, member: &str) -> Result<(), EcsError> {
    if (1..=DESCRIBED_MAX).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!(
        "{member} must have between 1 and {DESCRIBED_MAX} elements."
    )))
}

fn deployment_of(scope: &Scope, arn: &str) -> Result<(ClusterName, ServiceName, String), EcsError> {
    match scope.own_arn(arn)? {
        Some(EcsResource::ServiceDeployment(cluster, name, id)) => Ok((cluster, name, id)),
        _ => Err(invalid("Invalid service deployment ARN.")),
    }
}

fn missing(arn: &str) -> Failure {
    Failure {
        arn: Some(arn.to_owned()),
        reason: Some("MISSING".to_owned()),
        detail: None,
    }
}
