//! Operations that run at the same time, on several replicas, in every order: what must hold then.
//!
//! The store hands control back before each commit, so a schedule drawn at random decides who
//! commits between another's look and its commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use gantry_api::ecs::{self, Ecs as _, EcsError};
use gantry_arn::ClusterName;
use gantry_ecs::tables::{AllocationRow, TaskReportRow, TaskRow, cluster_prefix};
use gantry_store::{
    Changes, CommitError, MemoryStore, Prefix, Revision, Snapshot, Store, Transaction,
};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use crate::harness::{Harness, report, run};

/// Lets others run between a look and the commit that rests on it.
#[derive(Default)]
pub struct Hesitant(MemoryStore);

struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[async_trait]
impl Store for Hesitant {
    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        Yield(false).await;
        self.0.commit(transaction).await
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        self.0.watch(prefix, after)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Run {
        replica: usize,
        count: i32,
        cpu: i32,
        memory: i32,
    },
    Stop {
        replica: usize,
        task: usize,
    },
    Report {
        replica: usize,
        task: usize,
        status: &'static str,
    },
    Drain {
        replica: usize,
        instance: usize,
        status: &'static str,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let replica = 0..3usize;
    let status = prop_oneof![Just("RUNNING"), Just("STOPPED"), Just("STOPPED")];
    let drain = prop_oneof![Just("ACTIVE"), Just("DRAINING")];
    prop_oneof![
        4 => (replica.clone(), 1..6i32, 0..700i32, 6..900i32)
            .prop_map(|(replica, count, cpu, memory)| Step::Run { replica, count, cpu, memory }),
        2 => (replica.clone(), 0..30usize).prop_map(|(replica, task)| Step::Stop { replica, task }),
        4 => (replica.clone(), 0..30usize, status)
            .prop_map(|(replica, task, status)| Step::Report { replica, task, status }),
        1 => (replica, 0..2usize, drain)
            .prop_map(|(replica, instance, status)| Step::Drain { replica, instance, status }),
    ]
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, EcsError>> + 'a>>;

fn start<'a>(
    replicas: &'a [Harness],
    instances: &'a [String],
    tasks: &[String],
    step: &Step,
) -> Option<Running<'a>> {
    match *step {
        Step::Run {
            replica,
            count,
            cpu,
            memory,
        } => {
            let mut input = run("web");
            input.count = Some(count);
            input.overrides = Some(ecs::TaskOverride {
                container_overrides: Some(vec![ecs::ContainerOverride {
                    name: Some("web".to_owned()),
                    cpu: Some(cpu),
                    memory: Some(memory),
                    ..Default::default()
                }]),
                ..Default::default()
            });
            Some(Box::pin(async move {
                let harness = &replicas[replica];
                let answer = harness.service.run_task(&harness.ctx(), input).await?;
                Ok(answer
                    .tasks
                    .unwrap()
                    .into_iter()
                    .map(|task| task.task_arn.unwrap())
                    .collect())
            }))
        }
        Step::Stop { replica, task } => {
            let task = tasks.get(task)?.clone();
            Some(Box::pin(async move {
                let harness = &replicas[replica];
                let input = ecs::StopTaskRequest {
                    task,
                    ..Default::default()
                };
                harness
                    .service
                    .stop_task(&harness.ctx(), input)
                    .await
                    .map(|_| Vec::new())
            }))
        }
        Step::Report {
            replica,
            task,
            status,
        } => {
            let task = tasks.get(task)?.clone();
            Some(Box::pin(async move {
                let harness = &replicas[replica];
                let input = report(&task, status, (status == "STOPPED").then_some(0));
                harness
                    .service
                    .submit_task_state_change(&harness.ctx(), input)
                    .await?;
                Ok(Vec::new())
            }))
        }
        Step::Drain {
            replica,
            instance,
            status,
        } => Some(Box::pin(async move {
            let harness = &replicas[replica];
            let input = ecs::UpdateContainerInstancesStateRequest {
                cluster: None,
                container_instances: vec![instances[instance].clone()],
                status: status.into(),
            };
            harness
                .service
                .update_container_instances_state(&harness.ctx(), input)
                .await?;
            Ok(Vec::new())
        })),
    }
}

