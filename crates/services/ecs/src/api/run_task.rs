//! RunTask: validates, places and creates tasks in one transaction.
//!
//! What always holds: the tasks that are answered exist and hold their share of an instance, in
//! the commit that created them; the rest of what was asked for is answered as failures, one for
//! each container instance that was looked at. The same client token again gets the same answer.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    Attribute, EcsError, LaunchType, RunTaskRequest, RunTaskResponse, Task, TaskOverride,
};
use gantry_arn::{ClusterName, ContainerInstanceId, TaskId};
use gantry_placement::{Demand, Plan, Request, place};
use gantry_store::{Snapshot, Transaction, Versioned};

use super::describe_tasks::describe;
use super::identity::{sha256, uuid};
use super::lookup::Rows;
use super::placements::{Instance, failures, instances, rejection};
use super::task_definitions::find;
use crate::model::absent::items;
use crate::model::reference::{Scope, TaskDefinitionReference};
use crate::model::refusal::{client, invalid};
use crate::model::task_view::TaskState;
use crate::model::{overrides, run_request};
use crate::service::EcsService;
use crate::tables::{
    AllocationRow, ClientTokenRow, PlacementRejectionsRow, Reserved, TaskContainer,
    TaskDefinitionRow, TaskRow, container_instance_name, task_name,
};

/// How many refused placements of a cluster are kept for `explain`.
const REJECTIONS_MAX: usize = 20;

const ARCHITECTURE_ATTRIBUTE: &str = "ecs.cpu-architecture";

pub(super) async fn run_task(
    service: &EcsService,
    ctx: &RequestContext,
    input: RunTaskRequest,
) -> Result<RunTaskResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    run_request::validate(&input)?;
    let run = Run {
        service,
        ctx,
        scope: &scope,
        cluster: &cluster,
        reference: scope.task_definition(&input.task_definition)?,
        count: u32::try_from(input.count.unwrap_or(1)).unwrap_or(1),
        token: Token::of(&input, &cluster),
        ids: Drawn::of(service, input.count.unwrap_or(1)),
        input: &input,
    };
    let turn = service.placing(&scope, &cluster);
    let _turn = turn.lock().await;
    service.transact(|snapshot| run.decide(snapshot)).await
}

/// Everything random is drawn before the first attempt, so that every attempt is the same request.
struct Drawn {
    tasks: Vec<TaskId>,
    seed: u64,
}

impl Drawn {
    fn of(service: &EcsService, count: i32) -> Self {
        let task = |_| TaskId::from_random(service.env.entropy.bytes16());
        Self {
            tasks: (0..count).map(task).collect(),
            seed: service.env.entropy.u64(),
        }
    }
}

/// A client token, and a digest of the request that it stands for.
struct Token {
    name: String,
    text: String,
    fingerprint: String,
}

impl Token {
    fn of(input: &RunTaskRequest, cluster: &ClusterName) -> Option<Self> {
        let text = input
            .client_token
            .clone()
            .filter(|token| !token.is_empty())?;
        let request = RunTaskRequest {
            client_token: None,
            ..input.clone()
        };
        let fingerprint = sha256(serde_json::to_vec(&request).unwrap_or_default());
        let name = format!("RunTask/{cluster}/{}", sha256(&text));
        Some(Self {
            name,
            text,
            fingerprint,
        })
    }
}

struct Run<'a> {
    service: &'a EcsService,
    ctx: &'a RequestContext,
    scope: &'a Scope,
    cluster: &'a ClusterName,
    input: &'a RunTaskRequest,
    reference: TaskDefinitionReference,
    count: u32,
    token: Option<Token>,
    ids: Drawn,
}

