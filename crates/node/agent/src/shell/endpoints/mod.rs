//! The endpoints of tasks: their addresses, and the two doors at which they are answered; and the way to the control plane.
//!
//! What always holds: an address belongs to one container and is good for as long as its task is here.
//! At 169.254.170.2 a container is known by the address that it sends from, and gets nothing but what
//! is its own task's. Tasks on the host's network come to a port of the loopback address; what they may
//! have is decided by an address that nobody can guess. That port stays the same when the agent is
//! started again. Tasks without network have no endpoints, and no variables that name any.
//! What it leaves to others: the answers (`answers`), connections (`listener`), reaching 169.254.170.2
//! from a container (`gantry_network`).

mod answers;
mod control_plane;
mod listener;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_api::acs::RoleCredentials;
use gantry_arn::TaskId;
use gantry_env::Env;
use gantry_runtime::ContainerSpec;
use tracing::warn;

pub(super) use self::answers::{Answers, Serving};
pub(super) use self::control_plane::ControlPlaneDoor;
use self::listener::serve;
use crate::core::plan::{ContainerPlan, NetworkMode, TaskPlan};
use crate::endpoints::address::{Door, EndpointId, Found, sdk_variables, variables};
use crate::endpoints::allowance::Allowance;
use crate::endpoints::stats::Look;

/// Where the loopback door was last time.
const PORT_FILE: &str = "endpoints-port";

/// Cloning shares it.
#[derive(Clone)]
pub(super) struct Endpoints(Arc<Inner>);

struct Inner {
    env: Env,
    loopback_port: u16,
    /// The control plane that the agent joined.
    joined: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    containers: BTreeMap<String, Place>,
    by_container: BTreeMap<(TaskId, String), EndpointId>,
    credentials: BTreeMap<String, Held>,
    allowances: BTreeMap<(TaskId, Purpose), Allowance>,
    /// The last look at each container that asked for its stats.
    looks: BTreeMap<(TaskId, String), Look>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub task: TaskId,
    pub container: String,
    pub door: Door,
}

/// The credentials of a task's role: none yet after a restart of the agent, until they come again.
struct Held {
    task: TaskId,
    doors: BTreeSet<Door>,
    credentials: Option<RoleCredentials>,
}

/// What is counted apart, so that a container that asks for metadata all the time does not keep its task
/// from its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Metadata,
    Credentials,
}

pub(super) enum FoundCredentials {
    Unknown,
    NotYet(TaskId),
    Here(TaskId, Box<RoleCredentials>),
}

impl Endpoints {
    /// Opens the loopback door where it was before.
    pub fn open(
        directory: &Path,
        joined: String,
        env: Env,
    ) -> io::Result<(Endpoints, TcpListener)> {
        let listener = loopback(directory)?;
        let inner = Inner {
            env,
            loopback_port: listener.local_addr()?.port(),
            joined,
            known: Mutex::default(),
        };
        Ok((Endpoints(Arc::new(inner)), listener))
    }

    /// Gives a container that is about to start its addresses, in its environment. Asked again, it gives
    /// new ones.
    pub fn join(
        &self,
        task: TaskId,
        plan: &TaskPlan,
        container: &ContainerPlan,
        image_environment: &[String],
        spec: &mut ContainerSpec,
    ) {
        let door = match plan.network_mode {
            NetworkMode::None => return,
            NetworkMode::Bridge if container.network_disabled => return,
            NetworkMode::Bridge => Door::Link,
            NetworkMode::Host => Door::Loopback,
        };
        let id = EndpointId::new(self.0.env.entropy.bytes16(), self.0.env.now());
        let credentials_id = plan.credentials_id.as_deref();
        let mut given = variables(door, self.0.loopback_port, &id, credentials_id);
        let is_set = |name: &str| {
            let of_image = |variable: &String| variable.split('=').next() == Some(name);
            spec.environment.iter().any(|(other, _)| other == name)
                || image_environment.iter().any(of_image)
        };
        given.extend(sdk_variables(door, &self.0.joined, is_set));
        spec.environment
            .retain(|(name, _)| given.iter().all(|(other, _)| name != other));
        spec.environment
            .extend(given.into_iter().map(|(name, value)| (name.into(), value)));
        self.know(task, &container.name, id, door, credentials_id);
    }

    /// Knows again what an earlier agent gave.
    pub fn adopt(&self, task: TaskId, container: &str, environment: &[(String, String)]) {
        if let Some(Found {
            id,
            door,
            credentials_id,
        }) = Found::of(environment)
        {
            self.know(task, container, id, door, credentials_id.as_deref());
        }
    }

    fn know(
        &self,
        task: TaskId,
        container: &str,
        id: EndpointId,
        door: Door,
        credentials_id: Option<&str>,
    ) {
        let mut known = self.lock();
        let key = (task, container.to_owned());
        let place = Place {
            task,
            container: container.to_owned(),
            door,
        };
        known.containers.insert(id.as_str().to_owned(), place);
        if let Some(before) = known.by_container.insert(key, id.clone())
            && before != id
        {
            known.containers.remove(before.as_str());
        }
        if let Some(credentials_id) = credentials_id {
            known.held(credentials_id, task).doors.insert(door);
        }
    }

    /// New credentials of a task's own role.
    pub fn keep_credentials(&self, task: TaskId, credentials: RoleCredentials) {
        if let Some(id) = credentials.credentials_id.clone() {
            self.lock().held(&id, task).credentials = Some(credentials);
        }
    }

