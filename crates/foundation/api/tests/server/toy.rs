//! A server with a little of everything behind it, and the raw HTTP that tests speak to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource, root_principal};
use gantry_api::client::Client;
use gantry_api::server::{
    RawRoute, RequestBody, RequestFacts, ResponseBody, Server, ServerBuilder, ServerSocket,
    UpgradeQuery, WebSocketRoute,
};
use gantry_api::shape::Structure;
use gantry_api::sigv4::{Payload, Signing, SigningCredentials, SigningScope, sign};
use gantry_api::{ApiError, Dispatch, DispatchFuture, RequestContext, Service, ecs, sts};
use gantry_arn::{AccountId, Region};
use gantry_env::{Env, Timestamp};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const ACCOUNT: &str = "123456789012";
/// How long a test waits for what must come. It is never waited out by a test that passes.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Keys;

#[async_trait]
impl CredentialSource for Keys {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        let account: AccountId = ACCOUNT.parse().unwrap();
        let (session_token, expiration) = match access_key_id {
            KEY => (None, None),
            "ASIATEMPORARY" => (Some("the-token".to_owned()), None),
            "ASIAEXPIRED" => (Some("the-token".to_owned()), Some(Timestamp::EPOCH)),
            _ => return None,
        };
        Some(Credential {
            secret: SECRET.to_owned(),
            session_token,
            expiration,
            account,
            principal: root_principal(account, access_key_id),
        })
    }
}

struct ToySts;

impl Dispatch for ToySts {
    fn dispatch<'a>(
        &'a self,
        operation: usize,
        context: &'a RequestContext,
        _: Box<dyn Structure>,
    ) -> DispatchFuture<'a> {
        let name = sts::MODEL.operations[operation].name;
        Box::pin(async move {
            match name {
                "GetCallerIdentity" => Ok(Box::new(sts::GetCallerIdentityResponse {
                    account: Some(context.account.to_string()),
                    arn: Some(context.principal.arn.to_string()),
                    user_id: Some(context.principal.user_id.clone()),
                }) as Box<dyn Structure>),
                other => Err(ApiError::not_built("sts", other)),
            }
        })
    }
}

/// ECS as far as a test of the wire needs it.
#[derive(Default)]
pub struct ToyEcs {
    /// `ListServices` waits for it, and says on the other that it has begun.
    pub gate: Arc<Notify>,
    pub begun: Arc<Notify>,
}

impl Dispatch for ToyEcs {
    fn dispatch<'a>(
        &'a self,
        operation: usize,
        context: &'a RequestContext,
        _: Box<dyn Structure>,
    ) -> DispatchFuture<'a> {
        let name = ecs::MODEL.operations[operation].name;
        Box::pin(async move {
            match name {
                "ListClusters" => Ok(Box::new(ecs::ListClustersResponse {
                    cluster_arns: Some(vec![context.region.to_string()]),
                    ..Default::default()
                }) as Box<dyn Structure>),
                "ListTasks" => panic!("a toy that breaks"),
                "DescribeClusters" => {
                    self.begun.notify_one();
                    self.gate.notified().await;
                    Ok(Box::new(ecs::DescribeClustersResponse::default()) as Box<dyn Structure>)
                }
                other => Err(ApiError::not_built("ecs", other)),
            }
        })
    }
}

/// Sends back what it got, piece by piece; `/v2/half` announces more than it sends.
struct Echo;

#[async_trait]
impl RawRoute for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    async fn handle(
        &self,
        request: Request<RequestBody>,
        facts: RequestFacts,
    ) -> Response<ResponseBody> {
        match request.uri().path() {
            "/v2/half" => {
                let piece = futures_util::stream::iter([Ok(Bytes::from_static(b"half"))]);
                Response::new(ResponseBody::stream_sized(8, piece))
            }
            "/v2/endless" => {
                let zeros = Bytes::from(vec![0u8; 64 * 1024]);
                let endless = futures_util::stream::repeat_with(move || Ok(zeros.clone()));
                Response::new(ResponseBody::stream(endless))
            }
            "/v2/origin" => Response::new(ResponseBody::full(facts.origin())),
            "/v2/panic" => panic!("a route that breaks"),
            _ => {
                let pieces = request.into_body().map(|piece| piece.map_err(Into::into));
                Response::new(ResponseBody::stream(pieces))
            }
        }
    }
}

/// Greets with the caller and the query, then echoes.
struct EchoSocket;

#[async_trait]
impl WebSocketRoute for EchoSocket {
    fn name(&self) -> &'static str {
        "acs"
    }

    async fn admit(&self, _: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        match query.get("clusterArn").map(String::as_str) {
            Some("gone") => Err(ApiError::sender("InactiveInstanceException", "it is gone")),
            _ => Ok(()),
        }
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, mut socket: ServerSocket) {
        let greeting = format!("{} {:?}", context.account, query);
        if socket.send(greeting.into()).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
}

