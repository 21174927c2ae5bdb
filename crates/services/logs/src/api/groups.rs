//! Log groups.

use gantry_api::logs::{self, LogsError};
use gantry_store::Transaction;

use super::{
    Group, LogsService, View, bad_token, group_name, internal, invalid, metric_filters, tags,
};
use crate::events::group_prefix;
use crate::model::names;
use crate::page_token;
use crate::tables::{LogGroupClass, LogGroupRow, LogGroups};

/// As many groups as one page has when nobody says how many.
const DEFAULT_PAGE: i32 = 50;
pub(super) fn create(
    view: &View<'_>,
    input: &logs::CreateLogGroupRequest,
    id: &str,
) -> Result<(Transaction, ()), LogsError> {
    let name = group_name(&input.log_group_name)?;
    if names::is_reserved(&name) {
        return Err(invalid(
            "Log groups starting with AWS/ are reserved for AWS.",
        ));
    }
    if input.kms_key_id.is_some() {
        return Err(invalid(
            "kmsKeyId: encryption with KMS keys is not built in Gantry yet.",
        ));
    }
    let class = match &input.log_group_class {
        None | Some(logs::LogGroupClass::Standard) => LogGroupClass::Standard,
        Some(logs::LogGroupClass::InfrequentAccess) => LogGroupClass::InfrequentAccess,
        Some(other) => {
            return Err(invalid(format!(
                "logGroupClass: the class {} is not built in Gantry yet.",
                other.as_str()
            )));
        }
    };
    let given = input.tags.clone().unwrap_or_default();
    tags::check(&given)?;
    if view.find_group(&name).is_some() {
        return Err(LogsError::resource_already_exists_exception(
            "The specified log group already exists",
        ));
    }
    let row = LogGroupRow {
        id: id.to_owned(),
        created_at: view.now,
        class,
        retention_days: None,
        tags: given,
        deletion_protected: input.deletion_protection_enabled == Some(true),
    };
    let mut transaction = Transaction::new();
    transaction.create::<LogGroups>(view.account, view.region, name.as_str(), &row);
    Ok((transaction, ()))
}

