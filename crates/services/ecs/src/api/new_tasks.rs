//! The making of tasks: what RunTask and StartTask have in common.
//!
//! What always holds: the tasks that are answered exist and hold their share of an instance, in the
//! commit that created them. Everything random is drawn before the first attempt, so that every
//! attempt is the same request.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, Failure, LaunchType, RunTaskRequest, SettingName, Task, TaskOverride,
};
use gantry_arn::{ClusterName, ContainerInstanceId, TaskId};
use gantry_placement::{Demand, Plan};
use gantry_store::{CommitError, Transaction, Versioned};

use super::account_settings::effective_for_caller;
use super::describe_tasks::describe;
use super::identity::uuid;
use super::lookup::Rows;
use super::placing::{Choice, Committing, Extent, Planned, Reservation, Wanted};
use super::task_definitions::find;
use crate::model::absent::items;
use crate::model::reference::{Scope, TaskDefinitionReference};
use crate::model::refusal::{client, invalid};
use crate::model::task_view::TaskState;
use crate::model::{overrides, run_request, state_changes};
use crate::service::EcsService;
use crate::tables::{
    ClusterRow, LogDriverMode, Reserved, TaskContainer, TaskDefinitionRow, TaskRow,
};

/// How often a request decides anew before it gives up. Those that wait for each other in this
/// process do not count, so only other replicas and reports make conflicts.
const ATTEMPTS_MAX: u32 = 32;

/// A request for new tasks.
pub(super) struct NewTasks<'a> {
    pub service: &'a EcsService,
    pub ctx: &'a RequestContext,
    pub scope: &'a Scope,
    pub cluster: &'a ClusterName,
    /// StartTask's members are among RunTask's.
    pub input: &'a RunTaskRequest,
    pub reference: TaskDefinitionReference,
    /// One id for each task.
    pub ids: Vec<TaskId>,
    pub client_token: Option<String>,
}

/// What one attempt came to.
pub(super) struct Outcome {
    pub tasks: Vec<Task>,
    pub ids: Vec<TaskId>,
    pub plan: Plan,
    /// The failures of an answer that was given before.
    pub repeated: Option<Vec<Failure>>,
}

/// The rows that an attempt starts from.
pub(super) struct Ground<'a> {
    pub rows: Rows<'a>,
    pub cluster: Versioned<ClusterRow>,
    pub definition: Versioned<TaskDefinitionRow>,
}

/// Draws an id for each of `count` tasks.
pub(super) fn draw_ids(service: &EcsService, count: usize) -> Vec<TaskId> {
    let task = |_| TaskId::from_random(service.env.entropy.bytes16());
    (0..count).map(task).collect()
}

