//! Signatures against AWS's published examples, and against botocore's own signer.

use std::process::{Command, Stdio};

use gantry_api::sigv4::{
    Payload, Presented, Rejection, SecretOf, Signable, Signing, SigningCredentials, SigningScope,
    UnsignedPayload, parse_amz_date, presign, sign,
};
use gantry_env::Timestamp;
use http::{HeaderMap, HeaderValue, Method};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn at(text: &str) -> Timestamp {
    parse_amz_date(text).unwrap()
}

fn example_credentials() -> SigningCredentials {
    SigningCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret: SECRET.to_owned(),
        session_token: None,
    }
}

const SECRET_OF: SecretOf<'static> = SecretOf {
    secret: SECRET,
    session_token: None,
    expiration: None,
};

/// What the test suite's requests have in common.
fn vector(
    method: Method,
    path_and_query: &str,
    extra: &[(&'static str, &str)],
    signed_headers: &str,
    body: &[u8],
    signature: &str,
) {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("example.amazonaws.com"));
    headers.insert("x-amz-date", HeaderValue::from_static("20150830T123600Z"));
    for (name, value) in extra {
        headers.append(*name, value.parse().unwrap());
    }
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed_headers}, Signature={signature}"
    );
    headers.insert("authorization", authorization.parse().unwrap());
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let presented = Presented::read(&headers, query).unwrap();
    let request = Signable {
        method: &method,
        path,
        query,
        headers: &headers,
        authority: None,
    };
    let now = at("20150830T123600Z");
    let verdict = presented.verify(&request, Payload::of(body), SECRET_OF, "service", now);
    assert_eq!(verdict, Ok(()), "{method} {path_and_query}");
}

#[test]
fn the_published_examples_verify() {
    let get =
        |target, signature| vector(Method::GET, target, &[], "host;x-amz-date", b"", signature);
    get(
        "/",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    );
    get(
        "/?Param2=value2&Param1=value1",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    );
    vector(
        Method::POST,
        "/",
        &[],
        "host;x-amz-date",
        b"",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    );
    vector(
        Method::POST,
        "/",
        &[("content-type", "application/x-www-form-urlencoded")],
        "content-type;host;x-amz-date",
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    );
}

