//! Many streams read as one, by time.

use std::time::Duration;

use crate::desk::{Desk, GROUP, pair, refusal};
use gantry_api::logs::{self, Logs};

#[tokio::test]
async fn streams_are_merged_by_time_and_paged() {
    let desk = Desk::with_streams(&["a", "b", "other"]).await;
    let now = desk.now();
    desk.put("a", &[(now, "1"), (now + 2, "3"), (now + 4, "5")], None)
        .await
        .unwrap();
    desk.put("b", &[(now + 1, "2"), (now + 3, "4")], None)
        .await
        .unwrap();
    desk.put("other", &[(now + 5, "6")], None).await.unwrap();
    let from = &desk;
    let all = |input: logs::FilterLogEventsRequest| async move {
        let mut messages = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut next_token = None;
        loop {
            let page = from
                .filter(logs::FilterLogEventsRequest {
                    next_token,
                    ..input.clone()
                })
                .await
                .unwrap();
            for event in page.events.unwrap() {
                assert!(ids.insert(event.event_id.unwrap()));
                messages.push(event.message.unwrap());
            }
            next_token = page.next_token;
            if next_token.is_none() {
                return messages;
            }
        }
    };
    let base = logs::FilterLogEventsRequest::default();
    for limit in [1, 2, 3, 100] {
        let input = logs::FilterLogEventsRequest {
            limit: Some(limit),
            ..base.clone()
        };
        assert_eq!(
            all(input).await,
            ["1", "2", "3", "4", "5", "6"],
            "limit {limit}"
        );
    }
    let named = logs::FilterLogEventsRequest {
        log_stream_names: Some(vec!["b".into(), "a".into()]),
        ..base.clone()
    };
    assert_eq!(all(named.clone()).await, ["1", "2", "3", "4", "5"]);
    let prefixed = logs::FilterLogEventsRequest {
        log_stream_name_prefix: Some("o".into()),
        ..base.clone()
    };
    assert_eq!(all(prefixed).await, ["6"]);
    // Both ends of the range are part of it.
    let ranged = logs::FilterLogEventsRequest {
        start_time: Some(now + 1),
        end_time: Some(now + 3),
        ..base.clone()
    };
    assert_eq!(all(ranged).await, ["2", "3", "4"]);
    let both = logs::FilterLogEventsRequest {
        log_stream_name_prefix: Some("a".into()),
        ..named
    };
    assert_eq!(
        refusal(desk.filter(both).await).0,
        "InvalidParameterException"
    );
    let missing = logs::FilterLogEventsRequest {
        log_stream_names: Some(vec!["ghost".into()]),
        ..base.clone()
    };
    assert_eq!(
        refusal(desk.filter(missing).await).0,
        "ResourceNotFoundException"
    );
    let none = logs::FilterLogEventsRequest {
        filter_pattern: Some("a/b".into()),
        ..base.clone()
    };
    assert_eq!(
        refusal(desk.filter(none).await),
        pair(
            "InvalidParameterException",
            "Invalid character(s) in term 'a/b'"
        )
    );
    for (pattern, expected) in [
        ("?1 ?4 ?6", &["1", "4", "6"][..]),
        ("-1 -3", &["2", "4", "5", "6"]),
    ] {
        for limit in [1, 2, 100] {
            let input = logs::FilterLogEventsRequest {
                filter_pattern: Some(pattern.into()),
                limit: Some(limit),
                ..base.clone()
            };
            assert_eq!(all(input).await, expected, "{pattern} {limit}");
        }
    }
}

