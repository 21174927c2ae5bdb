//! The operations. Rows are decided on a snapshot and committed in one transaction; events are
//! appended to the archive. Where a row was changed meanwhile, the operation is decided again.

mod filter_events;
mod get_events;
mod groups;
mod housekeeping;
mod live_tail;
mod metric_filters;
mod policies;
mod put_events;
mod retention;
mod streams;
mod tags;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::event_stream::EventStream;
use gantry_api::logs::{self, Logs, LogsError};
use gantry_api::{ApiError, RequestContext};
use gantry_archive::Archive;
use gantry_arn::{AccountId, LogGroupName, LogStreamName, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{Snapshot, Store, Transaction, Turns, Versioned};
use tokio::sync::Mutex;

pub use housekeeping::Kept;

use crate::live::Followers;
use crate::model::names::{self, NotAGroup};
use crate::model::retention as retention_rules;
use crate::tables::{LogGroupRow, LogGroups, LogStreamRow, LogStreams, stream_row_name};

/// CloudWatch Logs over a store and an archive. Cloning shares it.
#[derive(Clone)]
pub struct LogsService {
    store: Arc<dyn Store>,
    archive: Archive,
    env: Env,
    followers: Followers,
    /// Batches for one stream are taken one after the other, so that writers of a stream do not
    /// make each other decide again and again. Streams share these locks by chance.
    writing: Arc<[Mutex<()>; WRITE_LOCKS]>,
    /// Changes of one row stand in line, in the order of coming.
    turns: Arc<Turns>,
}

const WRITE_LOCKS: usize = 64;
/// How often a commit that meets another one is tried again.
const ATTEMPTS: usize = 32;

impl LogsService {
    pub fn new(store: Arc<dyn Store>, archive: Archive, env: Env) -> Self {
        Self {
            store,
            archive,
            env,
            followers: Followers::default(),
            writing: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            turns: Arc::default(),
        }
    }

    fn view<'a>(&self, ctx: &'a RequestContext) -> View<'a> {
        View {
            snapshot: self.store.snapshot(),
            account: &ctx.account,
            region: &ctx.region,
            now: ctx.now,
        }
    }

    async fn change<T: Send>(
        &self,
        ctx: &RequestContext,
        decide: impl Fn(&View<'_>) -> Result<(Transaction, T), LogsError> + Send + Sync,
    ) -> Result<T, LogsError> {
        let mut turn = self.turns.request();
        for _ in 0..ATTEMPTS {
            turn.come().await;
            let (transaction, output) = decide(&self.view(ctx))?;
            if !transaction.has_writes() {
                return Ok(output);
            }
            match turn.commit(&*self.store, transaction).await {
                Ok(_) => return Ok(output),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Err(LogsError::operation_aborted_exception(
            "Multiple concurrent requests to update the same resource were in conflict.",
        ))
    }

    fn random_id(&self) -> String {
        hex::encode(self.env.entropy.bytes16())
    }
}

/// The rows of one account and region at one moment.
struct View<'a> {
    snapshot: Snapshot,
    account: &'a AccountId,
    region: &'a Region,
    now: Timestamp,
}

/// A group and its name.
struct Group {
    name: LogGroupName,
    row: Versioned<LogGroupRow>,
}

impl Group {
    /// Events before this are expired, whether or not they have been deleted yet.
    fn oldest_kept(&self, now: Timestamp) -> Timestamp {
        match self.row.retention_days.and_then(retention_rules::retention) {
            Some(kept) => now - kept,
            None => Timestamp::EPOCH,
        }
    }
}

impl View<'_> {
    fn find_group(&self, name: &LogGroupName) -> Option<Group> {
        let row = self
            .snapshot
            .read::<LogGroups>(self.account, self.region, name.as_str())?;
        Some(Group {
            name: name.clone(),
            row,
        })
    }

    fn group(&self, name: &str) -> Result<Group, LogsError> {
        let name = group_name(name)?;
        self.find_group(&name).ok_or_else(no_such_group)
    }

    /// A group by name or by identifier: exactly one of them is given.
    fn group_by(&self, name: Option<&str>, identifier: Option<&str>) -> Result<Group, LogsError> {
        match (name, identifier) {
            (Some(name), None) => self.group(name),
            (None, Some(identifier)) => self.group_by_identifier(identifier),
            (Some(_), Some(_)) => Err(invalid(
                "LogGroup name and LogGroup identifier are mutually exclusive parameters.",
            )),
            (None, None) => Err(invalid(
                "Either a LogGroup name or a LogGroup identifier must be given.",
            )),
        }
    }

    fn group_by_identifier(&self, identifier: &str) -> Result<Group, LogsError> {
        match names::group_of_identifier(identifier, self.region, self.account) {
            Ok(name) => self.find_group(&name).ok_or_else(no_such_group),
            Err(NotAGroup::Elsewhere) => Err(no_such_group()),
            Err(NotAGroup::Malformed) => Err(invalid(format!(
                "{identifier} is not the name or the ARN of a log group."
            ))),
        }
    }

    fn group_by_arn(&self, arn: &str) -> Result<Group, LogsError> {
        match names::group_of_arn(arn, self.region, self.account) {
            Ok(name) => self.find_group(&name).ok_or_else(no_such_group),
            Err(NotAGroup::Elsewhere) => Err(no_such_group()),
            Err(NotAGroup::Malformed) => {
                Err(invalid(format!("{arn} is not the ARN of a log group.")))
            }
        }
    }

    /// The row that stands under a stream's name, whichever life of the group it is of.
    fn stream_row(
        &self,
        group: &LogGroupName,
        stream: &LogStreamName,
    ) -> Option<Versioned<LogStreamRow>> {
        let name = stream_row_name(group, stream);
        self.snapshot
            .read::<LogStreams>(self.account, self.region, &name)
    }

    fn find_stream(
        &self,
        group: &Group,
        stream: &LogStreamName,
    ) -> Option<Versioned<LogStreamRow>> {
        self.stream_row(&group.name, stream)
            .filter(|row| row.group_id == group.row.id)
    }

    fn stream(
        &self,
        group: &Group,
        stream: &str,
    ) -> Result<(LogStreamName, Versioned<LogStreamRow>), LogsError> {
        let name = stream_name(stream)?;
        let row = self.find_stream(group, &name).ok_or_else(no_such_stream)?;
        Ok((name, row))
    }
}

