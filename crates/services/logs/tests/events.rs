//! Events from outside: put, read page by page, merged, expired.

mod desk;

use std::time::Duration;

use desk::{Desk, GROUP, of, pair, refusal, texts};
use gantry_api::logs::{self, Logs};
use proptest::prelude::*;

#[tokio::test]
async fn batches_of_bad_form_change_nothing() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    assert_eq!(
        refusal(desk.put("web", &[(now, "b"), (now - 1, "a")], None).await),
        pair(
            "InvalidParameterException",
            "Log events in a single PutLogEvents request must be in chronological order."
        )
    );
    assert_eq!(
        refusal(desk.put("ghost", &[(now, "x")], None).await),
        pair(
            "ResourceNotFoundException",
            "The specified log stream does not exist."
        )
    );
    let large = "x".repeat(600_000);
    assert_eq!(
        refusal(
            desk.put("web", &[(now, large.as_str()), (now, large.as_str())], None)
                .await
        ),
        pair(
            "InvalidParameterException",
            "Upload too large: 1200052 bytes exceeds limit of 1048576"
        )
    );
    assert!(desk.messages("web").await.is_empty());
}

#[tokio::test]
async fn events_too_old_or_too_new_are_reported_and_the_rest_is_kept() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    let hour = 60 * 60 * 1000;
    let answer = desk
        .put(
            "web",
            &[
                (now - 15 * 24 * hour, "old"),
                (now, "good"),
                (now + 3 * hour, "new"),
            ],
            None,
        )
        .await
        .unwrap();
    let rejected = answer.rejected_log_events_info.unwrap();
    assert_eq!(rejected.too_old_log_event_end_index, Some(1));
    assert_eq!(rejected.too_new_log_event_start_index, Some(2));
    assert_eq!(rejected.expired_log_event_end_index, None);
    assert!(answer.next_sequence_token.is_some());
    assert_eq!(desk.messages("web").await, ["good"]);
}

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

#[tokio::test]
async fn retention_hides_at_once_and_deletes_later() {
    let desk = Desk::with_streams(&["web"]).await;
    let day = Duration::from_secs(24 * 60 * 60);
    desk.put("web", &[(desk.now(), "first day")], None)
        .await
        .unwrap();
    desk.world.advance(day * 4);
    desk.put("web", &[(desk.now(), "fifth day")], None)
        .await
        .unwrap();
    let put = |days| logs::PutRetentionPolicyRequest {
        log_group_name: GROUP.into(),
        retention_in_days: days,
    };
    let (code, message) = refusal(desk.logs.put_retention_policy(&desk.ctx(), put(4)).await);
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message.contains("Value '4' at 'retentionInDays'"),
        "{message}"
    );
    desk.logs
        .put_retention_policy(&desk.ctx(), put(3))
        .await
        .unwrap();
    assert_eq!(desk.messages("web").await, ["fifth day"]);
    let merged = desk
        .filter(Default::default())
        .await
        .unwrap()
        .events
        .unwrap();
    assert_eq!(merged.len(), 1);
    let late = desk
        .put("web", &[(desk.now() - 4 * 86_400_000, "late")], None)
        .await
        .unwrap();
    assert_eq!(
        late.rejected_log_events_info
            .unwrap()
            .expired_log_event_end_index,
        Some(1)
    );

    // A longer policy shows again what has not been deleted yet; housekeeping makes it final.
    let delete = logs::DeleteRetentionPolicyRequest {
        log_group_name: GROUP.into(),
    };
    desk.logs
        .delete_retention_policy(&desk.ctx(), delete.clone())
        .await
        .unwrap();
    assert_eq!(desk.messages("web").await.len(), 2);
    desk.logs
        .put_retention_policy(&desk.ctx(), put(3))
        .await
        .unwrap();
    assert_eq!(desk.logs.keep_house_once().await.unwrap().expired_events, 1);
    assert_eq!(
        desk.logs.keep_house_once().await.unwrap(),
        Default::default()
    );
    desk.logs
        .delete_retention_policy(&desk.ctx(), delete)
        .await
        .unwrap();
    assert_eq!(desk.messages("web").await, ["fifth day"]);
}

#[tokio::test]
async fn what_a_cut_off_deletion_left_behind_is_cleared_away() {
    use gantry_logs::tables::LogGroups;
    use gantry_store::Transaction;

    let desk = Desk::with_streams(&["a", "b"]).await;
    desk.put("a", &[(desk.now(), "x")], None).await.unwrap();
    // The process died after the group's row was gone and before anything else was.
    let mut cut_off = Transaction::new();
    let ctx = desk.ctx();
    cut_off.remove::<LogGroups>(&ctx.account, &ctx.region, GROUP);
    desk.store.commit(cut_off).await.unwrap();
    // A new group of the same name does not inherit.
    desk.group(GROUP).await.unwrap();
    desk.stream(GROUP, "a").await.unwrap();
    assert!(desk.messages("a").await.is_empty());
    let kept = desk.logs.keep_house_once().await.unwrap();
    assert_eq!((kept.orphaned_rows, kept.orphaned_streams), (1, 1));
    desk.put("a", &[(desk.now(), "new")], None).await.unwrap();
    assert_eq!(
        desk.logs.keep_house_once().await.unwrap(),
        Default::default()
    );
    assert_eq!(desk.messages("a").await, ["new"]);
}

