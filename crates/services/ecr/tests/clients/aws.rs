//! The AWS CLI against the ECR API.

use serde_json::Value;

use crate::pushes::{Registry, attempt};

async fn aws(registry: &Registry, arguments: &[&str]) -> Result<String, String> {
    let endpoint = format!("http://{}", registry.address);
    let mut all = vec![
        "AWS_ACCESS_KEY_ID=test".to_owned(),
        "AWS_SECRET_ACCESS_KEY=test".to_owned(),
        "AWS_DEFAULT_REGION=us-east-1".to_owned(),
        "AWS_MAX_ATTEMPTS=1".to_owned(),
        "aws".to_owned(),
        "--endpoint-url".to_owned(),
        endpoint,
        "ecr".to_owned(),
    ];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    match attempt("env", &all).await {
        (true, out) => Ok(out),
        (false, out) => Err(out),
    }
}

async fn json(registry: &Registry, arguments: &[&str]) -> Value {
    let out = aws(registry, arguments).await.unwrap();
    serde_json::from_str(&out).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_cli_sees_what_skopeo_pushed() {
    let registry = Registry::start().await;
    let created = json(
        &registry,
        &["create-repository", "--repository-name", "cli/app"],
    )
    .await;
    let uri = created["repository"]["repositoryUri"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(uri, format!("{}/cli/app", registry.address));

    // A repository's URI and the CLI's own password are all that a push needs.
    let password = aws(&registry, &["get-login-password"]).await.unwrap();
    let credentials = format!("AWS:{}", password.trim());
    let source = registry.layout("layout").await;
    let remote = format!("docker://{uri}:v1");
    let copy = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        &credentials,
        &source,
        &remote,
    ];
    let (good, out) = attempt("skopeo", &copy).await;
    assert!(good, "{out}");

    let name = ["--repository-name", "cli/app"];
    let with = |operation: &'static str, more: &[&'static str]| {
        let mut all = vec![operation];
        all.extend(name);
        all.extend(more);
        all
    };
    let listed = json(&registry, &with("list-images", &[])).await;
    assert_eq!(listed["imageIds"][0]["imageTag"], "v1");
    let described = json(&registry, &with("describe-images", &[])).await;
    let detail = &described["imageDetails"][0];
    assert_eq!(detail["imageTags"][0], "v1");
    assert_eq!(detail["imageDigest"], listed["imageIds"][0]["imageDigest"]);
    let got = json(
        &registry,
        &with("batch-get-image", &["--image-ids", "imageTag=v1"]),
    )
    .await;
    let manifest = got["images"][0]["imageManifest"].as_str().unwrap();
    assert!(manifest.contains("schemaVersion"));
    let put = [
        "put-image",
        "--repository-name",
        "cli/app",
        "--image-tag",
        "v2",
    ];
    let put = [&put[..], &["--image-manifest", manifest]].concat();
    assert_eq!(
        json(&registry, &put).await["image"]["imageId"]["imageTag"],
        "v2"
    );
    let deleted = json(
        &registry,
        &with("batch-delete-image", &["--image-ids", "imageTag=v1"]),
    )
    .await;
    assert_eq!(deleted["imageIds"][0]["imageTag"], "v1");

    for (arguments, expected) in [
        (
            vec!["create-repository", "--repository-name", "Bad"],
            "InvalidParameterException",
        ),
        (
            vec!["create-repository", "--repository-name", "cli/app"],
            "already exists in the registry",
        ),
        (
            vec!["list-images", "--repository-name", "nope"],
            "RepositoryNotFoundException",
        ),
        (
            with("delete-repository", &[]),
            "RepositoryNotEmptyException",
        ),
        (
            with("describe-images", &["--image-ids", "imageTag=v9"]),
            "ImageNotFoundException",
        ),
        (
            with("get-lifecycle-policy", &[]),
            "LifecyclePolicyNotFoundException",
        ),
        (
            with(
                "describe-image-replication-status",
                &["--image-id", "imageTag=v9"],
            ),
            "not built",
        ),
    ] {
        let error = aws(&registry, &arguments).await.unwrap_err();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    aws(&registry, &with("delete-repository", &["--force"]))
        .await
        .unwrap();
}
