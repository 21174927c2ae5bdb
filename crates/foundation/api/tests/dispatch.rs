//! From the parts of a request to the bytes of an answer, without a server.

use std::sync::Arc;

use bytes::Bytes;
use gantry_api::protocol::{Call, Rejection, Reply, detect};
use gantry_api::shape::Structure;
use gantry_api::{
    ApiError, Dispatch, DispatchFuture, Principal, RequestContext, Service, ServiceModel, ecr, ecs,
    iam, logs,
};
use gantry_arn::{AccountId, Arn, Region};
use gantry_env::{Timestamp, VirtualEnv};
use http::request::Parts;

/// Answers every operation with an empty output, or with the error it was given.
struct Stand {
    model: &'static ServiceModel,
    error: Option<ApiError>,
}

impl Dispatch for Stand {
    fn dispatch<'a>(
        &'a self,
        operation: usize,
        _context: &'a RequestContext,
        _input: Box<dyn Structure>,
    ) -> DispatchFuture<'a> {
        Box::pin(async move {
            match &self.error {
                Some(error) => Err(error.clone()),
                None => Ok((self.model.operations[operation].new_output)()),
            }
        })
    }
}

fn context() -> RequestContext {
    let account = AccountId::default();
    RequestContext {
        principal: Principal {
            arn: Arn::global("iam", &account, "root"),
            user_id: "000000000000".to_owned(),
            access_key_id: "AKIA".to_owned(),
        },
        account,
        region: Region::default(),
        request_id: "request-1".to_owned(),
        host: None,
        now: Timestamp::EPOCH,
    }
}

