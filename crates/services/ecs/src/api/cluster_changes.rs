//! UpdateCluster and UpdateClusterSettings.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    Cluster, ClusterServiceConnectDefaults, EcsError, UpdateClusterRequest, UpdateClusterResponse,
    UpdateClusterSettingsRequest, UpdateClusterSettingsResponse,
};
use gantry_store::Transaction;

use super::clusters::{Include, describe_row, validate_configuration, validate_settings};
use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::service::EcsService;
use crate::tables::ClusterRow;

pub(super) async fn update_cluster(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateClusterRequest,
) -> Result<UpdateClusterResponse, EcsError> {
    if let Some(settings) = &input.settings {
        validate_settings(settings)?;
    }
    if let Some(configuration) = &input.configuration {
        validate_configuration(configuration)?;
    }
    let cluster = change(service, ctx, &input.cluster, |row| {
        // What is not named stays as it is.
        if let Some(settings) = &input.settings {
            row.settings.clone_from(settings);
        }
        if let Some(configuration) = &input.configuration {
            row.configuration = Some(configuration.clone());
        }
        if let Some(defaults) = &input.service_connect_defaults {
            // An empty namespace takes the default away, as at AWS.
            let namespace = Some(defaults.namespace.clone()).filter(|name| !name.is_empty());
            row.service_connect_defaults =
                namespace.map(|namespace| ClusterServiceConnectDefaults {
                    namespace: Some(namespace),
                });
        }
    })
    .await?;
    Ok(UpdateClusterResponse {
        cluster: Some(cluster),
    })
}

pub(super) async fn update_cluster_settings(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateClusterSettingsRequest,
) -> Result<UpdateClusterSettingsResponse, EcsError> {
    if input.settings.is_empty() {
        return Err(invalid("Cluster settings can not be empty."));
    }
    validate_settings(&input.settings)?;
    let cluster = change(service, ctx, &input.cluster, |row| {
        row.settings.clone_from(&input.settings);
    })
    .await?;
    Ok(UpdateClusterSettingsResponse {
        cluster: Some(cluster),
    })
}

async fn change(
    service: &EcsService,
    ctx: &RequestContext,
    cluster: &str,
    edit: impl Fn(&mut ClusterRow) + Send + Sync,
) -> Result<Cluster, EcsError> {
    let scope = Scope::of(ctx);
    if cluster.is_empty() {
        return Err(invalid("Cluster can not be blank."));
    }
    let name = scope.cluster(Some(cluster))?;
    service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let read = rows.active_cluster(&name)?;
            let mut row = (*read.row).clone();
            edit(&mut row);
            let mut transaction = Transaction::new();
            if row != *read.row {
                transaction.update::<ClusterRow>(&read, &row);
            }
            let include = Include::everything();
            Ok((transaction, describe_row(&rows, &row, &include)))
        })
        .await
}
