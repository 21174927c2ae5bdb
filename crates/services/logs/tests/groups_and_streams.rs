//! Groups and streams from outside.

mod desk;

use desk::{Desk, GROUP, pair, refusal};
use gantry_api::logs::{self, Logs, OrderBy};

async fn groups(desk: &Desk, input: logs::DescribeLogGroupsRequest) -> Vec<logs::LogGroup> {
    let mut all = Vec::new();
    let mut next_token = None;
    loop {
        let input = logs::DescribeLogGroupsRequest {
            next_token,
            ..input.clone()
        };
        let page = desk
            .logs
            .describe_log_groups(&desk.ctx(), input)
            .await
            .unwrap();
        all.extend(page.log_groups.unwrap());
        next_token = page.next_token;
        if next_token.is_none() {
            return all;
        }
    }
}

fn names(groups: &[logs::LogGroup]) -> Vec<&str> {
    groups
        .iter()
        .filter_map(|group| group.log_group_name.as_deref())
        .collect()
}

async fn streams(
    desk: &Desk,
    input: logs::DescribeLogStreamsRequest,
) -> Result<Vec<String>, logs::LogsError> {
    let mut all = Vec::new();
    let mut next_token = None;
    loop {
        let input = logs::DescribeLogStreamsRequest {
            log_group_name: Some(GROUP.into()),
            next_token,
            ..input.clone()
        };
        let page = desk.logs.describe_log_streams(&desk.ctx(), input).await?;
        all.extend(
            page.log_streams
                .unwrap()
                .into_iter()
                .filter_map(|s| s.log_stream_name),
        );
        next_token = page.next_token;
        if next_token.is_none() {
            return Ok(all);
        }
    }
}

#[tokio::test]
async fn a_group_is_described_with_both_forms_of_its_arn() {
    let desk = Desk::with_streams(&["web"]).await;
    desk.put("web", &[(desk.now(), "hello")], None)
        .await
        .unwrap();
    let all = groups(&desk, Default::default()).await;
    let group = &all[0];
    assert_eq!(
        group.arn.as_deref(),
        Some("arn:aws:logs:us-east-1:000000000000:log-group:/ecs/app:*")
    );
    assert_eq!(
        group.log_group_arn.as_deref(),
        Some("arn:aws:logs:us-east-1:000000000000:log-group:/ecs/app")
    );
    assert_eq!(group.creation_time, Some(desk.now()));
    assert!(group.stored_bytes > Some(5), "{:?}", group.stored_bytes);
    assert_eq!(group.retention_in_days, None);
    assert_eq!(
        refusal(desk.group(GROUP).await),
        pair(
            "ResourceAlreadyExistsException",
            "The specified log group already exists"
        )
    );
    assert_eq!(
        refusal(desk.stream(GROUP, "web").await),
        pair(
            "ResourceAlreadyExistsException",
            "The specified log stream already exists"
        )
    );
    assert_eq!(
        refusal(desk.stream("ghost", "web").await),
        pair(
            "ResourceNotFoundException",
            "The specified log group does not exist."
        )
    );
    assert_eq!(
        refusal(desk.group("aws/x").await).0,
        "InvalidParameterException"
    );
    assert_eq!(
        refusal(desk.group("a b").await).0,
        "InvalidParameterException"
    );
    assert_eq!(
        refusal(desk.stream(GROUP, "a:b").await).0,
        "InvalidParameterException"
    );
    let encrypted = logs::CreateLogGroupRequest {
        log_group_name: "x".into(),
        kms_key_id: Some("key".into()),
        ..Default::default()
    };
    assert_eq!(
        refusal(desk.logs.create_log_group(&desk.ctx(), encrypted).await).0,
        "InvalidParameterException"
    );
}

