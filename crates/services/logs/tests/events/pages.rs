//! One stream read page by page.

use crate::desk::{Desk, GROUP, of, pair, refusal, texts};
use crate::run;
use gantry_api::logs::{self, Logs};
use proptest::prelude::*;

#[tokio::test]
async fn the_default_page_is_the_newest_and_the_tokens_end_where_the_stream_ends() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    let lines: Vec<(i64, String)> = (0..10).map(|n| (now + n, format!("line {n}"))).collect();
    let lines: Vec<(i64, &str)> = lines.iter().map(|(t, l)| (*t, l.as_str())).collect();
    desk.put("web", &lines, None).await.unwrap();
    let page = |token: Option<String>, head: bool| {
        desk.get(logs::GetLogEventsRequest {
            limit: Some(4),
            next_token: token,
            start_from_head: Some(head),
            ..of("web")
        })
    };
    let newest = page(None, false).await;
    assert_eq!(texts(&newest), ["line 6", "line 7", "line 8", "line 9"]);
    let at_end = page(newest.next_forward_token.clone(), true).await;
    assert!(texts(&at_end).is_empty());
    assert_eq!(at_end.next_forward_token, newest.next_forward_token);
    let earlier = page(newest.next_backward_token, false).await;
    assert_eq!(texts(&earlier), ["line 2", "line 3", "line 4", "line 5"]);
    let first = page(earlier.next_backward_token, false).await;
    assert_eq!(texts(&first), ["line 0", "line 1"]);
    let at_start = page(first.next_backward_token.clone(), false).await;
    assert!(texts(&at_start).is_empty());
    assert_eq!(at_start.next_backward_token, first.next_backward_token);
    // What is written later is found behind the token of the end.
    desk.put("web", &[(now + 20, "later")], None).await.unwrap();
    let more = page(at_end.next_forward_token, true).await;
    assert_eq!(texts(&more), ["later"]);

    let ranged = desk
        .get(logs::GetLogEventsRequest {
            start_time: Some(now + 3),
            end_time: Some(now + 5),
            ..of("web")
        })
        .await;
    assert_eq!(texts(&ranged), ["line 3", "line 4"]);
    let event = ranged.events.unwrap().remove(0);
    assert_eq!(
        (event.timestamp, event.ingestion_time),
        (Some(now + 3), Some(now))
    );

    let forged = logs::GetLogEventsRequest {
        next_token: Some(format!("f/{}/s", "1".repeat(56))),
        ..of("web")
    };
    assert_eq!(
        refusal(desk.logs.get_log_events(&desk.ctx(), forged).await),
        pair(
            "InvalidParameterException",
            "The specified nextToken is invalid."
        )
    );
    let both = logs::GetLogEventsRequest {
        log_group_identifier: Some(GROUP.into()),
        ..of("web")
    };
    assert_eq!(
        refusal(desk.logs.get_log_events(&desk.ctx(), both).await).0,
        "InvalidParameterException"
    );
    let neither = logs::GetLogEventsRequest {
        log_group_name: None,
        ..of("web")
    };
    assert_eq!(
        refusal(desk.logs.get_log_events(&desk.ctx(), neither).await).0,
        "InvalidParameterException"
    );
}

#[tokio::test]
async fn a_page_holds_one_mebibyte_and_paging_still_finds_everything() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    let large = "x".repeat(300_000);
    for n in 0..4 {
        let at = now + n;
        desk.put("web", &[(at, &large), (at, &large), (at, "small")], None)
            .await
            .unwrap();
    }
    let page = desk
        .get(logs::GetLogEventsRequest {
            start_from_head: Some(true),
            ..of("web")
        })
        .await;
    let bytes: usize = texts(&page).iter().map(|text| text.len() + 26).sum();
    assert!(bytes <= 1_048_576, "{bytes}");
    assert_eq!(desk.messages("web").await.len(), 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Batches in any order of time; pages of any size, forward and back again.
    #[test]
    fn paging_visits_each_event_once_in_order(
        batches in prop::collection::vec((0i64..50, prop::collection::vec(0i64..4, 1..8)), 1..8),
        limit in 1i32..7,
    ) {
        run(async move {
            let desk = Desk::with_streams(&["web"]).await;
            let mut expected = Vec::new();
            for (start, steps) in &batches {
                let mut at = desk.now() + start;
                let mut events = Vec::new();
                for step in steps {
                    at += step;
                    events.push((at, format!("{:03}", expected.len() + events.len())));
                }
                let batch: Vec<(i64, &str)> = events.iter().map(|(t, m)| (*t, m.as_str())).collect();
                desk.put("web", &batch, None).await.unwrap();
                expected.extend(events);
            }
            // Messages count up in the order of arrival, so this is the order of AWS.
            expected.sort();
            let expected: Vec<String> = expected.into_iter().map(|(_, message)| message).collect();

            let mut token = None;
            let mut forward = Vec::new();
            loop {
                let page = desk.get(logs::GetLogEventsRequest {
                    limit: Some(limit), start_from_head: Some(true), next_token: token.clone(), ..of("web")
                }).await;
                forward.extend(texts(&page));
                if page.next_forward_token == token {
                    token = page.next_backward_token;
                    break;
                }
                token = page.next_forward_token;
            }
            assert_eq!(forward, expected);
            let mut backward = Vec::new();
            loop {
                let page = desk.get(logs::GetLogEventsRequest {
                    limit: Some(limit), next_token: token.clone(), ..of("web")
                }).await;
                let mut messages = texts(&page);
                messages.reverse();
                backward.extend(messages);
                if page.next_backward_token == token {
                    break;
                }
                token = page.next_backward_token;
            }
            backward.reverse();
            assert_eq!(backward, expected);
        });
    }
}
