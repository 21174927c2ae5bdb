//! Connections between agents and the control plane: frames arrive late but in order, or not at all
//! once the connection is broken. Calls and their answers are lost one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::control::ConnectionId;
use crate::machine::Incarnation;

/// How unreliable the network is, in lost ones of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    pub call_per_mille: u32,
    pub answer_per_mille: u32,
    /// Frames whose connection breaks instead of delivering them.
    pub break_per_mille: u32,
    /// What arrives, and very late.
    pub slow_per_mille: u32,
}

impl Losses {
    /// Nothing is lost. Some is slow, as ever.
    pub const NONE: Losses = Losses {
        call_per_mille: 0,
        answer_per_mille: 0,
        break_per_mille: 0,
        slow_per_mille: 20,
    };

    /// Nothing is lost, and nothing slow.
    pub const PROMPT: Losses = Losses {
        slow_per_mille: 0,
        ..Losses::NONE
    };

    /// How long something is under way.
    pub fn delay(&self, chance: &mut Chance) -> Duration {
        if chance.per_mille(self.slow_per_mille) {
            chance.duration(Duration::from_millis(100)..Duration::from_secs(10))
        } else {
            chance.duration(Duration::from_micros(200)..Duration::from_millis(20))
        }
    }
}

/// One open socket.
#[derive(Debug)]
pub struct Connection {
    pub machine: usize,
    pub incarnation: Incarnation,
    to_agent: Duration,
    to_control: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToAgent,
    ToControl,
}

/// All open sockets.
#[derive(Debug, Default)]
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
}

impl Network {
    pub fn open(&mut self, machine: usize, incarnation: Incarnation) -> ConnectionId {
        self.next += 1;
        let connection = Connection {
            machine,
            incarnation,
            to_agent: Duration::ZERO,
            to_control: Duration::ZERO,
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    pub fn get(&self, connection: ConnectionId) -> Option<&Connection> {
        self.connections.get(&connection)
    }

    /// The connection is gone; whatever is in flight on it is lost.
    pub fn close(&mut self, connection: ConnectionId) -> Option<Connection> {
        self.connections.remove(&connection)
    }

    pub fn all(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    /// When a frame arrives that would by `at`: after everything sent before it.
    pub fn arrival(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        at: Duration,
    ) -> Option<Duration> {
        let connection = self.connections.get_mut(&connection)?;
        let last = match direction {
            Direction::ToAgent => &mut connection.to_agent,
            Direction::ToControl => &mut connection.to_control,
        };
        *last = (*last).max(at);
        Some(*last)
    }
}