impl Run<'_> {
    fn decide(&self, snapshot: &Snapshot) -> Result<(Transaction, RunTaskResponse), EcsError> {
        let rows = Rows::new(snapshot, self.scope);
        let cluster_row = rows.active_cluster(self.cluster)?;
        if let Some(answer) = self.answered_before(&rows)? {
            return Ok((Transaction::new(), answer));
        }
        let Some(definition) = find(&rows, &self.reference) else {
            return Err(client("TaskDefinition not found."));
        };
        run_request::validate_with(self.input, &definition.definition)?;
        let spec = self.spec(&definition)?;
        let candidates = instances(&rows, self.cluster);
        if candidates.is_empty() {
            return Err(invalid(
                "No Container Instances were found in your cluster.",
            ));
        }
        let demand = demand(&definition, &spec.reserved);
        let request = Request {
            demand: &demand,
            count: self.count,
            constraints: &run_request::constraints(self.input)?,
            strategies: &run_request::strategies(self.input)?,
            seed: self.ids.seed,
        };
        let plan = place(
            candidates
                .iter()
                .map(|instance| instance.candidate.clone())
                .collect(),
            &request,
        );

        let mut transaction = Transaction::new();
        // Nothing may be placed in a cluster that is being deleted, nor from a definition that is
        // being deregistered, at the same moment.
        transaction
            .expect_read(&cluster_row)
            .expect_read(&definition);
        let tasks = self.create(
            &rows,
            &definition,
            spec,
            &candidates,
            &plan,
            &mut transaction,
        );
        let failures = failures(self.scope, self.cluster, &plan);
        self.remember(&rows, &tasks.ids, &failures, &mut transaction);
        if plan.unplaced > 0 {
            self.keep_rejection(&rows, &definition, &plan, &mut transaction);
        }
        let answer = RunTaskResponse {
            tasks: Some(tasks.described),
            failures: Some(failures),
        };
        Ok((transaction, answer))
    }

    /// The answer that this client token got, as its tasks are now.
    fn answered_before(&self, rows: &Rows<'_>) -> Result<Option<RunTaskResponse>, EcsError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let Some(used) = rows.read::<ClientTokenRow>(&token.name) else {
            return Ok(None);
        };
        if used.fingerprint != token.fingerprint {
            let arns = used
                .tasks
                .iter()
                .map(|task| self.scope.task_arn(self.cluster, task));
            return Err(EcsError::ConflictException(
                gantry_api::ecs::ConflictException {
                    message: Some(
                        "The client token was used before with different parameters.".to_owned(),
                    ),
                    resource_ids: Some(arns.collect()),
                },
            ));
        }
        let states = used
            .tasks
            .iter()
            .filter_map(|task| rows.task(self.cluster, task));
        let tasks = states.map(|state| describe(rows, &state, true)).collect();
        Ok(Some(RunTaskResponse {
            tasks: Some(tasks),
            failures: Some(used.failures.clone()),
        }))
    }

    /// The spec that all tasks of the request share; id, instance and containers come with each.
    fn spec(&self, definition: &Versioned<TaskDefinitionRow>) -> Result<TaskRow, EcsError> {
        let input = self.input;
        if let Some(given) = &input.overrides {
            overrides::validate(given, &definition.definition)?;
        }
        let overrides: TaskOverride =
            overrides::normalized(input.overrides.clone(), &definition.definition);
        let family = self.reference.family.clone();
        let given_group = input.group.clone().filter(|group| !group.is_empty());
        let group = given_group.unwrap_or_else(|| format!("family:{family}"));
        let reserved = overrides::reserved(&definition.definition, &overrides, &group);
        let revision = definition.definition.revision.unwrap_or_default();
        Ok(TaskRow {
            id: TaskId::from_random([0; 16]),
            cluster: self.cluster.clone(),
            family,
            revision: u32::try_from(revision).unwrap_or_default(),
            container_instance: ContainerInstanceId::from_random([0; 16]),
            availability_zone: None,
            launch_type: LaunchType::Ec2,
            group,
            started_by: input.started_by.clone().filter(|by| !by.is_empty()),
            created_at: self.ctx.now,
            overrides,
            containers: Vec::new(),
            cpu: reserved.cpu.to_string(),
            memory: reserved.memory.to_string(),
            reserved,
            attributes: Vec::new(),
            tags: run_request::task_tags(input, &definition.tags, self.cluster)?,
            enable_execute_command: false,
            client_token: self.token.as_ref().map(|token| token.text.clone()),
        })
    }

    /// Writes the tasks that the plan placed, and the allocation of every instance that it touches.
    fn create(
        &self,
        rows: &Rows<'_>,
        definition: &Versioned<TaskDefinitionRow>,
        spec: TaskRow,
        instances: &[Instance],
        plan: &Plan,
        transaction: &mut Transaction,
    ) -> Created {
        let (account, region) = (&self.scope.account, &self.scope.region);
        let mut created = Created::default();
        let mut allocations: BTreeMap<ContainerInstanceId, AllocationRow> = BTreeMap::new();
        for (id, placed_on) in self.ids.tasks.iter().zip(&plan.placements) {
            let Some(instance) = instances.iter().find(|i| i.row.id == *placed_on) else {
                continue;
            };
            let containers = items(&definition.definition.container_definitions);
            let task = TaskRow {
                id: *id,
                container_instance: *placed_on,
                availability_zone: instance.availability_zone(),
                attributes: architecture(instance).into_iter().collect(),
                containers: containers
                    .iter()
                    .map(|container| TaskContainer {
                        name: container.name.clone().unwrap_or_default(),
                        id: uuid(&self.service.env),
                    })
                    .collect(),
                ..spec.clone()
            };
            let name = task_name(self.cluster, id);
            transaction.create::<TaskRow>(account, region, &name, &task);
            allocations
                .entry(*placed_on)
                .or_insert_with(|| instance.allocation.swept())
                .tasks
                .insert(*id, task.reserved.clone());
            let state = TaskState {
                spec: task.into(),
                desired: None,
                report: None,
            };
            created.described.push(describe(rows, &state, true));
            created.ids.push(*id);
        }
        for (instance_id, allocation) in &allocations {
            let name = container_instance_name(self.cluster, instance_id);
            let instance = instances
                .iter()
                .find(|instance| instance.row.id == *instance_id);
            let Some(instance) = instance else { continue };
            // A deregistration or a drain at the same moment comes first, and is seen.
            transaction.expect_read(&instance.row);
            match &instance.allocation.row {
                Some(read) => transaction.update::<AllocationRow>(read, allocation),
                None => transaction.create::<AllocationRow>(account, region, &name, allocation),
            };
        }
        created
    }

    fn remember(
        &self,
        rows: &Rows<'_>,
        tasks: &[TaskId],
        failures: &[gantry_api::ecs::Failure],
        transaction: &mut Transaction,
    ) {
        // What placed nothing changed nothing, so it may be tried again under its token.
        let Some(token) = self.token.as_ref().filter(|_| !tasks.is_empty()) else {
            return;
        };
        let row = ClientTokenRow {
            fingerprint: token.fingerprint.clone(),
            created_at: self.ctx.now,
            cluster: self.cluster.clone(),
            container_instance: None,
            tasks: tasks.to_vec(),
            failures: failures.to_vec(),
        };
        let (account, region) = (&rows.scope.account, &rows.scope.region);
        transaction.create::<ClientTokenRow>(account, region, &token.name, &row);
    }

    fn keep_rejection(
        &self,
        rows: &Rows<'_>,
        definition: &Versioned<TaskDefinitionRow>,
        plan: &Plan,
        transaction: &mut Transaction,
    ) {
        let read = rows.read::<PlacementRejectionsRow>(self.cluster.as_str());
        let mut kept = read.map(|row| (*row.row).clone()).unwrap_or_default();
        let revision = definition.definition.revision.unwrap_or_default();
        let of = format!("{}:{revision}", self.reference.family);
        kept.rejections
            .insert(0, rejection(plan, of, self.count, self.ctx.now));
        kept.rejections.truncate(REJECTIONS_MAX);
        // Written over whatever is there: losing one of two explanations made at once is better
        // than a placement that waits for it.
        let (account, region) = (&rows.scope.account, &rows.scope.region);
        transaction.write::<PlacementRejectionsRow>(account, region, self.cluster.as_str(), &kept);
    }
}

#[derive(Default)]
struct Created {
    ids: Vec<TaskId>,
    described: Vec<Task>,
}

fn demand(definition: &TaskDefinitionRow, reserved: &Reserved) -> Demand {
    let required = items(&definition.definition.requires_attributes).iter();
    Demand {
        needs: gantry_placement::Capacity {
            cpu: reserved.cpu,
            memory: reserved.memory,
        },
        tcp_ports: reserved.tcp_ports.clone(),
        udp_ports: reserved.udp_ports.clone(),
        requires_attributes: required
            .map(|attribute| gantry_placement::Attribute {
                name: attribute.name.clone(),
                value: attribute.value.clone(),
            })
            .collect(),
        group: reserved.group.clone(),
        launch_type: gantry_placement::LaunchType::Ec2,
    }
}

fn architecture(instance: &Instance) -> Option<Attribute> {
    let own = instance
        .row
        .attributes
        .iter()
        .find(|a| a.name == ARCHITECTURE_ATTRIBUTE)?;
    Some(Attribute {
        name: ARCHITECTURE_ATTRIBUTE.to_owned(),
        value: own.value.clone(),
        ..Attribute::default()
    })
}
