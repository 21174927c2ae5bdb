//! What goes over a shim's socket: requests out, answers and events in.
//!
//! What always holds: a connection that ends without the shim's good-bye is made anew for as long as the shim lives,
//! and what was missed is asked for: nothing is asked twice that may be done only once.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Asked, Events, Next, TaskConnection, lock};
use crate::cgroup;
use crate::event::RuntimeEvent;
use crate::protocol::{Answer, ContainerState, Message, Request, Verb, encode, take_frame};
use crate::runtime::connect_in;
use crate::spec::ContainerName;
use crate::state::{SHIM_FILE, ShimFile, is_alive, read_json};

/// How soon a living shim is connected to again, and asked again what it was not done with.
const AGAIN: Duration = Duration::from_millis(20);

/// A shim's side of the conversation.
struct Pump {
    connection: TaskConnection,
    events: Events,
    env: Env,
    open: BTreeMap<u64, Asked>,
    next_id: u64,
    /// The question for what was missed, and when it is put.
    missed: Option<Missed>,
}

enum Missed {
    AskAt(Duration),
    Asked(u64),
}

#[derive(PartialEq, Eq)]
enum End {
    /// As it was told to.
    Over,
    /// Without a good-bye.
    Lost,
}

/// Serves the connection until the shim is gone.
pub(super) async fn run(
    connection: TaskConnection,
    stream: UnixStream,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    env: Env,
    events: Events,
) {
    let mut pump = Pump {
        connection: connection.clone(),
        events: events.clone(),
        env: env.clone(),
        open: BTreeMap::new(),
        next_id: 0,
        missed: None,
    };
    let mut stream = Some(stream);
    let mut end = End::Lost;
    while let Some(connected) = stream.take() {
        end = pump.serve(connected, &mut asked).await;
        if end == End::Lost {
            stream = again(&connection, &env).await;
            pump.missed = Some(Missed::AskAt(env.monotonic()));
        }
    }
    lock(&connection.0.requests).take();
    drop(pump);
    if end == End::Lost {
        died(&connection, &env, &events).await;
    }
    connection.0.gone.send_replace(true);
}

/// Connects once more, for as long as the shim lives and can say what was missed.
async fn again(connection: &TaskConnection, env: &Env) -> Option<UnixStream> {
    loop {
        let shim = read_json::<ShimFile>(&connection.0.dir.join(SHIM_FILE))?;
        if !is_alive(shim.pid, shim.start_ticks) || shim.protocol < Verb::State.since() {
            return None;
        }
        if let Ok(stream) = connect_in(&connection.0.dir)
            && stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = UnixStream::from_std(stream)
        {
            tracing::warn!(task = %connection.0.task, "connected to a task's shim again");
            return Some(stream);
        }
        env.sleep(AGAIN).await;
    }
}

impl Pump {
    async fn serve(
        &mut self,
        stream: UnixStream,
        asked: &mut mpsc::UnboundedReceiver<Asked>,
    ) -> End {
        let (mut read, mut write) = stream.into_split();
        let mut incoming = Vec::new();
        let mut outgoing = Vec::new();
        // What may be asked twice is, at once; the rest when it is known what became of it.
        for (id, asked) in &self.open {
            if !matches!(
                asked.verb,
                Verb::Start { .. } | Verb::Restart { .. } | Verb::Exec { .. }
            ) {
                outgoing.extend(encode(&Request {
                    id: *id,
                    verb: asked.verb.clone(),
                }));
            }
        }
        loop {
            if let Some(Missed::AskAt(at)) = self.missed
                && at <= self.env.monotonic()
            {
                self.next_id += 1;
                self.missed = Some(Missed::Asked(self.next_id));
                let (id, verb) = (self.next_id, Verb::State);
                outgoing.extend(encode(&Request { id, verb }));
            }
            let wait = match self.missed {
                Some(Missed::AskAt(at)) => at.saturating_sub(self.env.monotonic()),
                _ => Duration::MAX,
            };
            let pause = async {
                if wait == Duration::MAX {
                    std::future::pending::<()>().await;
                }
                self.env.sleep(wait).await;
            };
            // Reading goes on while a shim that has much to tell does not take anything in.
            tokio::select! {
                request = asked.recv() => {
                    let Some(request) = request else { return End::Lost };
                    self.next_id += 1;
                    outgoing.extend(encode(&Request { id: self.next_id, verb: request.verb.clone() }));
                    self.open.insert(self.next_id, request);
                }
                written = write.write(&outgoing), if !outgoing.is_empty() => {
                    // What cannot be written is noticed by the reading half.
                    let written = written.unwrap_or(outgoing.len());
                    outgoing.drain(..written);
                }
                came = read.read_buf(&mut incoming) => {
                    if !came.is_ok_and(|bytes| bytes > 0) {
                        return End::Lost;
                    }
                    loop {
                        match take_frame(&mut incoming) {
                            Ok(Some(frame)) => {
                                if self.came(&frame, &mut outgoing) == Next::Over {
                                    return End::Over;
                                }
                            }
                            Ok(None) => break,
                            Err(_) => return End::Lost,
                        }
                    }
                }
                () = pause => {}
            }
        }
    }

