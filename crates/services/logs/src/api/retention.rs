//! How long a group keeps its events: stored here, enforced by every read and by housekeeping.

use gantry_api::logs::{self, LogsError};
use gantry_store::Transaction;

use super::{View, groups, invalid};
use crate::model::retention::{not_allowed, retention};
use crate::tables::LogGroupRow;

pub(super) fn put(
    view: &View<'_>,
    input: &logs::PutRetentionPolicyRequest,
) -> Result<(Transaction, ()), LogsError> {
    let days = input.retention_in_days;
    if retention(days).is_none() {
        return Err(invalid(not_allowed(days)));
    }
    set(view, &input.log_group_name, Some(days))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &logs::DeleteRetentionPolicyRequest,
) -> Result<(Transaction, ()), LogsError> {
    set(view, &input.log_group_name, None)
}

fn set(view: &View<'_>, group: &str, days: Option<i32>) -> Result<(Transaction, ()), LogsError> {
    let group = view.group(group)?;
    let mut row = LogGroupRow::clone(&group.row);
    row.retention_days = days;
    Ok((groups::write(&group, &row), ()))
}
