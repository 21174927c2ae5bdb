//! Clusters: CreateCluster, DescribeClusters, ListClusters, DeleteCluster.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    Cluster, ClusterConfiguration, ClusterField, ClusterServiceConnectDefaults, ClusterSetting,
    ClusterSettingName, CreateClusterRequest, CreateClusterResponse, DeleteClusterRequest,
    DeleteClusterResponse, DescribeClustersRequest, DescribeClustersResponse, EcsError,
    ExecuteCommandLogging, Failure, KeyValuePair, LaunchType, ListClustersRequest,
    ListClustersResponse, SettingName,
};
use gantry_arn::ClusterName;
use gantry_store::{Transaction, Versioned};

use super::account_settings::effective_for_caller;
use super::lookup::Rows;
use crate::model::absent::items;
use crate::model::last_status::LastStatus;
use crate::model::page::{PageRequest, page};
use crate::model::reference::Scope;
use crate::model::refusal::{invalid, not_built};
use crate::model::service::view::ServiceStatus;
use crate::model::tags;
use crate::service::EcsService;
use crate::tables::{
    ClusterRow, ClusterStatus, ContainerInstanceStatus, ServiceRow, cluster_prefix,
};

const DESCRIBED_MAX: usize = 100;
const PAGE_MAX: usize = 100;

pub(super) async fn create_cluster(
    service: &EcsService,
    ctx: &RequestContext,
    input: CreateClusterRequest,
) -> Result<CreateClusterResponse, EcsError> {
    let scope = Scope::of(ctx);
    let name = match input.cluster_name.as_deref() {
        None | Some("") => Default::default(),
        Some(name) => name
            .parse()
            .map_err(|_| invalid("Cluster name contains invalid characters."))?,
    };
    tags::validate(items(&input.tags))?;
    if !items(&input.capacity_providers).is_empty()
        || !items(&input.default_capacity_provider_strategy).is_empty()
    {
        return Err(not_built("A cluster's capacity provider"));
    }
    validate_settings(items(&input.settings))?;
    if let Some(configuration) = &input.configuration {
        validate_configuration(configuration)?;
    }
    let settings = match input.settings {
        Some(settings) if !settings.is_empty() => settings,
        // The account says what a new cluster has that names nothing.
        _ => vec![ClusterSetting {
            name: Some(ClusterSettingName::ContainerInsights),
            value: Some(effective_for_caller(
                &Rows::new(&service.snapshot(), &scope),
                ctx,
                &SettingName::ContainerInsights,
            )?),
        }],
    };
    let connect = input.service_connect_defaults;
    let row = ClusterRow {
        name,
        status: ClusterStatus::Active,
        created_at: ctx.now,
        settings,
        configuration: input.configuration,
        service_connect_defaults: connect.map(|defaults| ClusterServiceConnectDefaults {
            namespace: Some(defaults.namespace),
        }),
        tags: input.tags.unwrap_or_default(),
    };
    let cluster = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let mut transaction = Transaction::new();
            match rows.cluster(&row.name) {
                // The same name again gives the cluster that is there, whatever else is asked.
                Some(there) if there.status == ClusterStatus::Active => {
                    return Ok((transaction, describe(&rows, &there, &Include::everything())));
                }
                Some(inactive) => transaction.update::<ClusterRow>(&inactive, &row),
                None => transaction.create::<ClusterRow>(
                    &scope.account,
                    &scope.region,
                    row.name.as_str(),
                    &row,
                ),
            };
            let cluster = describe_row(&rows, &row, &Include::everything());
            Ok((transaction, cluster))
        })
        .await?;
    Ok(CreateClusterResponse {
        cluster: Some(cluster),
    })
}

pub(super) fn validate_settings(settings: &[ClusterSetting]) -> Result<(), EcsError> {
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or_default();
        if !matches!(value, "enabled" | "disabled" | "enhanced") {
            return Err(invalid(format!(
                "Invalid value '{value}' for cluster setting containerInsights. Valid values are enhanced, enabled and disabled."
            )));
        }
    }
    Ok(())
}

/// Where and how `execute-command` would log: an override without a place to log to is refused.
pub(super) fn validate_configuration(given: &ClusterConfiguration) -> Result<(), EcsError> {
    let Some(execute) = &given.execute_command_configuration else {
        return Ok(());
    };
    let overrides = execute.logging == Some(ExecuteCommandLogging::Override);
    match (overrides, &execute.log_configuration) {
        (true, None) => Err(invalid(
            "Log configuration must be specified when logging is OVERRIDE.",
        )),
        (false, Some(_)) => Err(invalid(
            "Log configuration must not be specified unless logging is OVERRIDE.",
        )),
        _ => Ok(()),
    }
}

