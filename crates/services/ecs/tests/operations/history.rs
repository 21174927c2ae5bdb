//! The history of services: everything once, in order, through restarts, and for as long as it is kept.

use std::path::Path;
use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_archive::Archive;
use gantry_arn::{ClusterName, ServiceName};
use gantry_ecs::controllers::Services;
use gantry_ecs::history::History;
use gantry_ecs::tables::{ChangeKind, StateChange, StateChangesRow};
use gantry_env::Timestamp;
use gantry_reconcile::Controller;
use gantry_store::Table;

use crate::harness::{Harness, done};

const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn with_a_service() -> Harness {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let input = ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(3),
        ..Default::default()
    };
    done(harness.service.create_service(&harness.ctx(), input)).unwrap();
    reconcile(&harness);
    harness
}

fn reconcile(harness: &Harness) {
    let services = Services::of(&harness.service);
    for _ in 0..20 {
        for key in services.all_keys(&harness.store.snapshot()) {
            let snapshot = harness.store.snapshot();
            let plan = services.reconcile(&snapshot, harness.env.now(), &key);
            done(harness.store.commit(plan.transaction)).unwrap();
        }
    }
}

fn scale(harness: &Harness, count: i32) {
    let input = ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        desired_count: Some(count),
        ..Default::default()
    };
    done(harness.service.update_service(&harness.ctx(), input)).unwrap();
    reconcile(harness);
}

/// A history as a process that was just started has it.
async fn opened(harness: &Harness, folder: &Path) -> History {
    let archive = Archive::open(folder, harness.env.env()).await.unwrap();
    History::new(harness.store.clone(), archive, harness.env.env(), KEPT)
}

async fn all(history: &History, harness: &Harness, service: &str) -> Vec<StateChange> {
    let (scope, cluster) = (harness.scope(), ClusterName::default());
    let service: ServiceName = service.parse().unwrap();
    let (mut events, mut from) = (Vec::new(), Some(0));
    while let Some(offset) = from {
        let page = history.page(&scope, &cluster, &service, Timestamp::EPOCH, offset);
        let (page, next) = page.await.unwrap();
        events.extend(page);
        from = next;
    }
    events
}

/// Every event of services that has a row, in order.
fn rows(harness: &Harness) -> Vec<String> {
    let mut rows = harness
        .store
        .snapshot()
        .list_everywhere::<StateChangesRow>();
    rows.sort_by_key(|row| row.revision);
    let events = rows.iter().flat_map(|row| row.events.clone());
    events
        .filter(|it| it.service.is_some())
        .map(|it| it.id)
        .collect()
}

fn ids(events: &[StateChange]) -> Vec<String> {
    events.iter().map(|it| it.id.clone()).collect()
}

#[test]
fn every_event_is_kept_once_and_in_order_through_restarts() {
    let harness = with_a_service();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        {
            let history = opened(&harness, folder.path()).await;
            history.catch_up(&harness.store.snapshot()).await.unwrap();
            // Again, as after a commit whose answer was lost.
            history.catch_up(&harness.store.snapshot()).await.unwrap();
            assert_eq!(ids(&all(&history, &harness, "web").await), rows(&harness));
        }
        scale(&harness, 5);
        let history = opened(&harness, folder.path()).await;
        let name = "web".parse().unwrap();
        let (scope, cluster) = (harness.scope(), ClusterName::default());
        // Whoever asks is told what was not written down yet as well.
        assert!(history.is_known(&scope, &cluster, &name).await.unwrap());
        let told = all(&history, &harness, "web").await;
        assert_eq!(ids(&told), rows(&harness));
        let asked = told.iter().filter(|it| it.kind == ChangeKind::Request);
        let asked: Vec<_> = asked.map(|it| it.detail["message"].clone()).collect();
        assert_eq!(
            asked,
            [
                "created with desired count 3 of web:1",
                "desired count 3 → 5"
            ]
        );
        let other = "other".parse().unwrap();
        assert!(!history.is_known(&scope, &cluster, &other).await.unwrap());
    });
}

#[test]
fn it_outlives_the_rows_and_ends_when_it_is_no_longer_kept() {
    let harness = with_a_service();
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let history = opened(&harness, folder.path()).await;
        history.catch_up(&harness.store.snapshot()).await.unwrap();
        let told = ids(&all(&history, &harness, "web").await);
        assert!(told.len() > 5, "{told:?}");
        // The rows go after an hour, the history stays.
        let mut transaction = gantry_store::Transaction::new();
        let snapshot = harness.store.snapshot();
        for row in snapshot.scan(&StateChangesRow::everywhere()) {
            transaction.delete(row.key().clone());
        }
        harness.store.commit(transaction).await.unwrap();
        harness.env.advance(KEPT - Duration::from_secs(1));
        history.sweep().await.unwrap();
        assert_eq!(ids(&all(&history, &harness, "web").await), told);
        harness.env.advance(Duration::from_secs(2));
        assert!(all(&history, &harness, "web").await.is_empty());
        history.sweep().await.unwrap();
        let (scope, cluster) = (harness.scope(), ClusterName::default());
        let name = "web".parse().unwrap();
        assert!(!history.is_known(&scope, &cluster, &name).await.unwrap());
    });
}
