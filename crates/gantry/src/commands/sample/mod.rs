//! `gantry sample`: the whole way in one command. A tiny image is made from Debian's static busybox, pushed,
//! run as a task, and its log line is read back; each step says what it did.

mod push;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_api::client::{Client, ClientError};
use gantry_api::sigv4::SigningCredentials;
use gantry_api::{ecr, ecs, logs};
use gantry_env::Env;

use crate::cli::DataDirOption;
use crate::data_dir::{DataDir, RootCredentials};
use push::{Blob, Registry};

const REPOSITORY: &str = "gantry-sample";
const LOG_GROUP: &str = "/gantry/sample";
const LINE: &str = "Hello from a container that Gantry runs.";
const BUSYBOX: &str = "/bin/busybox";

/// A first pull and start take well under a second; a loaded machine gets patience.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the sample against the installation of the data directory.
pub fn run(options: &DataDirOption) -> anyhow::Result<()> {
    let credentials = DataDir::read_root_credentials(&options.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let sample = Sample::new(&credentials)?;
        sample.push().await?;
        let task = sample.run_task().await?;
        sample.wait_for_line(&task).await
    })
}

struct Sample {
    client: Client,
    endpoint: String,
    region: String,
    env: Env,
}

impl Sample {
    fn new(credentials: &RootCredentials) -> anyhow::Result<Sample> {
        let keys = SigningCredentials {
            access_key_id: credentials.access_key_id.clone(),
            secret: credentials.secret_access_key.clone(),
            session_token: None,
        };
        let env = Env::real();
        let region = credentials
            .region
            .parse()
            .context("the region in the root credentials")?;
        let client = Client::new(&credentials.endpoint, region, Arc::new(keys), env.clone())?;
        Ok(Sample {
            client,
            endpoint: credentials.endpoint.clone(),
            region: credentials.region.clone(),
            env,
        })
    }

    fn image(&self) -> String {
        let host = self
            .endpoint
            .split_once("://")
            .map_or(self.endpoint.as_str(), |(_, host)| host);
        format!("{host}/{REPOSITORY}:latest")
    }

    async fn push(&self) -> anyhow::Result<()> {
        let create = ecr::CreateRepositoryRequest {
            repository_name: REPOSITORY.to_owned(),
            ..Default::default()
        };
        match self.client.call::<ecr::CreateRepository>(create).await {
            Ok(_) => say(&format!("made the repository {REPOSITORY}")),
            Err(error) if error.code == "RepositoryAlreadyExistsException" => {}
            Err(error) => return Err(unreachable_or(error, &self.endpoint)),
        }
        let token = self
            .client
            .call::<ecr::GetAuthorizationToken>(Default::default())
            .await?
            .authorization_data
            .into_iter()
            .flatten()
            .find_map(|data| data.authorization_token)
            .context("GetAuthorizationToken gave no token")?;
        let image = image(Path::new(BUSYBOX))?;
        Registry::new(&self.endpoint, &token)
            .push(REPOSITORY, "latest", &image.blobs, &image.manifest)
            .await?;
        say(&format!(
            "pushed {} ({})",
            self.image(),
            image.manifest.digest
        ));
        Ok(())
    }

