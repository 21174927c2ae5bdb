//! What retention hides and deletes.

use std::time::Duration;

use crate::desk::{Desk, GROUP, refusal};
use gantry_api::logs::{self, Logs};

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