#[tokio::test]
async fn many_writers_of_one_stream_lose_nothing() {
    let desk = std::sync::Arc::new(Desk::with_streams(&["web"]).await);
    let mut writers = Vec::new();
    for writer in 0..16 {
        let desk = desk.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..8 {
                let line = format!("{writer:02} {n}");
                desk.put("web", &[(desk.now(), &line)], None).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut messages = desk.messages("web").await;
    // Lines of one writer are in its order.
    for writer in 0..16 {
        let own: Vec<_> = messages
            .iter()
            .filter(|m| m.starts_with(&format!("{writer:02}")))
            .collect();
        assert!(own.is_sorted() && own.len() == 8);
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 128);
}

#[tokio::test]
async fn acknowledged_events_and_marks_survive_a_restart() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    desk.put("web", &[(now, "one"), (now, "two")], Some("gantry:s:0-10"))
        .await
        .unwrap();
    let Desk {
        world,
        store,
        archive,
        logs,
        directory,
    } = desk;
    drop((archive, logs));
    let archive = gantry_archive::Archive::open(directory.path(), world.env())
        .await
        .unwrap();
    let desk = Desk {
        logs: gantry_logs::LogsService::new(store.clone(), archive.clone(), world.env()),
        world,
        store,
        archive,
        directory,
    };
    // The agent did not hear the answer, and sends it again with what has come since.
    let more = [(now, "one"), (now, "two"), (now, "three")];
    let (code, message) = refusal(desk.put("web", &more, Some("gantry:s:0-15")).await);
    assert_eq!(code, "InvalidSequenceTokenException");
    assert!(message.ends_with(": gantry:s:10"), "{message}");
    desk.put("web", &more[2..], Some("gantry:s:10-15"))
        .await
        .unwrap();
    assert_eq!(desk.messages("web").await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_repeat_is_held_and_an_overlap_says_where_to_go_on() {
    let desk = Desk::with_streams(&["web"]).await;
    let now = desk.now();
    let a = [(now, "a1"), (now, "a2")];
    desk.put("web", &a, Some("gantry:s:0-6")).await.unwrap();
    let again = desk.put("web", &a, Some("gantry:s:0-6")).await.unwrap();
    assert_eq!(again.next_sequence_token.as_deref(), Some("gantry:s:6"));
    desk.put("web", &[(now, "b")], Some("gantry:s:6-8"))
        .await
        .unwrap();
    let overlap = desk.put("web", &[(now, "?")], Some("gantry:s:0-20")).await;
    assert_eq!(
        refusal(overlap.clone()),
        pair(
            "InvalidSequenceTokenException",
            "The given sequenceToken is invalid. The next expected sequenceToken is: gantry:s:8"
        )
    );
    let Err(logs::LogsError::InvalidSequenceTokenException(exception)) = overlap else {
        panic!("{overlap:?}");
    };
    assert_eq!(
        exception.expected_sequence_token.as_deref(),
        Some("gantry:s:8")
    );
    // Another spool of the same stream, and clients with tokens of their own, are not confused.
    desk.put("web", &[(now, "c")], Some("gantry:t:0-2"))
        .await
        .unwrap();
    desk.put("web", &[(now, "d")], Some("4959030293850495"))
        .await
        .unwrap();
    desk.put("web", &[(now, "d")], None).await.unwrap();
    assert_eq!(desk.messages("web").await, ["a1", "a2", "b", "c", "d", "d"]);
    // A batch of which nothing is taken still moves the mark: it need not be sent for ever.
    let old = [(now - 30 * 86_400_000, "old")];
    let answer = desk.put("web", &old, Some("gantry:s:8-12")).await.unwrap();
    assert_eq!(answer.next_sequence_token.as_deref(), Some("gantry:s:12"));
    assert!(answer.rejected_log_events_info.is_some());
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
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

    /// An agent whose answers get lost, whose memory of what was acknowledged is older than what
    /// is held, and which cuts its batches anew each time.
    #[test]
    fn a_spool_is_stored_once_whatever_is_repeated(
        steps in prop::collection::vec((0usize..30, 1usize..10, any::<bool>()), 1..40),
    ) {
        run(async move {
            let desk = Desk::with_streams(&["web"]).await;
            let now = desk.now();
            let lines: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
            // Line n stands at bytes 10n to 10n + 10 of the spool.
            let mut acknowledged = 0;
            for (back, length, answer_heard) in steps {
                let start = acknowledged - back.min(acknowledged);
                let end = (start + length).min(lines.len());
                if start == end {
                    continue;
                }
                let batch: Vec<(i64, &str)> =
                    lines[start..end].iter().map(|line| (now, line.as_str())).collect();
                let token = format!("gantry:spool:{}-{}", start * 10, end * 10);
                let held = match desk.put("web", &batch, Some(&token)).await {
                    Ok(answer) => answer.next_sequence_token,
                    Err(logs::LogsError::InvalidSequenceTokenException(exception)) => {
                        exception.expected_sequence_token
                    }
                    Err(error) => panic!("{error}"),
                };
                let held = held.unwrap();
                let held: usize = held.rsplit(':').next().unwrap().parse().unwrap();
                if answer_heard {
                    acknowledged = held / 10;
                }
                assert_eq!(desk.messages("web").await, lines[..held / 10]);
            }
        });
    }
}
