//! Log streams. What changes with events (their times) is read from the archive.

use std::collections::BTreeMap;

use gantry_api::logs::{self, LogsError, OrderBy};
use gantry_archive::StreamInfo;
use gantry_arn::LogStreamName;
use gantry_store::{Transaction, Versioned};
use serde::{Deserialize, Serialize};

use super::{Group, LogsService, View, bad_token, internal, invalid, stream_name};
use crate::events::{StreamState, archive_name, group_prefix};
use crate::model::names;
use crate::page_token;
use crate::tables::{LogStreamRow, LogStreams, split_row_name, stream_row_name, streams_of};

const DEFAULT_PAGE: i32 = 50;
const TIMES_AT_ONCE: usize = 1000;

pub(super) fn create(
    view: &View<'_>,
    input: &logs::CreateLogStreamRequest,
    id: &str,
) -> Result<(Transaction, ()), LogsError> {
    let group = view.group(&input.log_group_name)?;
    let name = stream_name(&input.log_stream_name)?;
    if view.find_stream(&group, &name).is_some() {
        return Err(LogsError::resource_already_exists_exception(
            "The specified log stream already exists",
        ));
    }
    let row = LogStreamRow {
        id: id.to_owned(),
        group_id: group.row.id.clone(),
        created_at: view.now,
    };
    let mut transaction = Transaction::new();
    transaction.expect_read(&group.row);
    // A row of an earlier group of this name may still stand here; it belongs to nobody.
    match view.stream_row(&group.name, &name) {
        Some(left_behind) => transaction.update::<LogStreams>(&left_behind, &row),
        None => {
            let key = stream_row_name(&group.name, &name);
            transaction.create::<LogStreams>(view.account, view.region, &key, &row)
        }
    };
    Ok((transaction, ()))
}

/// Ends the stream; gives the name of its records in the archive, which go with it.
pub(super) fn delete(
    view: &View<'_>,
    input: &logs::DeleteLogStreamRequest,
) -> Result<(Transaction, String), LogsError> {
    let group = view.group(&input.log_group_name)?;
    let (name, row) = view.stream(&group, &input.log_stream_name)?;
    let records = archive_name(view.account, view.region, &group.name, &name, &row);
    let mut transaction = Transaction::new();
    transaction.expect_read(&row);
    transaction.delete(row.key.clone());
    Ok((transaction, records))
}

/// A stream and its row.
pub(super) struct Stream {
    pub name: LogStreamName,
    pub row: Versioned<LogStreamRow>,
}

/// The streams of a group whose names begin with `prefix`, in the order of their names.
pub(super) fn streams_in<'a>(
    view: &'a View<'_>,
    group: &'a Group,
    prefix: &str,
) -> impl Iterator<Item = Stream> + use<'a> {
    let prefix = format!("{}{prefix}", streams_of(&group.name));
    view.snapshot
        .list_prefix::<LogStreams>(view.account, view.region, &prefix)
        .into_iter()
        .filter(|row| row.group_id == group.row.id)
        .filter_map(|row| {
            let (_, name) = split_row_name(row.name())?;
            Some(Stream {
                name: name.parse().ok()?,
                row,
            })
        })
}

/// Where a page of streams ends: by time there is a time, by name there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    last_event: Option<i64>,
    name: String,
}

