//! Terraform with the AWS provider, unmodified: apply, an empty second plan, a change in place, destroy.
//!
//! The provider is taken from a mirror on this machine: the folder that `GANTRY_TERRAFORM_MIRROR`
//! names, or else wherever one is found. Nothing is downloaded.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::image::push_busybox;
use crate::installation::Installation;

/// Clusters, task definitions, repositories, log groups and roles, as a user would declare them.
const GROUND_FLOOR: &str = include_str!("../terraform/ground_floor.tf");

/// Users, keys, groups and providers.
const IDENTITY: &str = include_str!("../terraform/identity.tf");

/// A service without a load balancer.
const SERVICES: &str = include_str!("../terraform/services.tf");

/// A working directory of Terraform against one installation.
struct Terraform<'a> {
    gantry: &'a Installation,
    folder: PathBuf,
}

impl<'a> Terraform<'a> {
    fn init(gantry: &'a Installation, configuration: &str) -> Terraform<'a> {
        let folder = gantry.scratch("terraform");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("main.tf"), configuration).expect("main.tf");
        let mirror = mirror();
        let rc = format!(
            "provider_installation {{\n  filesystem_mirror {{\n    path = {mirror:?}\n  }}\n}}\n"
        );
        std::fs::write(folder.join("terraform.rc"), rc).expect("terraform.rc");
        let terraform = Terraform { gantry, folder };
        terraform.succeed(&["init"], &[]);
        terraform
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
        let mut command = self.gantry.command("terraform");
        command
            .args(words)
            .args(["-no-color", "-input=false"])
            .current_dir(&self.folder)
            .env("TF_CLI_CONFIG_FILE", self.folder.join("terraform.rc"))
            .env("CHECKPOINT_DISABLE", "1");
        for (name, value) in variables {
            command.arg("-var").arg(format!("{name}={value}"));
        }
        let output = command.output().expect("terraform");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), said)
    }

    fn succeed(&self, words: &[&str], variables: &[(&str, &str)]) -> String {
        let (code, said) = self.run(words, variables);
        assert_eq!(code, 0, "terraform {words:?}: {said}");
        said
    }

    fn apply(&self, variables: &[(&str, &str)]) -> String {
        self.succeed(&["apply", "-auto-approve"], variables)
    }

    /// A plan after an apply finds nothing to do: what is read back is what was written.
    fn plan_is_empty(&self, variables: &[(&str, &str)]) {
        let (code, said) = self.run(&["plan", "-detailed-exitcode"], variables);
        assert_eq!(code, 0, "the second plan is not empty: {said}");
    }

    fn outputs(&self) -> Value {
        let said = self.gantry.command("terraform");
        let output = said_of(said, &self.folder);
        serde_json::from_str(&output).expect("JSON from terraform output")
    }
}

fn said_of(mut command: Command, folder: &Path) -> String {
    let output = command
        .args(["output", "-json", "-no-color"])
        .current_dir(folder)
        .env("TF_CLI_CONFIG_FILE", folder.join("terraform.rc"))
        .output()
        .expect("terraform output");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The root of a mirror that holds the AWS provider.
fn mirror() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if let Some(named) = std::env::var_os("GANTRY_TERRAFORM_MIRROR") {
                return named.into();
            }
            let found = Command::new("find")
                .args(["/", "-xdev", "-path", "/proc", "-prune", "-o"])
                .args([
                    "-name",
                    "terraform-provider-aws_*",
                    "-path",
                    "*/registry.terraform.io/*",
                ])
                .args(["-print", "-quit"])
                .output()
                .expect("find");
            let provider = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            // ROOT/registry.terraform.io/hashicorp/aws/VERSION/PLATFORM/terraform-provider-aws_…
            let root = Path::new(&provider).ancestors().nth(6);
            root.filter(|_| !provider.is_empty())
                .unwrap_or_else(|| {
                    panic!(
                        "no mirror of Terraform's AWS provider is on this machine: make one with \
                         `terraform providers mirror` and name it in GANTRY_TERRAFORM_MIRROR"
                    )
                })
                .to_owned()
        })
        .clone()
}