    fn came(&mut self, frame: &[u8], outgoing: &mut Vec<u8>) -> Next {
        match serde_json::from_slice::<Message>(frame) {
            Ok(Message::Reply { id, answer }) => {
                let is_missed = matches!(self.missed, Some(Missed::Asked(asked)) if asked == id);
                match answer {
                    Answer::State { containers } if is_missed => {
                        self.catch_up(&containers, outgoing);
                    }
                    answer => self.answered(id, answer),
                }
                Next::GoOn
            }
            Ok(Message::Event(event)) => self.connection.happened(event, &self.events),
            // An event of a newer shim.
            Err(error) => {
                tracing::debug!(%error, "a shim said something unknown");
                Next::GoOn
            }
        }
    }

    fn answered(&mut self, id: u64, answer: Answer) {
        let Some(waiting) = self.open.remove(&id) else {
            return;
        };
        // Told from here, so that it comes before the end that may follow at once.
        if let (Some(container), Answer::Started { pid, at, .. }) = (starts(&waiting.verb), &answer)
        {
            self.connection.log_goes_on(container);
            let _ = self.events.send(RuntimeEvent::ContainerStarted {
                task: self.connection.0.task,
                container: container.clone(),
                pid: *pid,
                at: *at,
            });
        }
        // Whoever asked may have stopped waiting.
        let _ = waiting.answer.send(answer);
    }

    /// The shim has said how everything stands after a connection was lost.
    fn catch_up(&mut self, containers: &[ContainerState], outgoing: &mut Vec<u8>) {
        self.missed = None;
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            let Some(asked) = self.open.get(&id) else {
                continue;
            };
            if matches!(asked.verb, Verb::Exec { .. }) {
                self.answered(id, failed("the connection to the task's shim was lost"));
                continue;
            }
            let Some(name) = starts(&asked.verb) else {
                continue;
            };
            let known = containers.iter().find(|container| container.name == *name);
            let is_restart = matches!(asked.verb, Verb::Restart { .. });
            let ended_before = lock(&self.connection.0.told).last_runs.get(name).copied();
            match known {
                Some(container) if container.is_being_made => {
                    self.missed = Some(Missed::AskAt(self.env.monotonic() + AGAIN));
                }
                Some(container) if !is_restart || Some(container.run) > ended_before => {
                    let answer = match (&container.failed, container.pid, container.started_at) {
                        (Some(failed), _, _) => Answer::Failed {
                            kind: failed.kind.clone(),
                            message: failed.message.clone(),
                        },
                        (None, Some(pid), Some(at)) => Answer::Started {
                            pid,
                            at,
                            run: container.run,
                        },
                        _ => failed("the task's shim does not know what became of the container"),
                    };
                    self.answered(id, answer);
                }
                // It never heard of it.
                _ => outgoing.extend(encode(&Request {
                    id,
                    verb: asked.verb.clone(),
                })),
            }
        }
        for container in containers {
            if let Some(exit) = &container.exit {
                let (name, run) = (container.name.clone(), container.run);
                self.connection
                    .tell_end(name, run, exit.clone(), &self.events);
            }
        }
        // The shim forgot with the connection who waits for more output.
        let logs = lock(&self.connection.0.logs);
        for (container, log) in logs.iter() {
            self.next_id += 1;
            let verb = Verb::WatchLog {
                container: container.clone(),
                offset: log.borrow().end,
            };
            outgoing.extend(encode(&Request {
                id: self.next_id,
                verb,
            }));
        }
    }
}

/// The container that a request starts.
fn starts(verb: &Verb) -> Option<&ContainerName> {
    match verb {
        Verb::Start { container, .. } | Verb::Restart { container } => Some(container),
        _ => None,
    }
}

fn failed(message: &str) -> Answer {
    Answer::Failed {
        kind: "ContainerRuntimeError".to_owned(),
        message: message.to_owned(),
    }
}

