//! The control plane's parts, put together over one store and one archive, and served on one port.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gantry_api::auth::CredentialPolicy;
use gantry_api::server::{PlainHttp, Server};
use gantry_api::tls::Authority;
use gantry_archive::Archive;
use gantry_arn::{AccountId, ClusterName, Region};
use gantry_ecr::EcrService;
use gantry_ecs::acs::{AcsRoute, NodePermissions, TcsRoute, forget_connections};
use gantry_ecs::history::History;
use gantry_ecs::tables::AcsSessionRow;
use gantry_ecs::{EcsService, controllers};
use gantry_env::Env;
use gantry_iam::{IamService, InstallationKeys, NodeKey, Nodes};
use gantry_logs::LogsService;
use gantry_reconcile::{
    Controller, Drive, Driver, Effect, EffectSink, LeaseKeeper, LeaseTimes, Limits,
};
use gantry_store::{SqliteStore, Store, Table};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::explain_route::{EXPLAIN_PATH, ExplainRoute};
use super::history_route::{HISTORY_PATH, HistoryRoute};
use super::join_route::{JOIN_PATH, JoinRoute};
use super::role_credentials::IamRoleCredentials;
use super::rows_route::{ROWS_PATH, RowsRoute};
use super::tokens_route::{TOKENS_PATH, TokensRoute};
use crate::cli::UpOptions;
use crate::data_dir::DataDir;
use crate::supervision::AgentHealth;

/// Everything that answers requests, opened and not serving yet.
pub struct ControlPlane {
    store: Arc<dyn Store>,
    env: Env,
    server: Server,
    keys: InstallationKeys,
    node_key: NodeKey,
    agent_health: AgentHealth,
    region: Region,
    ecs: Arc<EcsService>,
    logs: Arc<LogsService>,
    ecr: Arc<EcrService>,
    history: History,
    stopped_tasks: Duration,
}

impl ControlPlane {
    /// Opens the store and makes the services over it.
    pub async fn open(
        dir: &DataDir,
        env: &Env,
        options: &UpOptions,
    ) -> anyhow::Result<ControlPlane> {
        let account = AccountId::default();
        // The directory is locked from here on, so nobody else touches what follows.
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.store(), env.clone())?);
        forget_connections(&store, env).await?;
        let archive = Archive::open(dir.archive(), env.clone())
            .await
            .context("opening the log archive")?;
        let iam = Arc::new(IamService::new(store.clone(), env.clone()));
        let credentials = iam.credentials().clone();
        let keys = credentials
            .bootstrap(&account)
            .await
            .context("making the installation's keys")?;
        let ecs = Arc::new(EcsService::new(
            store.clone(),
            env.clone(),
            Default::default(),
        ));
        create_default_cluster(&ecs, env, &account).await?;
        let ecr = EcrService::new(
            store.clone(),
            &dir.registry(),
            env.clone(),
            Default::default(),
        )
        .await
        .context("opening the registry's blobs")?;
        let kept = at_least_an_hour("--history", &options.history)?;
        let stopped_tasks = at_least_an_hour("--stopped-tasks", &options.stopped_tasks)?;
        let history = History::new(store.clone(), archive.clone(), env.clone(), kept);
        let logs = Arc::new(LogsService::new(store.clone(), archive, env.clone()));

        let source = Arc::new(credentials.clone());
        let policy = if options.accept_any_credentials {
            CredentialPolicy::AcceptAny { source, account }
        } else {
            CredentialPolicy::Verify(source)
        };
        let nodes = Nodes::new(store.clone(), env.clone());
        let node_key = nodes
            .local((account, Region::default(), ClusterName::default()))
            .await
            .context("making the key of this machine's node")?;
        let agent_health = AgentHealth::new();
        let health = agent_health.clone();
        let roles = Arc::new(IamRoleCredentials::new(credentials, nodes.clone()));
        let telemetry = ecs.telemetry();
        let authority =
            Authority::open(&dir.tls(), env.now()).context("opening the certificate authority")?;
        let names = vec![options.listen.ip().to_string()];
        let server = Server::builder(env.clone(), policy)
            .service(gantry_api::ecs::service(ecs.clone()))
            .service(gantry_api::ecr::service(ecr.clone()))
            .service(gantry_api::logs::service(logs.clone()))
            .service(gantry_api::iam::service(iam.clone()))
            .service(gantry_api::sts::service(iam))
            .raw_route("/v2/", ecr.registry())
            .raw_route(JOIN_PATH, Arc::new(JoinRoute::new(nodes.clone())))
            .websocket(TOKENS_PATH, Arc::new(TokensRoute::new(nodes, ecs.clone())))
            .authorizer(Arc::new(NodePermissions::new(store.clone())))
            .health(Arc::new(move || health.members()))
            .websocket(
                "/acs/ws",
                Arc::new(AcsRoute::new(
                    store.clone(),
                    env.clone(),
                    ecs.clone(),
                    roles,
                )),
            )
            .websocket(
                "/tcs/ws",
                Arc::new(TcsRoute::new(store.clone(), env.clone(), telemetry)),
            )
            .websocket(EXPLAIN_PATH, Arc::new(ExplainRoute::new(store.clone())))
            .websocket(ROWS_PATH, Arc::new(RowsRoute::new(store.clone())))
            .websocket(HISTORY_PATH, Arc::new(HistoryRoute::new(history.clone())))
            .tls(authority.server_config(&names, env.now())?)
            .plain_http(PlainHttp::SameMachineAnd(options.plain_http_from.clone()))
            .build();
        Ok(ControlPlane {
            store,
            env: env.clone(),
            server,
            keys,
            node_key,
            agent_health,
            region: Region::default(),
            ecs,
            logs,
            ecr,
            history,
            stopped_tasks,
        })
    }

    pub fn keys(&self) -> &InstallationKeys {
        &self.keys
    }

    /// What the agent of this process signs with.
    pub fn node_key(&self) -> &NodeKey {
        &self.node_key
    }

    /// How the agent of this process is doing.
    pub fn agent_health(&self) -> &AgentHealth {
        &self.agent_health
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Waits until an agent is connected to the cluster `default`.
    pub async fn agent_connected(&self) {
        let mut changes = self.store.watch(
            &AcsSessionRow::everywhere(),
            self.store.snapshot().revision(),
        );
        loop {
            let sessions = self.store.snapshot().list_everywhere::<AcsSessionRow>();
            if sessions.iter().any(|session| session.row.connected) {
                return;
            }
            changes.next().await;
        }
    }

    /// Serves, reconciles and keeps house until `stop` is true.
    pub fn start(&self, listener: TcpListener, stop: &watch::Sender<bool>) -> JoinHandle<()> {
        let (server, serving) = (self.server.clone(), stopped(stop));
        let server = tokio::spawn(async move { server.serve(listener, serving).await });

        let keeper = LeaseKeeper::new("ecs", 0, "gantry-up", LeaseTimes::default());
        let drivers = drivers(&self.store, &keeper, &self.ecs, self.stopped_tasks);
        let lease = gantry_reconcile::run_lease(
            self.store.clone(),
            keeper,
            self.env.clone(),
            stopped(stop),
        );
        let controllers = gantry_reconcile::run(
            self.store.clone(),
            drivers,
            Arc::new(NoEffects),
            self.env.clone(),
            stopped(stop),
        );
        let house = self.logs.as_ref().clone().keep_house();
        let history = self.history.clone().run();
        let collection = self.ecr.clone().run_collection();
        let ended = stopped(stop);
        tokio::spawn(async move {
            tokio::spawn(async move {
                // Both may be dropped at any moment.
                tokio::select! {
                    () = house => {}
                    () = history => {}
                    _ = collection => {}
                    () = ended => {}
                }
            });
            tokio::join!(lease, controllers);
            if let Err(error) = server.await {
                tracing::error!(%error, "the server ended with a fault");
            }
        })
    }
}

