//! The face that an agent sees: one [`Network`] an installation.
//!
//! What always holds: one call at a time changes anything; a container's record is on disk before its
//! ports are answered on and before anything of it is in the kernel, and goes after all of that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_arn::TaskId;
use tracing::{debug, info, warn};

use crate::attachment::{AttachRequest, Attachment, PortBinding, PortRequest, Protocol};
use crate::conntrack;
use crate::elements::{self, Element};
use crate::error::{Doing, NetworkError};
use crate::files;
use crate::installation::Installation;
use crate::namespace;
use crate::pool::Pool;
use crate::ports::Ports;
use crate::records::{Key, Record, Records};
use crate::resolvers::HostResolvers;
use crate::routing;
use crate::setup::Kernel;

#[derive(Debug, Clone)]
pub struct Options {
    pub installation: Installation,
    /// A directory of its own for what must be found again.
    pub state_dir: PathBuf,
    /// The containers' addresses; `None` is a range that is free on this machine.
    pub pool: Option<Pool>,
    /// For tests: the process kills itself after so many steps in the kernel.
    #[doc(hidden)]
    pub steps_until_killed: Option<u32>,
}

impl Options {
    pub fn new(installation: Installation, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            installation,
            state_dir: state_dir.into(),
            pool: None,
            steps_until_killed: None,
        }
    }
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Network(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub options: Options,
    steps_left: AtomicU32,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub records: Records,
    ports: Ports,
    /// Ports that an earlier process held, which somebody took before this one could.
    lost: Vec<PortBinding>,
    pub listener: Option<TcpListener>,
    pub control_plane: Option<TcpListener>,
    /// Host ports that tasks name which are here but have not all started.
    expected: BTreeMap<TaskId, BTreeSet<(Protocol, u16)>>,
    /// From the first container on.
    pub kernel: Option<Kernel>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Reads what an earlier process left, and holds its ports again. [`Network::adopt`] then says which
    /// of it still counts.
    pub fn open(options: Options) -> Result<Self, NetworkError> {
        let records = Records::open(&options.state_dir)
            .doing(|| format!("the folder {}", options.state_dir.display()))?;
        let mut ports = Ports::new(options.installation.number());
        let mut lost = Vec::new();
        for record in records.all() {
            lost.extend(ports.take_again(&record.bindings));
        }
        for binding in &lost {
            warn!(
                port = binding.host_port,
                protocol = %binding.protocol,
                "somebody else has a host port that leads into a container; it is tried again"
            );
        }
        let has_containers = !records.is_empty();
        let network = Self(Arc::new(Inner {
            steps_left: AtomicU32::new(options.steps_until_killed.unwrap_or(u32::MAX)),
            options,
            state: Mutex::new(State {
                records,
                ports,
                lost,
                listener: None,
                control_plane: None,
                expected: BTreeMap::new(),
                kernel: None,
            }),
        }));
        if has_containers {
            let mut state = network.lock();
            network.set_up(&mut state)?;
        }
        Ok(network)
    }

    /// Removes what belongs to no known task, and what belongs to nothing at all.
    pub fn adopt(&self, known: &BTreeSet<TaskId>) -> Result<(), NetworkError> {
        let mut state = self.lock();
        let unknown: Vec<Key> = state
            .records
            .all()
            .filter(|record| !known.contains(&record.task))
            .map(|record| (record.task, record.container.clone()))
            .collect();
        for (task, container) in &unknown {
            info!(%task, container, "the network of a container that is gone is removed");
        }
        self.detach_all(&mut state, &unknown)?;
        self.sweep_in(&state)
    }

    /// Removes interfaces and namespaces that belong to no container, such as those of a detached one
    /// whose namespace somebody else still holds.
    pub fn sweep(&self) -> Result<(), NetworkError> {
        self.sweep_in(&self.lock())
    }

    fn sweep_in(&self, state: &State) -> Result<(), NetworkError> {
        let Some(kernel) = &state.kernel else {
            return Ok(());
        };
        let installation = &self.0.options.installation;
        let (links, namespaces): (BTreeSet<_>, BTreeSet<_>) = state
            .records
            .all()
            .map(|record| {
                (
                    installation.link(record.slot),
                    installation.namespace(record.slot),
                )
            })
            .unzip();
        for link in routing::links(&kernel.routes).doing(|| "listing interfaces".to_owned())? {
            if link.starts_with(&installation.link_prefix()) && !links.contains(&link) {
                remove_link(kernel, &link)?;
            }
        }
        for path in namespace::all_of(installation) {
            if !namespaces.contains(&path) {
                remove_namespace(&path)?;
            }
        }
        Ok(())
    }

    /// Gives a container its network. Asked again, also by a later process, it gives the same.
    pub fn attach(
        &self,
        task: TaskId,
        container: &str,
        request: &AttachRequest,
    ) -> Result<Attachment, NetworkError> {
        files::validate(request)?;
        let key = (task, container.to_owned());
        let mut state = self.lock();
        self.set_up(&mut state)?;
        let record = self.intend(&mut state, &key, request)?;
        match self.make(&state, &record) {
            Ok(()) => self.describe(&mut state, &record),
            Err(error) => {
                if let Err(error) = self.detach_all(&mut state, &[key]) {
                    warn!(%task, container, %error, "what was made of a container's network could not be removed");
                }
                Err(error)
            }
        }
    }

    /// What a container has, if it is attached.
    pub fn attachment(&self, task: TaskId, container: &str) -> Option<Attachment> {
        let mut state = self.lock();
        let record = state.records.get(&(task, container.to_owned()))?.clone();
        record.request.as_ref()?;
        self.describe(&mut state, &record).ok()
    }

    /// Takes a container's network away. Gone already is what is wanted. Its ports are free and nothing
    /// reaches it when this returns; its interface goes moments later, with its last process.
    pub fn detach(&self, task: TaskId, container: &str) -> Result<(), NetworkError> {
        self.detach_all(&mut self.lock(), &[(task, container.to_owned())])
    }

    pub fn detach_task(&self, task: TaskId) -> Result<(), NetworkError> {
        let mut state = self.lock();
        state.expected.remove(&task);
        let keys = state.records.keys_of(task);
        self.detach_all(&mut state, &keys)
    }

    /// Whose address this is. A container cannot send with another's.
    pub fn owner_of(&self, peer: IpAddr) -> Option<(TaskId, String)> {
        let address = match peer {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => address.to_ipv4_mapped()?,
        };
        let state = self.lock();
        let slot = state.records.pool?.slot(address)?;
        let record = state.records.at(slot)?;
        Some((record.task, record.container.clone()))
    }

    /// A listener that containers reach at 169.254.170.2:80, with their own addresses as peers. The host
    /// reaches it on 127.0.0.1, so a peer that is no container's must be refused.
    pub fn endpoint_listener(&self) -> Result<TcpListener, NetworkError> {
        self.listener(|state| &mut state.listener)
    }

    /// As [`Network::endpoint_listener`], at 169.254.170.2:4566. Nobody but a container of this installation is led to
    /// it, and until this is called nobody at all.
    pub fn control_plane_listener(&self) -> Result<TcpListener, NetworkError> {
        self.listener(|state| &mut state.control_plane)
    }

    fn listener(
        &self,
        place: impl Fn(&mut State) -> &mut Option<TcpListener>,
    ) -> Result<TcpListener, NetworkError> {
        let mut state = self.lock();
        let listener = match place(&mut state).take() {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .doing(|| "binding the endpoint for tasks".to_owned())?,
        };
        let copy = listener
            .try_clone()
            .doing(|| "binding the endpoint for tasks".to_owned())?;
        *place(&mut state) = Some(listener);
        if state.kernel.is_some() {
            self.set_up(&mut state)?;
        }
        Ok(copy)
    }

    /// Keeps the host ports that a task names from being chosen for others, until the task is detached.
    pub fn expect_ports(&self, task: TaskId, ports: &[PortRequest]) {
        let named = ports
            .iter()
            .filter_map(|port| Some((port.protocol, port.host_port.filter(|port| *port > 0)?)));
        let mut named = named.peekable();
        if named.peek().is_some() {
            self.lock().expected.entry(task).or_default().extend(named);
        }
    }

    /// Tries to hold the ports that somebody took while no Gantry ran. Whether all are held.
    pub fn hold_again(&self) -> bool {
        let State { ports, lost, .. } = &mut *self.lock();
        *lost = ports.take_again(lost);
        lost.is_empty()
    }

    /// Whether a container of this installation has the port.
    pub fn holds(&self, port: u16, protocol: Protocol) -> bool {
        let state = self.lock();
        let mut bindings = state.records.all().flat_map(|record| &record.bindings);
        bindings.any(|binding| binding.host_port == port && binding.protocol == protocol)
    }

    /// The host's end of every container's interface.
    pub(crate) fn interfaces(&self) -> Vec<(Key, String)> {
        let state = self.lock();
        let records = state.records.all();
        records
            .filter(|record| record.request.as_ref().is_some_and(|r| !r.is_isolated))
            .map(|record| {
                let key = (record.task, record.container.clone());
                (key, self.0.options.installation.link(record.slot))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what a container will have. Nothing of it is in the kernel yet but the held ports.
    fn intend(
        &self,
        state: &mut State,
        key: &Key,
        request: &AttachRequest,
    ) -> Result<Record, NetworkError> {
        let known = state.records.get(key).cloned();
        if let Some(known) = &known
            && known.request.as_ref() == Some(request)
        {
            return Ok(known.clone());
        }
        // It asks for something else than it did: what it had is in the way of that.
        if known.as_ref().is_some_and(|known| known.request.is_some()) {
            self.detach_all(state, std::slice::from_ref(key))?;
        }
        for link in &request.links {
            let of = (key.0, link.container.clone());
            if of == *key {
                return Err(NetworkError::Link(link.container.clone()));
            }
            if state.records.get(&of).is_none() {
                let reserved = self.new_record(state, &of)?;
                self.save(state, reserved)?;
            }
        }
        let mut record = match state.records.get(key) {
            Some(reserved) => reserved.clone(),
            None => self.new_record(state, key)?,
        };
        let State {
            ports, expected, ..
        } = state;
        let is_expected = |key: &(Protocol, u16)| expected.values().any(|of| of.contains(key));
        record.bindings = ports.take(&request.ports, &request.port_ranges, &is_expected)?;
        record.request = Some(request.clone());
        let bindings = record.bindings.clone();
        if let Err(error) = self.save(state, record.clone()) {
            state.ports.release(&bindings);
            return Err(error);
        }
        Ok(record)
    }

    fn new_record(&self, state: &State, (task, container): &Key) -> Result<Record, NetworkError> {
        let pool = kernel_of(state)?.pool;
        let slot =
            state
                .records
                .free_slot(pool)
                .ok_or_else(|| NetworkError::AddressesExhausted {
                    pool: pool.to_string(),
                })?;
        Ok(Record {
            task: *task,
            container: container.clone(),
            slot,
            request: None,
            bindings: Vec::new(),
        })
    }

    fn save(&self, state: &mut State, record: Record) -> Result<(), NetworkError> {
        state
            .records
            .save(record)
            .doing(|| "writing down a container's network".to_owned())?;
        self.step();
        Ok(())
    }

    /// Brings the kernel to what the record says, from whatever is there.
    fn make(&self, state: &State, record: &Record) -> Result<(), NetworkError> {
        let kernel = kernel_of(state)?;
        let installation = &self.0.options.installation;
        let (link, path) = (
            installation.link(record.slot),
            installation.namespace(record.slot),
        );
        let address = kernel.pool.address(record.slot);
        let is_isolated = record
            .request
            .as_ref()
            .is_some_and(|request| request.is_isolated);
        let is_whole = namespace::is_there(&path)
            && (is_isolated || routing::link_exists(&kernel.routes, &link));
        if !is_whole {
            remove_link(kernel, &link)?;
            remove_namespace(&path)?;
            let made = namespace::make(&path)
                .doing(|| format!("making the namespace {}", path.display()))?;
            self.step();
            if is_isolated {
                return Ok(());
            }
            routing::make_pair(
                &kernel.routes,
                &link,
                address,
                kernel.mtu,
                std::os::fd::AsFd::as_fd(&made.file),
            )
            .doing(|| format!("making the interface {link}"))?;
            self.step();
            configure_sysctls(&link).doing(|| format!("setting up the interface {link}"))?;
            routing::configure_inside(&made.routes, address)
                .doing(|| "setting up eth0 in a container".to_owned())?;
            self.step();
            routing::configure_host_end(&kernel.routes, &link, address)
                .doing(|| format!("setting up the interface {link}"))?;
            if let Err(error) = made.carrier.settle(routing::INSIDE) {
                debug!(%error, "a container's interface opens in its own time");
            }
            self.step();
        }
        if is_isolated {
            return Ok(());
        }
        elements::add(
            &installation.table(),
            &self.elements_of(kernel.pool, record),
        )
        .doing(|| "adding a container to the nftables table".to_owned())?;
        self.step();
        for binding in &record.bindings {
            conntrack::forget_flows_to(binding)
                .doing(|| "forgetting connections to a host port".to_owned())?;
        }
        Ok(())
    }

    fn describe(&self, state: &mut State, record: &Record) -> Result<Attachment, NetworkError> {
        let pool = kernel_of(state)?.pool;
        let address = pool.address(record.slot);
        let none = AttachRequest::default();
        let request = record.request.as_ref().unwrap_or(&none);
        let hostname = request
            .hostname
            .clone()
            .unwrap_or_else(|| files::default_hostname(address));
        let links: Vec<(Vec<String>, Ipv4Addr)> = request
            .links
            .iter()
            .filter_map(|link| {
                let other = state.records.get(&(record.task, link.container.clone()))?;
                let mut names = vec![link.alias.clone()];
                if link.container != link.alias {
                    names.push(link.container.clone());
                }
                Some((names, pool.address(other.slot)))
            })
            .collect();
        Ok(Attachment {
            namespace: self.0.options.installation.namespace(record.slot),
            address,
            hosts: files::hosts(address, &hostname, &request.extra_hosts, &links),
            resolv_conf: HostResolvers::read()
                .resolv_conf(&request.dns_servers, &request.dns_search_domains),
            hostname,
            bindings: record.bindings.clone(),
        })
    }

    fn detach_all(&self, state: &mut State, keys: &[Key]) -> Result<(), NetworkError> {
        let records: Vec<Record> = keys
            .iter()
            .filter_map(|key| state.records.get(key).cloned())
            .collect();
        let installation = &self.0.options.installation;
        if let Some(kernel) = state.kernel.as_ref().filter(|_| !records.is_empty()) {
            let elements: Vec<Element> = records
                .iter()
                .flat_map(|record| self.elements_of(kernel.pool, record))
                .collect();
            elements::remove(&installation.table(), &elements)
                .doing(|| "removing a container from the nftables table".to_owned())?;
            self.step();
        }
        for record in &records {
            if let Some(kernel) = &state.kernel {
                // The kernel removes the interfaces with the namespace, many at a time and in its own time;
                // one by one would keep whoever starts a container waiting.
                remove_namespace(&installation.namespace(record.slot))?;
                self.step();
                if let Err(error) = conntrack::forget_answers_of(kernel.pool.address(record.slot)) {
                    warn!(%error, "the kernel does not forget a container's connections before their time");
                }
            }
            state
                .records
                .remove(&(record.task, record.container.clone()))
                .doing(|| "forgetting a container's network".to_owned())?;
            state.ports.release(&record.bindings);
            state
                .lost
                .retain(|binding| !record.bindings.contains(binding));
        }
        Ok(())
    }

    pub(crate) fn elements_of(&self, pool: Pool, record: &Record) -> Vec<Element> {
        let address = pool.address(record.slot);
        let ports = record.bindings.iter().map(|binding| Element::Port {
            protocol: binding.protocol,
            host_port: binding.host_port,
            address,
            container_port: binding.container_port,
        });
        let own = [
            Element::Owner {
                link: self.0.options.installation.link(record.slot),
                address,
            },
            Element::SelfTraffic { address },
        ];
        own.into_iter().chain(ports).collect()
    }

    /// One step in the kernel is done.
    pub(crate) fn step(&self) {
        if self.0.options.steps_until_killed.is_some()
            && self.0.steps_left.fetch_sub(1, Ordering::Relaxed) <= 1
        {
            let own = rustix::process::getpid();
            // It does not return.
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
    }
}

fn kernel_of(state: &State) -> Result<&Kernel, NetworkError> {
    state.kernel.as_ref().ok_or_else(|| NetworkError::Step {
        what: "the network of containers".to_owned(),
        cause: std::io::Error::other("it is not set up"),
    })
}

fn remove_link(kernel: &Kernel, name: &str) -> Result<(), NetworkError> {
    routing::remove_link(&kernel.routes, name).doing(|| format!("removing the interface {name}"))
}

fn remove_namespace(path: &std::path::Path) -> Result<(), NetworkError> {
    namespace::remove(path).doing(|| format!("removing the namespace {}", path.display()))
}

/// Before the host end is up: it has no IPv6, answers that are meant for the host's 127.0.0.1 are let
/// in, and a packet with an address that does not belong there is dropped.
fn configure_sysctls(link: &str) -> std::io::Result<()> {
    for (family, name, value) in [
        ("ipv6", "disable_ipv6", "1"),
        ("ipv4", "route_localnet", "1"),
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "send_redirects", "0"),
    ] {
        let path = format!("/proc/sys/net/{family}/conf/{link}/{name}");
        match std::fs::write(path, value) {
            // A kernel without IPv6.
            Err(error) if family == "ipv6" && error.kind() == std::io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// A request for ports alone.
impl From<Vec<PortRequest>> for AttachRequest {
    fn from(ports: Vec<PortRequest>) -> Self {
        Self {
            ports,
            ..Self::default()
        }
    }
}
