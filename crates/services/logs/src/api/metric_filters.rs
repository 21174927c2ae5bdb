//! Metric filters: stored with their groups, their patterns checked. TestMetricFilter tells what a
//! pattern does. What they would count is counted once there are metrics.

use gantry_api::logs::{self, LogsError};
use gantry_store::{Transaction, Versioned};

use super::{Group, LogsService, View, bad_token, invalid};
use crate::model::pattern::FilterPattern;
use crate::page_token;
use crate::tables::{
    LogGroups, MetricFilterRow, MetricFilters, metric_filter_row_name, split_row_name, streams_of,
};

const DEFAULT_PAGE: i32 = 50;
/// The most of one group, with AWS's value.
const MAX_FILTERS: usize = 100;
const MAX_DIMENSIONS: usize = 3;

/// A pattern, or AWS's error for what is none.
pub(super) fn pattern(text: &str) -> Result<FilterPattern, LogsError> {
    FilterPattern::parse(text).map_err(|error| invalid(error.to_string()))
}

pub(super) fn put(
    view: &View<'_>,
    input: &logs::PutMetricFilterRequest,
) -> Result<(Transaction, ()), LogsError> {
    let group = view.group(&input.log_group_name)?;
    let parsed = pattern(&input.filter_pattern)?;
    for (member, given) in [
        (
            "applyOnTransformedLogs",
            input.apply_on_transformed_logs == Some(true),
        ),
        (
            "fieldSelectionCriteria",
            input.field_selection_criteria.is_some(),
        ),
        (
            "emitSystemFieldDimensions",
            input
                .emit_system_field_dimensions
                .as_ref()
                .is_some_and(|fields| !fields.is_empty()),
        ),
    ] {
        if given {
            return Err(invalid(format!("{member} is not built in Gantry yet.")));
        }
    }
    for transformation in &input.metric_transformations {
        check(transformation, &parsed)?;
    }
    let name = metric_filter_row_name(&group.name, &input.filter_name);
    let row = MetricFilterRow {
        group_id: group.row.id.clone(),
        filter: logs::MetricFilter {
            filter_name: Some(input.filter_name.clone()),
            filter_pattern: Some(input.filter_pattern.clone()),
            metric_transformations: Some(input.metric_transformations.clone()),
            creation_time: Some(view.now.as_millis()),
            log_group_name: Some(group.name.to_string()),
            ..Default::default()
        },
    };
    let mut transaction = Transaction::new();
    transaction.expect_read(&group.row);
    let existing = view
        .snapshot
        .read::<MetricFilters>(view.account, view.region, &name);
    match existing {
        Some(existing) => {
            let mut row = row;
            if existing.group_id == row.group_id {
                row.filter.creation_time = existing.filter.creation_time;
            }
            if row != *existing.row {
                transaction.update::<MetricFilters>(&existing, &row);
            }
        }
        None => {
            if of_group(view, &group, "").count() >= MAX_FILTERS {
                return Err(LogsError::limit_exceeded_exception(format!(
                    "A log group can have no more than {MAX_FILTERS} metric filters."
                )));
            }
            transaction.create::<MetricFilters>(view.account, view.region, &name, &row);
        }
    }
    Ok((transaction, ()))
}

fn check(
    transformation: &logs::MetricTransformation,
    pattern: &FilterPattern,
) -> Result<(), LogsError> {
    let dimensions = transformation.dimensions.as_ref();
    if dimensions.is_some_and(|dimensions| dimensions.len() > MAX_DIMENSIONS) {
        return Err(invalid(format!(
            "A metric filter can have no more than {MAX_DIMENSIONS} dimensions."
        )));
    }
    if dimensions.is_some_and(|dimensions| !dimensions.is_empty()) {
        if transformation.default_value.is_some() {
            return Err(invalid(
                "Invalid metric transformation: dimensions and default value are mutually exclusive properties.",
            ));
        }
        if !matches!(pattern, FilterPattern::Json(_) | FilterPattern::Fields(_)) {
            return Err(invalid(
                "Invalid metric transformation: dimensions need a JSON or space-delimited filter pattern.",
            ));
        }
    }
    let value = transformation.metric_value.as_str();
    if !value.starts_with('$') && value.parse::<f64>().is_err() {
        return Err(invalid(format!(
            "Invalid metric transformation: metric value must be a number or a field of the pattern, not {value}."
        )));
    }
    Ok(())
}

