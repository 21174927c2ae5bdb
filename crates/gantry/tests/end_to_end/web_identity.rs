//! Programs that come with a token of an OpenID Connect issuer instead of keys, as SDKs do it: from a file that the
//! environment names. The issuer is another program, with TLS and keys that openssl made.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::installation::Installation;

struct Issuer {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    url: String,
    thumbprint: String,
}

impl Issuer {
    fn up() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", include_str!("web_identity_issuer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let mut issuer = Self {
            child,
            said,
            url: String::new(),
            thumbprint: String::new(),
        };
        let about: Value = serde_json::from_str(&issuer.line()).expect("JSON of the issuer");
        let text = |name: &str| about[name].as_str().expect("text").to_owned();
        (issuer.url, issuer.thumbprint) = (text("issuer"), text("thumbprint"));
        issuer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{line}").expect("the issuer listens");
        self.line()
    }

    fn token(&mut self, subject: &str, good_for_s: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
        let now = i64::try_from(now.as_secs()).expect("a moment");
        let claims = json!({"iss": self.url, "sub": subject, "aud": "sts.amazonaws.com",
            "iat": now - 1000, "exp": now + good_for_s});
        self.ask(&claims.to_string())
    }

    fn asked(&mut self) -> usize {
        let asked: Vec<String> = serde_json::from_str(&self.ask("asked")).expect("a list");
        asked.len()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has a token and the name of a role, and nothing else: a home of its own too, because the CLI
/// keeps what it was given for a role in one.
fn bearing(gantry: &Installation, program: &str, role: &str, token: &Path) -> Command {
    let mut command = gantry.command(program);
    let home = tempfile::tempdir_in(gantry.scratch(""))
        .expect("a home")
        .keep();
    command
        .env("HOME", home)
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_ROLE_ARN", role)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
        .env("AWS_ROLE_SESSION_NAME", "pod")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_MAX_ATTEMPTS", "1");
    command
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

const WHO: &str = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn']); print(boto3.client('ecs').list_clusters()['clusterArns'])";

#[test]
fn sdks_find_their_role_by_a_token_in_a_file() {
    let gantry = Installation::up();
    let mut issuer = Issuer::up();
    let url = issuer.url.trim_start_matches("https://").to_owned();
    let thumbprint = issuer.thumbprint.clone();
    let provider = gantry.aws(&[
        "iam",
        "create-open-id-connect-provider",
        "--url",
        &issuer.url,
        "--client-id-list",
        "sts.amazonaws.com",
        "--thumbprint-list",
        &thumbprint,
    ]);
    let provider = provider["OpenIDConnectProviderArn"].as_str().expect("ARN");
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {format!("{url}:aud"): "sts.amazonaws.com"},
            "StringLike": {format!("{url}:sub"): "system:serviceaccount:shop:*"},
        },
    }]});
    let role = gantry.aws(&[
        "iam",
        "create-role",
        "--role-name",
        "web",
        "--assume-role-policy-document",
        &trust.to_string(),
    ]);
    let role = role["Role"]["Arn"].as_str().expect("ARN").to_owned();
    let file = gantry.scratch("token");
    let mut put = |subject: &str, good_for_s: i64| {
        std::fs::write(&file, issuer.token(subject, good_for_s)).expect("a token file");
    };

    // boto3 and the CLI find the role with nothing else set; its session works in other protocols too.
    put("system:serviceaccount:shop:web", 600);
    let (good, boto3) = said(bearing(&gantry, "python3", &role, &file).args(["-c", WHO]));
    assert!(good, "{boto3}");
    assert!(
        boto3.contains("arn:aws:sts::000000000000:assumed-role/web/pod"),
        "{boto3}"
    );
    assert!(boto3.contains(":cluster/default"), "{boto3}");
    let me = ["sts", "get-caller-identity"];
    let (good, cli) = said(bearing(&gantry, "aws", &role, &file).args(me));
    assert!(good && cli.contains("assumed-role/web/pod"), "{cli}");

    // The call itself, without any credentials.
    let by_hand = |token: &str| {
        let mut command = bearing(&gantry, "aws", &role, &file);
        command
            .env_remove("AWS_WEB_IDENTITY_TOKEN_FILE")
            .args(["sts", "assume-role-with-web-identity", "--output", "json"])
            .args(["--role-arn", &role, "--role-session-name", "hand"])
            .args(["--web-identity-token", token]);
        said(&mut command)
    };
    let token = std::fs::read_to_string(&file).expect("the token");
    let (good, answer) = by_hand(&token);
    assert!(good, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["Provider"], provider);
    assert_eq!(answer["Audience"], "sts.amazonaws.com");
    assert_eq!(
        answer["SubjectFromWebIdentityToken"],
        "system:serviceaccount:shop:web"
    );
    let mut forged = token.clone().into_bytes();
    let middle = token.rfind('.').expect("three parts") + 20;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let (good, answer) = by_hand(&String::from_utf8(forged).expect("text"));
    assert!(!good && answer.contains("InvalidIdentityToken"), "{answer}");

    for (subject, good_for_s, code) in [
        ("system:serviceaccount:other:web", 600, "AccessDenied"),
        ("system:serviceaccount:shop:web", -301, "ExpiredToken"),
    ] {
        put(subject, good_for_s);
        let (good, answer) = said(bearing(&gantry, "aws", &role, &file).args(me));
        assert!(!good && answer.contains(code), "{answer}");
    }
    // All of this cost the issuer one look at its two documents.
    assert_eq!(issuer.asked(), 2);

    // Another certificate than the one that was registered.
    let update = ["iam", "update-open-id-connect-provider-thumbprint"];
    let arn = ["--open-id-connect-provider-arn", provider];
    let other = "0".repeat(40);
    let prints = ["--thumbprint-list", other.as_str()];
    gantry.aws(&[&update[..], &arn[..], &prints[..]].concat());
    let (good, answer) = by_hand(&token);
    assert!(
        !good && answer.contains("doesn't match configured thumbprint"),
        "{answer}"
    );
    // Under what was registered before, its keys are still known, so it need not be there.
    drop(issuer);
    let prints = ["--thumbprint-list", thumbprint.as_str(), other.as_str()];
    gantry.aws(&[&update[..], &arn[..], &prints[..2]].concat());
    let (good, answer) = by_hand(&token);
    assert!(good, "{answer}");
    // Nobody at all, and a provider that is registered no more.
    gantry.aws(&[&update[..], &arn[..], &prints[..]].concat());
    let (good, answer) = by_hand(&token);
    assert!(
        !good && answer.contains("IDPCommunicationError"),
        "{answer}"
    );
    gantry.aws(&[&["iam", "delete-open-id-connect-provider"][..], &arn[..]].concat());
    let (good, answer) = by_hand(&token);
    assert!(
        !good && answer.contains("No OpenIDConnect provider found in your account for"),
        "{answer}"
    );

    // What is not built says why.
    let coverage = Command::new(env!("CARGO_BIN_EXE_gantry"))
        .args(["coverage", "--all", "sts"])
        .output()
        .expect("gantry");
    let coverage = String::from_utf8_lossy(&coverage.stdout).into_owned();
    for operation in [
        "AssumeRoot: ",
        "GetWebIdentityToken: ",
        "GetDelegatedAccessToken: ",
    ] {
        assert!(coverage.contains(operation), "{coverage}");
    }
}