fn parts(headers: &[(&str, &str)], uri: &str) -> Parts {
    let mut request = http::Request::builder().method("POST").uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn json_parts(target: &str) -> Parts {
    parts(
        &[
            ("x-amz-target", target),
            ("content-type", "application/x-amz-json-1.1"),
        ],
        "/",
    )
}

fn form_parts() -> Parts {
    parts(
        &[(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )],
        "/",
    )
}

fn answer(
    model: &'static ServiceModel,
    error: Option<ApiError>,
    parts: &Parts,
    body: &str,
) -> (Reply, String) {
    let service = Service::new(model, Arc::new(Stand { model, error }));
    let call: Call = detect(parts, body.as_bytes(), None).expect("a call");
    assert_eq!(call.service.name, model.name);
    let body = Bytes::from(body.to_owned());
    let context = context();
    let (reply, _) = VirtualEnv::seeded(1)
        .block_on(service.handle(&context, &call, parts, &body))
        .expect("no timer is waited for");
    let text = String::from_utf8(reply.body.to_vec()).expect("UTF-8");
    (reply, text)
}

#[test]
fn an_operation_is_called_and_answered_in_its_protocol() {
    let parts = json_parts("AmazonEC2ContainerServiceV20141113.ListClusters");
    let (reply, text) = answer(&ecs::MODEL, None, &parts, "{}");
    assert_eq!((reply.status, text.as_str()), (200, "{}"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/x-amz-json-1.1")
    );
    assert_eq!(reply.header("x-amzn-RequestId"), Some("request-1"));
    // An empty body is an empty input.
    assert_eq!(answer(&ecs::MODEL, None, &parts, "").0.status, 200);

    let (reply, text) = answer(
        &iam::MODEL,
        None,
        &form_parts(),
        "Action=DeleteRole&Version=2010-05-08&RoleName=r",
    );
    assert_eq!(reply.status, 200);
    assert_eq!(
        text,
        "<DeleteRoleResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ResponseMetadata>\
         <RequestId>request-1</RequestId></ResponseMetadata></DeleteRoleResponse>"
    );
}

#[test]
fn operations_that_are_not_built_are_named() {
    let (reply, text) = answer(
        &ecs::MODEL,
        None,
        &json_parts("AmazonEC2ContainerServiceV20141113.CreateTaskSet"),
        "{}",
    );
    assert_eq!(reply.status, 501);
    assert!(text.contains("ecs:CreateTaskSet is not built"), "{text}");
    let (reply, text) = answer(
        &iam::MODEL,
        None,
        &form_parts(),
        "Action=SimulateCustomPolicy&Version=2010-05-08",
    );
    assert_eq!(reply.status, 501);
    assert!(
        text.contains("iam:SimulateCustomPolicy is not built"),
        "{text}"
    );
}

#[test]
fn operations_that_do_not_exist_are_unknown() {
    let (reply, text) = answer(
        &ecs::MODEL,
        None,
        &json_parts("AmazonEC2ContainerServiceV20141113.Fly"),
        "{}",
    );
    assert_eq!(
        (reply.status, text.as_str()),
        (400, r#"{"__type":"UnknownOperationException"}"#)
    );
    let (reply, text) = answer(
        &iam::MODEL,
        None,
        &form_parts(),
        "Action=Fly&Version=2010-05-08",
    );
    assert_eq!(reply.status, 400);
    assert!(text.contains("<Code>InvalidAction</Code>"), "{text}");
    assert!(
        text.contains("Could not find operation Fly for version 2010-05-08"),
        "{text}"
    );
}

#[test]
fn requests_that_name_no_operation_are_rejected() {
    let rejected = |parts: &Parts, body: &str| -> (u16, String) {
        let rejection: Rejection = detect(parts, body.as_bytes(), None).expect_err("rejected");
        let reply = rejection.reply("request-1");
        (
            reply.status,
            String::from_utf8(reply.body.to_vec()).expect("UTF-8"),
        )
    };
    let (status, text) = rejected(&json_parts("Nobody_2020.Fly"), "{}");
    assert_eq!(
        (status, text.as_str()),
        (400, r#"{"__type":"UnknownOperationException"}"#)
    );
    let (status, text) = rejected(&form_parts(), "Version=2010-05-08");
    assert_eq!(status, 400);
    assert!(text.contains("<Code>MissingAction</Code>"), "{text}");
    let (_, text) = rejected(&form_parts(), "Action=GetUser&Version=1999-01-01");
    assert!(text.contains("<Code>InvalidAction</Code>"), "{text}");
    let (_, text) = rejected(&form_parts(), "Action=%zz");
    assert!(text.contains("<Code>MalformedQueryString</Code>"), "{text}");
}

#[test]
fn bodies_that_are_no_input_are_errors() {
    let parts = json_parts("AmazonEC2ContainerServiceV20141113.RunTask");
    for (body, message) in [
        ("{", "EOF while parsing"),
        ("{} {}", "trailing characters"),
        ("[]", "Start of list found where not expected"),
        ("7", "NUMBER_VALUE found where not expected"),
        (
            r#"{"taskDefinition": 7}"#,
            "NUMBER_VALUE cannot be converted to String",
        ),
        (
            r#"{"taskDefinition": ["a"]}"#,
            "Start of list found where not expected",
        ),
        (
            r#"{"count": "1"}"#,
            "STRING_VALUE cannot be converted to Integer",
        ),
        (
            r#"{"count": 1.5}"#,
            "NUMBER_VALUE cannot be converted to Integer",
        ),
        (
            r#"{"count": 99999999999}"#,
            "NUMBER_VALUE cannot be converted to Integer",
        ),
        (
            r#"{"enableECSManagedTags": "yes"}"#,
            "STRING_VALUE cannot be converted to Boolean",
        ),
        (
            r#"{"tags": {}}"#,
            "Start of structure or map found where not expected",
        ),
        (
            r#"{"tags": ["a"]}"#,
            "STRING_VALUE found where not expected",
        ),
    ] {
        let (reply, text) = answer(&ecs::MODEL, None, &parts, body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(
            text.contains(r#""__type":"SerializationException""#),
            "{body}: {text}"
        );
        assert!(text.contains(message), "{body}: {text}");
    }
    // Null is absent, unknown members are skipped, unknown enum values are kept.
    let body = r#"{"taskDefinition": "a", "count": null, "new": [1], "launchType": "ORBIT"}"#;
    assert_eq!(answer(&ecs::MODEL, None, &parts, body).0.status, 200);
}

#[test]
fn constraints_are_checked_in_the_words_of_each_service() {
    let message = |model, parts: &Parts, body: &str| {
        let (reply, text) = answer(model, None, parts, body);
        assert_eq!(reply.status, 400, "{body}: {text}");
        text
    };
    let text = message(
        &logs::MODEL,
        &json_parts("Logs_20140328.CreateLogGroup"),
        "{}",
    );
    assert_eq!(
        text,
        r#"{"__type":"InvalidParameterException","message":"1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null"}"#
    );
    let text = message(
        &logs::MODEL,
        &json_parts("Logs_20140328.CreateLogGroup"),
        r#"{"logGroupName": "a b"}"#,
    );
    assert!(
        text.contains(
            r"1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+"
        ),
        "{text}"
    );
    let text = message(
        &ecr::MODEL,
        &json_parts("AmazonEC2ContainerRegistry_V20150921.CreateRepository"),
        r#"{"repositoryName": "UPPER"}"#,
    );
    assert!(text.contains("InvalidParameterException"), "{text}");
    assert!(
        text.contains(
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '"
        ),
        "{text}"
    );
    let long = "r".repeat(65);
    let text = message(
        &iam::MODEL,
        &form_parts(),
        &format!("Action=GetRole&Version=2010-05-08&RoleName={long}"),
    );
    assert!(text.contains("<Code>ValidationError</Code>"), "{text}");
    assert!(
        text.contains(&format!(
            "1 validation error detected: Value '{long}' at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"
        )),
        "{text}"
    );
    let text = message(
        &iam::MODEL,
        &form_parts(),
        "Action=TagRole&Version=2010-05-08&RoleName=r&Tags.member.1.Value=v",
    );
    assert!(text.contains("Value null at 'tags.1.member.key'"), "{text}");
    // ECS words its own errors: what is blank passes, what it could not see does not.
    let parts = json_parts("AmazonEC2ContainerServiceV20141113.RunTask");
    assert_eq!(answer(&ecs::MODEL, None, &parts, "{}").0.status, 200);
}

#[test]
fn exceptions_carry_their_own_code_and_status() {
    let error = ApiError::from(ecs::EcsError::cluster_not_found_exception(
        "Cluster not found.",
    ));
    let parts = json_parts("AmazonEC2ContainerServiceV20141113.ListTasks");
    let (reply, text) = answer(&ecs::MODEL, Some(error), &parts, "{}");
    assert_eq!(reply.status, 400);
    assert_eq!(
        text,
        r#"{"__type":"ClusterNotFoundException","message":"Cluster not found."}"#
    );

    let error = ApiError::from(iam::IamError::no_such_entity_exception(
        "The role cannot be found.",
    ));
    let (reply, text) = answer(
        &iam::MODEL,
        Some(error),
        &form_parts(),
        "Action=GetRole&Version=2010-05-08&RoleName=r",
    );
    assert_eq!(reply.status, 404);
    assert_eq!(
        text,
        "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type>\
         <Code>NoSuchEntity</Code><Message>The role cannot be found.</Message></Error>\
         <RequestId>request-1</RequestId></ErrorResponse>"
    );

    let error = ApiError::internal("the disk is full at /secret/path");
    let (reply, text) = answer(&ecs::MODEL, Some(error), &parts, "{}");
    assert_eq!(reply.status, 500);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_query_may_stand_in_the_address() {
    let parts = parts(&[], "/?Action=GetRole&Version=2010-05-08&RoleName=r");
    assert_eq!(answer(&iam::MODEL, None, &parts, "").0.status, 200);
}

#[test]
fn coverage_names_every_operation_once() {
    for service in gantry_api::coverage() {
        assert!(!service.built.is_empty(), "{}", service.service);
        for name in &service.built {
            assert!(!service.not_built.contains(name), "{name}");
        }
        assert!(service.not_built.is_sorted() && service.built.is_sorted());
    }
}

/// Patterns with look-around cannot be checked here; this is the whole list of them. Each is checked by
/// the operation that takes it.
#[test]
fn patterns_that_cannot_be_checked_are_known() {
    let mut seen = std::collections::BTreeSet::new();
    let mut unsupported = Vec::new();
    let mut open: Vec<&'static gantry_api::schema::Schema> = Vec::new();
    for model in [
        &ecs::MODEL,
        &ecr::MODEL,
        &logs::MODEL,
        &iam::MODEL,
        &gantry_api::sts::MODEL,
    ] {
        open.extend(
            model
                .operations
                .iter()
                .flat_map(|operation| [operation.input, operation.output]),
        );
    }
    while let Some(schema) = open.pop() {
        if !seen.insert(std::ptr::from_ref(schema) as usize) {
            continue;
        }
        if let Some(pattern) = &schema.constraints.pattern
            && !pattern.is_supported()
        {
            unsupported.push(format!("{}: {}", schema.name, pattern.source));
        }
        use gantry_api::schema::Kind;
        match &schema.kind {
            Kind::Structure { members, .. } => {
                open.extend(members.iter().map(|member| member.target()))
            }
            Kind::List { element, .. } => open.push(element.target()),
            Kind::Map { key, value, .. } => open.extend([key.target(), value.target()]),
            _ => {}
        }
    }
    assert_eq!(
        unsupported,
        ["accountAliasType: ^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$"]
    );
}