pub(super) fn delete(
    view: &View<'_>,
    input: &logs::DeleteMetricFilterRequest,
) -> Result<(Transaction, ()), LogsError> {
    let group = view.group(&input.log_group_name)?;
    let name = metric_filter_row_name(&group.name, &input.filter_name);
    let row = view
        .snapshot
        .read::<MetricFilters>(view.account, view.region, &name)
        .filter(|row| row.group_id == group.row.id)
        .ok_or_else(|| {
            LogsError::resource_not_found_exception("The specified metric filter does not exist.")
        })?;
    let mut transaction = Transaction::new();
    transaction.expect_read(&row);
    transaction.delete(row.key.clone());
    Ok((transaction, ()))
}

/// The filters of a group's present life, in the order of their names.
fn of_group<'a>(
    view: &'a View<'_>,
    group: &'a Group,
    prefix: &str,
) -> impl Iterator<Item = Versioned<MetricFilterRow>> + use<'a> {
    let prefix = format!("{}{prefix}", streams_of(&group.name));
    view.snapshot
        .list_prefix::<MetricFilters>(view.account, view.region, &prefix)
        .into_iter()
        .filter(|row| row.group_id == group.row.id)
}

pub(super) fn count(view: &View<'_>, group: &Group) -> i32 {
    i32::try_from(of_group(view, group, "").count()).unwrap_or(i32::MAX)
}

impl LogsService {
    pub(super) fn describe_filters(
        &self,
        view: &View<'_>,
        input: &logs::DescribeMetricFiltersRequest,
    ) -> Result<logs::DescribeMetricFiltersResponse, LogsError> {
        let prefix = input.filter_name_prefix.as_deref();
        if prefix.is_some() && input.log_group_name.is_none() {
            return Err(invalid(
                "filterNamePrefix can be used only together with logGroupName.",
            ));
        }
        if input.metric_name.is_some() != input.metric_namespace.is_some() {
            return Err(invalid(
                "metricName and metricNamespace can be used only together.",
            ));
        }
        let rows: Vec<Versioned<MetricFilterRow>> = match &input.log_group_name {
            Some(group) => {
                let group = view.group(group)?;
                of_group(view, &group, prefix.unwrap_or("")).collect()
            }
            None => view
                .snapshot
                .list_prefix::<MetricFilters>(view.account, view.region, "")
                .into_iter()
                .filter(|row| {
                    let group = split_row_name(row.name()).and_then(|(group, _)| {
                        view.snapshot
                            .read::<LogGroups>(view.account, view.region, group)
                    });
                    group.is_some_and(|group| group.id == row.group_id)
                })
                .collect(),
        };
        let scope = format!(
            "metric-filters/{}/{}/{:?}/{prefix:?}/{:?}/{:?}",
            view.account,
            view.region,
            input.log_group_name,
            input.metric_name,
            input.metric_namespace
        );
        let key = self.store.incarnation();
        let after: Option<String> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let limit = usize::try_from(input.limit.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);
        let is_of_metric = |filter: &logs::MetricFilter| {
            let Some(name) = &input.metric_name else {
                return true;
            };
            let mut all = filter.metric_transformations.iter().flatten();
            all.any(|it| {
                it.metric_name == *name
                    && Some(&it.metric_namespace) == input.metric_namespace.as_ref()
            })
        };
        let mut rest = rows
            .into_iter()
            .filter(|row| after.as_deref().is_none_or(|after| row.name() > after))
            .filter(|row| is_of_metric(&row.filter));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let next_token = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => Some(page_token::seal(&key, &scope, &last.name())),
            _ => None,
        };
        Ok(logs::DescribeMetricFiltersResponse {
            metric_filters: Some(page.iter().map(|row| row.filter.clone()).collect()),
            next_token,
        })
    }
}

/// Which of some messages a pattern matches, and what it names in them.
pub(super) fn test(
    input: &logs::TestMetricFilterRequest,
) -> Result<logs::TestMetricFilterResponse, LogsError> {
    let pattern = pattern(&input.filter_pattern)?;
    let numbered = (1..).zip(&input.log_event_messages);
    let matches = numbered.filter_map(|(number, message)| {
        Some(logs::MetricFilterMatchRecord {
            event_number: Some(number),
            event_message: Some(message.clone()),
            extracted_values: Some(pattern.extract(message)?),
        })
    });
    Ok(logs::TestMetricFilterResponse {
        matches: Some(matches.collect()),
    })
}