#[test]
fn the_ground_floor_is_applied_planned_changed_and_destroyed() {
    let gantry = Installation::up();
    let terraform = Terraform::init(&gantry, GROUND_FLOOR);
    terraform.apply(&[]);
    terraform.plan_is_empty(&[]);

    // What Terraform made is what others see.
    let repository = terraform.outputs()["repository"]["value"].clone();
    assert_eq!(repository, format!("{}/tf/hello", gantry.registry()));
    let role = gantry.aws(&["iam", "get-role", "--role-name", "tf-task"]);
    assert_eq!(role["Role"]["MaxSessionDuration"], 3600);

    let changed = [
        ("memory", "128"),
        ("retention", "30"),
        ("expire_days", "30"),
    ];
    let said = terraform.apply(&changed);
    for resource in [
        "aws_cloudwatch_log_group.g: Modifications complete",
        // The provider replaces a lifecycle policy rather than change it.
        "aws_ecr_lifecycle_policy.p: Creation complete",
        "aws_ecr_repository.r: Modifications complete",
        "aws_ecs_cluster.c: Modifications complete",
        "aws_iam_policy.own: Modifications complete",
        "aws_iam_role.task: Modifications complete",
    ] {
        assert!(said.contains(resource), "{resource} is missing in: {said}");
    }
    terraform.plan_is_empty(&changed);
    let role = gantry.aws(&["iam", "get-role", "--role-name", "tf-task"]);
    assert_eq!(role["Role"]["MaxSessionDuration"], 7200);
    let families = gantry.aws(&[
        "ecs",
        "list-task-definitions",
        "--family-prefix",
        "tf-hello",
    ]);
    assert_eq!(
        families["taskDefinitionArns"].as_array().map(Vec::len),
        Some(1),
        "the revision that was replaced is INACTIVE: {families}"
    );

    terraform.succeed(&["destroy", "-auto-approve"], &changed);
    let repositories = gantry.aws(&["ecr", "describe-repositories"]);
    assert_eq!(repositories["repositories"], serde_json::json!([]));
    let groups = gantry.aws(&["logs", "describe-log-groups"]);
    assert_eq!(groups["logGroups"], serde_json::json!([]));
    gantry.aws_refused(&["iam", "get-role", "--role-name", "tf-task"]);
    let clusters = gantry.aws(&["ecs", "describe-clusters", "--clusters", "tf"]);
    assert_eq!(clusters["clusters"][0]["status"], "INACTIVE");
}

#[test]
fn identities_are_applied_planned_changed_and_destroyed() {
    let gantry = Installation::up();
    let terraform = Terraform::init(&gantry, IDENTITY);
    terraform.apply(&[]);
    terraform.plan_is_empty(&[]);

    // The key that Terraform made signs.
    let outputs = terraform.outputs();
    let output = gantry
        .command("aws")
        .env("AWS_ACCESS_KEY_ID", text(&outputs["key"]["value"]))
        .env("AWS_SECRET_ACCESS_KEY", text(&outputs["secret"]["value"]))
        .args(["sts", "get-caller-identity", "--output", "text"])
        .output()
        .expect("aws");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(":user/people/tf-user"), "{said}");

    let changed = [
        ("path", "/others/"),
        ("thumbprint", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
        ("key_status", "Inactive"),
    ];
    let said = terraform.apply(&changed);
    for resource in [
        "aws_iam_access_key.k: Modifications complete",
        "aws_iam_group.g: Modifications complete",
        "aws_iam_openid_connect_provider.p: Modifications complete",
        "aws_iam_user.u: Modifications complete",
    ] {
        assert!(said.contains(resource), "{resource} is missing in: {said}");
    }
    terraform.plan_is_empty(&changed);
    terraform.succeed(&["destroy", "-auto-approve"], &changed);
    let users = gantry.aws(&["iam", "list-users"]);
    assert_eq!(users["Users"], serde_json::json!([]));
}

#[test]
fn a_service_is_applied_planned_changed_in_place_and_destroyed() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "tf-web", &[]);
    let terraform = Terraform::init(&gantry, SERVICES);
    let first = [("image", image.as_str())];
    terraform.apply(&first);
    terraform.plan_is_empty(&first);
    let service = |query: &str| {
        gantry.aws(&[
            "ecs",
            "describe-services",
            "--services",
            "tf-web",
            "--include",
            "TAGS",
            "--query",
            &format!("services[0].{query}"),
        ])
    };
    assert_eq!(service("runningCount"), 2);
    assert_eq!(service("tags[?key=='made-by'].value | [0]"), "terraform");
    let task = gantry.aws(&["ecs", "list-tasks", "--service-name", "tf-web"]);
    assert_eq!(task["taskArns"].as_array().map(Vec::len), Some(2));

    // Another revision, another count and another grace period: in place, and steady when Terraform says so.
    let before = service("serviceArn");
    let changed = [
        ("image", image.as_str()),
        ("greeting", "hello again"),
        ("desired", "1"),
        ("grace", "9"),
    ];
    let said = terraform.apply(&changed);
    assert!(
        said.contains("aws_ecs_service.web: Modifications complete"),
        "{said}"
    );
    terraform.plan_is_empty(&changed);
    assert_eq!(service("serviceArn"), before);
    assert_eq!(service("[runningCount, desiredCount]"), json!([1, 1]));
    assert_eq!(service("healthCheckGracePeriodSeconds"), 9);
    let rolled = service("taskDefinition");
    assert!(
        text(&rolled).ends_with("task-definition/tf-web:2"),
        "{rolled}"
    );

    terraform.succeed(&["destroy", "-auto-approve"], &changed);
    assert_eq!(service("status"), "INACTIVE");
    let tasks = gantry.aws(&["ecs", "list-tasks"]);
    assert_eq!(tasks["taskArns"], json!([]));
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
