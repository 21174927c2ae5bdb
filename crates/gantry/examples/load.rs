//! The load of `cargo xtask bench`: talks to a running Gantry through its public, durable API only.
//!
//! Each subcommand measures inside this process, so that starting it costs nothing, and prints one number.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]
#![allow(clippy::print_stdout, reason = "the number is the result")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use clap::{Parser, Subcommand};
use gantry_api::client::Client;
use gantry_api::ecs;

#[derive(Parser)]
struct Arguments {
    /// The data directory of the running `gantry up`.
    #[arg(long)]
    data_dir: PathBuf,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Push the image (through `gantry sample`) and register the task definitions.
    Prepare,
    /// One task of /bin/true: milliseconds from RunTask to STOPPED seen.
    One,
    /// Tasks by calls of ten: milliseconds from the first call to all RUNNING seen.
    Many {
        #[arg(long)]
        count: usize,
    },
    /// Stop every task, and wait until they are STOPPED.
    StopAll,
    /// Bring the service to so many tasks, and make it if it is not there: milliseconds from the call to
    /// all RUNNING, or to all STOPPED, seen.
    Service {
        #[arg(long)]
        count: usize,
    },
    /// Delete the service.
    DeleteService,
    /// Make this many services, of which the first `running` have a task each, and wait until they have.
    Services {
        #[arg(long)]
        count: usize,
        #[arg(long)]
        running: usize,
    },
    /// Make a repository.
    Repository {
        #[arg(long)]
        name: String,
    },
    /// Print a password for the registry.
    Password,
    /// Print the ARN of every task that has stopped.
    Stopped,
    /// Put this many tasks of /bin/true into the store.
    Fill {
        #[arg(long)]
        count: usize,
    },
}

/// One task is looked at this often.
const LOOK: Duration = Duration::from_millis(1);
/// Many are: describing a hundred of them is work on the processors that are to start them.
const LOOK_AT_MANY: Duration = Duration::from_millis(10);
/// The service that is measured, and those that are many.
const SERVICE: &str = "many";
const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let gantry = Gantry::connect(&arguments.data_dir)?;
    match arguments.load {
        Load::Prepare => gantry.prepare(&arguments.data_dir).await,
        Load::One => gantry.one().await.map(print),
        Load::Many { count } => gantry.many(count).await.map(print),
        Load::StopAll => gantry.stop_all().await,
        Load::Service { count } => gantry.service(count).await.map(print),
        Load::DeleteService => gantry.delete_service(SERVICE).await,
        Load::Services { count, running } => gantry.services(count, running).await,
        Load::Repository { name } => gantry.repository(name).await,
        Load::Password => gantry.password().await,
        Load::Stopped => gantry.stopped().await,
        Load::Fill { count } => gantry.fill(count).await,
    }
}

fn print(taken: Duration) {
    println!("{:.3}", taken.as_secs_f64() * 1_000.0);
}

struct Gantry {
    client: Client,
    registry: String,
}

impl Gantry {
    fn connect(data_dir: &std::path::Path) -> anyhow::Result<Gantry> {
        let file = std::fs::read(data_dir.join("root-credentials"))
            .context("no Gantry on that data directory")?;
        let file: serde_json::Value = serde_json::from_slice(&file)?;
        let text = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
        let endpoint = text("endpoint");
        let registry = endpoint.trim_start_matches("http://").to_owned();
        let keys = gantry_api::sigv4::SigningCredentials {
            access_key_id: text("access_key_id"),
            secret: text("secret_access_key"),
            session_token: None,
        };
        let region = text("region").parse().context("the region")?;
        let client = Client::new(
            &endpoint,
            region,
            std::sync::Arc::new(keys),
            gantry_env::Env::real(),
        )?;
        Ok(Gantry { client, registry })
    }

    async fn prepare(&self, data_dir: &std::path::Path) -> anyhow::Result<()> {
        // The sample pushes an image with busybox as `gantry-sample`.
        let me = std::env::current_exe()?;
        let gantry = me
            .parent()
            .and_then(|examples| examples.parent())
            .context("target directory")?
            .join("gantry");
        let pushed = std::process::Command::new(gantry)
            .arg("sample")
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(std::process::Stdio::null())
            .status()?;
        if !pushed.success() {
            bail!("gantry sample failed");
        }
        for (family, command) in [
            ("true", vec!["/bin/true"]),
            ("sleep", vec!["/bin/sleep", "1000"]),
        ] {
            let container = ecs::ContainerDefinition {
                name: Some(family.to_owned()),
                image: Some(format!("{}/gantry-sample:latest", self.registry)),
                memory: Some(16),
                // `sleep` as a container's first process does not heed SIGTERM.
                stop_timeout: Some(2),
                command: Some(command.into_iter().map(str::to_owned).collect()),
                ..Default::default()
            };
            self.client
                .call::<ecs::RegisterTaskDefinition>(ecs::RegisterTaskDefinitionRequest {
                    family: family.to_owned(),
                    network_mode: Some(ecs::NetworkMode::Host),
                    container_definitions: vec![container],
                    ..Default::default()
                })
                .await?;
        }
        Ok(())
    }

