//! Custom attributes of container instances: PutAttributes, DeleteAttributes, ListAttributes.
//!
//! What always holds: an attribute whose name begins with `ecs.` or `com.amazonaws.` says what an
//! instance is or can do; only its agent sets those. All other names are the users' own.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    Attribute, DeleteAttributesRequest, DeleteAttributesResponse, EcsError, ListAttributesRequest,
    ListAttributesResponse, PutAttributesRequest, PutAttributesResponse, TargetType,
};
use gantry_arn::{ClusterName, ContainerInstanceId};
use gantry_store::Transaction;

use super::lookup::Rows;
use crate::model::attributes::{CUSTOM_ATTRIBUTES_MAX, is_reserved, validate_name, validate_value};
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::service::EcsService;
use crate::tables::{ContainerInstanceRow, ContainerInstanceStatus};

const ATTRIBUTES_AT_ONCE_MAX: usize = 10;
const PAGE_MAX: usize = 100;

pub(super) async fn put_attributes(
    service: &EcsService,
    ctx: &RequestContext,
    input: PutAttributesRequest,
) -> Result<PutAttributesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let targets = targets(&scope, &cluster, &input.attributes)?;
    for attribute in &input.attributes {
        if let Some(value) = attribute.value.as_deref() {
            validate_value(value)?;
        }
    }
    let attributes = change(service, &scope, &cluster, &targets, |row, attribute| {
        let new = Attribute {
            name: attribute.name.clone(),
            value: attribute.value.clone(),
            ..Attribute::default()
        };
        match row.attributes.iter_mut().find(|a| a.name == new.name) {
            Some(there) => *there = new.clone(),
            None => row.attributes.push(new.clone()),
        }
        let custom = row.attributes.iter().filter(|a| !is_reserved(&a.name));
        if custom.count() > CUSTOM_ATTRIBUTES_MAX {
            return Err(EcsError::attribute_limit_exceeded_exception(format!(
                "A container instance can have at most {CUSTOM_ATTRIBUTES_MAX} custom attributes."
            )));
        }
        Ok(Some(new))
    })
    .await?;
    Ok(PutAttributesResponse {
        attributes: Some(attributes),
    })
}

pub(super) async fn delete_attributes(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeleteAttributesRequest,
) -> Result<DeleteAttributesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let targets = targets(&scope, &cluster, &input.attributes)?;
    let attributes = change(service, &scope, &cluster, &targets, |row, attribute| {
        // A value that is named must be the one that is there; what is not there is gone already.
        let meant = |there: &Attribute| {
            there.name == attribute.name
                && (attribute.value.is_none() || attribute.value == there.value)
        };
        let at = row.attributes.iter().position(meant);
        Ok(at.map(|at| row.attributes.remove(at)))
    })
    .await?;
    Ok(DeleteAttributesResponse {
        attributes: Some(attributes),
    })
}

/// The attributes of one request, by the instance that each is for.
type Targets<'a> = BTreeMap<ContainerInstanceId, Vec<&'a Attribute>>;

fn targets<'a>(
    scope: &Scope,
    cluster: &ClusterName,
    attributes: &'a [Attribute],
) -> Result<Targets<'a>, EcsError> {
    if attributes.is_empty() {
        return Err(invalid("Attributes can not be empty."));
    }
    if attributes.len() > ATTRIBUTES_AT_ONCE_MAX {
        return Err(invalid(format!(
            "Attributes cannot have more than {ATTRIBUTES_AT_ONCE_MAX} elements."
        )));
    }
    let mut targets = Targets::new();
    for attribute in attributes {
        validate_name(&attribute.name)?;
        if is_reserved(&attribute.name) {
            return Err(invalid(format!(
                "Attribute '{}' is reserved: names that begin with 'ecs.' or 'com.amazonaws.' are set by the container agent.",
                attribute.name
            )));
        }
        let Some(target) = attribute.target_id.as_deref().filter(|id| !id.is_empty()) else {
            return Err(invalid("Target ID can not be blank."));
        };
        let id = scope.container_instance(cluster, target)?;
        targets.entry(id).or_default().push(attribute);
    }
    Ok(targets)
}

/// Changes the attributes of every target in one transaction, and answers what `each` answers, as
/// the API words it.
async fn change(
    service: &EcsService,
    scope: &Scope,
    cluster: &ClusterName,
    targets: &Targets<'_>,
    each: impl Fn(&mut ContainerInstanceRow, &Attribute) -> Result<Option<Attribute>, EcsError>
    + Send
    + Sync,
) -> Result<Vec<Attribute>, EcsError> {
    service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, scope);
            rows.active_cluster(cluster)?;
            let mut transaction = Transaction::new();
            let mut changed = Vec::new();
            for (id, attributes) in targets {
                let read = rows
                    .container_instance(cluster, id)
                    .filter(|row| row.status != ContainerInstanceStatus::Inactive);
                let Some(read) = read else {
                    return Err(EcsError::target_not_found_exception(
                        "The specified target container instance was not found.",
                    ));
                };
                let mut row = (*read.row).clone();
                for attribute in attributes {
                    changed.extend(each(&mut row, attribute)?.map(|it| shown(scope, &row, it)));
                }
                if row.attributes != read.attributes {
                    row.version += 1;
                    transaction.update::<ContainerInstanceRow>(&read, &row);
                }
            }
            Ok((transaction, changed))
        })
        .await
}

fn shown(scope: &Scope, row: &ContainerInstanceRow, attribute: Attribute) -> Attribute {
    Attribute {
        target_id: Some(scope.container_instance_arn(&row.cluster, &row.id)),
        ..attribute
    }
}

pub(super) async fn list_attributes(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListAttributesRequest,
) -> Result<ListAttributesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input.target_type != TargetType::ContainerInstance {
        return Err(invalid("Target type should be container-instance."));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (name, value) = (given(&input.attribute_name), given(&input.attribute_value));
    if value.is_some() && name.is_none() {
        return Err(invalid(
            "An attribute name must be specified when an attribute value is specified.",
        ));
    }
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let wanted = |attribute: &Attribute| {
        name.as_ref().is_none_or(|name| attribute.name == *name)
            && value
                .as_ref()
                .is_none_or(|v| attribute.value.as_ref() == Some(v))
    };
    let instances = rows.container_instances(&cluster);
    let all = instances
        .iter()
        .filter(|row| row.status != ContainerInstanceStatus::Inactive)
        .flat_map(|row| {
            let mut attributes: Vec<&Attribute> =
                row.attributes.iter().filter(|a| wanted(a)).collect();
            attributes.sort_by(|a, b| a.name.cmp(&b.name));
            attributes.into_iter().map(|attribute| {
                let cursor = format!("{}/{}", row.id, attribute.name);
                (cursor, shown(&scope, row, attribute.clone()))
            })
        });
    let (attributes, next_token) = page(
        &service.page_key,
        &format!(
            "attributes {} {} {cluster} {name:?} {value:?}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        all,
    )?;
    Ok(ListAttributesResponse {
        attributes: Some(attributes),
        next_token,
    })
}
