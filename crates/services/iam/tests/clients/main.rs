//! A client nobody here wrote: boto3, over the real server, with keys that IAM made.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::auth::CredentialPolicy;
use gantry_api::server::Server;
use gantry_api::{iam, sts};
use gantry_arn::AccountId;
use gantry_env::Env;
use gantry_iam::IamService;
use gantry_store::MemoryStore;
use tokio::net::TcpListener;
use tokio::process::Command;

#[tokio::test]
async fn boto3_manages_roles_and_becomes_one() {
    run(include_str!("iam.py")).await;
}

#[tokio::test]
async fn boto3_manages_users_groups_keys_and_providers() {
    run(include_str!("identity.py")).await;
}

/// Runs a program of boto3 against a server of its own, as the root user.
async fn run(program: &str) {
    let env = Env::real();
    let service = IamService::new(Arc::new(MemoryStore::with_env(&env)), env.clone());
    let credentials = service.credentials().clone();
    let keys = credentials.bootstrap(&AccountId::default()).await.unwrap();
    let server = Server::builder(env, CredentialPolicy::Verify(Arc::new(credentials)))
        .service(iam::service(Arc::new(service.clone())))
        .service(sts::service(Arc::new(service)))
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { server.serve(listener, std::future::pending()).await });

    let mut command = Command::new("python3");
    command
        .args(["-c", program])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::temp_dir())
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", &keys.root.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &keys.root.secret_access_key)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(50), command.output())
        .await
        .expect("boto3 is done in time")
        .expect("python3 is installed: `cargo xtask setup`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serving.abort();
}