/// The example of AWS's documentation, signed here.
#[test]
fn the_documented_request_is_signed_as_documented() {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("iam.amazonaws.com"));
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    headers.insert("content-type", HeaderValue::from_static(form));
    let credentials = example_credentials();
    let signing = Signing {
        method: &Method::GET,
        path: "/",
        query: "Action=ListUsers&Version=2010-05-08",
        payload: Payload::of(b""),
        credentials: &credentials,
        scope: SigningScope {
            region: "us-east-1",
            service: "iam",
        },
        now: at("20150830T123600Z"),
    };
    sign(&signing, &mut headers).unwrap();
    assert_eq!(
        headers["authorization"],
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

/// A request signed at noon, to be bent by a test.
struct Signed {
    headers: HeaderMap,
    query: String,
    body: Vec<u8>,
}

fn signed(token: Option<&str>) -> Signed {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:4566"));
    headers.insert(
        "x-amz-target",
        HeaderValue::from_static("Service.Operation"),
    );
    let credentials = SigningCredentials {
        session_token: token.map(str::to_owned),
        ..example_credentials()
    };
    let body = b"{}".to_vec();
    let signing = Signing {
        method: &Method::POST,
        path: "/",
        query: "",
        payload: Payload::of(&body),
        credentials: &credentials,
        scope: SigningScope {
            region: "us-east-1",
            service: "ecs",
        },
        now: at("20260101T120000Z"),
    };
    sign(&signing, &mut headers).unwrap();
    Signed {
        headers,
        query: String::new(),
        body,
    }
}

impl Signed {
    fn verdict(&self, secret: SecretOf<'_>, service: &str, now: &str) -> Result<(), Rejection> {
        let presented = Presented::read(&self.headers, &self.query)?;
        let request = Signable {
            method: &Method::POST,
            path: "/",
            query: &self.query,
            headers: &self.headers,
            authority: None,
        };
        let payload = Presented::payload(&self.headers, &self.body, UnsignedPayload::Refused);
        presented.verify(&request, payload, secret, service, at(now))
    }

    fn message(&self, now: &str) -> String {
        self.verdict(SECRET_OF, "ecs", now)
            .unwrap_err()
            .message()
            .to_owned()
    }
}

const NOON: &str = "20260101T120000Z";

#[test]
fn a_change_of_anything_signed_is_noticed() {
    assert_eq!(signed(None).verdict(SECRET_OF, "ecs", NOON), Ok(()));
    let mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";
    let mut body = signed(None);
    body.body.push(b' ');
    assert_eq!(body.message(NOON), mismatch);
    let mut target = signed(None);
    target
        .headers
        .insert("x-amz-target", HeaderValue::from_static("Service.Other"));
    assert_eq!(target.message(NOON), mismatch);
    let mut query = signed(None);
    query.query = "a=b".to_owned();
    assert_eq!(query.message(NOON), mismatch);
    let other = SecretOf {
        secret: "another",
        ..SECRET_OF
    };
    let refused = signed(None).verdict(other, "ecs", NOON).unwrap_err();
    assert_eq!(refused.json_code(), ("InvalidSignatureException", 400));
    assert_eq!(refused.query_code(), ("SignatureDoesNotMatch", 403));
}

#[test]
fn clocks_may_differ_by_fifteen_minutes() {
    let request = signed(None);
    for fine in ["20260101T114500Z", "20260101T121500Z"] {
        assert_eq!(request.verdict(SECRET_OF, "ecs", fine), Ok(()), "{fine}");
    }
    assert_eq!(
        request.message("20260101T121501Z"),
        "Signature expired: 20260101T120000Z is now earlier than 20260101T120001Z (20260101T121501Z - 15 min.)"
    );
    assert_eq!(
        request.message("20260101T114459Z"),
        "Signature not yet current: 20260101T120000Z is still later than 20260101T115959Z (20260101T114459Z + 15 min.)"
    );
}

#[test]
fn the_scope_must_be_of_this_service() {
    let refused = signed(None).verdict(SECRET_OF, "logs", NOON).unwrap_err();
    assert_eq!(
        refused.message(),
        "Credential should be scoped to correct service: 'logs'. "
    );
    let bent = |from: &str, to: &str| {
        let mut request = signed(None);
        let text = request.headers["authorization"]
            .to_str()
            .unwrap()
            .replace(from, to);
        request
            .headers
            .insert("authorization", text.parse().unwrap());
        request.message(NOON)
    };
    assert_eq!(
        bent("us-east-1", "US!"),
        "Credential should be scoped to a valid region. "
    );
    assert_eq!(
        bent("aws4_request", "aws5"),
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5'. "
    );
    assert_eq!(
        bent("/20260101/", "/20251231/"),
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20251231' != '20260101', from '20260101T120000Z'. "
    );
    assert_eq!(
        bent("/ecs/aws4_request", ""),
        "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/20260101/us-east-1'"
    );
    assert_eq!(
        bent("host;", ""),
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
    );
    assert!(
        bent("Signature=", "Sig=")
            .starts_with("Authorization header requires 'Signature' parameter. (Hashed")
    );
    assert_eq!(
        bent("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"),
        "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512'."
    );
    assert_eq!(
        bent("AWS4-HMAC-SHA256", "Basic"),
        Rejection::MissingToken.message()
    );
}

#[test]
fn temporary_credentials_need_their_own_token_and_end() {
    let with_token = SecretOf {
        session_token: Some("token"),
        ..SECRET_OF
    };
    let ends = SecretOf {
        expiration: Some(at("20260101T120100Z")),
        ..with_token
    };
    assert_eq!(signed(Some("token")).verdict(ends, "ecs", NOON), Ok(()));
    let late = signed(Some("token")).verdict(ends, "ecs", "20260101T120100Z");
    assert_eq!(late, Err(Rejection::ExpiredToken));
    for (token, secret) in [
        (None, with_token),
        (Some("other"), with_token),
        (Some("token"), SECRET_OF),
    ] {
        assert_eq!(
            signed(token).verdict(secret, "ecs", NOON),
            Err(Rejection::UnknownClient)
        );
    }
}

#[test]
fn presigned_requests_live_as_long_as_they_say() {
    let credentials = SigningCredentials {
        session_token: Some("a/token+".to_owned()),
        ..example_credentials()
    };
    let secret = SecretOf {
        session_token: Some("a/token+"),
        ..SECRET_OF
    };
    let signing = Signing {
        method: &Method::GET,
        path: "/",
        query: "Action=GetCallerIdentity&Version=2011-06-15",
        payload: Payload::of(b""),
        credentials: &credentials,
        scope: SigningScope {
            region: "us-east-1",
            service: "sts",
        },
        now: at(NOON),
    };
    let query = presign(&signing, "localhost:4566", 60);
    let verdict = |query: &str, now: &str| {
        let headers = HeaderMap::new();
        let presented = Presented::read(&headers, query)?;
        let request = Signable {
            method: &Method::GET,
            path: "/",
            query,
            headers: &headers,
            authority: Some("localhost:4566"),
        };
        presented.verify(&request, Payload::of(b""), secret, "sts", at(now))
    };
    assert_eq!(verdict(&query, "20260101T120100Z"), Ok(()));
    let expired = verdict(&query, "20260101T120101Z").unwrap_err();
    assert!(
        expired
            .message()
            .starts_with("Signature expired: 20260101T120000Z is now earlier than")
    );
    let forged = query.replace("X-Amz-Expires=60", "X-Amz-Expires=61");
    assert!(matches!(
        verdict(&forged, NOON),
        Err(Rejection::InvalidSignature(_))
    ));
    let endless = query.replace("X-Amz-Expires=60", "X-Amz-Expires=604801");
    assert!(matches!(
        verdict(&endless, NOON),
        Err(Rejection::Incomplete(_))
    ));
    let (without, _) = query.split_once("&X-Amz-Signature").unwrap();
    assert_eq!(
        verdict(without, NOON).unwrap_err().message(),
        "AWS query-string parameters must include 'X-Amz-Signature'. Re-examine the query-string parameters."
    );
}

#[test]
fn an_unsigned_body_is_taken_only_where_it_may_be() {
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-amz-content-sha256",
        HeaderValue::from_static("UNSIGNED-PAYLOAD"),
    );
    let body = b"body";
    assert_eq!(
        Presented::payload(&headers, body, UnsignedPayload::Allowed),
        Payload::Unsigned
    );
    assert_eq!(
        Presented::payload(&headers, body, UnsignedPayload::Refused),
        Payload::of(body)
    );
}