    async fn one(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let arns = self.run("true", 1).await?;
        self.wait_for("STOPPED", &arns).await?;
        Ok(start.elapsed())
    }

    async fn many(&self, count: usize) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut arns = Vec::new();
        while arns.len() < count {
            arns.extend(self.run("sleep", 10.min(count - arns.len())).await?);
        }
        self.wait_for("RUNNING", &arns).await?;
        Ok(start.elapsed())
    }

    async fn stop_all(&self) -> anyhow::Result<()> {
        let arns = self.list(ecs::DesiredStatus::Running).await?;
        for arn in &arns {
            let stop = ecs::StopTaskRequest {
                task: arn.clone(),
                ..Default::default()
            };
            self.client.call::<ecs::StopTask>(stop).await?;
        }
        self.wait_for("STOPPED", &arns).await
    }

    async fn service(&self, count: usize) -> anyhow::Result<Duration> {
        let desired = Some(i32::try_from(count)?);
        let there = self.running_count(SERVICE).await?;
        let before = match there {
            Some(_) => self.list_of(SERVICE).await?,
            None => Vec::new(),
        };
        let start = Instant::now();
        match there {
            Some(_) => {
                let update = ecs::UpdateServiceRequest {
                    service: SERVICE.to_owned(),
                    desired_count: desired,
                    ..Default::default()
                };
                self.client.call::<ecs::UpdateService>(update).await?;
            }
            None => self.create_service(SERVICE, desired).await?,
        }
        if count < before.len() {
            if count > 0 {
                bail!("a service is only measured on its way to more tasks, or to none");
            }
            self.wait_for("STOPPED", &before).await?;
            return Ok(start.elapsed());
        }
        while self.running_count(SERVICE).await? != Some(count) {
            if start.elapsed() > DEADLINE {
                bail!("the service has not {count} tasks after {DEADLINE:?}");
            }
            tokio::time::sleep(LOOK_AT_MANY).await;
        }
        Ok(start.elapsed())
    }

    async fn create_service(&self, name: &str, desired: Option<i32>) -> anyhow::Result<()> {
        let create = ecs::CreateServiceRequest {
            service_name: name.to_owned(),
            task_definition: Some("sleep".to_owned()),
            desired_count: desired,
            ..Default::default()
        };
        self.client.call::<ecs::CreateService>(create).await?;
        Ok(())
    }

    async fn delete_service(&self, name: &str) -> anyhow::Result<()> {
        let delete = ecs::DeleteServiceRequest {
            service: name.to_owned(),
            force: Some(true),
            ..Default::default()
        };
        self.client.call::<ecs::DeleteService>(delete).await?;
        // Its name is free again when it has drained.
        let start = Instant::now();
        while self.running_count(name).await?.is_some() {
            if start.elapsed() > DEADLINE {
                bail!("the service is not INACTIVE after {DEADLINE:?}");
            }
            tokio::time::sleep(LOOK_AT_MANY).await;
        }
        Ok(())
    }

    async fn services(&self, count: usize, running: usize) -> anyhow::Result<()> {
        for n in 0..count {
            let desired = i32::from(n < running);
            self.create_service(&format!("rest-{n}"), Some(desired))
                .await?;
        }
        let start = Instant::now();
        for n in 0..running {
            while self.running_count(&format!("rest-{n}")).await? != Some(1) {
                if start.elapsed() > DEADLINE {
                    bail!("service {n} has no task after {DEADLINE:?}");
                }
                tokio::time::sleep(LOOK_AT_MANY).await;
            }
        }
        Ok(())
    }

    /// How many tasks of a service run; none where there is no such service, or no longer.
    async fn running_count(&self, service: &str) -> anyhow::Result<Option<usize>> {
        let request = ecs::DescribeServicesRequest {
            services: vec![service.to_owned()],
            ..Default::default()
        };
        let answer = self.client.call::<ecs::DescribeServices>(request).await?;
        let service = answer.services.into_iter().flatten().next();
        let service = service.filter(|it| it.status.as_deref() != Some("INACTIVE"));
        Ok(service.map(|it| usize::try_from(it.running_count.unwrap_or(0)).unwrap_or(0)))
    }

    async fn repository(&self, repository_name: String) -> anyhow::Result<()> {
        let request = gantry_api::ecr::CreateRepositoryRequest {
            repository_name,
            ..Default::default()
        };
        self.client
            .call::<gantry_api::ecr::CreateRepository>(request)
            .await?;
        Ok(())
    }

    async fn password(&self) -> anyhow::Result<()> {
        let request = gantry_api::ecr::GetAuthorizationTokenRequest::default();
        let answer = self
            .client
            .call::<gantry_api::ecr::GetAuthorizationToken>(request)
            .await?;
        let data = answer.authorization_data.into_iter().flatten().next();
        let token = data.and_then(|data| data.authorization_token);
        let token = base64::engine::general_purpose::STANDARD.decode(token.context("a token")?)?;
        let login = String::from_utf8(token)?;
        let (_, password) = login.split_once(':').context("a login")?;
        println!("{password}");
        Ok(())
    }

    async fn stopped(&self) -> anyhow::Result<()> {
        for arn in self.list(ecs::DesiredStatus::Stopped).await? {
            println!("{arn}");
        }
        Ok(())
    }

    async fn fill(&self, count: usize) -> anyhow::Result<()> {
        let mut done = 0;
        while done < count {
            let mut batch = Vec::new();
            while batch.len() < 100 {
                batch.extend(self.run("true", 10).await?);
            }
            self.wait_for("STOPPED", &batch).await?;
            done += batch.len();
        }
        Ok(())
    }

    async fn run(&self, family: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let answer = self
            .client
            .call::<ecs::RunTask>(ecs::RunTaskRequest {
                task_definition: family.to_owned(),
                count: Some(i32::try_from(count)?),
                ..Default::default()
            })
            .await?;
        if let Some(failure) = answer.failures.iter().flatten().next() {
            bail!("RunTask: {}", failure.reason.as_deref().unwrap_or_default());
        }
        Ok(answer
            .tasks
            .into_iter()
            .flatten()
            .filter_map(|task| task.task_arn)
            .collect())
    }

    async fn list(&self, desired: ecs::DesiredStatus) -> anyhow::Result<Vec<String>> {
        self.list_as(ecs::ListTasksRequest {
            desired_status: Some(desired),
            ..Default::default()
        })
        .await
    }

    async fn list_of(&self, service: &str) -> anyhow::Result<Vec<String>> {
        self.list_as(ecs::ListTasksRequest {
            service_name: Some(service.to_owned()),
            ..Default::default()
        })
        .await
    }

    async fn list_as(&self, asked: ecs::ListTasksRequest) -> anyhow::Result<Vec<String>> {
        let mut arns = Vec::new();
        let mut token = None;
        loop {
            let request = ecs::ListTasksRequest {
                next_token: token,
                ..asked.clone()
            };
            let page = self.client.call::<ecs::ListTasks>(request).await?;
            arns.extend(page.task_arns.into_iter().flatten());
            token = page.next_token;
            if token.is_none() {
                return Ok(arns);
            }
        }
    }

    /// Looks until every task has this last status. A task that has it is not looked at again.
    async fn wait_for(&self, status: &str, arns: &[String]) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut open: Vec<String> = arns.to_vec();
        let pause = if open.len() > 1 { LOOK_AT_MANY } else { LOOK };
        while !open.is_empty() {
            if start.elapsed() > DEADLINE {
                bail!("{} tasks are not {status} after {DEADLINE:?}", open.len());
            }
            let asked: Vec<String> = open.iter().take(100).cloned().collect();
            let request = ecs::DescribeTasksRequest {
                tasks: asked,
                ..Default::default()
            };
            let answer = self.client.call::<ecs::DescribeTasks>(request).await?;
            for task in answer.tasks.into_iter().flatten() {
                let seen = task.last_status.as_deref().unwrap_or_default();
                if seen == "STOPPED" && status == "RUNNING" {
                    bail!(
                        "a task stopped: {}",
                        task.stopped_reason.unwrap_or_default()
                    );
                }
                if seen == status {
                    open.retain(|arn| Some(arn) != task.task_arn.as_ref());
                }
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
