//! The thin shell around the cores: it waits, commits, and performs effects. It decides nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gantry_env::{Env, Timestamp};
use gantry_store::{CommitError, Revision, Store};

use crate::driver::{Drive, Step, Ticket};
use crate::{EffectSink, LeaseKeeper};

type Commits = FuturesUnordered<BoxFuture<'static, (Ticket, Result<Revision, CommitError>)>>;

/// Drives controllers until `stop` ends, each as a task of its own. Commits that are under way
/// when it ends may still be made; they are whole, and the next start goes on from there.
pub async fn run(
    store: Arc<dyn Store>,
    drivers: Vec<Box<dyn Drive>>,
    effects: Arc<dyn EffectSink>,
    env: Env,
    stop: impl Future<Output = ()>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for driver in drivers {
        tasks.spawn(drive(store.clone(), driver, effects.clone(), env.clone()));
    }
    stop.await;
    tasks.shutdown().await;
}

/// Takes and keeps a lease until `stop` ends, then gives it up.
pub async fn run_lease(
    store: Arc<dyn Store>,
    mut keeper: LeaseKeeper,
    env: Env,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let now = env.now();
        if let Some(transaction) = keeper.step(&store.snapshot(), now) {
            let outcome = store.commit(transaction).await;
            keeper.committed(env.now(), &outcome);
            continue;
        }
        tokio::select! {
            () = env.sleep(keeper.next_step().since(now)) => {}
            () = &mut stop => break,
        }
    }
    if let Some(transaction) = keeper.release(&store.snapshot(), env.now())
        && let Err(error) = store.commit(transaction).await
    {
        tracing::info!(%error, "a lease was not given up, and will expire");
    }
}

async fn drive(
    store: Arc<dyn Store>,
    mut driver: Box<dyn Drive>,
    effects: Arc<dyn EffectSink>,
    env: Env,
) {
    let mut commits = Commits::new();
    // The effects of one plan are performed one after the other, in the order of the plan.
    let mut performing: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        let now = env.now();
        let due = match driver.step(now) {
            Step::Commit(ticket, transaction) => {
                let store = store.clone();
                commits.push(Box::pin(async move {
                    (ticket, store.commit(transaction).await)
                }));
                continue;
            }
            Step::Idle(due) => due,
        };
        tokio::select! {
            Some((ticket, outcome)) = commits.next(), if !commits.is_empty() => {
                let planned = driver.committed(env.now(), ticket, outcome);
                if !planned.is_empty() {
                    performing.push(Box::pin(perform(effects.clone(), planned)));
                }
            }
            Some(()) = performing.next(), if !performing.is_empty() => {}
            () = driver.woken() => {}
            () = env.sleep(until(due, now)) => {}
        }
    }
}

async fn perform(sink: Arc<dyn EffectSink>, effects: Vec<crate::Effect>) {
    for effect in &effects {
        if let Err(error) = sink.perform(effect).await {
            tracing::info!(token = %effect.token, operation = effect.operation, %error, "an effect failed, and will be repeated");
        }
    }
}

/// Timers are on the monotonic clock: a wall clock that is set forward must not keep a key waiting
/// for longer than this.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    const LONGEST: Duration = Duration::from_secs(60);
    due.since(now).min(LONGEST)
}