#[tokio::test]
async fn groups_are_listed_by_prefix_pattern_identifier_and_page() {
    let desk = Desk::new().await;
    for n in 0..7 {
        desk.group(&format!("/a/{n}")).await.unwrap();
    }
    desk.group("/b/1").await.unwrap();
    let two = logs::DescribeLogGroupsRequest {
        limit: Some(2),
        log_group_name_prefix: Some("/a/".into()),
        ..Default::default()
    };
    let expected: Vec<String> = (0..7).map(|n| format!("/a/{n}")).collect();
    assert_eq!(names(&groups(&desk, two.clone()).await), expected);
    let pattern = logs::DescribeLogGroupsRequest {
        log_group_name_pattern: Some("/1".into()),
        ..Default::default()
    };
    assert_eq!(names(&groups(&desk, pattern).await), ["/a/1", "/b/1"]);
    let identified = logs::DescribeLogGroupsRequest {
        log_group_identifiers: Some(vec![
            "/b/1".into(),
            "arn:aws:logs:us-east-1:000000000000:log-group:/a/3:*".into(),
        ]),
        ..Default::default()
    };
    assert_eq!(names(&groups(&desk, identified).await), ["/a/3", "/b/1"]);

    let both = logs::DescribeLogGroupsRequest {
        log_group_name_pattern: Some("x".into()),
        ..two.clone()
    };
    assert_eq!(
        refusal(desk.logs.describe_log_groups(&desk.ctx(), both).await).0,
        "InvalidParameterException"
    );
    let forged = logs::DescribeLogGroupsRequest {
        next_token: Some("forged".into()),
        ..two
    };
    assert_eq!(
        refusal(desk.logs.describe_log_groups(&desk.ctx(), forged).await),
        pair(
            "InvalidParameterException",
            "The specified nextToken is invalid."
        )
    );
}

