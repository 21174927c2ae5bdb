//! Container instances: Register, Describe, List.

use gantry_api::RequestContext;
use gantry_api::auth::node::NodePrincipal;
use gantry_api::ecs::{
    Attribute, ContainerInstance, ContainerInstanceField, DescribeContainerInstancesRequest,
    DescribeContainerInstancesResponse, EcsError, Failure, ListContainerInstancesRequest,
    ListContainerInstancesResponse, RegisterContainerInstanceRequest,
    RegisterContainerInstanceResponse,
};
use gantry_arn::{ClusterName, ContainerInstanceId};
use gantry_placement::query;
use gantry_store::{Transaction, Versioned};

use super::identity::sha256;
use super::lookup::Rows;
use super::placing::candidate;
use crate::acs::health_status;
use crate::model::absent::items;
use crate::model::attributes::registered_again;
use crate::model::last_status::LastStatus;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
pub(super) use crate::model::service::scheduling::ZONE_ATTRIBUTE;
use crate::model::{resources, tags};
use crate::service::EcsService;
use crate::tables::{
    AllocationRow, ClientTokenRow, ClusterRow, ContainerInstanceRow, ContainerInstanceStatus,
    container_instance_name,
};

const DESCRIBED_MAX: usize = 100;
const PAGE_MAX: usize = 100;

pub(super) async fn register_container_instance(
    service: &EcsService,
    ctx: &RequestContext,
    input: RegisterContainerInstanceRequest,
) -> Result<RegisterContainerInstanceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    tags::validate(items(&input.tags))?;
    resources::validate(items(&input.total_resources))?;
    let again = match input
        .container_instance_arn
        .as_deref()
        .filter(|arn| !arn.is_empty())
    {
        Some(arn) => Some(scope.container_instance(&cluster, arn)?),
        None => None,
    };
    let token = input
        .client_token
        .as_deref()
        .filter(|token| !token.is_empty());
    let token_name =
        token.map(|token| format!("RegisterContainerInstance/{cluster}/{}", sha256(token)));
    let drawn = ContainerInstanceId::from_random(service.env.entropy.bytes16());
    let registration = Registration::of(service, ctx, &input);
    let instance = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let cluster_row = rows.active_cluster(&cluster)?;
            let mut transaction = Transaction::new();
            // Written, though nothing in it changes: a deletion of the cluster that has not seen
            // this instance then finds the row changed, and looks again.
            transaction.update::<ClusterRow>(&cluster_row, &cluster_row.row);
            let used = token_name
                .as_deref()
                .and_then(|name| rows.read::<ClientTokenRow>(name));
            // A token that was used means that the answer got lost: the same instance again.
            let repeated = used.as_ref().and_then(|token| token.container_instance);
            let id = again.or(repeated).unwrap_or(drawn);
            let before = rows.container_instance(&cluster, &id);
            check_again(again.is_some(), before.as_ref())?;
            let before = before.filter(|row| row.status != ContainerInstanceStatus::Inactive);
            let id = if before.is_some() || again.is_some() {
                id
            } else {
                drawn
            };
            let row = registration.row(&cluster, id, before.as_ref());
            let name = container_instance_name(&cluster, &id);
            let (account, region) = (&scope.account, &scope.region);
            match &before {
                Some(before) => transaction.update::<ContainerInstanceRow>(before, &row),
                None => transaction
                    .create::<ContainerInstanceRow>(account, region, &name, &row)
                    .create::<AllocationRow>(account, region, &name, &AllocationRow::default()),
            };
            if let Some(token_name) = &token_name {
                let token_row = ClientTokenRow {
                    fingerprint: String::new(),
                    created_at: ctx.now,
                    cluster: cluster.clone(),
                    container_instance: Some(id),
                    tasks: Vec::new(),
                    failures: Vec::new(),
                };
                match &used {
                    Some(used) if repeated == Some(id) => transaction.expect_read(used),
                    Some(used) => transaction.update::<ClientTokenRow>(used, &token_row),
                    None => transaction
                        .create::<ClientTokenRow>(account, region, token_name, &token_row),
                };
            }
            Ok((transaction, describe(&rows, &row, true)))
        })
        .await?;
    Ok(RegisterContainerInstanceResponse {
        container_instance: Some(instance),
    })
}

