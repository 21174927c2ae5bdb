//! A plan's refusals: as the API words them, and as they are kept for whoever asks why.

use std::collections::BTreeMap;

use gantry_api::ecs::Failure;
use gantry_arn::ClusterName;
use gantry_placement::{Plan, Rejection, Unfit};
use gantry_store::Transaction;

use super::new_tasks::{Ground, NewTasks};
use crate::model::reference::Scope;
use crate::tables::{PlacementRejection, PlacementRejectionsRow};

/// How many refused placements of a cluster are kept.
const REJECTIONS_MAX: usize = 20;

/// Of how many instances the reasons are kept one by one. Those of all are counted.
const INSTANCES_MAX: usize = 50;

/// One failure for each instance, with the first reason against it, as AWS answers.
pub(super) fn failures(scope: &Scope, cluster: &ClusterName, plan: &Plan) -> Vec<Failure> {
    let failure = |rejection: &Rejection| {
        let first = rejection.reasons.first();
        let reason = first.map_or("MISSING", |unfit| unfit.api_reason());
        Failure {
            arn: Some(scope.container_instance_arn(cluster, &rejection.instance)),
            reason: Some(reason.to_owned()),
            detail: first.and_then(detail),
        }
    };
    plan.rejections.iter().map(failure).collect()
}

/// AWS gives details of none but attributes, which nobody could guess.
fn detail(unfit: &Unfit) -> Option<String> {
    match unfit {
        Unfit::Attributes { missing } => {
            let names: Vec<&str> = missing.iter().map(|a| a.name.as_str()).collect();
            Some(names.join(", "))
        }
        _ => None,
    }
}

/// Keeps why tasks found no place, next to the latest others of the cluster.
pub(super) fn keep_rejection(
    new: &NewTasks<'_>,
    ground: &Ground<'_>,
    plan: &Plan,
    transaction: &mut Transaction,
) {
    let cluster = new.cluster.as_str();
    let read = ground.rows.read::<PlacementRejectionsRow>(cluster);
    let mut kept = read.map(|row| (*row.row).clone()).unwrap_or_default();
    kept.rejections.insert(0, rejection(new, ground, plan));
    kept.rejections.truncate(REJECTIONS_MAX);
    // Written over whatever is there: losing one of two explanations made at once is better than a
    // placement that waits for it.
    let (account, region) = (&new.scope.account, &new.scope.region);
    transaction.write::<PlacementRejectionsRow>(account, region, cluster, &kept);
}

fn rejection(new: &NewTasks<'_>, ground: &Ground<'_>, plan: &Plan) -> PlacementRejection {
    let revision = ground.definition.definition.revision.unwrap_or_default();
    let sentence = |rejection: &Rejection| {
        let mut reasons: Vec<String> = rejection.reasons.iter().map(Unfit::explain).collect();
        if reasons.is_empty() {
            reasons.push("there is no such container instance".to_owned());
        }
        format!(
            "Container instance {}: {}.",
            rejection.instance,
            reasons.join("; ")
        )
    };
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for rejection in &plan.rejections {
        for unfit in &rejection.reasons {
            *counts.entry(unfit.api_reason().to_owned()).or_default() += 1;
        }
    }
    let group = new.input.group.clone().filter(|group| !group.is_empty());
    PlacementRejection {
        at: new.ctx.now,
        task_definition: format!("{}:{revision}", new.reference.family),
        asked: u32::try_from(new.ids.len()).unwrap_or(u32::MAX),
        unplaced: plan.unplaced,
        reasons: plan
            .rejections
            .iter()
            .take(INSTANCES_MAX)
            .map(sentence)
            .collect(),
        instances: u32::try_from(plan.rejections.len()).unwrap_or(u32::MAX),
        counts,
        started_by: new.input.started_by.clone().filter(|by| !by.is_empty()),
        group,
    }
}