#[tokio::test]
async fn streams_are_ordered_by_name_or_by_their_last_event() {
    let desk = Desk::with_streams(&["a", "b", "c", "d"]).await;
    let now = desk.now();
    desk.put("b", &[(now - 5, "x"), (now - 1, "y")], None)
        .await
        .unwrap();
    desk.put("a", &[(now - 3, "x")], None).await.unwrap();
    desk.put("d", &[(now - 2, "x")], None).await.unwrap();
    let by = |order_by: Option<OrderBy>, descending: bool| logs::DescribeLogStreamsRequest {
        order_by,
        descending: Some(descending),
        limit: Some(1),
        ..Default::default()
    };
    assert_eq!(
        streams(&desk, by(None, false)).await.unwrap(),
        ["a", "b", "c", "d"]
    );
    assert_eq!(
        streams(&desk, by(None, true)).await.unwrap(),
        ["d", "c", "b", "a"]
    );
    let by_time = Some(OrderBy::LastEventTime);
    assert_eq!(
        streams(&desk, by(by_time.clone(), true)).await.unwrap(),
        ["b", "d", "a", "c"]
    );
    assert_eq!(
        streams(&desk, by(by_time.clone(), false)).await.unwrap(),
        ["c", "a", "d", "b"]
    );
    let prefix = logs::DescribeLogStreamsRequest {
        log_stream_name_prefix: Some("b".into()),
        ..by(None, false)
    };
    assert_eq!(streams(&desk, prefix.clone()).await.unwrap(), ["b"]);
    let refused = logs::DescribeLogStreamsRequest {
        order_by: by_time,
        ..prefix
    };
    assert_eq!(
        refusal(streams(&desk, refused).await),
        pair(
            "InvalidParameterException",
            "Cannot order by LastEventTime with a logStreamNamePrefix."
        )
    );

    let described = desk
        .logs
        .describe_log_streams(
            &desk.ctx(),
            logs::DescribeLogStreamsRequest {
                log_group_identifier: Some(
                    "arn:aws:logs:us-east-1:000000000000:log-group:/ecs/app".into(),
                ),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let all = described.log_streams.unwrap();
    assert_eq!(all[1].first_event_timestamp, Some(now - 5));
    assert_eq!(all[1].last_event_timestamp, Some(now - 1));
    assert_eq!(all[1].last_ingestion_time, Some(now));
    assert_eq!(
        all[1].arn.as_deref(),
        Some("arn:aws:logs:us-east-1:000000000000:log-group:/ecs/app:log-stream:b")
    );
    assert_eq!(all[2].first_event_timestamp, None);
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_does_not_come_back() {
    let desk = Desk::with_streams(&["a", "b"]).await;
    desk.put("a", &[(desk.now(), "old")], None).await.unwrap();
    desk.put("b", &[(desk.now(), "old")], None).await.unwrap();
    let delete_a = logs::DeleteLogStreamRequest {
        log_group_name: GROUP.into(),
        log_stream_name: "a".into(),
    };
    desk.logs
        .delete_log_stream(&desk.ctx(), delete_a.clone())
        .await
        .unwrap();
    assert_eq!(
        refusal(desk.logs.delete_log_stream(&desk.ctx(), delete_a).await),
        pair(
            "ResourceNotFoundException",
            "The specified log stream does not exist."
        )
    );
    desk.stream(GROUP, "a").await.unwrap();
    assert!(desk.messages("a").await.is_empty());

    desk.delete_group(GROUP).await.unwrap();
    assert_eq!(
        refusal(desk.delete_group(GROUP).await),
        pair(
            "ResourceNotFoundException",
            "The specified log group does not exist."
        )
    );
    assert!(desk.archive.streams("logs", None, 10).unwrap().is_empty());
    desk.group(GROUP).await.unwrap();
    assert!(streams(&desk, Default::default()).await.unwrap().is_empty());
    desk.stream(GROUP, "b").await.unwrap();
    assert!(desk.messages("b").await.is_empty());
}

#[tokio::test]
async fn a_protected_group_is_not_deleted() {
    let desk = Desk::with_streams(&[]).await;
    let protect = |on| logs::PutLogGroupDeletionProtectionRequest {
        log_group_identifier: GROUP.into(),
        deletion_protection_enabled: on,
    };
    desk.logs
        .put_log_group_deletion_protection(&desk.ctx(), protect(true))
        .await
        .unwrap();
    assert_eq!(
        refusal(desk.delete_group(GROUP).await).0,
        "ValidationException"
    );
    desk.logs
        .put_log_group_deletion_protection(&desk.ctx(), protect(false))
        .await
        .unwrap();
    desk.delete_group(GROUP).await.unwrap();
}

#[tokio::test]
async fn tags_are_kept_by_either_interface() {
    let desk = Desk::with_streams(&[]).await;
    let arn = "arn:aws:logs:us-east-1:000000000000:log-group:/ecs/app".to_owned();
    let tags = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    desk.logs
        .tag_resource(
            &desk.ctx(),
            logs::TagResourceRequest {
                resource_arn: format!("{arn}:*"),
                tags: tags(&[("a", "1"), ("b", "2")]),
            },
        )
        .await
        .unwrap();
    desk.logs
        .tag_log_group(
            &desk.ctx(),
            logs::TagLogGroupRequest {
                log_group_name: GROUP.into(),
                tags: tags(&[("a", "3")]),
            },
        )
        .await
        .unwrap();
    desk.logs
        .untag_resource(
            &desk.ctx(),
            logs::UntagResourceRequest {
                resource_arn: arn.clone(),
                tag_keys: vec!["b".into()],
            },
        )
        .await
        .unwrap();
    let listed = desk
        .logs
        .list_tags_for_resource(
            &desk.ctx(),
            logs::ListTagsForResourceRequest {
                resource_arn: arn.clone(),
            },
        )
        .await
        .unwrap();
    assert_eq!(listed.tags, Some(tags(&[("a", "3")])));
    let old = logs::ListTagsLogGroupRequest {
        log_group_name: GROUP.into(),
    };
    assert_eq!(
        desk.logs
            .list_tags_log_group(&desk.ctx(), old)
            .await
            .unwrap()
            .tags,
        listed.tags
    );
    let reserved = logs::TagResourceRequest {
        resource_arn: arn.clone(),
        tags: tags(&[("aws:x", "")]),
    };
    assert_eq!(
        refusal(desk.logs.tag_resource(&desk.ctx(), reserved).await).0,
        "InvalidParameterException"
    );
    let many = logs::TagResourceRequest {
        resource_arn: arn,
        tags: (0..50).map(|n| (format!("k{n}"), String::new())).collect(),
    };
    assert_eq!(
        refusal(desk.logs.tag_resource(&desk.ctx(), many).await).0,
        "TooManyTagsException"
    );
}