/// A time that may be longer than AWS keeps things, but not shorter.
fn at_least_an_hour(option: &str, text: &str) -> anyhow::Result<Duration> {
    let given = crate::duration::parse(text).with_context(|| option.to_owned())?;
    anyhow::ensure!(
        given >= controllers::STOPPED_TASK_RETENTION,
        "{option} is at least an hour, as at AWS"
    );
    Ok(given)
}

fn drivers(
    store: &Arc<dyn Store>,
    keeper: &LeaseKeeper,
    ecs: &EcsService,
    stopped_tasks: Duration,
) -> Vec<Box<dyn Drive>> {
    fn driver<C: Controller + 'static>(
        store: &Arc<dyn Store>,
        keeper: &LeaseKeeper,
        controller: C,
    ) -> Box<dyn Drive>
    where
        C::Key: 'static,
    {
        Box::new(Driver::new(
            controller,
            store.clone(),
            keeper.handle(),
            Limits::default(),
        ))
    }
    vec![
        driver(
            store,
            keeper,
            controllers::StoppedTaskRetention::keeping(stopped_tasks),
        ),
        driver(store, keeper, controllers::StateChangeRetention::default()),
        driver(store, keeper, controllers::ClientTokenExpiry),
        driver(store, keeper, controllers::DeregisteredInstances),
        driver(store, keeper, controllers::TaskDefinitionDeletion),
        driver(store, keeper, controllers::Services::of(ecs)),
        driver(store, keeper, controllers::ServiceHistory),
    ]
}

/// No controller of this build has effects on other services; one that had would be told so.
struct NoEffects;

#[async_trait::async_trait]
impl EffectSink for NoEffects {
    async fn perform(&self, effect: &Effect) -> Result<(), String> {
        Err(format!("{} is not built", effect.operation))
    }
}

/// As at AWS's console, the cluster named `default` is there before anybody asks.
async fn create_default_cluster(
    ecs: &EcsService,
    env: &Env,
    account: &AccountId,
) -> anyhow::Result<()> {
    use gantry_api::ecs::Ecs;
    let context = gantry_api::RequestContext {
        account: *account,
        region: Region::default(),
        principal: gantry_api::auth::root_principal(*account, "gantry"),
        request_id: "start".to_owned(),
        host: None,
        now: env.now(),
    };
    ecs.create_cluster(&context, Default::default())
        .await
        .map(drop)
        .map_err(|error| anyhow::anyhow!("creating the cluster default: {error}"))
}

/// Ends once `stop` is true, or nobody is left to say so.
fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}