fn group_name(text: &str) -> Result<LogGroupName, LogsError> {
    text.parse()
        .map_err(|_| invalid(format!("{text} is not {}.", LogGroupName::EXPECTED)))
}

fn stream_name(text: &str) -> Result<LogStreamName, LogsError> {
    text.parse()
        .map_err(|_| invalid(format!("{text} is not {}.", LogStreamName::EXPECTED)))
}

fn invalid(message: impl Into<String>) -> LogsError {
    LogsError::invalid_parameter_exception(message)
}

fn no_such_group() -> LogsError {
    LogsError::resource_not_found_exception("The specified log group does not exist.")
}

fn no_such_stream() -> LogsError {
    LogsError::resource_not_found_exception("The specified log stream does not exist.")
}

fn bad_token() -> LogsError {
    invalid("The specified nextToken is invalid.")
}

fn internal(cause: impl std::error::Error + Send + Sync + 'static) -> LogsError {
    ApiError::internal(cause).into()
}

#[async_trait]
impl Logs for LogsService {
    async fn create_log_group(
        &self,
        ctx: &RequestContext,
        input: logs::CreateLogGroupRequest,
    ) -> Result<(), LogsError> {
        let id = self.random_id();
        self.change(ctx, |view| groups::create(view, &input, &id))
            .await
    }

    async fn create_log_stream(
        &self,
        ctx: &RequestContext,
        input: logs::CreateLogStreamRequest,
    ) -> Result<(), LogsError> {
        let id = self.random_id();
        self.change(ctx, |view| streams::create(view, &input, &id))
            .await
    }

    async fn delete_log_group(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteLogGroupRequest,
    ) -> Result<(), LogsError> {
        let group = self
            .change(ctx, |view| groups::delete(view, &input))
            .await?;
        self.purge_group(&ctx.account, &ctx.region, &group).await
    }

    async fn delete_log_stream(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteLogStreamRequest,
    ) -> Result<(), LogsError> {
        let records = self
            .change(ctx, |view| streams::delete(view, &input))
            .await?;
        self.archive
            .delete_streams(vec![records])
            .await
            .map_err(internal)?;
        Ok(())
    }

