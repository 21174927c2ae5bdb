//! Tags of groups: at most 50, none of AWS's own.

use std::collections::BTreeMap;

use gantry_api::logs::LogsError;
use gantry_store::Transaction;

use super::{Group, groups, invalid};
use crate::tables::LogGroupRow;

const MAX_TAGS: usize = 50;

/// Tags of a new group.
pub(super) fn check(tags: &BTreeMap<String, String>) -> Result<(), LogsError> {
    if tags
        .keys()
        .any(|key| key.to_ascii_lowercase().starts_with("aws:"))
    {
        return Err(invalid("Tag keys starting with aws: are reserved."));
    }
    if tags.len() > MAX_TAGS {
        return Err(LogsError::too_many_tags_exception(format!(
            "A resource can have no more than {MAX_TAGS} tags."
        )));
    }
    Ok(())
}

pub(super) fn add(
    group: &Group,
    tags: &BTreeMap<String, String>,
) -> Result<(Transaction, ()), LogsError> {
    let mut row = LogGroupRow::clone(&group.row);
    row.tags.extend(tags.clone());
    check(&row.tags)?;
    Ok((groups::write(group, &row), ()))
}

pub(super) fn remove(group: &Group, keys: &[String]) -> Result<(Transaction, ()), LogsError> {
    let mut row = LogGroupRow::clone(&group.row);
    row.tags.retain(|key, _| !keys.contains(key));
    Ok((groups::write(group, &row), ()))
}
