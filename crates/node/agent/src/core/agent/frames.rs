//! What the control plane says, and what the agent does about it.
//!
//! What always holds: a payload is acknowledged only when its tasks are in the journal on disk;
//! nothing older than what was seen has an effect; a manifest stops nothing without verification.
//! What it leaves to others: bringing the tasks on (`drive`).

use std::collections::BTreeSet;

use gantry_api::acs::{
    self, AckRequest, DesiredStatus, Frame, HeartbeatAckRequest, IamRoleCredentialsAckRequest,
    IamRoleCredentialsMessage, NackRequest, PayloadMessage, RoleCredentials, RoleType,
    TaskIdentifier, TaskManifestMessage, TaskStopVerificationAck, TaskStopVerificationMessage,
};
use gantry_arn::{Arn, TaskId};
use gantry_env::Timestamp;

use super::super::journal::{JournalRecord, without_credentials};
use super::super::step::Output;
use super::super::task::TaskMachine;
use super::{AfterPersist, AgentCore, progress};

impl AgentCore {
    pub(super) fn on_frame(&mut self, now: Timestamp, frame: Frame, out: &mut Vec<Output>) {
        self.link.heard();
        match frame {
            Frame::Heartbeat(heartbeat) => {
                out.push(Output::Send(Frame::HeartbeatAck(HeartbeatAckRequest {
                    message_id: heartbeat.message_id,
                })))
            }
            Frame::Payload(payload) => self.on_payload(now, payload, out),
            Frame::TaskManifest(manifest) => self.on_manifest(manifest, out),
            Frame::TaskStopVerificationAck(ack) => self.on_stop_verification(now, ack, out),
            Frame::IamRoleCredentials(message) => self.on_credentials(message, out),
            Frame::Close(_) => self.link.renew(out),
            // An error of the control plane's comes with its hanging up; the rest is not for agents.
            Frame::Error(_)
            | Frame::InactiveInstance(_)
            | Frame::TaskStopVerification(_)
            | Frame::HeartbeatAck(_)
            | Frame::IamRoleCredentialsAck(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Unknown { .. } => {}
        }
    }

    fn seen_record(&self) -> JournalRecord {
        JournalRecord::Seen {
            number: self.seen,
            container_instance: Some(self.identity.container_instance_arn.clone()),
        }
    }

    fn on_payload(&mut self, now: Timestamp, payload: PayloadMessage, out: &mut Vec<Output>) {
        let PayloadMessage {
            cluster_arn,
            message_id,
            seq_num,
            tasks,
            ..
        } = payload;
        let Some(message_id) = message_id else { return };
        let mut parsed = Vec::with_capacity(tasks.len());
        for task in tasks {
            match identify(&task) {
                Ok((id, stop)) => parsed.push((id, stop, task)),
                Err(reason) => {
                    let nack = self.nack(message_id, reason);
                    out.push(Output::Send(nack));
                    return;
                }
            }
        }
        let number = seq_num.unwrap_or(self.seen + 1);
        if number <= self.seen {
            // Sent before something that has had its effect. If it changes nothing here, it may be
            // acknowledged; else it is neither taken nor acknowledged, and comes again with a new
            // number.
            let unchanged = parsed.iter().all(|(id, stop, _)| {
                let known = self.tasks.get(id);
                known.is_some_and(|t| !stop || t.state.stopping.is_some())
            });
            if unchanged {
                self.persist(Vec::new(), vec![AfterPersist::Ack(message_id)], out);
            }
            return;
        }
        self.seen = number;
        let mut records = vec![self.seen_record()];
        let mut after = Vec::new();
        let mut touched = Vec::new();
        for (id, stop, task) in parsed {
            let roles = [
                (
                    RoleType::TaskExecution,
                    task.execution_role_credentials.clone(),
                ),
                (RoleType::TaskApplication, task.role_credentials.clone()),
            ];
            if self.forgotten.contains_key(&id) {
                continue;
            }
            if !self.tasks.contains_key(&id) {
                let cluster = cluster_arn.clone();
                let cluster = cluster.unwrap_or_else(|| self.identity.cluster_arn.clone());
                let payload = without_credentials(&task);
                records.push(JournalRecord::Accepted {
                    task_id: id,
                    cluster: cluster.clone(),
                    payload: Box::new(payload.clone()),
                });
                after.push(AfterPersist::Accepted(id));
                self.tasks
                    .insert(id, TaskMachine::new(id, cluster, payload));
            }
            for (role, credentials) in roles {
                if let Some(credentials) = credentials {
                    out.push(Output::Credentials {
                        task: id,
                        role,
                        credentials,
                    });
                }
            }
            if let (true, Some(machine)) = (stop, self.tasks.get_mut(&id)) {
                machine.stop(None);
                // In the same write as the acknowledgement waits for.
                machine.dirty = false;
                records.push(progress(machine));
                after.push(AfterPersist::Stopping(id));
            }
            touched.push(id);
        }
        after.push(AfterPersist::Ack(message_id));
        self.persist(records, after, out);
        self.drive(now, touched, out);
    }

    fn on_manifest(&mut self, manifest: TaskManifestMessage, out: &mut Vec<Output>) {
        let TaskManifestMessage {
            message_id: Some(message_id),
            tasks,
            timeline,
            ..
        } = manifest
        else {
            return;
        };
        let number = timeline.unwrap_or_default();
        if number <= self.seen {
            return;
        }
        self.seen = number;
        let wanted: BTreeSet<TaskId> = tasks
            .iter()
            .filter(|task| task.desired_status != Some(DesiredStatus::Stopped))
            .filter_map(|task| task_id(task.task_arn.as_deref()?))
            .collect();
        let candidates: Vec<&TaskMachine> = self
            .tasks
            .values()
            .filter(|task| task.state.stopping.is_none() && !wanted.contains(&task.id))
            .collect();
        let ack = self.ack(message_id.clone());
        out.push(Output::Send(ack));
        if !candidates.is_empty() {
            out.push(Output::Send(Frame::TaskStopVerification(
                TaskStopVerificationMessage {
                    message_id: Some(message_id.clone()),
                    stop_candidates: candidates
                        .iter()
                        .map(|task| TaskIdentifier {
                            desired_status: Some(DesiredStatus::Stopped),
                            task_arn: task.payload.arn.clone(),
                            task_cluster_arn: Some(task.cluster.clone()),
                        })
                        .collect(),
                },
            )));
        }
        self.offered = Some((message_id, candidates.iter().map(|task| task.id).collect()));
        self.persist(vec![self.seen_record()], Vec::new(), out);
    }

    fn on_stop_verification(
        &mut self,
        now: Timestamp,
        ack: TaskStopVerificationAck,
        out: &mut Vec<Output>,
    ) {
        let Some((message_id, offered)) = &self.offered else {
            return;
        };
        if ack.message_id.as_ref() != Some(message_id) {
            return;
        }
        let stopped: Vec<TaskId> = ack
            .stop_tasks
            .iter()
            .filter_map(|task| task_id(task.task_arn.as_deref()?))
            .filter(|id| offered.contains(id))
            .collect();
        for id in &stopped {
            if let Some(machine) = self.tasks.get_mut(id) {
                machine.stop(None);
            }
        }
        self.drive(now, stopped, out);
    }

    fn on_credentials(&mut self, message: IamRoleCredentialsMessage, out: &mut Vec<Output>) {
        let IamRoleCredentialsMessage {
            message_id,
            role_credentials,
            role_type,
            task_arn,
            ..
        } = message;
        let (Some(credentials), Some(role), Some(task)) = (
            role_credentials,
            role_type,
            task_arn.as_deref().and_then(task_id),
        ) else {
            return;
        };
        let RoleCredentials {
            credentials_id,
            expiration,
            ..
        } = credentials.clone();
        if self.tasks.contains_key(&task) {
            out.push(Output::Credentials {
                task,
                role,
                credentials,
            });
        }
        out.push(Output::Send(Frame::IamRoleCredentialsAck(
            IamRoleCredentialsAckRequest {
                credentials_id,
                expiration,
                message_id,
            },
        )));
    }

    pub(super) fn ack(&self, message_id: String) -> Frame {
        Frame::Ack(AckRequest {
            cluster: Some(self.identity.cluster_arn.clone()),
            container_instance: Some(self.identity.container_instance_arn.clone()),
            message_id: Some(message_id),
        })
    }

    fn nack(&self, message_id: String, reason: String) -> Frame {
        Frame::Nack(NackRequest {
            cluster: Some(self.identity.cluster_arn.clone()),
            container_instance: Some(self.identity.container_instance_arn.clone()),
            message_id: Some(message_id),
            reason: Some(reason),
        })
    }
}

fn task_id(arn: &str) -> Option<TaskId> {
    let arn: Arn = arn.parse().ok()?;
    arn.resource.rsplit('/').next()?.parse().ok()
}

/// Which task a payload means, and whether it is to stop.
fn identify(task: &acs::Task) -> Result<(TaskId, bool), String> {
    let arn = task
        .arn
        .as_deref()
        .ok_or_else(|| "a task of the payload has no arn".to_owned())?;
    let id = task_id(arn).ok_or_else(|| format!("'{arn}' is not the ARN of a task"))?;
    match &task.desired_status {
        Some(DesiredStatus::Running) => Ok((id, false)),
        Some(DesiredStatus::Stopped) => Ok((id, true)),
        Some(DesiredStatus::Unknown(other)) => Err(format!(
            "desiredStatus '{other}' of {arn} is not known to this agent"
        )),
        None => Err(format!("the payload of {arn} has no desiredStatus")),
    }
}