/// Signs with botocore: lines of form, method, path, query and body in; headers or a query out.
const BOTOCORE_SIGNER: &str = r#"
import datetime, sys
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
noon = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.timezone.utc)
class Noon(datetime.datetime):
    @classmethod
    def utcnow(cls): return noon.replace(tzinfo=None)
    @classmethod
    def now(cls, tz=None): return noon
class module: datetime = Noon
botocore.auth.datetime = module if hasattr(botocore.auth.datetime, 'datetime') else Noon
if hasattr(botocore.auth, 'get_current_datetime'):
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: noon.replace(tzinfo=None)
credentials = Credentials('AKIDEXAMPLE', 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY', 'a/token+=')
for line in sys.stdin.read().splitlines():
    form, method, path, query, body = line.split('\t')
    url = 'http://localhost:4566' + path + ('?' + query if query else '')
    headers = {'Content-Type': 'application/x-amz-json-1.1', 'X-Custom': ' a  b '}
    if form == 'header':
        request = AWSRequest(method=method, url=url, data=body.encode(), headers=headers)
        botocore.auth.SigV4Auth(credentials, 'ecs', 'eu-west-3').add_auth(request)
        print('\t'.join(f'{n}={v}' for n, v in request.headers.items()))
    else:
        # A presigned request has no body: botocore would move one into the query.
        request = AWSRequest(method=method, url=url, data={}, headers=headers)
        botocore.auth.SigV4QueryAuth(credentials, 'ecs', 'eu-west-3', expires=300).add_auth(request)
        print(request.url.split('?', 1)[1])
"#;

const REQUESTS: [(&str, &str, &str, &str); 6] = [
    ("POST", "/", "", "{\"cluster\":\"default\"}"),
    ("GET", "/", "Action=ListUsers&Version=2010-05-08", ""),
    (
        "GET",
        "/acs/ws",
        "clusterArn=arn%3Aaws%3Aecs%3Aus-east-1%3A000000000000%3Acluster%2Fdefault&seqNum=1",
        "",
    ),
    ("PUT", "/a%20b/c~d/%E2%82%AC", "z=1&a=~&A=&b=x%20y", "body"),
    ("DELETE", "/a//b/../c/./", "key", ""),
    ("GET", "/x:y@z/", "q=a%2Fb%2B%3D&q=a", ""),
];

#[test]
fn botocore_and_gantry_sign_alike() {
    let mut lines = String::new();
    for form in ["header", "query"] {
        for (method, path, query, body) in REQUESTS {
            lines.push_str(&format!("{form}\t{method}\t{path}\t{query}\t{body}\n"));
        }
    }
    let mut python = Command::new("python3")
        .args(["-c", BOTOCORE_SIGNER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 with botocore is needed: `cargo xtask setup` installs it");
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), 2 * REQUESTS.len());
    let secret = SecretOf {
        session_token: Some("a/token+="),
        ..SECRET_OF
    };
    for (index, answer) in answers.iter().enumerate() {
        let (method, path, query, body) = REQUESTS[index % REQUESTS.len()];
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost:4566"));
        let (query, body) = if index < REQUESTS.len() {
            for pair in answer.split('\t') {
                let (name, value) = pair.split_once('=').unwrap();
                let name: http::HeaderName = name.parse().unwrap();
                headers.insert(name, value.parse().unwrap());
            }
            (query.to_owned(), body)
        } else {
            headers.insert(
                "content-type",
                HeaderValue::from_static("application/x-amz-json-1.1"),
            );
            headers.insert("x-custom", HeaderValue::from_static(" a  b "));
            ((*answer).to_owned(), "")
        };
        let method: Method = method.parse().unwrap();
        let presented = Presented::read(&headers, &query).unwrap();
        assert_eq!(
            (presented.service.as_str(), presented.region.as_str()),
            ("ecs", "eu-west-3")
        );
        let request = Signable {
            method: &method,
            path,
            query: &query,
            headers: &headers,
            authority: None,
        };
        let verdict = presented.verify(
            &request,
            Payload::of(body.as_bytes()),
            secret,
            "ecs",
            at(NOON),
        );
        assert_eq!(verdict, Ok(()), "{method} {path}?{query}");
    }
}
