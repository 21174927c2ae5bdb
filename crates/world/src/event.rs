//! Everything that can happen in the world, and how it reads in a trace.

use gantry_agent::core::step::{CallError, CallId, TaskStateChange, Timer as AgentTimer};
use gantry_api::acs::{Frame, TaskHealth};
use gantry_ecs::acs::Timer as SessionTimer;

use crate::control::ConnectionId;
use crate::machine::Incarnation;
use crate::runtime::MachineEvent;

#[derive(Debug)]
pub enum Event {
    /// Something on the machine itself, whether an agent runs or not.
    Machine {
        machine: usize,
        event: MachineEvent,
    },
    /// The disk has written what the agent asked for first.
    DiskWritten {
        machine: usize,
        incarnation: Incarnation,
    },
    AgentTimer {
        machine: usize,
        incarnation: Incarnation,
        timer: AgentTimer,
        generation: u64,
    },
    /// An agent's attempt to connect reaches the control plane.
    Dialled {
        connection: ConnectionId,
    },
    /// The agent learns that its socket is open.
    Opened {
        connection: ConnectionId,
    },
    /// The agent learns that its socket is gone, or never came to be.
    Closed {
        machine: usize,
        incarnation: Incarnation,
        connection: ConnectionId,
    },
    /// The control plane learns that the agent's end is gone.
    HungUp {
        connection: ConnectionId,
    },
    ToAgent {
        connection: ConnectionId,
        frame: Frame,
    },
    ToControl {
        connection: ConnectionId,
        frame: Frame,
    },
    Call {
        machine: usize,
        incarnation: Incarnation,
        call: CallId,
        request: Box<TaskStateChange>,
    },
    Reply {
        machine: usize,
        incarnation: Incarnation,
        call: CallId,
        result: Result<(), CallError>,
    },
    /// What an agent has found of a task's health reaches the control plane.
    HealthTold {
        machine: usize,
        told: Box<TaskHealth>,
    },
    /// An acknowledgement of health is missing: the agent tells all of it again.
    HealthAgain {
        machine: usize,
        incarnation: Incarnation,
    },
    SessionTimer {
        connection: ConnectionId,
        timer: SessionTimer,
        generation: u64,
    },
    /// A controller wants to be looked at.
    Look,
    UserActs,
    FaultHappens,
    AgentStarts {
        machine: usize,
    },
    ControlStarts,
    PartitionHeals {
        machine: usize,
    },
}

impl Event {
    /// One line of the trace. Frames and requests are named, not printed.
    pub fn summary(&self) -> String {
        match self {
            Event::ToAgent { connection, frame } => {
                format!("to agent on {connection}: {}", frame_summary(frame))
            }
            Event::ToControl { connection, frame } => {
                format!("to control on {connection}: {}", frame_summary(frame))
            }
            Event::Call {
                machine,
                call,
                request,
                ..
            } => {
                format!(
                    "call {} of machine {machine}: {} is {:?}",
                    call.0, request.task_arn, request.status
                )
            }
            other => format!("{other:?}"),
        }
    }
}

fn frame_summary(frame: &Frame) -> String {
    let about = match frame {
        Frame::Payload(payload) => payload
            .tasks
            .iter()
            .map(|task| {
                format!(
                    " {} {:?}",
                    task.arn.as_deref().unwrap_or("?"),
                    task.desired_status
                )
            })
            .collect(),
        Frame::TaskManifest(manifest) => format!(" of {} tasks", manifest.tasks.len()),
        _ => String::new(),
    };
    format!("{}{about}", frame.kind())
}
