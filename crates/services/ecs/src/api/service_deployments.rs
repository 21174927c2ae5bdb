//! Service deployments as users see them: one by one, and listed.
//!
//! What always holds: the requests write what is asked for; how far a deployment is, the service
//! controller writes. A deployment that it has not taken up is PENDING. One that is under way shows the
//! tasks that its revisions have, and one that is over those that they had at its end.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DeploymentLifecycleHookDetail, DeploymentLifecycleHookTargetType,
    DescribeServiceDeploymentsRequest, DescribeServiceDeploymentsResponse, EcsError, Failure,
    ListServiceDeploymentsRequest, ListServiceDeploymentsResponse, Rollback, ServiceDeployment,
    ServiceDeploymentAlarms, ServiceDeploymentBrief, ServiceDeploymentCircuitBreaker,
    ServiceDeploymentRollbackMonitorsStatus as Monitor, ServiceDeploymentStatus as Status,
    ServiceRevisionSummary,
};
use gantry_arn::{ClusterName, EcsResource, ServiceName};
use gantry_store::{Transaction, Versioned};

use super::describe_services::course;
use super::lookup::Rows;
use super::service_instances::desired_count;
use crate::model::absent::items;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::service::failures::threshold;
use crate::model::service::hooks::Hook;
use crate::model::service::sides::staying;
use crate::model::service::view::{OVERTAKEN, count, deployments, revision_counts};
use crate::model::state_changes::{self, OfService};
use crate::service::EcsService;
use crate::tables::{
    RevisionCounts, ServiceDeploymentRow, ServiceDeploymentStateRow, ServiceRow, service_part_name,
};

const DESCRIBED_MAX: usize = 20;
const PAGE_MAX: usize = 100;

/// One service deployment, with the rows around it.
pub(super) struct Joined<'a> {
    rows: &'a Rows<'a>,
    cluster: &'a ClusterName,
    service: &'a ServiceName,
    pub row: Versioned<ServiceDeploymentRow>,
    pub state: Option<Versioned<ServiceDeploymentStateRow>>,
    spec: Option<Versioned<ServiceRow>>,
}

