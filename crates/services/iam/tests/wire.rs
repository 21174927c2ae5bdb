//! Sessions and unsigned calls over a real socket, on virtual time: what each protocol answers.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use desk::Desk;
use gantry_api::auth::CredentialPolicy;
use gantry_api::server::Server;
use gantry_api::sigv4::{Payload, Signing, SigningCredentials, SigningScope, sign};
use gantry_api::{iam, sts};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FORM: &str = "application/x-www-form-urlencoded";

/// One way in which a request may come.
struct Shape {
    service: &'static str,
    content_type: &'static str,
    target: Option<&'static str>,
    body: &'static str,
}

const SHAPES: [Shape; 5] = [
    Shape {
        service: "sts",
        content_type: FORM,
        target: None,
        body: "Action=GetCallerIdentity&Version=2011-06-15",
    },
    Shape {
        service: "iam",
        content_type: FORM,
        target: None,
        body: "Action=ListRoles&Version=2010-05-08",
    },
    Shape {
        service: "ecs",
        content_type: "application/x-amz-json-1.1",
        target: Some("AmazonEC2ContainerServiceV20141113.ListClusters"),
        body: "{}",
    },
    Shape {
        service: "logs",
        content_type: "application/x-amz-json-1.1",
        target: Some("Logs_20140328.DescribeLogGroups"),
        body: "{}",
    },
    Shape {
        service: "ecr",
        content_type: "application/x-amz-json-1.1",
        target: Some("AmazonEC2ContainerRegistry_V20150921.DescribeRepositories"),
        body: "{}",
    },
];

struct Wire {
    desk: Desk,
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Wire {
    async fn up() -> Self {
        let desk = Desk::new();
        let credentials = Arc::new(desk.iam.credentials().clone());
        let server = Server::builder(desk.world.env(), CredentialPolicy::Verify(credentials))
            .service(iam::service(Arc::new(desk.iam.clone())))
            .service(sts::service(Arc::new(desk.iam.clone())))
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving =
            tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
        Self {
            desk,
            address,
            serving,
        }
    }

    /// The whole answer to a request that `signer` signed now, if anybody did.
    async fn send(&self, shape: &Shape, signer: Option<&SigningCredentials>) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("host", "localhost:4566".parse().unwrap());
        headers.insert("content-type", shape.content_type.parse().unwrap());
        if let Some(target) = shape.target {
            headers.insert("x-amz-target", target.parse().unwrap());
        }
        if let Some(credentials) = signer {
            let signing = Signing {
                method: &Method::POST,
                path: "/",
                query: "",
                payload: Payload::of(shape.body.as_bytes()),
                credentials,
                scope: SigningScope {
                    region: "us-east-1",
                    service: shape.service,
                },
                now: self.desk.world.now(),
            };
            sign(&signing, &mut headers).unwrap();
        }
        let mut request = "POST / HTTP/1.1\r\nconnection: close\r\n".to_owned();
        for (name, value) in &headers {
            request.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        request.push_str(&format!(
            "content-length: {}\r\n\r\n{}",
            shape.body.len(),
            shape.body
        ));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

#[tokio::test]
async fn an_expired_session_is_told_so_in_every_protocol() {
    let wire = Wire::up().await;
    let role = wire.desk.role("ops").arn;
    let credentials = wire.desk.iam.credentials();
    let session = wire
        .desk
        .wait(credentials.issue_role_session(&role, "me", Duration::from_secs(900)))
        .unwrap();
    let signer = SigningCredentials {
        access_key_id: session.access_key_id,
        secret: session.secret_access_key,
        session_token: Some(session.session_token),
    };
    let last = session.expiration - Duration::from_millis(1);
    wire.desk.world.advance(last - wire.desk.world.now());
    for shape in &SHAPES {
        let answer = wire.send(shape, Some(&signer)).await;
        assert!(!answer.contains("ExpiredToken"), "{answer}");
        // Services that are not served here would answer next, so the session was taken.
        let expected = match shape.target {
            None => "200",
            Some(_) => "501",
        };
        assert_eq!(status(&answer), expected, "{answer}");
    }
    wire.desk.world.advance(Duration::from_millis(1));
    assert_eq!(wire.desk.world.now(), session.expiration);
    for shape in &SHAPES {
        let answer = wire.send(shape, Some(&signer)).await;
        let (code, expected) = match shape.target {
            None => ("<Code>ExpiredToken</Code>", "403"),
            Some(_) => ("ExpiredTokenException\"", "400"),
        };
        assert!(answer.contains(code), "{answer}");
        assert!(
            answer.contains("The security token included in the request is expired"),
            "{answer}"
        );
        assert_eq!(status(&answer), expected, "{answer}");
    }
    wire.serving.abort();
}

#[tokio::test]
async fn only_the_calls_that_aws_takes_unsigned_run_without_a_signature() {
    let wire = Wire::up().await;
    let form = |body| Shape {
        service: "sts",
        content_type: FORM,
        target: None,
        body,
    };
    // It runs: the answer is the operation's own.
    let web = form(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=me&WebIdentityToken=none&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fweb",
    );
    let answer = wire.send(&web, None).await;
    assert_eq!(status(&answer), "400", "{answer}");
    assert!(
        answer.contains("<Code>InvalidIdentityToken</Code>"),
        "{answer}"
    );
    let bad = form("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=me");
    let answer = wire.send(&bad, None).await;
    assert!(answer.contains("<Code>ValidationError</Code>"), "{answer}");
    let saml = form(
        "Action=AssumeRoleWithSAML&Version=2011-06-15&SAMLAssertion=PGEvPg%3D%3D&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fweb&PrincipalArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Asaml-provider%2Fidp",
    );
    let answer = wire.send(&saml, None).await;
    assert_eq!(status(&answer), "400", "{answer}");
    assert!(
        answer.contains("<Code>InvalidIdentityToken</Code>")
            && answer.contains("Specified provider"),
        "{answer}"
    );
    for body in [
        "Action=AssumeRole&Version=2011-06-15",
        "Action=GetCallerIdentity&Version=2011-06-15",
        "Action=AssumeRoleWithWebIdentity&Version=2010-05-08",
        "Action=ListRoles&Version=2010-05-08",
        "Action=&Version=2011-06-15",
        "Version=2011-06-15",
        "",
        "%",
    ] {
        let answer = wire.send(&form(body), None).await;
        assert_eq!(status(&answer), "403", "{body}: {answer}");
        assert!(
            answer.contains("<Code>MissingAuthenticationToken</Code>"),
            "{answer}"
        );
    }
    for shape in &SHAPES[2..] {
        let answer = wire.send(shape, None).await;
        assert!(
            answer.contains("MissingAuthenticationTokenException"),
            "{answer}"
        );
    }
    // Who does sign must sign well.
    let nobody = SigningCredentials {
        access_key_id: "AKIANOBODY".into(),
        secret: "secret".into(),
        session_token: None,
    };
    let answer = wire.send(&web, Some(&nobody)).await;
    assert!(
        answer.contains("<Code>InvalidClientTokenId</Code>"),
        "{answer}"
    );
    wire.serving.abort();
}
