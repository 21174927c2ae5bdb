//! What a service's scheduling strategy rules out, and which services are rebalanced over availability
//! zones: AWS's rules, in its words as far as they are known.

use gantry_api::ecs::{
    AvailabilityZoneRebalancing, DeploymentConfiguration, EcsError, LaunchType,
    PlacementConstraint, PlacementStrategy, PlacementStrategyType, SchedulingStrategy,
};
use gantry_placement::Constraint;
use gantry_placement::query::{Expression, Subject};

use super::request::{constraints, percents};
use crate::model::refusal::invalid;
use crate::tables::ServiceRow;

/// The attribute of container instances that says where they are.
pub const ZONE_ATTRIBUTE: &str = "ecs.availability-zone";

/// What both requests may say of a service of daemons.
pub fn validate_daemon(
    desired_count: Option<i32>,
    strategy: Option<&[PlacementStrategy]>,
) -> Result<(), EcsError> {
    if desired_count.is_some() {
        return Err(invalid(
            "The daemon scheduling strategy does not support a desired count for services. Remove the desired count value and try again.",
        ));
    }
    if strategy.is_some_and(|strategy| !strategy.is_empty()) {
        return Err(invalid(
            "The daemon scheduling strategy does not support placement strategies. Remove the placement strategy and try again.",
        ));
    }
    Ok(())
}

/// A daemon never has two tasks on one container instance, so its maximum is 100.
pub fn validate_percents(
    scheduling: &SchedulingStrategy,
    configuration: &DeploymentConfiguration,
) -> Result<(), EcsError> {
    let (least, most) = percents(configuration);
    if *scheduling == SchedulingStrategy::Daemon && most > 100 {
        return Err(invalid(
            "The daemon scheduling strategy does not support values above 100 for maximumPercent on a deployment configuration. Change the maximumPercent value to 100, and try again.",
        ));
    }
    if most < 100 {
        return Err(invalid(format!(
            "The maximum percent must not be less than 100 for the {scheduling} scheduling strategy."
        )));
    }
    if least > most {
        return Err(invalid(
            "The minimum healthy percent must not be greater than the maximum percent.",
        ));
    }
    if (least, most) == (100, 100) {
        return Err(invalid(
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.",
        ));
    }
    Ok(())
}

/// A strategy without type and field is how an update says that there shall be none.
pub fn placement_strategy(given: &[PlacementStrategy]) -> Vec<PlacementStrategy> {
    let says_something = |it: &&PlacementStrategy| **it != PlacementStrategy::default();
    given.iter().filter(says_something).cloned().collect()
}

/// What speaks against rebalancing this service over availability zones.
fn against_rebalancing(row: &ServiceRow) -> Option<&'static str> {
    let first = row.placement_strategy.first();
    if row.scheduling_strategy == SchedulingStrategy::Daemon {
        return Some("the DAEMON scheduling strategy");
    }
    if row.launch_type == LaunchType::External {
        return Some("the EXTERNAL launch type");
    }
    if percents(&row.configuration).1 <= 100 {
        return Some("maximumPercent <= 100");
    }
    if first.is_some_and(|first| !spreads_over_zones(first)) {
        return Some(
            "a first placement strategy other than spread over attribute:ecs.availability-zone",
        );
    }
    if names_zones(&row.placement_constraints) {
        return Some("a placement constraint on attribute:ecs.availability-zone");
    }
    None
}

/// Whether the service is rebalanced: as it is asked for, and by default where it can be.
pub fn rebalancing(
    row: &ServiceRow,
    asked: Option<&AvailabilityZoneRebalancing>,
) -> Result<AvailabilityZoneRebalancing, EcsError> {
    match (asked, against_rebalancing(row)) {
        (Some(AvailabilityZoneRebalancing::Enabled), Some(why)) => Err(invalid(format!(
            "AvailabilityZoneRebalancing does not support {why}"
        ))),
        (Some(asked), _) => Ok(asked.clone()),
        (None, None) => Ok(AvailabilityZoneRebalancing::Enabled),
        (None, Some(_)) => Ok(AvailabilityZoneRebalancing::Disabled),
    }
}

fn spreads_over_zones(strategy: &PlacementStrategy) -> bool {
    let field = strategy.field.as_deref().unwrap_or_default();
    strategy.r#type == Some(PlacementStrategyType::Spread)
        && field.strip_prefix("attribute:").unwrap_or(field) == ZONE_ATTRIBUTE
}

fn names_zones(given: &[PlacementConstraint]) -> bool {
    let is_zone = |subject: &Subject| *subject == Subject::Attribute(ZONE_ATTRIBUTE.to_owned());
    // They were checked before: what cannot be read is refused elsewhere.
    constraints(given)
        .unwrap_or_default()
        .iter()
        .any(|constraint| match constraint {
            Constraint::MemberOf(expression) => mentions(expression, &is_zone),
            Constraint::DistinctInstance => false,
        })
}

/// Whether the expression looks at such a thing at all.
pub fn mentions(expression: &Expression, is_it: &dyn Fn(&Subject) -> bool) -> bool {
    match expression {
        Expression::And(left, right) | Expression::Or(left, right) => {
            mentions(left, is_it) || mentions(right, is_it)
        }
        Expression::Not(inner) => mentions(inner, is_it),
        Expression::Comparison(subject, _) => is_it(subject),
    }
}