impl<'a> Joined<'a> {
    pub fn read(
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

    pub fn arn(&self) -> String {
        let id = &self.row.target.service_deployment;
        let scope = self.rows.scope;
        scope.service_deployment_arn(self.cluster, self.service, id)
    }

    fn revision_arn(&self, id: &str) -> String {
        let scope = self.rows.scope;
        scope.service_revision_arn(self.cluster, self.service, id)
    }

    /// Writes what a user asked of the deployment into its service's history.
    pub fn tell_wish(&self, ctx: &RequestContext, what: String, transaction: &mut Transaction) {
        let Some(spec) = &self.spec else {
            return;
        };
        let of = OfService::of(self.rows.scope, spec, ctx.now);
        let drawn = format!("{}/{what}", self.row.target.service_deployment);
        let wish = of.request(&drawn, what, &ctx.principal.arn.to_string());
        state_changes::write(self.rows.scope, ctx.now, vec![wish], transaction);
    }

    /// A newer one was asked for before the controller came by.
    fn was_never_begun(&self) -> bool {
        let id = &self.row.target.service_deployment;
        let is_next = |spec: &Versioned<ServiceRow>| spec.target.service_deployment == *id;
        self.state.is_none() && !self.spec.as_ref().is_some_and(is_next)
    }

    pub fn status(&self) -> Status {
        if self.was_never_begun() {
            return Status::Stopped;
        }
        let status = self.state.as_ref().map(|state| state.status.clone());
        match status.unwrap_or(Status::Pending) {
            // The wish is there, and the controller has not come by.
            Status::Pending | Status::InProgress if self.row.rollback_requested_at.is_some() => {
                Status::RollbackRequested
            }
            status => status,
        }
    }

    /// The tasks of each revision, now or when the deployment was over.
    fn counts(&self) -> BTreeMap<String, RevisionCounts> {
        let over = self.state.as_ref().filter(|it| it.finished_at.is_some());
        if let Some(over) = over {
            return over.ended_with.clone();
        }
        let Some(spec) = &self.spec else {
            return BTreeMap::new();
        };
        let state = self.rows.service_state(spec).map(|state| state.row);
        let deployments = deployments(spec, state.as_deref());
        let course = course(self.rows, spec, state.as_deref());
        let staying = deployments
            .first()
            .map(|primary| staying(course.as_ref(), &primary.id))
            .unwrap_or_default();
        let staying = staying.into_iter().map(str::to_owned).collect();
        let tasks = self.rows.service_tasks(spec);
        let desired = desired_count(self.rows, spec);
        revision_counts(&deployments, &staying, desired, &tasks)
    }

    fn summary(
        &self,
        counts: &BTreeMap<String, RevisionCounts>,
        revision: &str,
    ) -> ServiceRevisionSummary {
        let counts = counts.get(revision).copied().unwrap_or_default();
        ServiceRevisionSummary {
            arn: Some(self.revision_arn(revision)),
            requested_task_count: Some(count(counts.requested)),
            running_task_count: Some(count(counts.running)),
            pending_task_count: Some(count(counts.pending)),
            ..ServiceRevisionSummary::default()
        }
    }

    /// A hook that was reached, as it is once its answer counts.
    pub fn hook(&self, hook: &Hook) -> Hook {
        let mut hook = hook.clone();
        let answer = self.row.answers.get(&hook.id).copied();
        if answer.is_some() {
            hook.settle(answer, hook.expires_at);
        }
        hook
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
        ServiceDeploymentCircuitBreaker {
            status: Some(status),
            failure_count: Some(count(state.map_or(0, |state| state.failures))),
            threshold: Some(count(threshold(given, desired))),
        }
    }

    fn describe(&self) -> ServiceDeployment {
        let (row, state) = (&self.row, self.state.as_ref());
        let scope = self.rows.scope;
        let counts = self.counts();
        let course = state.and_then(|state| state.course.as_ref());
        let sources = row.sources.iter();
        let never_begun = self.was_never_begun();
        let over_at = never_begun.then_some(row.target.at);
        ServiceDeployment {
            service_deployment_arn: Some(self.arn()),
            service_arn: Some(scope.service_arn(self.cluster, self.service)),
            cluster_arn: Some(scope.cluster_arn(self.cluster)),
            created_at: Some(row.target.at),
            started_at: state.map(|state| state.started_at),
            finished_at: state.map_or(over_at, |state| state.finished_at),
            stopped_at: state.map_or(over_at, |state| state.stopped_at),
            updated_at: Some(state.map_or(row.target.at, |state| state.updated_at)),
            source_service_revisions: Some(sources.map(|it| self.summary(&counts, it)).collect()),
            target_service_revision: Some(self.summary(&counts, &row.target.revision.id)),
            lifecycle_stage: course.map(|course| course.stage.as_str().into()),
            lifecycle_hook_details: course.map(|course| {
                let hooks = course.hooks.iter();
                hooks.map(|hook| detail(&self.hook(hook))).collect()
            }),
            status: Some(self.status()),
            status_reason: match never_begun {
                true => Some(OVERTAKEN.to_owned()),
                false => state.and_then(|state| state.reason.clone()),
            },
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

fn detail(hook: &Hook) -> DeploymentLifecycleHookDetail {
    DeploymentLifecycleHookDetail {
        hook_id: Some(hook.id.clone()),
        target_type: Some(DeploymentLifecycleHookTargetType::Pause),
        target_arn: None,
        status: Some(hook.status.as_str().into()),
        expires_at: Some(hook.expires_at),
        timeout_action: Some(hook.timeout_action.as_str().into()),
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
    let Some(spec) = rows.service(&cluster, &name) else {
        return Err(EcsError::service_not_found_exception("Service not found."));
    };
    let all = rows.list::<ServiceDeploymentRow>(&service_part_name(&cluster, &name, ""));
    let (after, before) = input
        .created_at
        .map_or((None, None), |at| (at.after, at.before));
    let statuses = items(&input.status);
    let mut briefs: Vec<(String, ServiceDeploymentBrief)> = all
        .iter()
        .filter(|row| row.incarnation == spec.incarnation)
        .filter(|row| after.is_none_or(|after| row.target.at > after))
        .filter(|row| before.is_none_or(|before| row.target.at < before))
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

pub(super) fn some_of_them(count: usize, member: &str) -> Result<(), EcsError> {
    if (1..=DESCRIBED_MAX).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!(
        "{member} must have between 1 and {DESCRIBED_MAX} elements."
    )))
}

pub(super) fn deployment_of(
    scope: &Scope,
    arn: &str,
) -> Result<(ClusterName, ServiceName, String), EcsError> {
    match scope.own_arn(arn)? {
        Some(EcsResource::ServiceDeployment(cluster, name, id)) => Ok((cluster, name, id)),
        _ => Err(invalid("Invalid service deployment ARN.")),
    }
}

pub(super) fn missing(arn: &str) -> Failure {
    Failure {
        arn: Some(arn.to_owned()),
        reason: Some("MISSING".to_owned()),
        detail: None,
    }
}
