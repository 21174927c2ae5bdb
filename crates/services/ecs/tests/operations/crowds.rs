//! Many requests for the same thing at once: each of them is served.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use gantry_api::ecs::{self, Ecs as _};

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
