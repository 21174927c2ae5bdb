//! Events put: batches of bad form, many writers, restarts, and what an agent repeats.

use crate::desk::{Desk, pair, refusal};
use crate::run;
use gantry_api::logs::{self};
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

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
