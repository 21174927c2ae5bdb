//! Clients nobody here wrote, over the real server: boto3, and `aws logs tail --follow`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource, root_principal};
use gantry_api::logs::{self, Logs};
use gantry_api::server::Server;
use gantry_api::{Principal, RequestContext};
use gantry_archive::Archive;
use gantry_arn::{AccountId, Region};
use gantry_env::Env;
use gantry_logs::LogsService;
use gantry_store::MemoryStore;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

const KEY: &str = "AKIAGANTRYTESTKEY000";
const SECRET: &str = "a secret for tests";

struct OneKey;

#[async_trait]
impl CredentialSource for OneKey {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        let account = AccountId::default();
        (access_key_id == KEY).then(|| Credential {
            secret: SECRET.into(),
            session_token: None,
            expiration: None,
            account,
            principal: principal(),
        })
    }
}

fn principal() -> Principal {
    root_principal(AccountId::default(), KEY)
}

struct Served {
    env: Env,
    logs: LogsService,
    endpoint: String,
    serving: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        let env = Env::real();
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::open(directory.path(), env.clone()).await.unwrap();
        let store = Arc::new(MemoryStore::with_env(&env));
        let logs = LogsService::new(store, archive, env.clone());
        let server = Server::builder(env.clone(), CredentialPolicy::Verify(Arc::new(OneKey)))
            .service(logs::service(Arc::new(logs.clone())))
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = async move { server.serve(listener, std::future::pending()).await };
        Self {
            env,
            logs,
            endpoint,
            serving: tokio::spawn(serving),
            _directory: directory,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", std::env::temp_dir())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_MAX_ATTEMPTS", "1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .kill_on_drop(true);
        command
    }

    fn ctx(&self) -> RequestContext {
        RequestContext {
            account: AccountId::default(),
            region: Region::default(),
            principal: principal(),
            request_id: "request".into(),
            host: None,
            now: self.env.now(),
        }
    }

    async fn line(&self, message: &str) {
        let input = logs::PutLogEventsRequest {
            log_group_name: "app".into(),
            log_stream_name: "web".into(),
            log_events: vec![logs::InputLogEvent {
                timestamp: self.env.now().as_millis(),
                message: message.into(),
            }],
            ..Default::default()
        };
        self.logs.put_log_events(&self.ctx(), input).await.unwrap();
    }
}

#[tokio::test]
async fn boto3_writes_and_reads_logs() {
    let served = Served::start().await;
    let mut command = served.command("python3");
    command.args(["-c", include_str!("logs.py")]);
    let output = tokio::time::timeout(Duration::from_secs(50), command.output())
        .await
        .expect("boto3 is done in time")
        .expect("python3 is installed: `cargo xtask setup`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    served.serving.abort();
}

/// `logs tail` is in version 2 of the CLI only: Debian's `awscli`, which may stand behind another
/// one that was installed with pip.
async fn aws_cli_2() -> &'static str {
    for program in ["aws", "/usr/bin/aws"] {
        let version = Command::new(program).arg("--version").output().await;
        if version.is_ok_and(|it| it.stdout.starts_with(b"aws-cli/2")) {
            return program;
        }
    }
    panic!("version 2 of the AWS CLI is missing: `apt-get install awscli`, or `cargo xtask setup`");
}

/// Lines that were there and lines that come while it follows, each once.
#[tokio::test]
async fn aws_logs_tail_follows_live() {
    let served = Served::start().await;
    let group = logs::CreateLogGroupRequest {
        log_group_name: "app".into(),
        ..Default::default()
    };
    served
        .logs
        .create_log_group(&served.ctx(), group)
        .await
        .unwrap();
    let stream = logs::CreateLogStreamRequest {
        log_group_name: "app".into(),
        log_stream_name: "web".into(),
    };
    served
        .logs
        .create_log_stream(&served.ctx(), stream)
        .await
        .unwrap();
    served.line("before").await;
    let mut command = served.command(aws_cli_2().await);
    command
        // Older releases of it do not read AWS_ENDPOINT_URL.
        .args(["--endpoint-url", &served.endpoint, "logs", "tail"])
        .args(["app", "--follow", "--format", "short"])
        // It does not flush after a line when it writes to a pipe.
        .env("PYTHONUNBUFFERED", "1")
        .stdout(Stdio::piped());
    let mut tail = command
        .spawn()
        .expect("aws is installed: `cargo xtask setup`");
    let mut shown = BufReader::new(tail.stdout.take().unwrap()).lines();
    for expected in ["before", "first", "second"] {
        if expected != "before" {
            served.line(expected).await;
        }
        let line = tokio::time::timeout(Duration::from_secs(40), shown.next_line())
            .await
            .unwrap_or_else(|_| panic!("{expected} was not shown"))
            .unwrap()
            .unwrap_or_else(|| panic!("aws ended before {expected}"));
        assert!(line.ends_with(expected), "{line}, not {expected}");
    }
    tail.kill().await.unwrap();
    served.serving.abort();
}