    pub fn forget(&self, task: TaskId) {
        let Known {
            containers,
            by_container,
            credentials,
            allowances,
            looks,
        } = &mut *self.lock();
        containers.retain(|_, place| place.task != task);
        by_container.retain(|(of, _), _| *of != task);
        credentials.retain(|_, held| held.task != task);
        allowances.retain(|(of, _), _| *of != task);
        looks.retain(|(of, _), _| *of != task);
    }

    pub fn env(&self) -> &Env {
        &self.0.env
    }

    fn place(&self, id: &str) -> Option<Place> {
        self.lock().containers.get(id).cloned()
    }

    fn id_of(&self, task: TaskId, container: &str) -> Option<EndpointId> {
        let known = self.lock();
        known
            .by_container
            .get(&(task, container.to_owned()))
            .cloned()
    }

    fn credentials(&self, id: &str, door: Door) -> FoundCredentials {
        let known = self.lock();
        let Some(held) = known.credentials.get(id) else {
            return FoundCredentials::Unknown;
        };
        if !held.doors.contains(&door) {
            return FoundCredentials::Unknown;
        }
        match held.credentials.clone() {
            Some(credentials) => FoundCredentials::Here(held.task, Box::new(credentials)),
            None => FoundCredentials::NotYet(held.task),
        }
    }

    fn may_ask(&self, task: TaskId, purpose: Purpose) -> bool {
        let now = self.0.env.monotonic();
        let mut known = self.lock();
        known
            .allowances
            .entry((task, purpose))
            .or_insert_with(|| Allowance::full(now))
            .take(now)
    }

    /// Keeps a look at a container and gives the one before.
    fn looked(&self, task: TaskId, container: &str, look: Look) -> Option<Look> {
        let mut known = self.lock();
        let key = (task, container.to_owned());
        // Only of what is here, so that nothing is kept of a task that has just been forgotten.
        if !known.by_container.contains_key(&key) {
            return None;
        }
        known.looks.insert(key, look)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn held(&mut self, credentials_id: &str, task: TaskId) -> &mut Held {
        self.credentials
            .entry(credentials_id.to_owned())
            .or_insert_with(|| Held {
                task,
                doors: BTreeSet::new(),
                credentials: None,
            })
    }
}

/// The door for tasks on the host's network: their environment says where it is, so it stays there.
fn loopback(directory: &Path) -> io::Result<TcpListener> {
    let file = directory.join(PORT_FILE);
    let before = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse::<u16>().ok());
    if let Some(port) = before {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            // Tasks that run on the host's network do without their endpoints then; new ones do not.
            Err(error) => warn!(port, %error, "somebody has the port of the tasks' endpoints"),
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, listener.local_addr()?.port().to_string())?;
    std::fs::rename(&fresh, &file)?;
    Ok(listener)
}

/// An answer that takes longer than this is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use gantry_env::VirtualEnv;

    use super::*;

    fn joined() -> String {
        "http://127.0.0.1:4566".to_owned()
    }

    fn endpoints() -> (Endpoints, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let env = VirtualEnv::seeded(1).env();
        let (endpoints, _) = Endpoints::open(directory.path(), joined(), env).unwrap();
        (endpoints, directory)
    }

    fn task(number: u8) -> TaskId {
        TaskId::from_random([number; 16])
    }

    fn id(number: u8) -> EndpointId {
        EndpointId::new([number; 16], gantry_env::Timestamp::from_millis(1))
    }

    #[test]
    fn the_loopback_door_stays_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let env = VirtualEnv::seeded(1).env();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (_, first) = Endpoints::open(directory.path(), joined(), env.clone()).unwrap();
        let was = port(&first);
        // As long as somebody has it, it is elsewhere.
        let (_, second) = Endpoints::open(directory.path(), joined(), env.clone()).unwrap();
        let is = port(&second);
        assert_ne!(is, was);
        drop((first, second));
        let (_, third) = Endpoints::open(directory.path(), joined(), env).unwrap();
        assert_eq!(port(&third), is);
    }

    #[test]
    fn credentials_are_for_the_doors_of_their_task() {
        let (endpoints, _directory) = endpoints();
        endpoints.know(task(1), "web", id(1), Door::Link, Some("c1"));
        assert!(matches!(
            endpoints.credentials("c1", Door::Link),
            FoundCredentials::NotYet(of) if of == task(1)
        ));
        let credentials = RoleCredentials {
            credentials_id: Some("c1".to_owned()),
            ..RoleCredentials::default()
        };
        endpoints.keep_credentials(task(1), credentials);
        assert!(matches!(
            endpoints.credentials("c1", Door::Link),
            FoundCredentials::Here(..)
        ));
        for (id, door) in [("c1", Door::Loopback), ("c2", Door::Link)] {
            let found = endpoints.credentials(id, door);
            assert!(matches!(found, FoundCredentials::Unknown), "{id}");
        }
        endpoints.forget(task(1));
        assert!(matches!(
            endpoints.credentials("c1", Door::Link),
            FoundCredentials::Unknown
        ));
        assert_eq!(endpoints.place(id(1).as_str()), None);
    }

    #[test]
    fn a_container_has_one_address_and_its_task_one_allowance() {
        let (endpoints, _directory) = endpoints();
        endpoints.know(task(1), "web", id(1), Door::Link, None);
        endpoints.know(task(1), "web", id(2), Door::Link, None);
        assert_eq!(endpoints.place(id(1).as_str()), None);
        assert!(endpoints.place(id(2).as_str()).is_some());
        let asked = |of| {
            let asked = (0..100).filter(|_| endpoints.may_ask(task(of), Purpose::Metadata));
            asked.count()
        };
        assert_eq!((asked(1), asked(2)), (60, 60));
        assert!(endpoints.may_ask(task(1), Purpose::Credentials));
    }
}
