//! One registry of its own for a test, and short ways to call it.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_api::ecr::{CreateRepositoryRequest, Ecr, GetAuthorizationTokenRequest};
use gantry_api::{Principal, RequestContext};
use gantry_arn::{AccountId, Arn, Region};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::OCI_IMAGE;
use gantry_ecr::{EcrService, Options, Registry};
use gantry_env::VirtualEnv;
use gantry_store::{MemoryStore, Store};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

pub const ORIGIN: &str = "http://localhost:4566";

pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub world: VirtualEnv,
    pub store: Arc<dyn Store>,
    pub service: Arc<EcrService>,
    pub registry: Arc<Registry>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The OCI error's code.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = VirtualEnv::seeded(7);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let blobs = directory.path().join("blobs");
        let service = EcrService::new(store.clone(), &blobs, world.env(), options)
            .await
            .unwrap();
        let registry = service.registry();
        Self {
            directory,
            world,
            store,
            service,
            registry,
        }
    }

    /// A registry with the repository `app` in it.
    pub async fn with_repository() -> Self {
        let fixture = Self::new().await;
        fixture.create("app").await;
        fixture
    }

    pub fn context(&self) -> RequestContext {
        self.context_of("000000000000")
    }

    pub fn context_of(&self, account: &str) -> RequestContext {
        let account: AccountId = account.parse().unwrap();
        RequestContext {
            account,
            region: Region::default(),
            principal: Principal {
                arn: Arn::global("iam", &account, "root"),
                user_id: account.to_string(),
                access_key_id: "AKIDEXAMPLE".to_owned(),
            },
            request_id: "1".to_owned(),
            host: Some("localhost:4566".to_owned()),
            now: self.world.now(),
        }
    }

    pub async fn create(&self, name: &str) {
        let input = CreateRepositoryRequest {
            repository_name: name.to_owned(),
            ..CreateRepositoryRequest::default()
        };
        self.service
            .create_repository(&self.context(), input)
            .await
            .unwrap();
    }

    pub async fn token(&self, account: &str) -> String {
        let input = GetAuthorizationTokenRequest::default();
        let answer = self
            .service
            .get_authorization_token(&self.context_of(account), input)
            .await
            .unwrap();
        answer.authorization_data.unwrap()[0]
            .authorization_token
            .clone()
            .unwrap()
    }

    /// Calls the distribution API as the default account.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let token = self.token("000000000000").await;
        let authorization = format!("Basic {token}");
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        self.call_raw(method, path, &all, body).await
    }

    pub async fn call_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.registry.answer(request, ORIGIN).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Pushes a blob in one request.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let reply = self.call("POST", &path, &[], bytes.to_vec()).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
        digest
    }

    pub async fn begin_upload(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let reply = self.call("POST", &path, &[], "").await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        reply.header("location").to_owned()
    }

    /// Pushes an image with one layer, and answers the manifest's digest.
    pub async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        let manifest = self.image(repository, layer).await;
        let reply = self
            .put_manifest(repository, tag, OCI_IMAGE, &manifest)
            .await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
        Digest::of(manifest.as_bytes())
    }

    /// Pushes an image's blobs, and answers its manifest.
    pub async fn image(&self, repository: &str, layer: &[u8]) -> String {
        let config = self.push_blob(repository, b"{}").await;
        let digest = self.push_blob(repository, layer).await;
        manifest(&config, 2, &digest, layer.len())
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &str,
    ) -> Reply {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.call(
            "PUT",
            &path,
            &[("content-type", media_type)],
            manifest.to_owned(),
        )
        .await
    }

    /// The files in the blob directory.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.blobs_directory()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn blobs_directory(&self) -> PathBuf {
        self.directory.path().join("blobs")
    }
}

pub fn manifest(config: &Digest, config_size: usize, layer: &Digest, layer_size: usize) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.as_str(), "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.as_str(), "size": layer_size}],
    })
    .to_string()
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
