//! DescribeServices, ListServices and ListServicesByNamespace.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DescribeServicesRequest, DescribeServicesResponse, EcsError, Failure,
    ListServicesByNamespaceRequest, ListServicesByNamespaceResponse, ListServicesRequest,
    ListServicesResponse, ResourceManagementType, Service, ServiceField,
};

use super::lookup::Rows;
use super::service_instances::desired_count;
use crate::model::absent::items;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::service::stages::Course;
use crate::model::service::view::{ServiceStatus, ServiceView};
use crate::service::EcsService;
use crate::tables::{
    Rollout, ServiceDeploymentStateRow, ServiceEventsRow, ServiceRow, ServiceStateRow,
    cluster_prefix, service_part_name, service_row_name,
};

const DESCRIBED_MAX: usize = 10;
const PAGE_MAX: usize = 100;
const PAGE_DEFAULT: i32 = 10;

pub(super) async fn describe_services(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeServicesRequest,
) -> Result<DescribeServicesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input.services.is_empty() {
        return Err(invalid("Services cannot be empty."));
    }
    if input.services.len() > DESCRIBED_MAX {
        return Err(invalid(format!(
            "Services cannot have more than {DESCRIBED_MAX} elements."
        )));
    }
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let with_tags = items(&input.include).contains(&ServiceField::Tags);
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for text in &input.services {
        let name = scope.service(&cluster, text)?;
        match rows.service(&cluster, &name) {
            Some(row) => services.push(describe(&rows, &row, with_tags)),
            None => failures.push(Failure {
                arn: Some(scope.service_arn(&cluster, &name)),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok(DescribeServicesResponse {
        services: Some(services),
        failures: Some(failures),
    })
}

/// A service as users see it, joined from its rows.
pub(super) fn describe(rows: &Rows<'_>, row: &ServiceRow, with_tags: bool) -> Service {
    let name = service_row_name(&row.cluster, &row.name);
    let events = rows
        .read::<ServiceEventsRow>(&name)
        .filter(|events| events.incarnation == row.incarnation);
    let state = rows.service_state(row).map(|state| state.row);
    let view = ServiceView {
        scope: rows.scope,
        spec: row,
        course: course(rows, row, state.as_deref()),
        state,
        tasks: rows.service_tasks(row),
        events: events.as_ref().map_or(&[], |events| &events.events),
        desired_count: desired_count(rows, row),
    };
    let mut service = view.describe();
    if with_tags {
        service.tags = Some(row.tags.clone());
    }
    service
}

/// How far the PRIMARY deployment is, if it has stages and is not completed.
pub(super) fn course(
    rows: &Rows<'_>,
    row: &ServiceRow,
    state: Option<&ServiceStateRow>,
) -> Option<Course> {
    let known = state.filter(|state| state.handled == row.target.service_deployment)?;
    let primary = known.deployments.first()?;
    if primary.rollout == Rollout::Completed {
        return None;
    }
    let name = service_part_name(&row.cluster, &row.name, &primary.service_deployment);
    let progress = rows.read::<ServiceDeploymentStateRow>(&name)?;
    progress.course.clone()
}

pub(super) async fn list_services(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListServicesRequest,
) -> Result<ListServicesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let services = rows.list::<ServiceRow>(&cluster_prefix(&cluster));
    let of = |wanted: &ServiceRow| {
        input
            .launch_type
            .as_ref()
            .is_none_or(|kind| wanted.launch_type == *kind)
            && input
                .scheduling_strategy
                .as_ref()
                .is_none_or(|kind| wanted.scheduling_strategy == *kind)
            && input
                .resource_management_type
                .as_ref()
                .is_none_or(|kind| *kind == ResourceManagementType::Customer)
    };
    // Deleted ones are described for a while, and listed no more.
    let is_active = |row: &ServiceRow| {
        let state = rows.service_state(row).map(|state| state.row);
        ServiceStatus::of(row, state.as_deref()) == ServiceStatus::Active
    };
    let (arns, next_token) = page(
        &service.page_key,
        &format!(
            "services {} {} {cluster} {:?} {:?} {:?}",
            scope.account,
            scope.region,
            input.launch_type,
            input.scheduling_strategy,
            input.resource_management_type
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results.or(Some(PAGE_DEFAULT)),
            limit: PAGE_MAX,
        },
        services
            .iter()
            .filter(|row| of(row) && is_active(row))
            .map(|row| (row.name.to_string(), scope.service_arn(&cluster, &row.name))),
    )?;
    Ok(ListServicesResponse {
        service_arns: Some(arns),
        next_token,
    })
}

/// No namespace can be made yet (Cloud Map is not built), so none is found.
pub(super) async fn list_services_by_namespace(
    _service: &EcsService,
    _ctx: &RequestContext,
    input: ListServicesByNamespaceRequest,
) -> Result<ListServicesByNamespaceResponse, EcsError> {
    if input.namespace.is_empty() {
        return Err(invalid("Namespace can not be blank."));
    }
    Err(EcsError::namespace_not_found_exception(
        "The specified namespace was not found.",
    ))
}