pub(super) async fn describe_clusters(
    service: &EcsService,
    ctx: &RequestContext,
    input: DescribeClustersRequest,
) -> Result<DescribeClustersResponse, EcsError> {
    let scope = Scope::of(ctx);
    let asked = match input.clusters {
        Some(asked) if !asked.is_empty() => asked,
        _ => vec!["default".to_owned()],
    };
    if asked.len() > DESCRIBED_MAX {
        return Err(invalid(format!(
            "Clusters cannot have more than {DESCRIBED_MAX} elements."
        )));
    }
    let include = Include::of(items(&input.include));
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for text in &asked {
        let name = scope.cluster(Some(text))?;
        match rows.cluster(&name) {
            Some(cluster) => clusters.push(describe(&rows, &cluster, &include)),
            None => failures.push(Failure {
                arn: Some(scope.cluster_arn(&name)),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    Ok(DescribeClustersResponse {
        clusters: Some(clusters),
        failures: Some(failures),
    })
}

pub(super) async fn list_clusters(
    service: &EcsService,
    ctx: &RequestContext,
    input: ListClustersRequest,
) -> Result<ListClustersResponse, EcsError> {
    let scope = Scope::of(ctx);
    let snapshot = service.snapshot();
    let clusters = Rows::new(&snapshot, &scope).list::<ClusterRow>("");
    let active = clusters
        .iter()
        .filter(|cluster| cluster.status == ClusterStatus::Active);
    let (arns, next_token) = page(
        &service.page_key,
        &format!("clusters {} {}", scope.account, scope.region),
        PageRequest {
            next_token: input.next_token.as_deref(),
            max_results: input.max_results,
            limit: PAGE_MAX,
        },
        active.map(|cluster| (cluster.name().to_owned(), scope.cluster_arn(&cluster.name))),
    )?;
    Ok(ListClustersResponse {
        cluster_arns: Some(arns),
        next_token,
    })
}

pub(super) async fn delete_cluster(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeleteClusterRequest,
) -> Result<DeleteClusterResponse, EcsError> {
    let scope = Scope::of(ctx);
    if input.cluster.is_empty() {
        return Err(invalid("Cluster can not be blank."));
    }
    let name = scope.cluster(Some(&input.cluster))?;
    let cluster = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(there) = rows.cluster(&name) else {
                return Err(EcsError::cluster_not_found_exception("Cluster not found."));
            };
            let mut transaction = Transaction::new();
            if there.status == ClusterStatus::Inactive {
                return Ok((transaction, describe(&rows, &there, &Include::everything())));
            }
            let instances = rows.container_instances(&name);
            if instances.iter().any(|i| i.status != ContainerInstanceStatus::Inactive) {
                return Err(EcsError::cluster_contains_container_instances_exception(
                    "The Cluster cannot be deleted while Container Instances are active or draining.",
                ));
            }
            if services(&rows, &name).iter().any(|(_, status)| *status != ServiceStatus::Inactive) {
                return Err(EcsError::cluster_contains_services_exception(
                    "The Cluster cannot be deleted while Services are active.",
                ));
            }
            if rows.tasks(&name).any(|task| !task.last_status().is_stopped()) {
                return Err(EcsError::cluster_contains_tasks_exception(
                    "The Cluster cannot be deleted while Tasks are active.",
                ));
            }
            // Placements and registrations expect the cluster's row as it is, so none of them can
            // slip in between this look and the commit.
            let mut row = (*there.row).clone();
            row.status = ClusterStatus::Inactive;
            transaction.update::<ClusterRow>(&there, &row);
            Ok((transaction, describe_row(&rows, &row, &Include::everything())))
        })
        .await?;
    Ok(DeleteClusterResponse {
        cluster: Some(cluster),
    })
}

/// The services of a cluster, with their status.
fn services(rows: &Rows<'_>, cluster: &ClusterName) -> Vec<(Versioned<ServiceRow>, ServiceStatus)> {
    let status = |row: Versioned<ServiceRow>| {
        let state = rows.service_state(&row).map(|state| state.row);
        let status = ServiceStatus::of(&row, state.as_deref());
        (row, status)
    };
    let all = rows.list::<ServiceRow>(&cluster_prefix(cluster));
    all.into_iter().map(status).collect()
}

/// What a description has beyond the essentials.
pub(super) struct Include {
    attachments: bool,
    configurations: bool,
    settings: bool,
    statistics: bool,
    tags: bool,
}

impl Include {
    fn of(fields: &[ClusterField]) -> Self {
        Self {
            attachments: fields.contains(&ClusterField::Attachments),
            configurations: fields.contains(&ClusterField::Configurations),
            settings: fields.contains(&ClusterField::Settings),
            statistics: fields.contains(&ClusterField::Statistics),
            tags: fields.contains(&ClusterField::Tags),
        }
    }

    pub(super) fn everything() -> Self {
        Self {
            attachments: false,
            configurations: true,
            settings: true,
            statistics: false,
            tags: true,
        }
    }
}

fn describe(rows: &Rows<'_>, cluster: &Versioned<ClusterRow>, include: &Include) -> Cluster {
    describe_row(rows, &cluster.row, include)
}

pub(super) fn describe_row(rows: &Rows<'_>, row: &ClusterRow, include: &Include) -> Cluster {
    let registered = rows
        .container_instances(&row.name)
        .iter()
        .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
        .count();
    let counts = Counts::of(rows, row);
    let count = |n: usize| Some(i32::try_from(n).unwrap_or(i32::MAX));
    let when = |included: bool| included.then_some(());
    Cluster {
        cluster_arn: Some(rows.scope.cluster_arn(&row.name)),
        cluster_name: Some(row.name.to_string()),
        status: Some(
            match row.status {
                ClusterStatus::Active => "ACTIVE",
                ClusterStatus::Inactive => "INACTIVE",
            }
            .to_owned(),
        ),
        registered_container_instances_count: count(registered),
        running_tasks_count: count(counts.running),
        pending_tasks_count: count(counts.pending),
        active_services_count: count(counts.active_services),
        statistics: Some(match include.statistics {
            true => counts.statistics(),
            false => Vec::new(),
        }),
        tags: Some(
            when(include.tags)
                .map(|()| row.tags.clone())
                .unwrap_or_default(),
        ),
        settings: Some(
            when(include.settings)
                .map(|()| row.settings.clone())
                .unwrap_or_default(),
        ),
        capacity_providers: Some(Vec::new()),
        default_capacity_provider_strategy: Some(Vec::new()),
        configuration: when(include.configurations).and_then(|()| row.configuration.clone()),
        service_connect_defaults: row.service_connect_defaults.clone(),
        // What is attached to a cluster are the resources of its capacity providers: none yet.
        attachments: when(include.attachments).map(|()| Vec::new()),
        ..Cluster::default()
    }
}

/// How many tasks run and wait, of each launch type.
#[derive(Default)]
struct Counts {
    running: usize,
    pending: usize,
    external_running: usize,
    external_pending: usize,
    active_services: usize,
    draining_services: usize,
    external_active_services: usize,
    external_draining_services: usize,
}

impl Counts {
    fn of(rows: &Rows<'_>, row: &ClusterRow) -> Self {
        let mut counts = Self::default();
        for (service, status) in services(rows, &row.name) {
            let external = usize::from(service.launch_type == LaunchType::External);
            match status {
                ServiceStatus::Active => {
                    counts.active_services += 1;
                    counts.external_active_services += external;
                }
                ServiceStatus::Draining => {
                    counts.draining_services += 1;
                    counts.external_draining_services += external;
                }
                ServiceStatus::Inactive => {}
            }
        }
        // The tasks that count are those that hold a share of an instance: stopped ones, of which
        // there may be thousands, are not looked at.
        for instance in rows.container_instances(&row.name) {
            for task in rows.allocation(&row.name, &instance.id).tasks {
                let external = usize::from(task.spec.launch_type == LaunchType::External);
                match task.last_status() {
                    LastStatus::Running => {
                        counts.running += 1;
                        counts.external_running += external;
                    }
                    status if status < LastStatus::Running => {
                        counts.pending += 1;
                        counts.external_pending += external;
                    }
                    _ => {}
                }
            }
        }
        counts
    }

    /// FARGATE tasks and services cannot be made yet, so there are none.
    fn statistics(&self) -> Vec<KeyValuePair> {
        let values = [
            ("runningEC2TasksCount", self.running - self.external_running),
            ("runningFargateTasksCount", 0),
            ("pendingEC2TasksCount", self.pending - self.external_pending),
            ("pendingFargateTasksCount", 0),
            ("runningExternalTasksCount", self.external_running),
            ("pendingExternalTasksCount", self.external_pending),
            (
                "activeEC2ServiceCount",
                self.active_services - self.external_active_services,
            ),
            ("activeFargateServiceCount", 0),
            (
                "drainingEC2ServiceCount",
                self.draining_services - self.external_draining_services,
            ),
            ("drainingFargateServiceCount", 0),
            ("activeExternalServiceCount", self.external_active_services),
            (
                "drainingExternalServiceCount",
                self.external_draining_services,
            ),
        ];
        let pair = |(name, value): (&str, usize)| KeyValuePair {
            name: Some(name.to_owned()),
            value: Some(value.to_string()),
        };
        values.into_iter().map(pair).collect()
    }
}
