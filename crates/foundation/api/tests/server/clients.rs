//! Clients nobody here wrote: the aws CLI and boto3.

use std::process::Output;

use gantry_api::tls::Authority;
use gantry_env::Env;
use tokio::process::Command;

use crate::toy::{KEY, Keys, SECRET, Toy, within};

fn environment(command: &mut Command, toy: &Toy) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", std::env::temp_dir())
        .env("AWS_ENDPOINT_URL", toy.endpoint())
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_DEFAULT_REGION", "eu-west-3")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    if let Some(root) = std::env::var_os("PYENV_ROOT") {
        command.env("PYENV_ROOT", root);
    }
}

async fn output(mut command: Command) -> Output {
    within(command.output())
        .await
        .expect("the program is installed: `cargo xtask setup`")
}

#[tokio::test]
async fn the_aws_cli_learns_who_it_is() {
    let toy = Toy::start().await;
    let mut command = Command::new("aws");
    environment(&mut command, &toy);
    command.args([
        "sts",
        "get-caller-identity",
        "--query",
        "Arn",
        "--output",
        "text",
    ]);
    let result = output(command).await;
    let errors = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&result.stdout).trim(),
        "arn:aws:iam::123456789012:root"
    );
    let mut command = Command::new("aws");
    environment(&mut command, &toy);
    command
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .args(["sts", "get-caller-identity"]);
    let result = output(command).await;
    let errors = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(errors.contains("(SignatureDoesNotMatch)"), "{errors}");
    toy.stopped().await;
}

const BOTO3: &str = r#"
import os, sys, urllib.request, boto3, botocore
sts = boto3.client('sts')
assert sts.get_caller_identity()['Account'] == '123456789012'
url = sts.generate_presigned_url('get_caller_identity', HttpMethod='GET')
assert b'123456789012' in urllib.request.urlopen(url).read()
ecs = boto3.client('ecs')
assert ecs.list_clusters()['clusterArns'] == ['eu-west-3']
try:
    ecs.create_service(serviceName='s')
    sys.exit('an operation that is not built answered')
except botocore.exceptions.ClientError as error:
    assert error.response['Error']['Code'] == 'NotImplemented', error
try:
    ecs.register_task_definition(family='f', containerDefinitions=[{'name': 'c', 'image': 'x' * 10_000_000}])
    sys.exit('a body of ten megabytes was taken')
except botocore.exceptions.ClientError as error:
    assert error.response['Error']['Code'] == 'RequestEntityTooLargeException', error
    assert error.response['ResponseMetadata']['HTTPStatusCode'] == 413, error
tls = os.environ['AWS_ENDPOINT_URL'].replace('http:', 'https:')
secure = boto3.client('sts', endpoint_url=tls, verify=os.environ['CA'])
assert secure.get_caller_identity()['Account'] == '123456789012'
try:
    boto3.client('sts', endpoint_url=tls).get_caller_identity()
    sys.exit('an unknown authority was trusted')
except botocore.exceptions.SSLError:
    pass
"#;

#[tokio::test]
async fn boto3_calls_presigns_and_speaks_tls() {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let authority = Authority::open(directory.path(), env.now()).unwrap();
    let config = authority.server_config(&[], env.now()).unwrap();
    let policy = gantry_api::auth::CredentialPolicy::Verify(std::sync::Arc::new(Keys));
    let toy = Toy::start_with(env, policy, |it| it.tls(config)).await;
    let mut command = Command::new("python3");
    environment(&mut command, &toy);
    command
        .env("CA", directory.path().join("ca.pem"))
        .args(["-c", BOTO3]);
    let result = output(command).await;
    assert!(
        result.status.success(),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    toy.stopped().await;
}
