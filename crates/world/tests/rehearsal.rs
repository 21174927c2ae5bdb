//! Rehearsals on a copy of a small cluster: how they end, what they tell, and that the real state stays as it is.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_api::{Principal, RequestContext};
use gantry_arn::{AccountId, Arn, Region};
use gantry_ecs::EcsService;
use gantry_ecs::model::reference::Scope;
use gantry_ecs::tables::{AcsSessionRow, ChangeKind, container_instance_name};
use gantry_env::{Timestamp, VirtualEnv};
use gantry_store::{MemoryStore, Store, Transaction};
use gantry_world::rehearsal::{
    Assumptions, Change, CopiedRow, Fate, Outcome, Rehearsal, Report, Wrong,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A cluster with instances of 1 vCPU and 1 GiB each.
struct Real {
    venv: VirtualEnv,
    store: Arc<dyn Store>,
    ecs: EcsService,
}

impl Real {
    fn with_instances(count: usize) -> Self {
        let venv = VirtualEnv::seeded(1);
        venv.set_wall_clock(NOW);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let ecs = EcsService::new(store.clone(), venv.env(), Default::default());
        let real = Self { venv, store, ecs };
        real.done(real.ecs.create_cluster(&context(), Default::default()));
        for _ in 0..count {
            real.register_instance();
        }
        real
    }

    fn done<T, E: std::fmt::Debug>(&self, call: impl Future<Output = Result<T, E>>) -> T {
        self.venv.block_on(call).unwrap().unwrap()
    }

    fn register_instance(&self) {
        let number = |name: &str, value| ecs::Resource {
            name: Some(name.to_owned()),
            r#type: Some("INTEGER".to_owned()),
            integer_value: Some(value),
            ..Default::default()
        };
        let capability = |name: &str| ecs::Attribute {
            name: name.to_owned(),
            ..Default::default()
        };
        let input = ecs::RegisterContainerInstanceRequest {
            total_resources: Some(vec![number("CPU", 1024), number("MEMORY", 1024)]),
            attributes: Some(vec![
                capability("ecs.capability.container-health-check"),
                capability("com.amazonaws.ecs.capability.docker-remote-api.1.18"),
                capability("com.amazonaws.ecs.capability.docker-remote-api.1.21"),
                capability("com.amazonaws.ecs.capability.docker-remote-api.1.24"),
            ]),
            ..Default::default()
        };
        let made = self.done(self.ecs.register_container_instance(&context(), input));
        let arn = made
            .container_instance
            .unwrap()
            .container_instance_arn
            .unwrap();
        let cluster = "default".parse().unwrap();
        let id = arn.rsplit('/').next().unwrap().parse().unwrap();
        let row = AcsSessionRow {
            session: 1,
            connected: true,
            ..Default::default()
        };
        let mut transaction = Transaction::new();
        let name = container_instance_name(&cluster, &id);
        let scope = Scope::of(&context());
        transaction.write::<AcsSessionRow>(&scope.account, &scope.region, &name, &row);
        self.done(self.store.commit(transaction));
    }

    /// A revision of `web`, of 256 CPU units and 256 MiB.
    fn register(&self, host_port: Option<i32>, check: bool) {
        let container = ecs::ContainerDefinition {
            name: Some("web".to_owned()),
            image: Some("busybox".to_owned()),
            cpu: Some(256),
            memory: Some(256),
            port_mappings: host_port.map(|port| {
                vec![ecs::PortMapping {
                    container_port: Some(port),
                    host_port: Some(port),
                    ..Default::default()
                }]
            }),
            health_check: check.then(|| ecs::HealthCheck {
                command: vec!["CMD".to_owned(), "true".to_owned()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let input = ecs::RegisterTaskDefinitionRequest {
            family: "web".to_owned(),
            network_mode: Some(ecs::NetworkMode::Host),
            container_definitions: vec![container],
            ..Default::default()
        };
        self.done(self.ecs.register_task_definition(&context(), input));
    }

    fn rows(&self) -> Vec<CopiedRow> {
        CopiedRow::all(&self.store.snapshot(), &Scope::of(&context()))
    }

    fn rehearse(&self, change: Change, tasks: Fate) -> Report {
        let assumptions = Assumptions {
            tasks,
            ..Assumptions::default()
        };
        rehearse(self.rows(), change, assumptions).0
    }
}

/// The report, and the rows as a second rehearsal would find them.
fn rehearse(
    rows: Vec<CopiedRow>,
    change: Change,
    assumptions: Assumptions,
) -> (Report, Vec<CopiedRow>) {
    let context = context();
    // A while after whatever the rows tell of.
    let has_service = rows.iter().any(|row| row.kind == "service");
    let now = NOW + Duration::from_secs(if has_service { 1800 } else { 0 });
    let made = Rehearsal::of(rows, context.account, context.region, now, assumptions);
    made.unwrap().run_to_the_end(change).unwrap()
}

fn context() -> RequestContext {
    let account = AccountId::default();
    RequestContext {
        principal: Principal {
            arn: Arn::global("iam", &account, "root"),
            user_id: account.to_string(),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        },
        account,
        region: Region::default(),
        request_id: "test".to_owned(),
        host: None,
        now: NOW,
    }
}

fn create(desired: i32, configuration: Option<ecs::DeploymentConfiguration>) -> Change {
    Change::Create(Box::new(ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(desired),
        deployment_configuration: configuration,
        ..Default::default()
    }))
}

fn update(input: ecs::UpdateServiceRequest) -> Change {
    Change::Update(Box::new(ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        ..input
    }))
}

fn breaker() -> Option<ecs::DeploymentConfiguration> {
    Some(ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: true,
            rollback: true,
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn wrongs(report: &Report) -> Vec<Wrong> {
    report.findings.iter().map(|it| it.wrong).collect()
}

#[test]
fn a_service_that_comes_up_is_told_with_its_times() {
    let real = Real::with_instances(2);
    real.register(None, true);
    let before = real.store.snapshot().revision();
    let report = real.rehearse(create(3, None), Fate::Run);
    assert_eq!(report.outcome, Outcome::Steady);
    assert_eq!(wrongs(&report), []);
    // Pulled in 5 s, running a second later, and healthy after the first interval of 30 s.
    assert!(
        (36_000..37_000).contains(&report.ended_after_ms),
        "{report:?}"
    );
    let running = report.steps.iter().filter(|step| {
        step.event.kind == ChangeKind::Task && step.event.detail["lastStatus"] == "RUNNING"
    });
    let times: Vec<u64> = running.map(|step| step.after_ms).collect();
    assert_eq!(times, [6000, 6000, 6000]);
    assert!(report.steps.is_sorted_by_key(|step| step.after_ms));
    assert_eq!((report.least_running, report.most_tasks), (0, 3));
    assert_eq!(
        real.store.snapshot().revision(),
        before,
        "nothing real has changed"
    );
}

#[test]
fn a_rehearsal_is_the_same_each_time() {
    let real = Real::with_instances(2);
    real.register(None, false);
    let told = || format!("{:?}", real.rehearse(create(3, None), Fate::Run));
    assert_eq!(told(), told());
}

#[test]
fn a_bad_revision_is_rolled_back_without_going_below_the_minimum() {
    let real = Real::with_instances(2);
    real.register(None, true);
    let assumptions = Assumptions::default();
    let (report, rows) = rehearse(real.rows(), create(2, breaker()), assumptions.clone());
    assert_eq!(report.outcome, Outcome::Steady);
    for fate in [Fate::Fail, Fate::Unhealthy] {
        let change = update(ecs::UpdateServiceRequest {
            force_new_deployment: Some(true),
            ..Default::default()
        });
        let assumptions = Assumptions {
            tasks: fate,
            ..assumptions.clone()
        };
        let (report, _) = rehearse(rows.clone(), change, assumptions);
        assert_eq!(report.outcome, Outcome::RolledBack, "{fate:?}");
        assert_eq!(report.least_running, 2, "{fate:?}");
        assert!(report.most_tasks <= 4, "{fate:?}");
    }
}

#[test]
fn what_finds_no_place_is_told_beforehand_and_at_the_end() {
    let real = Real::with_instances(2);
    real.register(None, true);
    let report = real.rehearse(create(9, None), Fate::Run);
    assert_eq!(wrongs(&report), [Wrong::NoCapacity]);
    let Outcome::Waits(because) = &report.outcome else {
        panic!("{:?}", report.outcome);
    };
    assert!(
        because.iter().any(|it| it.contains("0 CPU units free")),
        "{because:?}"
    );
    real.register(Some(8080), true);
    let report = real.rehearse(create(3, None), Fate::Run);
    assert_eq!(wrongs(&report), [Wrong::PortsCollide]);
    assert!(matches!(report.outcome, Outcome::Waits(_)));
}

#[test]
fn a_roll_whose_host_port_is_taken_by_the_tasks_it_replaces_is_stuck() {
    let real = Real::with_instances(2);
    real.register(Some(8080), true);
    let (report, rows) = rehearse(real.rows(), create(2, None), Assumptions::default());
    assert_eq!((wrongs(&report), report.outcome), (vec![], Outcome::Steady));
    let force = |minimum: i32| {
        update(ecs::UpdateServiceRequest {
            force_new_deployment: Some(true),
            deployment_configuration: Some(ecs::DeploymentConfiguration {
                minimum_healthy_percent: Some(minimum),
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let (stuck, _) = rehearse(rows.clone(), force(100), Assumptions::default());
    assert_eq!(wrongs(&stuck), [Wrong::PortsCollide]);
    assert!(
        matches!(stuck.outcome, Outcome::Waits(_)),
        "{:?}",
        stuck.outcome
    );
    assert_eq!(stuck.ended_after_ms / 1000, 3600);
    let (rolls, _) = rehearse(rows, force(50), Assumptions::default());
    assert_eq!(
        (wrongs(&rolls), rolls.outcome.clone()),
        (vec![], Outcome::Steady)
    );
    assert_eq!(rolls.least_running, 1);
}

#[test]
fn what_the_operation_refuses_is_refused_with_its_words() {
    let real = Real::with_instances(1);
    let context = context();
    let rehearsal = Rehearsal::of(
        real.rows(),
        context.account,
        context.region,
        NOW,
        Assumptions {
            horizon: Duration::from_secs(60),
            ..Assumptions::default()
        },
    );
    let error = rehearsal.unwrap().run(create(1, None)).unwrap_err();
    assert!(
        error.message.contains("TaskDefinition not found"),
        "{error:?}"
    );
}