fn check_again(
    by_arn: bool,
    before: Option<&Versioned<ContainerInstanceRow>>,
) -> Result<(), EcsError> {
    match before {
        None if by_arn => Err(invalid("The referenced container instance was not found.")),
        Some(row) if by_arn && row.status == ContainerInstanceStatus::Inactive => {
            Err(invalid("The referenced container instance is inactive."))
        }
        _ => Ok(()),
    }
}

/// What a registration brings, the same for a new instance and for one that is there.
struct Registration<'a> {
    input: &'a RegisterContainerInstanceRequest,
    now: gantry_env::Timestamp,
    ec2_instance_id: String,
    zone: String,
    /// The node whose agent registers, where one does and not an administrator.
    node: Option<String>,
}

impl<'a> Registration<'a> {
    fn of(
        service: &EcsService,
        ctx: &RequestContext,
        input: &'a RegisterContainerInstanceRequest,
    ) -> Self {
        // An external instance brings no document, or an empty one.
        let document: serde_json::Value = input
            .instance_identity_document
            .as_deref()
            .and_then(|document| serde_json::from_str(document).ok())
            .unwrap_or_default();
        let member = |name: &str| document[name].as_str().map(str::to_owned);
        let default_zone = || {
            let configured = service.options.availability_zone.clone();
            configured.unwrap_or_else(|| format!("{}a", ctx.region))
        };
        Self {
            input,
            now: ctx.now,
            ec2_instance_id: member("instanceId").unwrap_or_default(),
            zone: member("availabilityZone").unwrap_or_else(default_zone),
            node: NodePrincipal::of(&ctx.principal).map(|node| node.node),
        }
    }

    fn row(
        &self,
        cluster: &ClusterName,
        id: ContainerInstanceId,
        before: Option<&Versioned<ContainerInstanceRow>>,
    ) -> ContainerInstanceRow {
        let said = self.input.attributes.clone().unwrap_or_default();
        let there = before.map_or(&[][..], |row| &row.attributes);
        let mut attributes = registered_again(there, said);
        if !attributes
            .iter()
            .any(|attribute| attribute.name == ZONE_ATTRIBUTE)
        {
            attributes.push(Attribute {
                name: ZONE_ATTRIBUTE.to_owned(),
                value: Some(self.zone.clone()),
                ..Attribute::default()
            });
        }
        let given_tags = self.input.tags.clone().unwrap_or_default();
        ContainerInstanceRow {
            id,
            cluster: cluster.clone(),
            // A drained instance whose agent restarts is still to be drained.
            status: before.map_or(ContainerInstanceStatus::Active, |row| row.status),
            status_reason: None,
            ec2_instance_id: self.ec2_instance_id.clone(),
            registered_at: before.map_or(self.now, |row| row.registered_at),
            deregistered_at: None,
            version: before.map_or(1, |row| row.version + 1),
            registered_resources: self.input.total_resources.clone().unwrap_or_default(),
            version_info: self.input.version_info.clone(),
            attributes,
            node: match &self.node {
                Some(node) => Some(node.clone()),
                None => before.and_then(|row| row.node.clone()),
            },
            platform_devices: self.input.platform_devices.clone().unwrap_or_default(),
            tags: before.map_or(given_tags.clone(), |row| {
                tags::merge(&row.tags, &given_tags)
            }),
        }
    }
}

