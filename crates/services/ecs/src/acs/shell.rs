//! Pumps the session cores: WebSockets, the store's watch, timers, roles. Here tokio is allowed.
//!
//! What always holds: a session's number is committed before its first frame; a session that a later
//! one has replaced closes itself and never writes the row again.
//! What it leaves to others: every decision (`session`), every rule about rows (`assignment`).

mod tcs;

pub use tcs::TcsRoute;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use gantry_api::acs::{Frame, RoleType};
use gantry_api::ecs::{self, Ecs};
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{Arn, TaskId};
use gantry_env::Env;
use gantry_store::{Change, Changes, Store};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info, warn};

use super::assignment::Assignments;
use super::connection::{AgentFacts, Connections};
use super::image::RegistryNames;
use super::instance::ConnectingInstance;
use super::roles::RoleRefusal;
use super::session::{AcsSession, Identity, Input, Output, Timer};
use crate::tables::{AcsSessionRow, ContainerInstanceRow, ContainerInstanceStatus};

/// What this socket calls its container instance.
const MEMBER: &str = "containerInstanceArn";

/// Where the credentials of a task's roles come from.
#[async_trait]
pub trait RoleCredentials: Send + Sync {
    /// Credentials of a role for a task. Their id stays the same for one role of one task however
    /// often they are renewed, because the address where a container gets them is made of it.
    async fn assume(
        &self,
        context: &RequestContext,
        role_arn: &str,
        role: &RoleType,
        task_arn: &str,
    ) -> Result<gantry_api::acs::RoleCredentials, RoleRefusal>;
}

/// No role can be assumed.
#[derive(Clone, Copy, Debug)]
pub struct NoRoleCredentials;

#[async_trait]
impl RoleCredentials for NoRoleCredentials {
    async fn assume(
        &self,
        _context: &RequestContext,
        _role_arn: &str,
        _role: &RoleType,
        _task_arn: &str,
    ) -> Result<gantry_api::acs::RoleCredentials, RoleRefusal> {
        Err(RoleRefusal::Unassumable)
    }
}

/// The ACS path, `/acs/ws`.
pub struct AcsRoute {
    store: Arc<dyn Store>,
    env: Env,
    ecs: Arc<dyn Ecs>,
    roles: Arc<dyn RoleCredentials>,
}

impl AcsRoute {
    /// `ecs` takes the reports of tasks that no node will ever have.
    pub fn new(
        store: Arc<dyn Store>,
        env: Env,
        ecs: Arc<dyn Ecs>,
        roles: Arc<dyn RoleCredentials>,
    ) -> AcsRoute {
        AcsRoute {
            store,
            env,
            ecs,
            roles,
        }
    }
}

#[async_trait]
impl WebSocketRoute for AcsRoute {
    fn name(&self) -> &'static str {
        "acs"
    }

    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        ConnectingInstance::read(context, query, MEMBER)?.check(context, &self.store.snapshot())
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, socket: ServerSocket) {
        let Ok(who) = ConnectingInstance::read(&context, &query, MEMBER) else {
            return;
        };
        let agent = AgentFacts {
            version: query.get("agentVersion").cloned(),
            hash: query.get("agentHash").cloned(),
        };
        let connections = Connections::new(self.store.clone(), self.env.clone());
        let place = (&context.account, &context.region);
        let session = match connections.begin(place, &who.row_name(), agent).await {
            Ok(session) => session,
            Err(error) => {
                warn!(%error, container_instance = %who.arn, "a session could not begin");
                return;
            }
        };
        info!(container_instance = %who.arn, session, "agent connected");
        let reason = self.pump(&context, &who, session, socket).await;
        info!(container_instance = %who.arn, session, reason, "agent disconnected");
        connections.end(place, &who.row_name(), session).await;
    }
}

impl AcsRoute {
    async fn pump(
        &self,
        context: &RequestContext,
        who: &ConnectingInstance,
        session: u64,
        socket: ServerSocket,
    ) -> String {
        let assignments = Assignments {
            names: RegistryNames {
                account: context.account,
                region: context.region.clone(),
                joined: context.host.clone(),
            },
            cluster: who.cluster.clone(),
            container_instance: who.id,
        };
        let identity = Identity {
            cluster_arn: Arn::cluster(&context.region, &context.account, &who.cluster).to_string(),
            container_instance_arn: who.arn.clone(),
        };
        let Ok(core) = AcsSession::new(identity, session) else {
            return "the container instance has used all its session numbers".to_owned();
        };
        let (roles_in, roles) = mpsc::channel(64);
        let (sink, mut stream) = socket.split();
        let mut pump = Pump {
            route: self,
            context,
            core,
            sink,
            roles: roles_in,
            timers: BTreeMap::new(),
        };
        let snapshot = self.store.snapshot();
        let mut changes = self.watch(context, who, &assignments, snapshot.revision());
        let tasks = assignments.all(&snapshot);
        let mut roles = roles;
        if let Err(reason) = pump.step(Input::Connected { tasks }).await {
            return reason;
        }
        loop {
            let input = tokio::select! {
                message = stream.next() => match message {
                    Some(Ok(Message::Text(text))) => match Frame::decode(text.as_str()) {
                        Ok(frame) => Input::Frame(frame),
                        Err(error) => Input::Malformed { cause: error.to_string() },
                    },
                    Some(Ok(Message::Close(_))) | None => return "closed by the agent".to_owned(),
                    // Pings are answered below this; binary frames are not part of the protocol.
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return error.to_string(),
                },
                change = changes.next() => {
                    match self.changed(context, who, session, &assignments, &mut changes, change) {
                        Some(input) => input,
                        None => continue,
                    }
                }
                Some(input) = roles.recv() => input,
                timer = next_timer(&self.env, &pump.timers) => {
                    pump.timers.remove(&timer);
                    Input::Timer(timer)
                }
            };
            if let Err(reason) = pump.step(input).await {
                return reason;
            }
        }
    }

