//! The socket to the control plane: when to open it, when to give it up.
//!
//! What always holds: at most one socket is open or being opened; after a failure the next attempt
//! waits, longer each time and never in step with other agents; a silent socket is given up.
//! What it leaves to others: the frames (`agent`) and the socket itself (the shell).

use std::time::Duration;

use super::chance::Chance;
use super::step::{Output, Timer};

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LAST_BACK_OFF: Duration = Duration::from_secs(120);
/// The control plane is heard at least once a minute, or the socket is dead.
const SILENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(120));
/// A socket is renewed about every half hour, as the Amazon ECS agent does.
const RENEWAL: (Duration, Duration) = (Duration::from_secs(30 * 60), Duration::from_secs(35 * 60));
/// A deregistered container instance stays away.
const INACTIVE_BACK_OFF: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Debug, Default)]
pub struct Link {
    state: LinkState,
    failures: u32,
    heard: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LinkState {
    #[default]
    Idle,
    Connecting,
    Up,
    Waiting,
}

impl Link {
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub fn connect(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, LinkState::Idle | LinkState::Waiting) {
            self.state = LinkState::Connecting;
            out.push(Output::Connect);
        }
    }

    pub fn connected(&mut self, chance: &mut Chance, out: &mut Vec<Output>) {
        self.state = LinkState::Up;
        self.heard = false;
        let silence = chance.between(SILENCE.0, SILENCE.1);
        out.push(Output::SetTimer {
            timer: Timer::Silence,
            after: silence,
        });
        let renewal = chance.between(RENEWAL.0, RENEWAL.1);
        out.push(Output::SetTimer {
            timer: Timer::Renew,
            after: renewal,
        });
    }

    pub fn disconnected(&mut self, chance: &mut Chance, out: &mut Vec<Output>) {
        if matches!(self.state, LinkState::Up | LinkState::Connecting) {
            self.wait(
                chance.back_off(FIRST_BACK_OFF, LAST_BACK_OFF, self.failures),
                out,
            );
            self.failures += 1;
        }
    }

    /// A frame came: the control plane is really there.
    pub fn heard(&mut self) {
        self.heard = true;
        self.failures = 0;
    }

    /// The control plane does not want this container instance any more.
    pub fn inactive(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Disconnect);
        self.wait(INACTIVE_BACK_OFF, out);
    }

    /// Hangs up and connects again at once.
    pub fn renew(&mut self, out: &mut Vec<Output>) {
        if self.state == LinkState::Up {
            out.push(Output::Disconnect);
            self.state = LinkState::Idle;
            self.connect(out);
        }
    }

    pub fn on_silence_timer(&mut self, chance: &mut Chance, out: &mut Vec<Output>) {
        if self.state != LinkState::Up {
            return;
        }
        if std::mem::take(&mut self.heard) {
            let after = chance.between(SILENCE.0, SILENCE.1);
            out.push(Output::SetTimer {
                timer: Timer::Silence,
                after,
            });
        } else {
            out.push(Output::Disconnect);
            self.disconnected(chance, out);
        }
    }

    fn wait(&mut self, after: Duration, out: &mut Vec<Output>) {
        self.state = LinkState::Waiting;
        out.push(Output::SetTimer {
            timer: Timer::Reconnect,
            after,
        });
    }
}