/// The shim is dead: so shall be everything it held.
async fn died(connection: &TaskConnection, env: &Env, events: &Events) {
    let (cgroup_name, clock) = (connection.0.cgroup.clone(), env.clone());
    let dir = connection.0.dir.clone();
    let killed = tokio::task::spawn_blocking(move || {
        crate::cleanup::end_shim_of(&dir, &clock)?;
        cgroup::destroy(&clock, &cgroup_name)
    })
    .await;
    if !matches!(killed, Ok(Ok(()))) {
        tracing::error!(task = %connection.0.task, ?killed, "what a dead shim left could not be killed");
    }
    // Read when nothing writes any more.
    let containers = connection.without_exit();
    let _ = events.send(RuntimeEvent::ShimDied {
        task: connection.0.task,
        containers,
        at: env.now(),
    });
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream as Blocking};

    use gantry_arn::TaskId;
    use gantry_env::Timestamp;

    use super::*;
    use crate::event::Exit;
    use crate::protocol::{Event, PROTOCOL};
    use crate::spec::{InstallationId, LogSpec};
    use crate::state::{Durability, SHIM_SOCKET, start_ticks, write_json};

    fn exit(exit_code: i32) -> Exit {
        Exit {
            exit_code,
            signal: None,
            out_of_memory: false,
            at: Timestamp::from_millis(1),
        }
    }

    fn say(stream: &mut Blocking, message: &Message) {
        stream.write_all(&encode(message)).unwrap();
    }

    fn hear(stream: &mut Blocking) -> Request {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        serde_json::from_slice(&frame).unwrap()
    }

    fn end(name: &str, run: u32, code: i32) -> Message {
        Message::Event(Event::Exited {
            container: name.parse().unwrap(),
            exit: exit(code),
            run,
        })
    }

    /// A shim, as far as its socket: it loses the first connection in the middle of everything.
    fn stand_in(listener: UnixListener, mut first: Blocking) {
        say(
            &mut first,
            &Message::Event(Event::Ready { protocol: PROTOCOL }),
        );
        say(&mut first, &end("seen", 0, 1));
        let start = hear(&mut first);
        assert!(matches!(start.verb, Verb::Start { .. }));
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        say(
            &mut second,
            &Message::Event(Event::Ready { protocol: PROTOCOL }),
        );
        let state = hear(&mut second);
        assert!(matches!(state.verb, Verb::State));
        let container = |name: &str, exit: Option<Exit>| ContainerState {
            name: name.parse().unwrap(),
            run: 0,
            is_being_made: false,
            pid: Some(7),
            started_at: Some(Timestamp::from_millis(1)),
            exit,
            failed: None,
        };
        let containers = vec![
            container("seen", Some(exit(1))),
            container("missed", Some(exit(2))),
            container("asked", None),
        ];
        let answer = Answer::State { containers };
        say(
            &mut second,
            &Message::Reply {
                id: state.id,
                answer,
            },
        );
        say(&mut second, &end("seen", 1, 3));
        say(&mut second, &Message::Event(Event::Bye));
    }

    #[tokio::test]
    async fn a_lost_connection_to_a_living_shim_is_no_death_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // This process stands in for the shim, so it lives.
        let pid = std::process::id() as i32;
        let file = ShimFile {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
            protocol: PROTOCOL,
        };
        write_json(&dir.path().join(SHIM_FILE), &file, Durability::Process).unwrap();
        let listener = UnixListener::bind(dir.path().join(SHIM_SOCKET)).unwrap();
        let (ours, theirs) = Blocking::pair().unwrap();
        let shim = std::thread::spawn(move || stand_in(listener, theirs));
        ours.set_nonblocking(true).unwrap();
        let (events_in, mut events) = mpsc::unbounded_channel();
        let connection = TaskConnection::new(
            TaskId::from_random([7; 16]),
            &InstallationId::from_random([1, 2, 3, 4]),
            dir.path().to_owned(),
            UnixStream::from_std(ours).unwrap(),
            false,
            Env::real(),
            events_in,
        );
        let start = Verb::Start {
            container: "asked".parse().unwrap(),
            logs: LogSpec::None,
        };
        let answer = connection.ask(start).await.unwrap();
        assert!(
            matches!(answer, Answer::Started { pid: 7, .. }),
            "{answer:?}"
        );
        connection.gone().await;
        shim.join().unwrap();
        drop(connection);
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(match event {
                RuntimeEvent::ContainerStarted { container, .. } => (container.to_string(), 0),
                RuntimeEvent::ContainerExited {
                    container, exit, ..
                } => (container.to_string(), exit.exit_code),
                RuntimeEvent::ShimDied { .. } => panic!("a living shim counts as dead"),
            });
        }
        let of = |name: &str, code| (name.to_owned(), code);
        assert_eq!(
            told,
            [
                of("seen", 1),
                of("asked", 0),
                of("missed", 2),
                of("seen", 3)
            ]
        );
    }
}