    fn watch(
        &self,
        context: &RequestContext,
        who: &ConnectingInstance,
        assignments: &Assignments,
        after: gantry_store::Revision,
    ) -> Changes {
        use gantry_store::{Prefix, Table};
        let name = who.row_name();
        let own = |kind| {
            Prefix::names(
                &context.account,
                &context.region,
                crate::tables::SERVICE,
                kind,
                &name,
            )
        };
        let mut changes = self.store.watch(&own(AcsSessionRow::KIND), after);
        changes = changes.also(&own(ContainerInstanceRow::KIND));
        for prefix in assignments.watches() {
            changes = changes.also(&prefix);
        }
        changes
    }

    /// What a change means for the session.
    fn changed(
        &self,
        context: &RequestContext,
        who: &ConnectingInstance,
        session: u64,
        assignments: &Assignments,
        changes: &mut Changes,
        change: Change,
    ) -> Option<Input> {
        let (snapshot, rows) = match change {
            Change::Rows(rows) => (self.store.snapshot(), Some(rows)),
            Change::Lost => (changes.reload(), None),
        };
        let (account, region, name) = (&context.account, &context.region, who.row_name());
        let row = snapshot.read::<AcsSessionRow>(account, region, &name);
        if row.is_none_or(|row| row.session > session) {
            return Some(Input::Superseded);
        }
        let instance = snapshot.read::<ContainerInstanceRow>(account, region, &name);
        if instance.is_none_or(|row| row.status == ContainerInstanceStatus::Inactive) {
            return Some(Input::Deregistered);
        }
        let Some(rows) = rows else {
            // What was missed cannot be told apart, so the agent is told everything again by the
            // session that it opens next.
            return Some(Input::Superseded);
        };
        let mut tasks: BTreeMap<TaskId, String> = BTreeMap::new();
        for row in &rows {
            if let Some((name, task)) = Assignments::task_of(row)
                && !matches!(row.key.kind(), "acs-session" | "container-instance")
            {
                tasks.insert(task, name);
            }
        }
        if tasks.is_empty() {
            return None;
        }
        let changed = tasks
            .into_iter()
            .map(|(id, name)| (id, assignments.one(&snapshot, &name)))
            .collect();
        Some(Input::Changed(changed))
    }
}

/// The timer that is due first. Never, where none is set.
async fn next_timer(env: &Env, timers: &BTreeMap<Timer, Duration>) -> Timer {
    match timers.iter().min_by_key(|(_, at)| **at) {
        Some((timer, at)) => {
            env.timers.sleep_until_monotonic(*at).await;
            *timer
        }
        None => std::future::pending().await,
    }
}

struct Pump<'a> {
    route: &'a AcsRoute,
    context: &'a RequestContext,
    core: AcsSession,
    sink: futures_util::stream::SplitSink<ServerSocket, Message>,
    roles: mpsc::Sender<Input>,
    timers: BTreeMap<Timer, Duration>,
}

impl Pump<'_> {
    /// Steps the core and does what it says. An error is why the session ends.
    async fn step(&mut self, input: Input) -> Result<(), String> {
        let env = &self.route.env;
        let outputs = self.core.step(env.now(), input);
        let mut unsent = false;
        for output in outputs {
            match output {
                Output::Send(frame) => {
                    debug!(kind = frame.kind(), "to the agent");
                    let message = Message::text(frame.encode());
                    self.sink
                        .feed(message)
                        .await
                        .map_err(|error| error.to_string())?;
                    unsent = true;
                }
                Output::AssumeRole {
                    task,
                    role,
                    role_arn,
                } => self.assume(task, role, role_arn),
                Output::ReportStopped { task_arn, reason } => self.report(task_arn, reason),
                Output::SetTimer { timer, after } => {
                    self.timers.insert(timer, env.monotonic() + after);
                }
                Output::Close { reason } => {
                    // The agent may be gone already; it learns of it either way.
                    let _ = self.sink.close().await;
                    return Err(reason.to_owned());
                }
            }
        }
        if unsent {
            self.sink.flush().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn assume(&self, task: TaskId, role: RoleType, role_arn: String) {
        let (roles, context) = (self.route.roles.clone(), self.context.clone());
        let answer = self.roles.clone();
        tokio::spawn(async move {
            let task_text = task.to_string();
            let credentials = roles.assume(&context, &role_arn, &role, &task_text).await;
            // The session may be over by now; the next one asks again.
            let _ = answer
                .send(Input::Role {
                    task,
                    role,
                    credentials,
                })
                .await;
        });
    }

    fn report(&self, task_arn: String, reason: String) {
        let (ecs, env) = (self.route.ecs.clone(), self.route.env.clone());
        let context = RequestContext {
            now: env.now(),
            ..self.context.clone()
        };
        let cluster = task_arn.rsplit('/').nth(1).map(str::to_owned);
        let request = ecs::SubmitTaskStateChangeRequest {
            cluster,
            task: Some(task_arn.clone()),
            status: Some("STOPPED".to_owned()),
            reason: Some(reason),
            ..ecs::SubmitTaskStateChangeRequest::default()
        };
        tokio::spawn(async move {
            if let Err(error) = ecs.submit_task_state_change(&context, request).await {
                // The task is still there for the next session, which reports it again.
                warn!(
                    task_arn,
                    ?error,
                    "a task that cannot run could not be reported"
                );
            }
        });
    }
}
