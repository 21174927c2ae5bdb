use gantry_api::ecs::{
    Ecs as _, EcsError, ListTagsForResourceRequest, Tag, TagResourceRequest, UntagResourceRequest,
};

use crate::harness::{Harness, done, refusal, tag};

fn tags(harness: &Harness, arn: &str) -> Result<Vec<Tag>, EcsError> {
    let input = ListTagsForResourceRequest {
        resource_arn: arn.to_owned(),
    };
    Ok(done(
        harness
            .service
            .list_tags_for_resource(&harness.ctx(), input),
    )?
    .tags
    .unwrap())
}

fn set(harness: &Harness, arn: &str, tags: Vec<Tag>) -> Result<(), EcsError> {
    let input = TagResourceRequest {
        resource_arn: arn.to_owned(),
        tags,
    };
    done(harness.service.tag_resource(&harness.ctx(), input)).map(drop)
}

#[test]
fn every_kind_of_resource_is_tagged_and_untagged() {
    let (harness, instance) = Harness::with_instance();
    let definition = harness.register_web().task_definition_arn.unwrap();
    let task = harness.run_one("web");
    let cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/default".to_owned();
    for arn in [cluster, instance, definition, task] {
        set(&harness, &arn, vec![tag("a", "1"), tag("b", "2")]).unwrap();
        set(&harness, &arn, vec![tag("a", "3")]).unwrap();
        assert_eq!(
            tags(&harness, &arn).unwrap(),
            [tag("a", "3"), tag("b", "2")],
            "{arn}"
        );
        let input = UntagResourceRequest {
            resource_arn: arn.clone(),
            tag_keys: vec!["a".to_owned(), "never".to_owned()],
        };
        done(harness.service.untag_resource(&harness.ctx(), input)).unwrap();
        assert_eq!(tags(&harness, &arn).unwrap(), [tag("b", "2")], "{arn}");
    }
}

#[test]
fn bad_arns_and_too_many_tags_are_refused() {
    let (harness, instance) = Harness::with_instance();
    for (arn, code) in [
        ("nonsense", "InvalidParameterException"),
        (
            "arn:aws:ecs:eu-west-1:000000000000:cluster/default",
            "InvalidParameterException",
        ),
        (
            "arn:aws:ecs:us-east-1:000000000000:cluster/none",
            "ClusterNotFoundException",
        ),
        (
            "arn:aws:ecs:us-east-1:000000000000:task-definition/x:1",
            "InvalidParameterException",
        ),
    ] {
        assert_eq!(refusal(tags(&harness, arn)).0, code, "{arn}");
        assert_eq!(
            refusal(set(&harness, arn, vec![tag("a", "b")])).0,
            code,
            "{arn}"
        );
    }
    let some = |from: usize, to: usize| (from..to).map(|n| tag(&format!("k{n}"), "v")).collect();
    set(&harness, &instance, some(0, 30)).unwrap();
    assert_eq!(
        refusal(set(&harness, &instance, some(30, 60))).1,
        "The number of tags exceeds the limit of 50."
    );
    assert_eq!(tags(&harness, &instance).unwrap().len(), 30);
}