    async fn run_task(&self) -> anyhow::Result<String> {
        let options = [
            ("awslogs-group", LOG_GROUP),
            ("awslogs-region", self.region.as_str()),
            ("awslogs-stream-prefix", "run"),
            ("awslogs-create-group", "true"),
        ];
        let log = ecs::LogConfiguration {
            log_driver: ecs::LogDriver::Awslogs,
            options: Some(
                options
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..Default::default()
        };
        let container = ecs::ContainerDefinition {
            name: Some("sample".to_owned()),
            image: Some(self.image()),
            memory: Some(32),
            command: Some(vec!["/bin/echo".to_owned(), LINE.to_owned()]),
            log_configuration: Some(log),
            ..Default::default()
        };
        let register = ecs::RegisterTaskDefinitionRequest {
            family: REPOSITORY.to_owned(),
            network_mode: Some(ecs::NetworkMode::None),
            container_definitions: vec![container],
            ..Default::default()
        };
        let registered = self
            .client
            .call::<ecs::RegisterTaskDefinition>(register)
            .await?;
        let definition = registered
            .task_definition
            .and_then(|definition| definition.task_definition_arn)
            .context("RegisterTaskDefinition gave no ARN")?;
        say(&format!("registered {definition}"));
        let run = ecs::RunTaskRequest {
            task_definition: definition,
            ..Default::default()
        };
        let answer = self.client.call::<ecs::RunTask>(run).await?;
        if let Some(failure) = answer.failures.iter().flatten().next() {
            bail!(
                "the task could not be placed: {}",
                failure.reason.as_deref().unwrap_or("no reason was given")
            );
        }
        let arn = answer
            .tasks
            .into_iter()
            .flatten()
            .find_map(|task| task.task_arn)
            .context("RunTask gave no task")?;
        say(&format!("started {arn}"));
        Ok(arn)
    }

    async fn wait_for_line(&self, arn: &str) -> anyhow::Result<()> {
        let id = arn.rsplit('/').next().unwrap_or(arn);
        let stream = format!("run/sample/{id}");
        let start = self.env.clock.monotonic();
        while self.env.clock.monotonic() - start < DEADLINE {
            let get = logs::GetLogEventsRequest {
                log_group_name: Some(LOG_GROUP.to_owned()),
                log_stream_name: stream.clone(),
                start_from_head: Some(true),
                ..Default::default()
            };
            match self.client.call::<logs::GetLogEvents>(get).await {
                Ok(page) => {
                    if let Some(line) = page
                        .events
                        .into_iter()
                        .flatten()
                        .find_map(|event| event.message)
                    {
                        say(&format!("its log, from {LOG_GROUP} {stream}:"));
                        print_line(&line);
                        return Ok(());
                    }
                }
                // Neither group nor stream is there before the container is.
                Err(error) if error.code == "ResourceNotFoundException" => {}
                Err(error) => return Err(error.into()),
            }
            self.fail_if_stopped(arn).await?;
            self.env.sleep(LOOK_EVERY).await;
        }
        bail!(
            "no log line within {DEADLINE:?}; `gantry explain task {id}` says what became of the task"
        )
    }

    async fn fail_if_stopped(&self, arn: &str) -> anyhow::Result<()> {
        let describe = ecs::DescribeTasksRequest {
            tasks: vec![arn.to_owned()],
            ..Default::default()
        };
        let answer = self.client.call::<ecs::DescribeTasks>(describe).await?;
        for task in answer.tasks.into_iter().flatten() {
            let failed = task
                .stop_code
                .as_ref()
                .is_some_and(|code| code.as_str() == "TaskFailedToStart");
            if failed {
                bail!(
                    "the task failed to start: {}",
                    task.stopped_reason.unwrap_or_default()
                );
            }
        }
        Ok(())
    }
}

struct Image {
    blobs: Vec<Blob>,
    manifest: Blob,
}

/// The smallest useful image: busybox under the names that the sample and the benchmarks run.
fn image(busybox: &Path) -> anyhow::Result<Image> {
    let program = std::fs::read(busybox).with_context(|| {
        format!(
            "the sample image is made from {}; install it with `apt-get install busybox-static`",
            busybox.display()
        )
    })?;
    let mut builder = gantry_runtime::image_builder::ImageBuilder::new();
    builder.file("bin/busybox", 0o755, program);
    for name in ["sh", "echo", "true", "sleep", "env"] {
        builder.symlink(&format!("bin/{name}"), "busybox");
    }
    builder.environment("PATH=/bin");
    let built = builder.build().context("building the sample image")?;
    let blob = |blob: gantry_runtime::image_builder::Blob, media_type| Blob {
        media_type,
        digest: blob.digest,
        bytes: blob.bytes,
    };
    Ok(Image {
        blobs: vec![
            blob(built.config, "application/vnd.oci.image.config.v1+json"),
            blob(built.layer, "application/vnd.oci.image.layer.v1.tar+gzip"),
        ],
        manifest: blob(built.manifest, "application/vnd.oci.image.manifest.v1+json"),
    })
}

fn unreachable_or(error: ClientError, endpoint: &str) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "no answer as expected from {endpoint}; is `gantry up` running?"
    ))
}

/// Progress, for whoever watches.
fn say(text: &str) {
    eprintln!("  {text}");
}

#[expect(clippy::print_stdout, reason = "the log line is this command's result")]
fn print_line(line: &str) {
    println!("{line}");
}