impl LogsService {
    pub(super) fn describe_streams(
        &self,
        view: &View<'_>,
        input: &logs::DescribeLogStreamsRequest,
    ) -> Result<logs::DescribeLogStreamsResponse, LogsError> {
        let group = view.group_by(
            input.log_group_name.as_deref(),
            input.log_group_identifier.as_deref(),
        )?;
        let by_time = input.order_by == Some(OrderBy::LastEventTime);
        let descending = input.descending == Some(true);
        let prefix = input.log_stream_name_prefix.as_deref();
        if by_time && prefix.is_some() {
            return Err(invalid(
                "Cannot order by LastEventTime with a logStreamNamePrefix.",
            ));
        }
        let scope = format!("streams/{}/{by_time}/{descending}/{prefix:?}", group.row.id);
        let key = self.store.incarnation();
        let after: Option<Place> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let limit = usize::try_from(input.limit.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);

        let times = match by_time {
            true => self.last_event_times(view, &group)?,
            false => BTreeMap::new(),
        };
        let mut streams: Vec<(Place, Stream)> = streams_in(view, &group, prefix.unwrap_or(""))
            .map(|stream| {
                let records = self.records_of(view, &group, &stream);
                let place = Place {
                    last_event: times.get(&records).copied(),
                    name: stream.name.to_string(),
                };
                (place, stream)
            })
            .collect();
        streams.sort_by(|(a, _), (b, _)| a.cmp(b));
        if descending {
            streams.reverse();
        }
        let mut rest = streams.into_iter().filter(|(place, _)| match &after {
            Some(after) if descending => place < after,
            Some(after) => place > after,
            None => true,
        });
        let mut page = Vec::new();
        let mut last = None;
        for (place, stream) in rest.by_ref().take(limit) {
            page.push(self.shown_stream(view, &group, &stream)?);
            last = Some(place);
        }
        let next_token = match (rest.next(), last) {
            (Some(_), Some(last)) => Some(page_token::seal(&key, &scope, &last)),
            _ => None,
        };
        Ok(logs::DescribeLogStreamsResponse {
            log_streams: Some(page),
            next_token,
        })
    }

    pub(super) fn records_of(&self, view: &View<'_>, group: &Group, stream: &Stream) -> String {
        archive_name(
            view.account,
            view.region,
            &group.name,
            &stream.name,
            &stream.row,
        )
    }

    /// The time of the last event of each stream of a group that has any, by name of its records.
    fn last_event_times(
        &self,
        view: &View<'_>,
        group: &Group,
    ) -> Result<BTreeMap<String, i64>, LogsError> {
        let infos = self.infos_of_group(view, group)?;
        let time = |info: StreamInfo| Some((info.name, info.last_time?.as_millis()));
        Ok(infos.into_iter().filter_map(time).collect())
    }

    /// What the archive knows of every stream of a group.
    pub(super) fn infos_of_group(
        &self,
        view: &View<'_>,
        group: &Group,
    ) -> Result<Vec<StreamInfo>, LogsError> {
        let prefix = group_prefix(view.account, view.region, &group.name);
        let mut infos: Vec<StreamInfo> = Vec::new();
        loop {
            let after = infos.last().map(|info| info.name.clone());
            let found = self
                .archive
                .streams(&prefix, after.as_deref(), TIMES_AT_ONCE)
                .map_err(internal)?;
            let is_last = found.len() < TIMES_AT_ONCE;
            infos.extend(found);
            if is_last {
                return Ok(infos);
            }
        }
    }

    fn shown_stream(
        &self,
        view: &View<'_>,
        group: &Group,
        stream: &Stream,
    ) -> Result<logs::LogStream, LogsError> {
        let records = self.records_of(view, group, stream);
        let info = self.archive.stream(&records).map_err(internal)?;
        let arn = names::stream_arn(view.region, view.account, &group.name, &stream.name);
        let mut shown = logs::LogStream {
            log_stream_name: Some(stream.name.to_string()),
            creation_time: Some(stream.row.created_at.as_millis()),
            arn: Some(arn.to_string()),
            // AWS stopped counting for each stream and says zero; the group has the sum.
            stored_bytes: Some(0),
            ..Default::default()
        };
        if let Some(info) = info.filter(|info| info.last_time.is_some()) {
            let state = StreamState::read(info.cursor.as_ref()).map_err(internal)?;
            shown.first_event_timestamp = info.first_time.map(|time| time.as_millis());
            shown.last_event_timestamp = info.last_time.map(|time| time.as_millis());
            shown.last_ingestion_time = Some(state.last_ingestion.as_millis());
            shown.upload_sequence_token = Some(plain_sequence_token(info.next_offset));
        }
        Ok(shown)
    }
}

/// A sequence token for clients that still pass one on. Nothing reads it.
pub(super) fn plain_sequence_token(next_offset: u64) -> String {
    format!("{next_offset:056}")
}