/// Ends the group. Its streams go with it, in [`LogsService::purge_group`].
pub(super) fn delete(
    view: &View<'_>,
    input: &logs::DeleteLogGroupRequest,
) -> Result<(Transaction, Group), LogsError> {
    let group = view.group(&input.log_group_name)?;
    if group.row.deletion_protected {
        return Err(LogsError::validation_exception(format!(
            "The log group {} has deletion protection enabled. Disable it before deleting the log \
             group.",
            group.name
        )));
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(&group.row);
    transaction.delete(group.row.key.clone());
    Ok((transaction, group))
}

pub(super) fn protect(
    view: &View<'_>,
    input: &logs::PutLogGroupDeletionProtectionRequest,
) -> Result<(Transaction, ()), LogsError> {
    let group = view.group_by_identifier(&input.log_group_identifier)?;
    let mut row = LogGroupRow::clone(&group.row);
    row.deletion_protected = input.deletion_protection_enabled;
    Ok((write(&group, &row), ()))
}

/// Writes a group on top of the one that was read; nothing if nothing changed.
pub(super) fn write(group: &Group, row: &LogGroupRow) -> Transaction {
    let mut transaction = Transaction::new();
    if *row != *group.row.row {
        transaction.update::<LogGroups>(&group.row, row);
    }
    transaction
}

impl LogsService {
    pub(super) fn describe_groups(
        &self,
        view: &View<'_>,
        input: &logs::DescribeLogGroupsRequest,
    ) -> Result<logs::DescribeLogGroupsResponse, LogsError> {
        let prefix = input.log_group_name_prefix.as_deref();
        let pattern = input.log_group_name_pattern.as_deref();
        if prefix.is_some() && pattern.is_some() {
            return Err(invalid(
                "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
            ));
        }
        let wanted = match &input.log_group_identifiers {
            Some(_) if prefix.is_some() || pattern.is_some() => {
                return Err(invalid(
                    "LogGroup identifiers cannot be combined with a prefix or a pattern.",
                ));
            }
            Some(identifiers) => Some(
                identifiers
                    .iter()
                    .map(|identifier| {
                        names::group_of_identifier(identifier, view.region, view.account).map_err(
                            |_| {
                                invalid(format!(
                                    "{identifier} is not a log group of this account and region."
                                ))
                            },
                        )
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            None => None,
        };
        let scope = format!(
            "groups/{}/{}/{prefix:?}/{pattern:?}/{:?}/{wanted:?}",
            view.account, view.region, input.log_group_class
        );
        let key = self.store.incarnation();
        let after: Option<String> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let limit = usize::try_from(input.limit.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);

        let mut rest = view
            .snapshot
            .list_prefix::<LogGroups>(view.account, view.region, prefix.unwrap_or(""))
            .into_iter()
            .filter(|row| after.as_deref().is_none_or(|after| row.name() > after))
            .filter(|row| pattern.is_none_or(|pattern| row.name().contains(pattern)))
            .filter(|row| {
                let class = input.log_group_class.as_ref();
                class.is_none_or(|class| *class == shown_class(row.class))
            })
            .filter_map(|row| {
                Some(Group {
                    name: row.name().parse().ok()?,
                    row,
                })
            })
            .filter(|group| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| wanted.contains(&group.name))
            });
        let mut groups = Vec::new();
        for group in rest.by_ref().take(limit) {
            groups.push(self.shown(view, &group)?);
        }
        let next_token = match (rest.next(), groups.last()) {
            (Some(_), Some(last)) => Some(page_token::seal(&key, &scope, &last.log_group_name)),
            _ => None,
        };
        Ok(logs::DescribeLogGroupsResponse {
            log_groups: Some(groups),
            next_token,
        })
    }

    /// The newer list, which has only names and classes.
    pub(super) fn list_groups(
        &self,
        view: &View<'_>,
        input: &logs::ListLogGroupsRequest,
    ) -> Result<logs::ListLogGroupsResponse, LogsError> {
        for (member, given) in [
            ("dataSources", input.data_sources.is_some()),
            ("fieldIndexNames", input.field_index_names.is_some()),
            ("logGroupTags", input.log_group_tags.is_some()),
        ] {
            if given {
                return Err(invalid(format!(
                    "{member}: this filter of ListLogGroups is not built in Gantry yet."
                )));
            }
        }
        let pattern = input.log_group_name_pattern.as_deref();
        // `^a|b`: names that begin with a or have b in them.
        let is_named = |name: &str| {
            pattern.is_none_or(|pattern| {
                pattern.split('|').any(|part| match part.strip_prefix('^') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name.contains(part),
                })
            })
        };
        let scope = format!(
            "list-groups/{}/{}/{pattern:?}/{:?}",
            view.account, view.region, input.log_group_class
        );
        let key = self.store.incarnation();
        let after: Option<String> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let limit = usize::try_from(input.limit.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);
        let is_of_here = input.account_identifiers.as_ref().is_none_or(|accounts| {
            accounts.is_empty() || accounts.iter().any(|it| it == view.account.as_str())
        });
        let mut rest = view
            .snapshot
            .list_prefix::<LogGroups>(view.account, view.region, "")
            .into_iter()
            .filter(|row| is_of_here && after.as_deref().is_none_or(|after| row.name() > after))
            .filter(|row| is_named(row.name()))
            .filter(|row| {
                let class = input.log_group_class.as_ref();
                class.is_none_or(|class| *class == shown_class(row.class))
            })
            .filter_map(|row| {
                let name = row.name().parse().ok()?;
                let arn = names::group_arn(view.region, view.account, &name);
                Some(logs::LogGroupSummary {
                    log_group_name: Some(name.to_string()),
                    log_group_arn: Some(arn.to_string()),
                    log_group_class: Some(shown_class(row.class)),
                })
            });
        let groups: Vec<_> = rest.by_ref().take(limit).collect();
        let next_token = match (rest.next(), groups.last()) {
            (Some(_), Some(last)) => Some(page_token::seal(&key, &scope, &last.log_group_name)),
            _ => None,
        };
        Ok(logs::ListLogGroupsResponse {
            log_groups: Some(groups),
            next_token,
        })
    }

    fn shown(&self, view: &View<'_>, group: &Group) -> Result<logs::LogGroup, LogsError> {
        let row = &group.row;
        let arn = names::group_arn(view.region, view.account, &group.name);
        let with_star = names::group_arn_with_star(view.region, view.account, &group.name);
        Ok(logs::LogGroup {
            log_group_name: Some(group.name.to_string()),
            creation_time: Some(row.created_at.as_millis()),
            retention_in_days: row.retention_days,
            metric_filter_count: Some(metric_filters::count(view, group)),
            arn: Some(with_star.to_string()),
            log_group_arn: Some(arn.to_string()),
            stored_bytes: Some(self.stored_bytes(view, group)?),
            log_group_class: Some(shown_class(row.class)),
            deletion_protection_enabled: Some(row.deletion_protected),
            ..Default::default()
        })
    }

    fn stored_bytes(&self, view: &View<'_>, group: &Group) -> Result<i64, LogsError> {
        let prefix = group_prefix(view.account, view.region, &group.name);
        let total = self.archive.bytes(&prefix).map_err(internal)?;
        Ok(i64::try_from(total).unwrap_or(i64::MAX))
    }
}

fn shown_class(class: LogGroupClass) -> logs::LogGroupClass {
    match class {
        LogGroupClass::Standard => logs::LogGroupClass::Standard,
        LogGroupClass::InfrequentAccess => logs::LogGroupClass::InfrequentAccess,
    }
}
