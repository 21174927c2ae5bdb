//! Validation messages, as clients of AWS have learnt to read them.

use std::collections::BTreeMap;

use gantry_api::document::{Document, Dynamic};
use gantry_api::schema::{Kind, Member, Schema};
use gantry_api::validate::validate;
use gantry_api::{iam, logs};

fn said<E: std::fmt::Display>(outcome: Result<(), E>) -> String {
    outcome
        .err()
        .map(|errors| errors.to_string())
        .unwrap_or_default()
}

fn tag(key: &str, value: &str) -> iam::Tag {
    iam::Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn what_is_within_its_limits_passes() {
    let input = iam::TagRoleRequest {
        role_name: "builder".to_owned(),
        tags: vec![tag("team", "platform"), tag("größe", "")],
    };
    assert_eq!(input.validate(), Ok(()));
}

#[test]
fn every_error_is_told_with_its_place() {
    let input = iam::TagRoleRequest {
        role_name: "r".to_owned(),
        tags: vec![tag("ok", "v"), tag("", "v")],
    };
    let text = said(input.validate());
    assert!(
        text.starts_with(
            "2 validation errors detected: \
             Value '' at 'tags.2.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1; \
             Value '' at 'tags.2.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: "
        ),
        "{text}"
    );
    let input = iam::ListRolesRequest {
        max_items: Some(1001),
        ..Default::default()
    };
    assert_eq!(
        said(input.validate()),
        "1 validation error detected: Value '1001' at 'maxItems' failed to satisfy constraint: \
         Member must have value less than or equal to 1000"
    );
}

#[test]
fn a_list_of_scalars_is_reported_as_a_whole() {
    let input = iam::UntagRoleRequest {
        role_name: "r".to_owned(),
        tag_keys: vec!["ok".to_owned(), "not ok!".to_owned()],
    };
    let text = said(input.validate());
    assert!(
        text.starts_with(
            "1 validation error detected: Value '[ok, not ok!]' at 'tagKeys' failed to satisfy constraint: \
             Member must satisfy constraint: [Member must have length less than or equal to 128, \
             Member must have length greater than or equal to 1, \
             Member must satisfy regular expression pattern: "
        ),
        "{text}"
    );
}

#[test]
fn closed_lists_of_values_and_map_keys_are_checked() {
    let input = logs::CreateLogGroupRequest {
        log_group_name: "group".to_owned(),
        log_group_class: Some("SLOW".into()),
        tags: Some(BTreeMap::from([(String::new(), "v".to_owned())])),
        ..Default::default()
    };
    let text = said(input.validate());
    assert!(text.contains("Value 'SLOW' at 'logGroupClass' failed to satisfy constraint: Member must satisfy enum value set: [STANDARD, INFREQUENT_ACCESS, DELIVERY"), "{text}");
    assert!(
        text.contains(
            "at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: ["
        ),
        "{text}"
    );
}

#[test]
fn secrets_are_left_out_of_messages() {
    static PASSWORD: Schema = Schema::scalar("password", Kind::String)
        .limited(Some(8), None)
        .matching("[a-z]+")
        .secret();
    static MEMBERS: [Member; 1] = [Member::new("Password", &PASSWORD)];
    static INPUT: Schema = Schema::structure("Input", &MEMBERS);
    let mut input = Document::new(&INPUT);
    input.set(0, Dynamic::String("H4x".to_owned()));
    let text = said(validate(&input));
    assert!(
        text.starts_with(
            "2 validation errors detected: Value at 'password' failed to satisfy constraint:"
        ),
        "{text}"
    );
    assert!(!text.contains("H4x"));
}

#[test]
fn a_flood_of_errors_is_cut() {
    let input = iam::TagRoleRequest {
        role_name: "r".to_owned(),
        tags: (0..40).map(|_| tag("", "v")).collect(),
    };
    assert!(said(input.validate()).starts_with("10 validation errors detected: "));
}
