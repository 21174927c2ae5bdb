//! Users whose keys sign, from outside: every protocol refuses a key at once that is not good any more.

use serde_json::Value;

use crate::installation::Installation;

/// `aws …` as somebody else; what it said and whether it was content.
fn aws_as(gantry: &Installation, key: &Value, words: &[&str]) -> (bool, String) {
    let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let mut command = gantry.command("aws");
    command
        .env("AWS_ACCESS_KEY_ID", text("AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", text("SecretAccessKey"));
    if key["SessionToken"].is_string() {
        command.env("AWS_SESSION_TOKEN", text("SessionToken"));
    }
    let output = command
        .args(words)
        .args(["--output", "json"])
        .output()
        .expect("aws");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn a_users_key_and_sessions_work_in_every_protocol_until_they_do_not() {
    let gantry = Installation::up();
    let create = [
        "iam",
        "create-user",
        "--user-name",
        "ann",
        "--path",
        "/a/b/",
    ];
    let ann = gantry.aws(&create)["User"]["Arn"].clone();
    assert_eq!(ann, "arn:aws:iam::000000000000:user/a/b/ann");
    let key = gantry.aws(&["iam", "create-access-key", "--user-name", "ann"])["AccessKey"].clone();
    let me = ["sts", "get-caller-identity"];
    let clusters = ["ecs", "list-clusters"];
    let (good, said) = aws_as(&gantry, &key, &me);
    assert!(good && said.contains(":user/a/b/ann"), "{said}");
    let (good, said) = aws_as(&gantry, &key, &clusters);
    assert!(good, "{said}");

    let (good, said) = aws_as(&gantry, &key, &["sts", "get-session-token"]);
    assert!(good, "{said}");
    let session: Value = serde_json::from_str(&said).expect("JSON");
    let session = &session["Credentials"];
    let (good, said) = aws_as(&gantry, session, &clusters);
    assert!(good, "{said}");
    let (good, said) = aws_as(&gantry, session, &["iam", "list-users"]);
    assert!(!good && said.contains("InvalidClientTokenId"), "{said}");

    let id = key["AccessKeyId"].as_str().expect("an id").to_owned();
    let used = gantry.aws(&["iam", "get-access-key-last-used", "--access-key-id", &id]);
    assert_eq!(used["UserName"], "ann");
    assert_eq!(used["AccessKeyLastUsed"]["ServiceName"], "sts", "{used}");

    let status = |status: &str| {
        let words = ["iam", "update-access-key", "--user-name", "ann"];
        let rest = ["--access-key-id", id.as_str(), "--status", status];
        gantry.aws(&[&words[..], &rest[..]].concat());
    };
    status("Inactive");
    let (good, said) = aws_as(&gantry, &key, &me);
    assert!(!good && said.contains("InvalidClientTokenId"), "{said}");
    let (good, said) = aws_as(&gantry, &key, &clusters);
    assert!(
        !good && said.contains("UnrecognizedClientException"),
        "{said}"
    );
    status("Active");
    let (good, said) = aws_as(&gantry, &key, &clusters);
    assert!(good, "{said}");

    let delete = ["iam", "delete-access-key", "--user-name", "ann"];
    gantry.aws(&[&delete[..], &["--access-key-id", id.as_str()][..]].concat());
    gantry.aws(&["iam", "delete-user", "--user-name", "ann"]);
    let (good, said) = aws_as(&gantry, session, &clusters);
    assert!(
        !good && said.contains("UnrecognizedClientException"),
        "{said}"
    );
    // What cannot be made is refused by its name, and there is none of it.
    let refused = gantry.aws_refused(&["iam", "create-login-profile", "--user-name", "ann"]);
    assert!(
        refused.contains("iam:CreateLoginProfile is not built"),
        "{refused}"
    );
    let devices = gantry.aws(&["iam", "list-mfa-devices"]);
    assert_eq!(devices["MFADevices"], serde_json::json!([]));
}
