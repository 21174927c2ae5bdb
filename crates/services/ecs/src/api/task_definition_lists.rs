//! ListTaskDefinitions and ListTaskDefinitionFamilies.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, ListTaskDefinitionFamiliesRequest, ListTaskDefinitionFamiliesResponse,
    ListTaskDefinitionsRequest, ListTaskDefinitionsResponse, SortOrder, TaskDefinition,
    TaskDefinitionFamilyStatus, TaskDefinitionStatus,
};

use super::lookup::Rows;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::service::EcsService;
use crate::tables::TaskDefinitionRow;

const PAGE_MAX: usize = 100;

pub(super) async fn list_task_definitions(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListTaskDefinitionsRequest,
) -> Result<ListTaskDefinitionsResponse, EcsError> {
    let scope = Scope::of(ctx);
    let status = input.status.unwrap_or(TaskDefinitionStatus::Active);
    let family = input.family_prefix.unwrap_or_default();
    // Despite its name, AWS takes this member for the whole name of a family.
    let prefix = if family.is_empty() {
        String::new()
    } else {
        format!("{family}/")
    };
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope).list::<TaskDefinitionRow>(&prefix);
    let mut listed: Vec<_> = rows
        .iter()
        .filter(|row| row.definition.status.as_ref() == Some(&status))
        .map(|row| (of(&row.definition), arn(&row.definition)))
        .collect();
    listed.sort();
    let descending = input.sort == Some(SortOrder::Desc);
    if descending {
        listed.reverse();
    }
    // Cursors must grow along the list, so downwards they count what is left to the top.
    let ordered = listed.into_iter().map(|((family, revision), arn)| {
        let revision = if descending {
            i32::MAX - revision
        } else {
            revision
        };
        let family = if descending {
            inverted(family)
        } else {
            format!("{family} ")
        };
        (format!("{family}{revision:010}"), arn)
    });
    let (arns, next_token) = page(
        &service.page_key,
        &format!(
            "task-definitions {} {} {family} {status} {descending}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        ordered,
    )?;
    Ok(ListTaskDefinitionsResponse {
        task_definition_arns: Some(arns),
        next_token,
    })
}

fn of(definition: &TaskDefinition) -> (&str, i32) {
    (
        definition.family.as_deref().unwrap_or_default(),
        definition.revision.unwrap_or_default(),
    )
}

fn arn(definition: &TaskDefinition) -> String {
    definition.task_definition_arn.clone().unwrap_or_default()
}

/// A text that sorts the other way round. Families are ASCII, so the highest byte ends one.
fn inverted(family: &str) -> String {
    family
        .bytes()
        .map(|b| char::from(0x7f - b))
        .chain(['\u{7f}'])
        .collect()
}

pub(super) async fn list_task_definition_families(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListTaskDefinitionFamiliesRequest,
) -> Result<ListTaskDefinitionFamiliesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let prefix = input.family_prefix.unwrap_or_default();
    let wanted = input.status.unwrap_or(TaskDefinitionFamilyStatus::All);
    let snapshot = service.snapshot();
    // A family is ACTIVE if any of its revisions is.
    let mut families: BTreeMap<String, bool> = BTreeMap::new();
    for row in Rows::new(&snapshot, &scope).list::<TaskDefinitionRow>(&prefix) {
        let active = row.definition.status == Some(TaskDefinitionStatus::Active);
        let (family, _) = of(&row.definition);
        *families.entry(family.to_owned()).or_default() |= active;
    }
    let listed = families
        .into_iter()
        .filter(|(_, active)| match wanted {
            TaskDefinitionFamilyStatus::Active => *active,
            TaskDefinitionFamilyStatus::Inactive => !*active,
            _ => true,
        })
        .map(|(family, _)| (family.clone(), family));
    let (families, next_token) = page(
        &service.page_key,
        &format!(
            "families {} {} {prefix} {wanted}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        listed,
    )?;
    Ok(ListTaskDefinitionFamiliesResponse {
        families: Some(families),
        next_token,
    })
}