impl NewTasks<'_> {
    /// Plans, creates and commits until the commit stands on what was read.
    ///
    /// `before` may answer instead of all that, from the rows; `after` adds what else the commit
    /// shall write.
    pub async fn create<'s>(
        &self,
        choose: impl Fn(&Ground<'_>) -> Result<Choice<'s>, EcsError>,
        before: impl Fn(&Rows<'_>) -> Result<Option<Outcome>, EcsError>,
        after: impl Fn(&Ground<'_>, &Outcome, &mut Transaction),
    ) -> Result<Outcome, EcsError> {
        let mut attempts = 0;
        let mut turn = self.service.turns.request();
        while attempts < ATTEMPTS_MAX {
            // Nothing is reserved here: whoever has the turn may be waiting for a reservation.
            turn.come().await;
            let waiting = {
                let snapshot = self.service.snapshot();
                let rows = Rows::new(&snapshot, self.scope);
                let cluster = rows.active_cluster(self.cluster)?;
                if let Some(answer) = before(&rows)? {
                    return Ok(answer);
                }
                let Some(definition) = find(&rows, &self.reference) else {
                    return Err(client("TaskDefinition not found."));
                };
                let ground = Ground {
                    rows,
                    cluster,
                    definition,
                };
                match self.attempt(&ground, &choose, &after)? {
                    Attempt::Wait(committing) => Err(committing),
                    Attempt::Commit(made) => Ok(made),
                }
            };
            let (transaction, outcome, reservation) = match waiting {
                Ok(made) => *made,
                Err(committing) => {
                    drop(committing.lock().await);
                    continue;
                }
            };
            attempts += 1;
            if !transaction.has_writes() {
                return Ok(outcome);
            }
            let committed = turn.commit(&*self.service.store, transaction).await;
            drop(reservation);
            match committed {
                Ok(_) => return Ok(outcome),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
        Err(EcsError::server_exception(
            "The cluster is being changed by too many requests at once. Try again.",
        ))
    }

    fn attempt<'s>(
        &self,
        ground: &Ground<'_>,
        choose: &impl Fn(&Ground<'_>) -> Result<Choice<'s>, EcsError>,
        after: &impl Fn(&Ground<'_>, &Outcome, &mut Transaction),
    ) -> Result<Attempt, EcsError> {
        let definition = &ground.definition;
        run_request::validate_with(self.input, &definition.definition)?;
        let spec = self.spec(ground)?;
        let demand = demand(definition, &spec.reserved, &spec.launch_type);
        let wanted = Wanted {
            tasks: &self.ids,
            demand: &demand,
            reserved: &spec.reserved,
            choice: choose(ground)?,
            extent: Extent::Whole,
        };
        let planned = self.service.placing.plan(self.scope, self.cluster, &wanted);
        let mut reservation = match planned {
            Planned::NoInstances => {
                return Err(invalid(
                    "No Container Instances were found in your cluster.",
                ));
            }
            Planned::Wait(committing) => return Ok(Attempt::Wait(committing)),
            Planned::Reserved(reservation) => reservation,
        };
        let mut transaction = Transaction::new();
        // Nothing may be placed in a cluster that is being deleted, nor from a definition that is
        // being deregistered, at the same moment.
        transaction
            .expect_read(&ground.cluster)
            .expect_read(definition);
        let outcome = Outcome {
            tasks: self.write(ground, &spec, &reservation, &mut transaction),
            ids: reservation.tasks.iter().map(|(id, _)| *id).collect(),
            plan: std::mem::take(&mut reservation.plan),
            repeated: None,
        };
        after(ground, &outcome, &mut transaction);
        Ok(Attempt::Commit(Box::new((
            transaction,
            outcome,
            reservation,
        ))))
    }

    /// The spec that all tasks of the request share; id, instance and containers come with each.
    fn spec(&self, ground: &Ground<'_>) -> Result<TaskRow, EcsError> {
        let (input, definition) = (self.input, &ground.definition);
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
        let mode = SettingName::DefaultLogDriverMode;
        let blocking = effective_for_caller(&ground.rows, self.ctx, &mode)? == "blocking";
        Ok(TaskRow {
            id: TaskId::from_random([0; 16]),
            cluster: self.cluster.clone(),
            family,
            revision: u32::try_from(revision).unwrap_or_default(),
            container_instance: ContainerInstanceId::from_random([0; 16]),
            availability_zone: None,
            launch_type: input.launch_type.clone().unwrap_or(LaunchType::Ec2),
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
            client_token: self.client_token.clone(),
            reference_id: input.reference_id.clone().filter(|id| !id.is_empty()),
            default_log_driver_mode: match blocking {
                true => LogDriverMode::Blocking,
                false => LogDriverMode::NonBlocking,
            },
            replica: None,
        })
    }

    /// Writes the tasks that found a place, and the allocation of every instance that they touch.
    fn write(
        &self,
        ground: &Ground<'_>,
        spec: &TaskRow,
        reservation: &Reservation,
        transaction: &mut Transaction,
    ) -> Vec<Task> {
        let definitions = items(&ground.definition.definition.container_definitions);
        let mut described = Vec::with_capacity(reservation.tasks.len());
        let mut told = Vec::with_capacity(reservation.tasks.len());
        reservation.write(&spec.reserved, transaction, |id, instance| {
            let container = |definition: &gantry_api::ecs::ContainerDefinition| TaskContainer {
                name: definition.name.clone().unwrap_or_default(),
                id: uuid(&self.service.env),
            };
            let containers = definitions.iter().map(container).collect();
            let task = Arc::new(instance.task(spec, id, containers));
            let state = TaskState {
                spec: task.clone(),
                desired: None,
                report: None,
                health: None,
            };
            let described_task = describe(&ground.rows, &state, true);
            told.push(state_changes::of_task(
                self.scope,
                &state,
                &described_task,
                self.ctx.now,
            ));
            described.push(described_task);
            task
        });
        state_changes::write(self.scope, self.ctx.now, told, transaction);
        described
    }
}

enum Attempt {
    Wait(Committing),
    Commit(Box<(Transaction, Outcome, Reservation)>),
}

pub(super) fn demand(
    definition: &TaskDefinitionRow,
    reserved: &Reserved,
    launch_type: &LaunchType,
) -> Demand {
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
        launch_type: match launch_type {
            LaunchType::External => gantry_placement::LaunchType::External,
            _ => gantry_placement::LaunchType::Ec2,
        },
    }
}
