//! What an agent asks of a shim, and the answers.
//!
//! What always holds: every request is answered, once: at once, when its container is made, or when what was
//! executed has ended. What this build does not know is refused by name, so that a newer agent never waits
//! for an older shim.

use std::io;
use std::time::Duration;

use super::connection::Asked as Came;
use super::container::{Container, State};
use super::exec::{Exec, Place};
use super::watch::{Asked, Ending, Shim};
use crate::protocol::{Answer, Event, Message, PROTOCOL, Request, Verb};
use crate::spec::{ContainerName, ExecSpec, LogSpec};
use crate::state::container_dir;

/// More at a time would be a mistake of the agent's.
const EXECS_MAX: usize = 64;

impl Shim {
    pub fn serve(&mut self, id: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok(());
        };
        connection.flush();
        for asked in connection.receive() {
            match asked {
                Came::Known(request) => {
                    if let Some(answer) = self.answer(id, &request) {
                        self.reply(id, request.id, answer);
                    }
                }
                Came::Unknown(request) => {
                    let answer = failed(&format!(
                        "the task's shim speaks protocol {PROTOCOL} and does not know {:?}",
                        request.name()
                    ));
                    self.reply(id, request.id, answer);
                }
            }
        }
        Ok(())
    }

    /// Carries out a request; none where the answer comes later.
    fn answer(&mut self, connection: u64, request: &Request) -> Option<Answer> {
        let asked = Asked {
            connection,
            request: request.id,
        };
        let result = match &request.verb {
            Verb::Hello => Ok(()),
            Verb::Start { container, logs } => match self.start(container, logs, asked) {
                Ok(()) => return None,
                refused => refused,
            },
            Verb::Restart { container } => match self.restart(container, asked) {
                Ok(()) => return None,
                refused => refused,
            },
            Verb::Exec { container, exec } => match self.execute(container, exec, &asked) {
                Ok(()) => return None,
                refused => refused,
            },
            Verb::State => {
                let containers = self.containers.values().map(Container::state_of).collect();
                return Some(Answer::State { containers });
            }
            Verb::Signal { container, signal } => self
                .containers
                .get_mut(container)
                .map_or(Ok(()), |container| container.signal(*signal)),
            Verb::Stop {
                container,
                signal,
                grace_ms,
            } => {
                let at = self.clock.monotonic() + Duration::from_millis(*grace_ms);
                match self.containers.get_mut(container) {
                    Some(container) if !container.is_ended() => {
                        container.kill_at =
                            Some(container.kill_at.map_or(at, |before| before.min(at)));
                        container.signal(*signal)
                    }
                    _ => Ok(()),
                }
            }
            Verb::Trim { container, offset } => {
                if let Some(container) = self.containers.get_mut(container) {
                    container.trim(*offset);
                }
                Ok(())
            }
            Verb::WatchLog { container, offset } => {
                self.watch_log(connection, container, *offset);
                Ok(())
            }
            Verb::Close => {
                if self.ending == Ending::No {
                    self.ending = Ending::WhenEmpty;
                }
                Ok(())
            }
            Verb::Kill => {
                self.ending = Ending::Killed;
                self.kill_task();
                Ok(())
            }
        };
        Some(match result {
            Ok(()) => Answer::Done,
            Err(error) => failed(&error.to_string()),
        })
    }

    fn start(&mut self, name: &ContainerName, logs: &LogSpec, asked: Asked) -> io::Result<()> {
        self.must_be_open()?;
        if self.containers.contains_key(name) {
            return Err(io::Error::other(format!(
                "the container {name} was started before"
            )));
        }
        let dir = container_dir(&self.task_dir, name);
        let made = Container::make(name.clone(), &dir, logs)?;
        self.containers.insert(name.clone(), made);
        self.making.insert(name.clone(), asked);
        Ok(())
    }

    fn restart(&mut self, name: &ContainerName, asked: Asked) -> io::Result<()> {
        self.must_be_open()?;
        self.containers
            .get_mut(name)
            .ok_or_else(|| io::Error::other(format!("the container {name} was never started")))?
            .restart()?;
        self.making.insert(name.clone(), asked);
        Ok(())
    }

    fn must_be_open(&self) -> io::Result<()> {
        match self.ending {
            Ending::No => Ok(()),
            Ending::WhenEmpty | Ending::Killed => Err(io::Error::other("the task is over")),
        }
    }

    fn execute(&mut self, name: &ContainerName, spec: &ExecSpec, asked: &Asked) -> io::Result<()> {
        if self.execs.len() >= EXECS_MAX {
            return Err(io::Error::other(format!(
                "{EXECS_MAX} programs run beside this task's containers already"
            )));
        }
        let running = self
            .containers
            .get(name)
            .and_then(|container| match container.state {
                State::Running { pid } => Some((container, pid)),
                _ => None,
            });
        let Some((container, first)) = running else {
            return Err(io::Error::other(format!(
                "the container {name} is not running"
            )));
        };
        let place = Place {
            connection: asked.connection,
            request: asked.request,
            container: name,
            dir: container.dir(),
            cgroup: container.cgroup(),
            first,
            number: self.next_exec,
        };
        let exec = Exec::start(place, spec, self.clock.monotonic())?;
        self.execs.insert(self.next_exec, exec);
        self.next_exec += 1;
        Ok(())
    }

    /// Tells at once where there is something to tell, and later otherwise.
    fn watch_log(&mut self, connection: u64, name: &ContainerName, offset: u64) {
        let (end, ended) = self
            .containers
            .get(name)
            .map_or((0, true), |c| (c.log_end(), c.log_ended()));
        let Some(connection) = self.connections.get_mut(&connection) else {
            return;
        };
        if end > offset || ended {
            connection.send(&Message::Event(Event::Log {
                container: name.clone(),
                end,
                ended,
            }));
        } else {
            connection.watched_logs.insert(name.clone(), offset);
        }
    }
}

fn failed(message: &str) -> Answer {
    Answer::Failed {
        kind: "ContainerRuntimeError".to_owned(),
        message: message.to_owned(),
    }
}