    async fn delete_retention_policy(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteRetentionPolicyRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| retention::delete(view, &input))
            .await
    }

    async fn describe_log_groups(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeLogGroupsRequest,
    ) -> Result<logs::DescribeLogGroupsResponse, LogsError> {
        self.describe_groups(&self.view(ctx), &input)
    }

    async fn describe_log_streams(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeLogStreamsRequest,
    ) -> Result<logs::DescribeLogStreamsResponse, LogsError> {
        self.describe_streams(&self.view(ctx), &input)
    }

    async fn filter_log_events(
        &self,
        ctx: &RequestContext,
        input: logs::FilterLogEventsRequest,
    ) -> Result<logs::FilterLogEventsResponse, LogsError> {
        self.filter_events(self.view(ctx), &input).await
    }

    async fn get_log_events(
        &self,
        ctx: &RequestContext,
        input: logs::GetLogEventsRequest,
    ) -> Result<logs::GetLogEventsResponse, LogsError> {
        self.get_events(self.view(ctx), &input).await
    }

    async fn list_tags_for_resource(
        &self,
        ctx: &RequestContext,
        input: logs::ListTagsForResourceRequest,
    ) -> Result<logs::ListTagsForResourceResponse, LogsError> {
        let group = self.view(ctx).group_by_arn(&input.resource_arn)?;
        Ok(logs::ListTagsForResourceResponse {
            tags: Some(group.row.tags.clone()),
        })
    }

    async fn list_tags_log_group(
        &self,
        ctx: &RequestContext,
        input: logs::ListTagsLogGroupRequest,
    ) -> Result<logs::ListTagsLogGroupResponse, LogsError> {
        let group = self.view(ctx).group(&input.log_group_name)?;
        Ok(logs::ListTagsLogGroupResponse {
            tags: Some(group.row.tags.clone()),
        })
    }

    async fn put_log_events(
        &self,
        ctx: &RequestContext,
        input: logs::PutLogEventsRequest,
    ) -> Result<logs::PutLogEventsResponse, LogsError> {
        self.put_events(ctx, input).await
    }

    async fn put_log_group_deletion_protection(
        &self,
        ctx: &RequestContext,
        input: logs::PutLogGroupDeletionProtectionRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| groups::protect(view, &input)).await
    }

    async fn put_retention_policy(
        &self,
        ctx: &RequestContext,
        input: logs::PutRetentionPolicyRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| retention::put(view, &input)).await
    }

    async fn tag_log_group(
        &self,
        ctx: &RequestContext,
        input: logs::TagLogGroupRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| {
            tags::add(&view.group(&input.log_group_name)?, &input.tags)
        })
        .await
    }

    async fn tag_resource(
        &self,
        ctx: &RequestContext,
        input: logs::TagResourceRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| {
            tags::add(&view.group_by_arn(&input.resource_arn)?, &input.tags)
        })
        .await
    }

    async fn untag_log_group(
        &self,
        ctx: &RequestContext,
        input: logs::UntagLogGroupRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| {
            tags::remove(&view.group(&input.log_group_name)?, &input.tags)
        })
        .await
    }

    async fn untag_resource(
        &self,
        ctx: &RequestContext,
        input: logs::UntagResourceRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| {
            tags::remove(&view.group_by_arn(&input.resource_arn)?, &input.tag_keys)
        })
        .await
    }

    async fn delete_account_policy(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteAccountPolicyRequest,
    ) -> Result<logs::DeleteAccountPolicyResponse, LogsError> {
        self.change(ctx, |view| policies::delete_account(view, &input))
            .await
    }

    async fn delete_metric_filter(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteMetricFilterRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| metric_filters::delete(view, &input))
            .await
    }

    async fn delete_resource_policy(
        &self,
        ctx: &RequestContext,
        input: logs::DeleteResourcePolicyRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| policies::delete_resource(view, &input))
            .await
    }

    async fn describe_account_policies(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeAccountPoliciesRequest,
    ) -> Result<logs::DescribeAccountPoliciesResponse, LogsError> {
        policies::describe_account(&self.view(ctx), &input)
    }

    async fn describe_metric_filters(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeMetricFiltersRequest,
    ) -> Result<logs::DescribeMetricFiltersResponse, LogsError> {
        self.describe_filters(&self.view(ctx), &input)
    }

    async fn describe_resource_policies(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeResourcePoliciesRequest,
    ) -> Result<logs::DescribeResourcePoliciesResponse, LogsError> {
        self.describe_resource_policies(&self.view(ctx), &input)
    }

    /// There are none, because PutSubscriptionFilter is refused.
    async fn describe_subscription_filters(
        &self,
        ctx: &RequestContext,
        input: logs::DescribeSubscriptionFiltersRequest,
    ) -> Result<logs::DescribeSubscriptionFiltersResponse, LogsError> {
        self.view(ctx).group(&input.log_group_name)?;
        Ok(logs::DescribeSubscriptionFiltersResponse {
            subscription_filters: Some(Vec::new()),
            next_token: None,
        })
    }

    async fn list_log_groups(
        &self,
        ctx: &RequestContext,
        input: logs::ListLogGroupsRequest,
    ) -> Result<logs::ListLogGroupsResponse, LogsError> {
        self.list_groups(&self.view(ctx), &input)
    }

    async fn put_account_policy(
        &self,
        ctx: &RequestContext,
        input: logs::PutAccountPolicyRequest,
    ) -> Result<logs::PutAccountPolicyResponse, LogsError> {
        self.change(ctx, |view| policies::put_account(view, &input))
            .await
    }

    async fn put_metric_filter(
        &self,
        ctx: &RequestContext,
        input: logs::PutMetricFilterRequest,
    ) -> Result<(), LogsError> {
        self.change(ctx, |view| metric_filters::put(view, &input))
            .await
    }

    async fn put_resource_policy(
        &self,
        ctx: &RequestContext,
        input: logs::PutResourcePolicyRequest,
    ) -> Result<logs::PutResourcePolicyResponse, LogsError> {
        self.change(ctx, |view| policies::put_resource(view, &input))
            .await
    }

    async fn start_live_tail(
        &self,
        ctx: &RequestContext,
        input: logs::StartLiveTailRequest,
    ) -> Result<EventStream, LogsError> {
        self.start_tail(ctx, input)
    }

    async fn test_metric_filter(
        &self,
        _ctx: &RequestContext,
        input: logs::TestMetricFilterRequest,
    ) -> Result<logs::TestMetricFilterResponse, LogsError> {
        metric_filters::test(&input)
    }
}