const CPU: i32 = 2000;
const MEMORY: i32 = 3000;

/// What must hold after every commit: no instance holds more than it registered, every task that
/// has not stopped holds its share, and no status is lower than it was.
fn check(harness: &Harness, seen: &mut std::collections::BTreeMap<String, String>) {
    let (snapshot, scope) = (harness.store.snapshot(), harness.scope());
    let prefix = cluster_prefix(&ClusterName::default());
    let tasks = snapshot.list_prefix::<TaskRow>(&scope.account, &scope.region, &prefix);
    let report = |name: &str| snapshot.read::<TaskReportRow>(&scope.account, &scope.region, name);
    let stopped = |name: &str| report(name).is_some_and(|row| row.status.is_stopped());
    for row in snapshot.list_prefix::<AllocationRow>(&scope.account, &scope.region, &prefix) {
        let holds = |task: &&std::sync::Arc<TaskRow>| {
            row.name().ends_with(task.container_instance.as_str())
        };
        let mut sums = (0, 0);
        let rows: Vec<_> = tasks
            .iter()
            .map(|task| (task.name(), task.row.clone()))
            .collect();
        for (name, task) in rows.iter().filter(|(_, task)| holds(&task)) {
            if stopped(name) {
                continue;
            }
            let entry = row
                .tasks
                .get(&task.id)
                .expect("a live task without its share");
            sums = (sums.0 + entry.cpu, sums.1 + entry.memory);
        }
        assert!(
            sums.0 <= i64::from(CPU) && sums.1 <= i64::from(MEMORY),
            "oversubscribed: {sums:?}"
        );
    }
    for task in &tasks {
        let status = report(task.name())
            .map(|row| row.status.as_str())
            .unwrap_or("PENDING");
        let before = seen.insert(task.name().to_owned(), status.to_owned());
        let rank = |status: &str| {
            status
                .parse::<gantry_ecs::model::last_status::LastStatus>()
                .unwrap()
        };
        if let Some(before) = before {
            assert!(rank(status) >= rank(&before), "{} went back", task.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_instance_is_ever_oversubscribed_whoever_commits_in_between(
        steps in proptest::collection::vec(any_step(), 1..60),
        schedule in proptest::collection::vec(any::<u16>(), 64),
    ) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let setup = Harness::on(store.clone(), 0);
        setup.create_cluster("default");
        let instances = [setup.register_instance(CPU, MEMORY), setup.register_instance(CPU, MEMORY)];
        setup.register_web();
        // The replicas share rows that were made before, through stores that hesitate.
        let hesitant: Arc<dyn Store> = Arc::new(Hesitant(copy(&store)));
        let replicas: Vec<Harness> =
            (1..=3).map(|seed| Harness::on(hesitant.clone(), seed)).collect();

        let (mut tasks, mut seen) = (Vec::new(), std::collections::BTreeMap::new());
        let mut running: Vec<Running<'_>> = Vec::new();
        let mut waiting = steps.iter();
        let mut turns = schedule.iter().cycle();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            while running.len() < 8 {
                let Some(step) = waiting.next() else { break };
                running.extend(start(&replicas, &instances, &tasks, step));
            }
            if running.is_empty() {
                break;
            }
            let at = usize::from(*turns.next().unwrap()) % running.len();
            if let Poll::Ready(answer) = running[at].as_mut().poll(&mut context) {
                drop(running.swap_remove(at));
                tasks.extend(answer.expect("only the placing can fail, and it says so in failures"));
            }
            check(&replicas[0], &mut seen);
        }
    }
}

#[test]
fn a_cluster_is_not_deleted_under_an_instance_that_registers() {
    let setup = Harness::new();
    setup.create_cluster("default");
    let hesitant: Arc<dyn Store> = Arc::new(Hesitant(copy(&setup.store)));
    let harness = Harness::on(hesitant, 1);
    let (context, mut waker) = (harness.ctx(), Context::from_waker(Waker::noop()));
    let input = ecs::DeleteClusterRequest {
        cluster: "default".to_owned(),
    };
    let mut delete = Box::pin(harness.service.delete_cluster(&context, input));
    // It has looked, and found nothing in the cluster.
    assert!(delete.as_mut().poll(&mut waker).is_pending());
    let input = ecs::RegisterContainerInstanceRequest {
        total_resources: Some(crate::harness::resources(1, 1)),
        ..Default::default()
    };
    let mut register = Box::pin(harness.service.register_container_instance(&context, input));
    assert!(register.as_mut().poll(&mut waker).is_pending());
    assert!(matches!(
        register.as_mut().poll(&mut waker),
        Poll::Ready(Ok(_))
    ));
    let refused = loop {
        if let Poll::Ready(answer) = delete.as_mut().poll(&mut waker) {
            break crate::harness::refusal(answer);
        }
    };
    assert_eq!(refused.0, "ClusterContainsContainerInstancesException");
}

/// A store with the same rows that lets others run before each commit.
pub fn hesitant(store: &Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Hesitant(copy(store)))
}

