//! The registry, served on a free port of loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource};
use gantry_api::ecr::{CreateRepositoryRequest, Ecr, GetAuthorizationTokenRequest};
use gantry_api::server::Server;
use gantry_api::{Principal, RequestContext};
use gantry_arn::{AccountId, Arn, Region};
use gantry_ecr::{EcrService, Options};
use gantry_env::Env;
use gantry_store::Store;
use tokio::net::TcpListener;

struct NoCredentials;

#[async_trait]
impl CredentialSource for NoCredentials {
    async fn lookup(&self, _: &str) -> Option<Credential> {
        None
    }
}

pub async fn open(store: Arc<dyn Store>, blobs: &Path) -> Arc<EcrService> {
    EcrService::new(store, blobs, Env::real(), Options::default())
        .await
        .unwrap()
}

/// Serves until the process ends or the runtime is dropped.
pub async fn serve(service: &Arc<EcrService>) -> SocketAddr {
    let source = Arc::new(NoCredentials);
    let policy = CredentialPolicy::AcceptAny {
        source,
        account: AccountId::default(),
    };
    let server = Server::builder(Env::real(), policy)
        .service(gantry_api::ecr::service(service.clone()))
        .raw_route("/v2/", service.registry())
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    address
}

pub fn context(address: SocketAddr) -> RequestContext {
    let account = AccountId::default();
    RequestContext {
        account,
        region: Region::default(),
        principal: Principal {
            arn: Arn::global("iam", &account, "root"),
            user_id: account.to_string(),
            access_key_id: "AKIDEXAMPLE".to_owned(),
        },
        request_id: "1".to_owned(),
        host: Some(address.to_string()),
        now: Env::real().now(),
    }
}

pub async fn create(service: &EcrService, address: SocketAddr, name: &str) {
    let input = CreateRepositoryRequest {
        repository_name: name.to_owned(),
        ..CreateRepositoryRequest::default()
    };
    service
        .create_repository(&context(address), input)
        .await
        .unwrap();
}

/// `AWS:` and a password, as clients take them.
pub async fn credentials(service: &EcrService, address: SocketAddr) -> String {
    let input = GetAuthorizationTokenRequest::default();
    let answer = service
        .get_authorization_token(&context(address), input)
        .await
        .unwrap();
    let token = answer.authorization_data.unwrap()[0]
        .authorization_token
        .clone()
        .unwrap();
    String::from_utf8(STANDARD.decode(token).unwrap()).unwrap()
}
