//! DescribeTasks and ListTasks.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DescribeTasksRequest, DescribeTasksResponse, DesiredStatus, EcsError, Failure,
    ListTasksRequest, ListTasksResponse, Task, TaskField,
};
use gantry_env::Timestamp;

use super::lookup::Rows;
use crate::model::absent::items;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::{invalid, not_built};
use crate::model::state_changes;
use crate::model::task_view::TaskState;
use crate::service::EcsService;
use crate::tables::{DesiredPhase, StateChange, service_group};

const DESCRIBED_MAX: usize = 100;
const PAGE_MAX: usize = 100;

pub(super) async fn describe_tasks(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeTasksRequest,
) -> Result<DescribeTasksResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input.tasks.is_empty() {
        return Err(invalid("Tasks cannot be empty."));
    }
    if input.tasks.len() > DESCRIBED_MAX {
        return Err(invalid(format!(
            "Tasks cannot have more than {DESCRIBED_MAX} elements."
        )));
    }
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let with_tags = items(&input.include).contains(&TaskField::Tags);
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &input.tasks {
        let id = scope.task(&cluster, text)?;
        match rows.task(&cluster, &id) {
            Some(state) => tasks.push(describe(&rows, &state, with_tags)),
            None => failures.push(Failure {
                arn: Some(scope.task_arn(&cluster, &id)),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok(DescribeTasksResponse {
        tasks: Some(tasks),
        failures: Some(failures),
    })
}

/// The event of a task's change, if users can see one. Whoever writes the change writes the event.
pub(crate) fn task_event(
    rows: &Rows<'_>,
    before: Option<&TaskState>,
    after: &TaskState,
    at: Timestamp,
) -> Option<StateChange> {
    state_changes::has_changed(before, after).then(|| {
        let task = describe(rows, after, false);
        state_changes::of_task(rows.scope, after, &task, at)
    })
}

/// A task as users see it, joined from its rows.
pub(super) fn describe(rows: &Rows<'_>, state: &TaskState, with_tags: bool) -> Task {
    let spec = &state.spec;
    // The definition outlives its tasks; an empty one would only leave images and sizes out.
    let definition = rows
        .task_definition(&spec.family, spec.revision)
        .map(|row| row.row);
    let session = rows.session(&spec.cluster, &spec.container_instance);
    let empty = || {
        crate::tables::TaskDefinitionRow {
            definition: Default::default(),
            tags: Vec::new(),
        }
        .into()
    };
    let definition = definition.unwrap_or_else(empty);
    let mut task = state.describe(rows.scope, &definition, session.as_deref());
    if with_tags {
        task.tags = Some(spec.tags.clone());
    }
    task
}

pub(super) async fn list_tasks(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListTasksRequest,
) -> Result<ListTasksResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let named = input
        .service_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let of_service = match named {
        Some(text) => Some(scope.service(&cluster, text)?),
        None => None,
    };
    if input
        .daemon_name
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return Err(not_built("A filter by daemon (daemons)"));
    }
    let instance = match input
        .container_instance
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        Some(text) => Some(scope.container_instance(&cluster, text)?),
        None => None,
    };
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    if let Some(name) = &of_service
        && rows.service(&cluster, name).is_none()
    {
        return Err(EcsError::service_not_found_exception("Service not found."));
    }
    let group = of_service.as_ref().map(service_group);
    let phase = match input.desired_status {
        None | Some(DesiredStatus::Running) => Some(DesiredPhase::Running),
        Some(DesiredStatus::Stopped) => Some(DesiredPhase::Stopped),
        // No task ever has PENDING as its desired status, at AWS neither.
        Some(_) => None,
    };
    let family = input.family.as_deref().filter(|family| !family.is_empty());
    let started_by = input
        .started_by
        .as_deref()
        .filter(|started_by| !started_by.is_empty());
    let shown = |task: &TaskState| {
        instance.is_none_or(|instance| task.spec.container_instance == instance)
            && family.is_none_or(|family| task.spec.family.as_str() == family)
            && started_by.is_none_or(|by| task.spec.started_by.as_deref() == Some(by))
            && input
                .launch_type
                .as_ref()
                .is_none_or(|kind| task.spec.launch_type == *kind)
            && group.as_ref().is_none_or(|group| task.spec.group == *group)
            && phase == Some(task.desired_phase())
    };
    let filters = format!(
        "{instance:?} {family:?} {started_by:?} {group:?} {:?} {phase:?}",
        input.launch_type
    );
    let (arns, next_token) = page(
        &service.page_key,
        &format!(
            "tasks {} {} {cluster} {filters}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        rows.tasks(&cluster).filter(shown).map(|task| {
            (
                task.spec.id.to_string(),
                scope.task_arn(&cluster, &task.spec.id),
            )
        }),
    )?;
    Ok(ListTasksResponse {
        task_arns: Some(arns),
        next_token,
    })
}
