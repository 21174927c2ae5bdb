//! What the tests of Logs share: a service over a memory store and an archive in a directory of
//! its own, on virtual time.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use gantry_api::logs::{self, Logs, LogsError};
use gantry_api::{ApiError, Principal, RequestContext};
use gantry_archive::Archive;
use gantry_arn::{AccountId, Arn, Region};
use gantry_env::VirtualEnv;
use gantry_logs::LogsService;
use gantry_store::{MemoryStore, Store};

pub const GROUP: &str = "/ecs/app";

pub struct Desk {
    pub world: VirtualEnv,
    pub store: Arc<dyn Store>,
    pub archive: Archive,
    pub logs: LogsService,
    pub directory: tempfile::TempDir,
}

impl Desk {
    pub async fn new() -> Self {
        let world = VirtualEnv::seeded(11);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_env(&world.env()));
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::open(directory.path(), world.env()).await.unwrap();
        Self {
            logs: LogsService::new(store.clone(), archive.clone(), world.env()),
            world,
            store,
            archive,
            directory,
        }
    }

    /// The same rows and events under a service that has just started.
    pub async fn restart(self) -> Self {
        let Self {
            world,
            store,
            archive,
            logs,
            directory,
        } = self;
        drop((archive, logs));
        let archive = Archive::open(directory.path(), world.env()).await.unwrap();
        Self {
            logs: LogsService::new(store.clone(), archive.clone(), world.env()),
            world,
            store,
            archive,
            directory,
        }
    }

    /// With a group and some streams in it.
    pub async fn with_streams(streams: &[&str]) -> Self {
        let desk = Self::new().await;
        desk.group(GROUP).await.unwrap();
        for stream in streams {
            desk.stream(GROUP, stream).await.unwrap();
        }
        desk
    }

    pub fn ctx(&self) -> RequestContext {
        let account = AccountId::default();
        RequestContext {
            account,
            region: Region::default(),
            principal: Principal {
                arn: Arn::global("iam", &account, "root"),
                user_id: account.to_string(),
                access_key_id: "AKIAROOT".into(),
            },
            request_id: "request".into(),
            host: None,
            now: self.world.now(),
        }
    }

    pub fn now(&self) -> i64 {
        self.world.now().as_millis()
    }

    pub async fn group(&self, name: &str) -> Result<(), LogsError> {
        let input = logs::CreateLogGroupRequest {
            log_group_name: name.into(),
            ..Default::default()
        };
        self.logs.create_log_group(&self.ctx(), input).await
    }

    pub async fn stream(&self, group: &str, stream: &str) -> Result<(), LogsError> {
        let input = logs::CreateLogStreamRequest {
            log_group_name: group.into(),
            log_stream_name: stream.into(),
        };
        self.logs.create_log_stream(&self.ctx(), input).await
    }

    pub async fn delete_group(&self, group: &str) -> Result<(), LogsError> {
        let input = logs::DeleteLogGroupRequest {
            log_group_name: group.into(),
        };
        self.logs.delete_log_group(&self.ctx(), input).await
    }

    pub async fn put(
        &self,
        stream: &str,
        events: &[(i64, &str)],
        token: Option<&str>,
    ) -> Result<logs::PutLogEventsResponse, LogsError> {
        let input = logs::PutLogEventsRequest {
            log_group_name: GROUP.into(),
            log_stream_name: stream.into(),
            log_events: events
                .iter()
                .map(|(timestamp, message)| logs::InputLogEvent {
                    timestamp: *timestamp,
                    message: (*message).into(),
                })
                .collect(),
            sequence_token: token.map(str::to_owned),
            entity: None,
        };
        self.logs.put_log_events(&self.ctx(), input).await
    }

    pub async fn get(&self, input: logs::GetLogEventsRequest) -> logs::GetLogEventsResponse {
        self.logs.get_log_events(&self.ctx(), input).await.unwrap()
    }

    pub async fn filter(
        &self,
        input: logs::FilterLogEventsRequest,
    ) -> Result<logs::FilterLogEventsResponse, LogsError> {
        let input = logs::FilterLogEventsRequest {
            log_group_name: Some(GROUP.into()),
            ..input
        };
        self.logs.filter_log_events(&self.ctx(), input).await
    }

    /// Every message of a stream, read from its head.
    pub async fn messages(&self, stream: &str) -> Vec<String> {
        let mut messages = Vec::new();
        let mut token = None;
        loop {
            let page = self
                .get(logs::GetLogEventsRequest {
                    start_from_head: Some(true),
                    next_token: token.clone(),
                    ..of(stream)
                })
                .await;
            messages.extend(texts(&page));
            if page.next_forward_token == token {
                return messages;
            }
            token = page.next_forward_token;
        }
    }
}

/// A request for one stream of [`GROUP`].
pub fn of(stream: &str) -> logs::GetLogEventsRequest {
    logs::GetLogEventsRequest {
        log_group_name: Some(GROUP.into()),
        log_stream_name: stream.into(),
        ..Default::default()
    }
}

pub fn texts(page: &logs::GetLogEventsResponse) -> Vec<String> {
    let events = page.events.clone().unwrap_or_default();
    events
        .into_iter()
        .filter_map(|event| event.message)
        .collect()
}

/// Code and message, as a caller sees them.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, LogsError>) -> (String, String) {
    let error: ApiError = result.expect_err("must be refused").into();
    (error.code, error.message)
}

pub fn pair(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}