pub(super) async fn describe_container_instances(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeContainerInstancesRequest,
) -> Result<DescribeContainerInstancesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input.container_instances.is_empty() {
        return Err(invalid("Container Instances cannot be empty."));
    }
    if input.container_instances.len() > DESCRIBED_MAX {
        return Err(invalid(format!(
            "Container Instances cannot have more than {DESCRIBED_MAX} elements."
        )));
    }
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let include = items(&input.include);
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for text in &input.container_instances {
        let id = scope.container_instance(&cluster, text)?;
        match rows.container_instance(&cluster, &id) {
            None => failures.push(missing(&scope, &cluster, &id)),
            Some(row) => {
                let with_tags = include.contains(&ContainerInstanceField::Tags);
                let mut instance = describe(&rows, &row, with_tags);
                if include.contains(&ContainerInstanceField::ContainerInstanceHealth) {
                    let arn = scope.container_instance_arn(&cluster, &id);
                    instance.health_status = Some(health_status(service.telemetry.checks(&arn)));
                }
                instances.push(instance);
            }
        }
    }
    Ok(DescribeContainerInstancesResponse {
        container_instances: Some(instances),
        failures: Some(failures),
    })
}

pub(super) fn missing(
    scope: &Scope,
    cluster: &ClusterName,
    instance: &ContainerInstanceId,
) -> Failure {
    Failure {
        arn: Some(scope.container_instance_arn(cluster, instance)),
        reason: Some("MISSING".to_owned()),
        detail: None,
    }
}

/// A container instance as users see it.
pub(super) fn describe(
    rows: &Rows<'_>,
    row: &ContainerInstanceRow,
    with_tags: bool,
) -> ContainerInstance {
    let allocation = rows.allocation(&row.cluster, &row.id);
    let session = rows.session(&row.cluster, &row.id);
    let connected = row.status != ContainerInstanceStatus::Inactive
        && session.is_some_and(|session| session.connected);
    let count = |wanted: fn(LastStatus) -> bool| {
        let tasks = allocation
            .tasks
            .iter()
            .filter(|task| wanted(task.last_status()));
        Some(i32::try_from(tasks.count()).unwrap_or(i32::MAX))
    };
    ContainerInstance {
        container_instance_arn: Some(rows.scope.container_instance_arn(&row.cluster, &row.id)),
        ec2_instance_id: Some(row.ec2_instance_id.clone()),
        version: Some(row.version),
        version_info: Some(row.version_info.clone().unwrap_or_default()),
        remaining_resources: Some(resources::remaining(
            &row.registered_resources,
            &allocation.taken,
        )),
        registered_resources: Some(row.registered_resources.clone()),
        status: Some(row.status.as_str().to_owned()),
        status_reason: row.status_reason.clone(),
        agent_connected: Some(connected),
        running_tasks_count: count(|status| status == LastStatus::Running),
        pending_tasks_count: count(|status| status < LastStatus::Running),
        attributes: Some(row.attributes.clone()),
        registered_at: Some(row.registered_at),
        attachments: Some(Vec::new()),
        tags: Some(if with_tags {
            row.tags.clone()
        } else {
            Vec::new()
        }),
        ..ContainerInstance::default()
    }
}

pub(super) async fn list_container_instances(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListContainerInstancesRequest,
) -> Result<ListContainerInstancesResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let filter = input.filter.as_deref().filter(|it| !it.trim().is_empty());
    let expression = match filter.map(query::parse) {
        None => None,
        Some(Ok(expression)) => Some(expression),
        Some(Err(error)) => return Err(invalid(error.to_string())),
    };
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let status = input
        .status
        .as_ref()
        .map(|status| status.as_str().to_owned());
    let shown = |row: &ContainerInstanceRow| match &status {
        None => row.status != ContainerInstanceStatus::Inactive,
        Some(status) => row.status.as_str() == status,
    };
    let (arns, next_token) = page(
        &service.page_key,
        &format!(
            "instances {} {} {cluster} {status:?} {filter:?}",
            scope.account, scope.region
        ),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        rows.container_instances(&cluster)
            .into_iter()
            .filter(|row| shown(row))
            .filter(|row| {
                let meant = |expression: &query::Expression| {
                    expression.holds(&candidate(&rows, &cluster, row.clone()))
                };
                expression.as_ref().is_none_or(meant)
            })
            .map(|row| {
                (
                    row.id.to_string(),
                    scope.container_instance_arn(&cluster, &row.id),
                )
            }),
    )?;
    Ok(ListContainerInstancesResponse {
        container_instance_arns: Some(arns),
        next_token,
    })
}
