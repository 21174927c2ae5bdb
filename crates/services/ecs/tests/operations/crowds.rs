//! Many requests for the same thing at once: each of them is served.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use gantry_api::ecs::{self, Ecs as _};
use gantry_store::{
    Changes, CommitError, MemoryStore, Prefix, Revision, Snapshot, Store, Transaction,
};

use crate::harness::Harness;
use crate::interleavings::Hesitant;

/// More than there are attempts: without turns, the last would be answered with an error.
const CROWD: usize = 100;

fn harness() -> Harness {
    Harness::on(Arc::new(Hesitant::default()), 1)
}

/// Polls each in turn, so that all of them look before the first of them commits.
fn together<T>(crowd: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = crowd.map(Box::pin).collect();
    let mut answers = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 * CROWD {
        waiting.retain_mut(|one| match one.as_mut().poll(&mut context) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() {
            return answers;
        }
    }
    panic!("{} of {CROWD} still wait", waiting.len());
}

#[test]
fn every_registration_of_one_family_gets_a_revision_of_its_own() {
    let harness = harness();
    let ctx = harness.ctx();
    let register = |_| {
        harness
            .service
            .register_task_definition(&ctx, crate::harness::web())
    };
    let answers = together((0..CROWD).map(register));
    let mut revisions: Vec<i32> = answers
        .into_iter()
        .map(|answer| answer.unwrap().task_definition.unwrap().revision.unwrap())
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=CROWD as i32).collect::<Vec<_>>());
}

/// A disk that takes its time: a commit is done when it was asked for so many times.
struct Slow(MemoryStore);

impl Slow {
    const POLLS: usize = 3 * CROWD;
}

#[async_trait]
impl Store for Slow {
    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let mut left = Self::POLLS;
        std::future::poll_fn(|_| match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
        self.0.commit(transaction).await
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        self.0.watch(prefix, after)
    }
}

fn slow() -> Harness {
    Harness::on(Arc::new(Slow(MemoryStore::default())), 1)
}

/// Who waits for one commit goes into the next with the others, instead of waiting in line for a sync of its own.
#[test]
fn registrations_that_come_together_share_commits() {
    let harness = slow();
    let ctx = harness.ctx();
    let revision = || -> u64 {
        let now = harness.store.snapshot().revision().to_string();
        now.parse().expect("revisions are numbers")
    };
    let before = revision();
    let register = |_| {
        harness
            .service
            .register_task_definition(&ctx, crate::harness::web())
    };
    together((0..CROWD).map(register));
    // The first alone, the others by eights.
    assert_eq!(revision() - before, 14);
}

#[test]
fn who_goes_away_takes_no_other_registration_along() {
    let harness = slow();
    let ctx = harness.ctx();
    let register = || {
        Box::pin(
            harness
                .service
                .register_task_definition(&ctx, crate::harness::web()),
        )
    };
    let mut context = Context::from_waker(Waker::noop());
    let mut all: Vec<_> = (0..6).map(|_| register()).collect();
    for one in &mut all {
        assert!(one.as_mut().poll(&mut context).is_pending());
    }
    // The first was being committed, the second had begun the next commit that the others are in.
    all.drain(..2);
    let mut revisions: Vec<i32> = together(all.into_iter())
        .into_iter()
        .map(|answer| answer.unwrap().task_definition.unwrap().revision.unwrap())
        .collect();
    revisions.sort_unstable();
    assert!(
        revisions.windows(2).all(|pair| pair[0] < pair[1]),
        "{revisions:?}"
    );
    let after = together(std::iter::once(register())).remove(0).unwrap();
    let revision = after.task_definition.unwrap().revision.unwrap();
    assert!(revision > *revisions.last().unwrap());
}

/// A change of settings and registrations of instances all write the cluster's row, and tasks expect it.
#[test]
fn changes_of_one_cluster_all_come_through() {
    let harness = harness();
    let ctx = harness.ctx();
    let create = harness
        .service
        .create_cluster(&ctx, ecs::CreateClusterRequest::default());
    together(std::iter::once(create)).remove(0).unwrap();
    let change = |at: usize| {
        let input = ecs::UpdateClusterRequest {
            cluster: "default".to_owned(),
            settings: Some(vec![ecs::ClusterSetting {
                name: Some(ecs::ClusterSettingName::ContainerInsights),
                value: Some(
                    if at.is_multiple_of(2) {
                        "enabled"
                    } else {
                        "disabled"
                    }
                    .to_owned(),
                ),
            }]),
            ..Default::default()
        };
        harness.service.update_cluster(&ctx, input)
    };
    for answer in together((0..CROWD).map(change)) {
        answer.unwrap();
    }
}