/// A memory store with the same rows.
fn copy(store: &Arc<dyn Store>) -> MemoryStore {
    let copy = MemoryStore::new();
    let snapshot = store.snapshot();
    let prefix = Prefix::service_everywhere("ecs");
    let mut transaction = Transaction::new();
    for row in snapshot.scan(&prefix) {
        transaction.put(row.key().clone(), row.schema(), row.value().clone());
    }
    crate::harness::done(copy.commit(transaction)).unwrap();
    copy
}

/// Polls until it is done.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
    }
}

#[test]
fn a_placement_that_can_only_go_where_another_is_being_committed_waits_for_it() {
    use futures_util::FutureExt;

    let harness = Harness::on(Arc::new(Hesitant(MemoryStore::new())), 1);
    let ctx = harness.ctx();
    finish(async {
        let cluster = ecs::CreateClusterRequest::default();
        harness.service.create_cluster(&ctx, cluster).await.unwrap();
        let instance = ecs::RegisterContainerInstanceRequest {
            total_resources: Some(crate::harness::resources(600, 4096)),
            ..Default::default()
        };
        let service = &harness.service;
        let instance = service.register_container_instance(&ctx, instance).await;
        let arn = instance
            .unwrap()
            .container_instance
            .unwrap()
            .container_instance_arn
            .unwrap();
        let definition = service
            .register_task_definition(&ctx, crate::harness::web())
            .await;
        definition.unwrap();
        let session = gantry_ecs::tables::AcsSessionRow {
            session: 1,
            connected: true,
            ..Default::default()
        };
        let name = format!("default/{}", arn.rsplit('/').next().unwrap());
        let mut transaction = Transaction::new();
        transaction.write::<gantry_ecs::tables::AcsSessionRow>(
            &ctx.account,
            &ctx.region,
            &name,
            &session,
        );
        harness.store.commit(transaction).await.unwrap();
    });

    let mut first = harness.service.run_task(&ctx, run("web")).boxed();
    let mut second = harness.service.run_task(&ctx, run("web")).boxed();
    let mut abandoned = harness.service.run_task(&ctx, run("web")).boxed();
    let mut context = Context::from_waker(Waker::noop());
    let placed = |answer: Poll<Result<ecs::RunTaskResponse, EcsError>>| match answer {
        Poll::Ready(answer) => Some(answer.unwrap().tasks.unwrap().len()),
        Poll::Pending => None,
    };
    // One that is given up in the middle of its commit holds nobody up.
    assert_eq!(placed(abandoned.as_mut().poll(&mut context)), None);
    drop(abandoned);
    assert_eq!(placed(first.as_mut().poll(&mut context)), None);
    // However often it looks, it neither conflicts nor takes what the first one takes.
    for _ in 0..100 {
        assert_eq!(placed(second.as_mut().poll(&mut context)), None);
    }
    assert_eq!(placed(first.as_mut().poll(&mut context)), Some(1));
    assert_eq!(placed(second.as_mut().poll(&mut context)), None);
    assert_eq!(placed(second.as_mut().poll(&mut context)), Some(1));
    // 600 CPU units hold two of 256.
    let third = finish(harness.service.run_task(&ctx, run("web")));
    assert_eq!(third.unwrap().tasks.unwrap().len(), 0);
}
