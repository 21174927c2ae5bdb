//! Registrations of one family that come at the same time are decided together.
//!
//! What always holds: revisions are given in the order of coming, and a registration is answered when the commit
//! that holds it is durable. While one commit of a family is on its way, whoever comes joins the next, so that
//! many share one sync instead of waiting in line for one each. A caller that goes away takes nobody along:
//! those who wait with it carry their commit on.
//! What it leaves to others: checking what is registered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use gantry_api::ecs::{EcsError, RegisterTaskDefinitionRequest, Tag};
use gantry_arn::Family;
use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction};

use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::task_definition::defaults::{Registration, definition};
use crate::service::Committer;
use crate::tables::{FamilyRow, TaskDefinitionRow, task_definition_name};

/// How many one commit takes. A definition has at most 64 KiB, and a commit at most 1 MiB.
const TOGETHER_MAX: usize = 8;

/// Somebody's registration, checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub input: RegisterTaskDefinitionRequest,
    pub tags: Vec<Tag>,
    pub at: Timestamp,
    pub by: String,
}

type Place = (Scope, Family);
type Registered = Result<Arc<[TaskDefinitionRow]>, EcsError>;
type Commit = Shared<BoxFuture<'static, Registered>>;

/// Those whom the next commit takes; `None` once it has begun.
type Joining = Arc<Mutex<Option<Vec<Wanted>>>>;

/// The families of which something is being registered.
#[derive(Clone, Default)]
pub(crate) struct Registrations {
    lines: Arc<Mutex<BTreeMap<Place, Line>>>,
}

/// The last commit of a family that was begun or waits for the one before it.
struct Line {
    commit: WeakShared<BoxFuture<'static, Registered>>,
    joining: Joining,
}

impl Registrations {
    /// Registers the next revision of the family.
    pub async fn register(
        &self,
        committer: &Committer,
        scope: Scope,
        family: Family,
        wanted: Wanted,
    ) -> Result<TaskDefinitionRow, EcsError> {
        let (commit, place) = self.join(committer, (scope, family), wanted);
        let rows = commit.await?;
        let row = rows.get(place).cloned();
        row.ok_or_else(|| EcsError::server_exception("The registration was lost. Try again."))
    }

    /// The commit that takes this one, and its place in it.
    fn join(&self, committer: &Committer, place: Place, wanted: Wanted) -> (Commit, usize) {
        let mut lines = self.lock();
        let before = lines
            .get(&place)
            .and_then(|line| Some((line.commit.upgrade()?, line.joining.clone())));
        let before = match before {
            Some((commit, joining)) => {
                let mut waiting = lock(&joining);
                match waiting.as_mut() {
                    Some(all) if all.len() < TOGETHER_MAX => {
                        all.push(wanted);
                        return (commit, all.len() - 1);
                    }
                    _ => Some(commit),
                }
            }
            None => None,
        };
        let joining: Joining = Arc::new(Mutex::new(Some(vec![wanted])));
        let leaving = Leaving {
            registrations: self.clone(),
            place: place.clone(),
            joining: joining.clone(),
        };
        let commit = commit(committer.clone(), before, leaving).boxed().shared();
        if let Some(begun) = commit.downgrade() {
            let line = Line {
                commit: begun,
                joining,
            };
            lines.insert(place, line);
        }
        (commit, 0)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Line>> {
        lock(&self.lines)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one was held cannot have left it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a line when its last commit is over, or nobody waits for it any more.
struct Leaving {
    registrations: Registrations,
    place: Place,
    joining: Joining,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut lines = self.registrations.lock();
        let last = lines.get(&self.place);
        if last.is_some_and(|line| Arc::ptr_eq(&line.joining, &self.joining)) {
            lines.remove(&self.place);
        }
    }
}

/// Waits for the commit before, closes the line, and commits all who are in it.
async fn commit(committer: Committer, before: Option<Commit>, leaving: Leaving) -> Registered {
    if let Some(before) = before {
        // Those before have had their own answer.
        let _ = before.await;
    }
    let all = lock(&leaving.joining).take().unwrap_or_default();
    let (scope, family) = &leaving.place;
    committer
        .transact(|snapshot| Ok(decide(snapshot, scope, family, &all)))
        .await
}

fn decide(
    snapshot: &Snapshot,
    scope: &Scope,
    family: &Family,
    all: &[Wanted],
) -> (Transaction, Arc<[TaskDefinitionRow]>) {
    let rows = Rows::new(snapshot, scope);
    let (account, region) = (&scope.account, &scope.region);
    let before = rows.read::<FamilyRow>(family.as_str());
    let first = before.as_ref().map_or(1, |row| row.next_revision);
    let mut transaction = Transaction::new();
    let registered: Vec<TaskDefinitionRow> = all
        .iter()
        .zip(first..)
        .map(|(wanted, revision)| {
            let registration = Registration {
                arn: scope.task_definition_arn(family, revision),
                revision,
                registered_at: wanted.at,
                registered_by: wanted.by.clone(),
            };
            let row = TaskDefinitionRow {
                definition: definition(wanted.input.clone(), registration),
                tags: wanted.tags.clone(),
            };
            let name = task_definition_name(family, revision);
            transaction.create::<TaskDefinitionRow>(account, region, &name, &row);
            row
        })
        .collect();
    let next = FamilyRow {
        family: family.clone(),
        next_revision: (first..).nth(registered.len()).unwrap_or(first),
    };
    match &before {
        Some(read) => transaction.update::<FamilyRow>(read, &next),
        None => transaction.create::<FamilyRow>(account, region, family.as_str(), &next),
    };
    (transaction, registered.into())
}