pub struct Toy {
    pub address: SocketAddr,
    pub env: Env,
    pub server: Server,
    pub gate: Arc<Notify>,
    pub begun: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Toy {
    pub async fn start() -> Self {
        Self::start_with(
            Env::real(),
            CredentialPolicy::Verify(Arc::new(Keys)),
            |it| it,
        )
        .await
    }

    pub async fn start_with(
        env: Env,
        policy: CredentialPolicy,
        configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let toy = ToyEcs::default();
        let (gate, begun) = (toy.gate.clone(), toy.begun.clone());
        let builder = Server::builder(env.clone(), policy)
            .service(Service::new(&sts::MODEL, Arc::new(ToySts)))
            .service(Service::new(&ecs::MODEL, Arc::new(toy)))
            .raw_route("/v2/", Arc::new(Echo))
            .websocket("/acs/ws", Arc::new(EchoSocket));
        let server = configure(builder).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = server.clone();
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            running.serve(listener, stopped).await;
        });
        Self {
            address,
            env,
            server,
            gate,
            begun,
            stop: Some(stop),
            serving,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    pub fn client(&self) -> Client {
        let credentials = Arc::new(credentials(KEY, None));
        Client::new(&self.endpoint(), region(), credentials, self.env.clone()).unwrap()
    }

    pub fn ask_to_stop(&mut self) {
        drop(self.stop.take());
    }

    pub async fn stopped(mut self) {
        self.ask_to_stop();
        within(self.serving).await.unwrap();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub async fn exchange(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_answer(&mut stream).await
    }

    /// Sends a request as `request` describes it and reads its answer.
    pub async fn send(&self, request: &Raw) -> Answer {
        self.exchange(&request.bytes(self.env.now())).await
    }
}

pub fn region() -> Region {
    "eu-west-3".parse().unwrap()
}

pub fn credentials(key: &str, token: Option<&str>) -> SigningCredentials {
    SigningCredentials {
        access_key_id: key.to_owned(),
        secret: SECRET.to_owned(),
        session_token: token.map(str::to_owned),
    }
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it came before the deadline")
}

/// An answer as text: status, the whole head, the body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The code of the error, in either protocol.
    pub fn code(&self) -> String {
        if let Some(rest) = self.body.split("<Code>").nth(1) {
            return rest.split('<').next().unwrap_or_default().to_owned();
        }
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let code = json["__type"].as_str().unwrap_or_default();
        code.rsplit('#').next().unwrap_or_default().to_owned()
    }
}

/// Everything until the end of the stream. A reset is an end too.
pub async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(read @ 1..) = within(stream.read(&mut buffer)).await {
        bytes.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A request to be signed and bent.
#[derive(Clone)]
pub struct Raw {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub service: &'static str,
    pub key: &'static str,
    pub secret: &'static str,
    pub token: Option<&'static str>,
    /// Added to the time of signing.
    pub skew_s: i64,
    pub signed: bool,
    /// Headers that are added after signing.
    pub unsigned_headers: Vec<(&'static str, String)>,
    /// Sent instead of the signed body.
    pub other_body: Option<Vec<u8>>,
}

impl Raw {
    pub fn json(operation: &str) -> Self {
        Self {
            method: Method::POST,
            path: "/".to_owned(),
            query: String::new(),
            headers: vec![
                ("host", "localhost:4566".to_owned()),
                ("content-type", "application/x-amz-json-1.1".to_owned()),
                (
                    "x-amz-target",
                    format!("AmazonEC2ContainerServiceV20141113.{operation}"),
                ),
            ],
            body: b"{}".to_vec(),
            service: "ecs",
            key: KEY,
            secret: SECRET,
            token: None,
            skew_s: 0,
            signed: true,
            unsigned_headers: Vec::new(),
            other_body: None,
        }
    }

    pub fn query(action: &str) -> Self {
        Self {
            headers: vec![
                ("host", "localhost:4566".to_owned()),
                (
                    "content-type",
                    "application/x-www-form-urlencoded".to_owned(),
                ),
            ],
            body: format!("Action={action}&Version=2011-06-15").into_bytes(),
            service: "sts",
            ..Self::json("")
        }
    }

    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: vec![("host", "localhost:4566".to_owned())],
            body: Vec::new(),
            signed: false,
            ..Self::json("")
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.unsigned_headers.retain(|(known, _)| *known != name);
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn bytes(&self, now: Timestamp) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, value.parse().unwrap());
        }
        if self.signed {
            let mut credentials = credentials(self.key, self.token);
            credentials.secret = self.secret.to_owned();
            let signing = Signing {
                method: &self.method,
                path: &self.path,
                query: &self.query,
                payload: Payload::of(&self.body),
                credentials: &credentials,
                scope: SigningScope {
                    region: "eu-west-3",
                    service: self.service,
                },
                now: Timestamp::from_millis(now.as_millis() + self.skew_s * 1000),
            };
            sign(&signing, &mut headers).unwrap();
        }
        for (name, value) in &self.unsigned_headers {
            headers.append(*name, value.parse().unwrap());
        }
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut out = format!(
            "{} {}{mark}{} HTTP/1.1\r\n",
            self.method, self.path, self.query
        );
        for (name, value) in &headers {
            out.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        let body = self.other_body.as_ref().unwrap_or(&self.body);
        if !headers.contains_key("transfer-encoding") && !headers.contains_key("content-length") {
            out.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        if !headers.contains_key("connection") {
            out.push_str("connection: close\r\n");
        }
        out.push_str("\r\n");
        let mut bytes = out.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}
