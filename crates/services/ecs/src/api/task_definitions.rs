//! Task definitions: Register, Describe, Deregister, Delete.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DeleteTaskDefinitionsRequest, DeleteTaskDefinitionsResponse, DeregisterTaskDefinitionRequest,
    DeregisterTaskDefinitionResponse, DescribeTaskDefinitionRequest,
    DescribeTaskDefinitionResponse, EcsError, Failure, RegisterTaskDefinitionRequest,
    RegisterTaskDefinitionResponse, TaskDefinition, TaskDefinitionField, TaskDefinitionStatus,
};
use gantry_arn::Family;
use gantry_store::{Transaction, Versioned};

use super::lookup::Rows;
use super::registrations::Wanted;
use crate::model::absent::items;
use crate::model::reference::{Scope, TaskDefinitionReference};
use crate::model::refusal::{client, invalid};
use crate::model::task_definition::validate;
use crate::service::EcsService;
use crate::tables::{FamilyRow, TaskDefinitionRow};

const DELETED_AT_ONCE_MAX: usize = 10;

pub(super) async fn register_task_definition(
    service: &EcsService,
    ctx: &RequestContext,
    input: RegisterTaskDefinitionRequest,
) -> Result<RegisterTaskDefinitionResponse, EcsError> {
    let scope = Scope::of(ctx);
    validate(&input)?;
    let family: Family = input
        .family
        .parse()
        .map_err(|_| client("Family contains invalid characters."))?;
    let tags = input.tags.clone().unwrap_or_default();
    let wanted = Wanted {
        input,
        tags,
        at: ctx.now,
        by: ctx.principal.arn.to_string(),
    };
    let row = service
        .registrations
        .register(&service.committer(), scope, family, wanted)
        .await?;
    Ok(RegisterTaskDefinitionResponse {
        task_definition: Some(row.definition),
        tags: Some(row.tags),
    })
}

/// The row that a reference means: the named revision, or the latest ACTIVE one of the family.
pub(super) fn find(
    rows: &Rows<'_>,
    reference: &TaskDefinitionReference,
) -> Option<Versioned<TaskDefinitionRow>> {
    if let Some(revision) = reference.revision {
        return rows.task_definition(&reference.family, revision);
    }
    // Downwards from the newest, so that the revisions of years are not all read.
    let newest = rows
        .read::<FamilyRow>(reference.family.as_str())?
        .next_revision;
    (1..newest)
        .rev()
        .filter_map(|revision| rows.task_definition(&reference.family, revision))
        .find(|row| row.definition.status == Some(TaskDefinitionStatus::Active))
}

pub(super) async fn describe_task_definition(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeTaskDefinitionRequest,
) -> Result<DescribeTaskDefinitionResponse, EcsError> {
    let scope = Scope::of(ctx);
    let reference = scope.task_definition(&input.task_definition)?;
    let snapshot = service.snapshot();
    let Some(row) = find(&Rows::new(&snapshot, &scope), &reference) else {
        return Err(client("Unable to describe task definition."));
    };
    let with_tags = items(&input.include).contains(&TaskDefinitionField::Tags);
    Ok(DescribeTaskDefinitionResponse {
        task_definition: Some(row.definition.clone()),
        tags: Some(if with_tags {
            row.tags.clone()
        } else {
            Vec::new()
        }),
    })
}

pub(super) async fn deregister_task_definition(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeregisterTaskDefinitionRequest,
) -> Result<DeregisterTaskDefinitionResponse, EcsError> {
    let scope = Scope::of(ctx);
    let reference = scope.task_definition(&input.task_definition)?;
    if reference.revision.is_none() {
        return Err(client(format!(
            "Invalid revision number. Number: {}",
            input.task_definition
        )));
    }
    let definition = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(read) = find(&rows, &reference) else {
                return Err(client("The specified task definition does not exist."));
            };
            let mut row = (*read.row).clone();
            let mut transaction = Transaction::new();
            // Once INACTIVE it stays as it is, so doing it again answers the same.
            if row.definition.status == Some(TaskDefinitionStatus::Active) {
                row.definition.status = Some(TaskDefinitionStatus::Inactive);
                row.definition.deregistered_at = Some(ctx.now);
                transaction.update::<TaskDefinitionRow>(&read, &row);
            }
            Ok((transaction, row.definition))
        })
        .await?;
    Ok(DeregisterTaskDefinitionResponse {
        task_definition: Some(definition),
    })
}

pub(super) async fn delete_task_definitions(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeleteTaskDefinitionsRequest,
) -> Result<DeleteTaskDefinitionsResponse, EcsError> {
    let scope = Scope::of(ctx);
    if input.task_definitions.is_empty() {
        return Err(invalid("Task definitions can not be empty."));
    }
    if input.task_definitions.len() > DELETED_AT_ONCE_MAX {
        return Err(invalid(format!(
            "Task definitions cannot have more than {DELETED_AT_ONCE_MAX} elements."
        )));
    }
    let (definitions, failures) = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let mut transaction = Transaction::new();
            let (mut definitions, mut failures) = (Vec::new(), Vec::new());
            for text in &input.task_definitions {
                match mark_deleted(&rows, text, ctx, &mut transaction) {
                    Ok(definition) => definitions.push(definition),
                    Err(failure) => failures.push(failure),
                }
            }
            Ok((transaction, (definitions, failures)))
        })
        .await?;
    Ok(DeleteTaskDefinitionsResponse {
        task_definitions: Some(definitions),
        failures: Some(failures),
    })
}

/// Marks one revision; a controller removes it once no task uses it any more.
fn mark_deleted(
    rows: &Rows<'_>,
    text: &str,
    ctx: &RequestContext,
    transaction: &mut Transaction,
) -> Result<TaskDefinition, Failure> {
    let failure = |reason: &str, detail: String| Failure {
        arn: Some(text.to_owned()),
        reason: Some(reason.to_owned()),
        detail: Some(detail),
    };
    let reference = match rows.scope.task_definition(text) {
        Ok(reference) if reference.revision.is_some() => reference,
        Ok(_) => {
            return Err(failure(
                "INVALID_ARGUMENT",
                "The task definition revision must be specified.".to_owned(),
            ));
        }
        Err(_) => {
            return Err(failure(
                "INVALID_ARGUMENT",
                "The task definition identifier is not valid.".to_owned(),
            ));
        }
    };
    let Some(read) = find(rows, &reference) else {
        return Err(failure(
            "TASK_DEFINITION_NOT_FOUND",
            "The specified task definition does not exist.".to_owned(),
        ));
    };
    let mut row = (*read.row).clone();
    match row.definition.status {
        Some(TaskDefinitionStatus::Inactive) => {
            row.definition.status = Some(TaskDefinitionStatus::DeleteInProgress);
            row.definition.delete_requested_at = Some(ctx.now);
            transaction.update::<TaskDefinitionRow>(&read, &row);
            Ok(row.definition)
        }
        Some(TaskDefinitionStatus::DeleteInProgress) => Ok(row.definition),
        _ => Err(failure(
            "TASK_DEFINITION_ACTIVE",
            "The specified task definition is still in ACTIVE status. Please deregister the target and try again."
                .to_owned(),
        )),
    }
}