/// Pages go on where they ended although streams come and go, and the service starts again.
#[tokio::test]
async fn a_page_goes_on_after_a_restart_and_without_its_stream() {
    let desk = Desk::with_streams(&["a", "b", "c"]).await;
    let now = desk.now();
    for (stream, line) in [("a", "1"), ("b", "2"), ("c", "3")] {
        desk.put(stream, &[(now, line), (now, "again")], None)
            .await
            .unwrap();
    }
    let page = |limit: i32, next_token: Option<String>| logs::FilterLogEventsRequest {
        limit: Some(limit),
        next_token,
        ..Default::default()
    };
    let first = desk.filter(page(3, None)).await.unwrap();
    let said = |page: &logs::FilterLogEventsResponse| -> Vec<String> {
        let events = page.events.clone().unwrap();
        events
            .into_iter()
            .filter_map(|event| event.message)
            .collect()
    };
    assert_eq!(said(&first), ["1", "again", "2"]);
    desk.stream(GROUP, "aa").await.unwrap();
    let desk = desk.restart().await;
    let second = desk
        .filter(page(1, first.next_token.clone()))
        .await
        .unwrap();
    assert_eq!(said(&second), ["again"]);
    let gone = logs::DeleteLogStreamRequest {
        log_group_name: GROUP.into(),
        log_stream_name: "b".into(),
    };
    desk.logs
        .delete_log_stream(&desk.ctx(), gone)
        .await
        .unwrap();
    let third = desk.filter(page(10, second.next_token)).await.unwrap();
    assert_eq!(
        (said(&third), third.next_token),
        (vec!["3".into(), "again".into()], None)
    );
    let rest = desk.filter(page(10, first.next_token)).await.unwrap();
    assert_eq!(said(&rest), ["3", "again"]);
}

/// A page among very many events of one millisecond costs what a page costs.
#[tokio::test]
async fn many_events_of_one_moment_are_paged_in_order() {
    let desk = Desk::with_streams(&["a", "b"]).await;
    let now = desk.now();
    let lines: Vec<String> = (0..6000)
        .map(|n| format!("{n:05} {}", "x".repeat(90)))
        .collect();
    let events: Vec<(i64, &str)> = lines.iter().map(|line| (now, line.as_str())).collect();
    for _ in 0..3 {
        for stream in ["b", "a"] {
            desk.put(stream, &events, None).await.unwrap();
        }
    }
    let (mut seen, mut next_token) = (Vec::new(), None);
    loop {
        let page = desk
            .filter(logs::FilterLogEventsRequest {
                limit: Some(5000),
                next_token,
                ..Default::default()
            })
            .await
            .unwrap();
        let events = page.events.unwrap();
        seen.extend(
            events
                .into_iter()
                .map(|it| (it.log_stream_name.unwrap(), it.message.unwrap())),
        );
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    let once = |stream: &str| {
        lines
            .iter()
            .map(|line| (stream.to_owned(), line.clone()))
            .collect::<Vec<_>>()
    };
    let expected: Vec<_> = ["a", "b"]
        .into_iter()
        .flat_map(|it| [once(it), once(it), once(it)].concat())
        .collect();
    assert!(seen == expected, "{} of {}", seen.len(), expected.len());
}

#[tokio::test]
async fn polling_as_logs_tail_does_shows_each_line_once() {
    let desk = Desk::with_streams(&["a", "b"]).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut shown = Vec::new();
    let mut start = desk.now() - 60_000;
    for round in 0..5 {
        let line = format!("line {round}");
        let stream = if round % 2 == 0 { "a" } else { "b" };
        desk.put(stream, &[(desk.now(), &line)], None)
            .await
            .unwrap();
        let page = desk
            .filter(logs::FilterLogEventsRequest {
                start_time: Some(start),
                ..Default::default()
            })
            .await
            .unwrap();
        for event in page.events.unwrap() {
            start = start.max(event.timestamp.unwrap());
            if seen.insert(event.event_id.unwrap()) {
                shown.push(event.message.unwrap());
            }
        }
        desk.world
            .advance(Duration::from_secs(u64::from(round % 2 == 0)));
    }
    assert_eq!(shown, ["line 0", "line 1", "line 2", "line 3", "line 4"]);
}
