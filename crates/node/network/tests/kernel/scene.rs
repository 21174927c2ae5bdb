//! A machine with one uplink, somebody outside, and nothing else; and ways to look from any place.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_network::{AttachRequest, Attachment, Installation, Network, Options};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The machine's address, and that of somebody on the same wire.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

pub struct Scene {
    pub state: tempfile::TempDir,
    pub installation: Installation,
}

/// Somewhere from where things are looked at.
#[derive(Debug, Clone)]
pub enum Place {
    Host,
    Outside,
    Container(PathBuf),
}

impl From<&Attachment> for Place {
    fn from(attachment: &Attachment) -> Self {
        Self::Container(attachment.namespace.clone())
    }
}

impl Scene {
    /// Moves the calling thread, and whatever it starts from now on, onto a machine of its own.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("these tests need root: they make namespaces");
        shell("mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/netns");
        shell("ip link set lo up && ip netns add outside");
        shell("ip link add uplink type veth peer name wire netns outside");
        shell(&format!(
            "ip addr add {HOST}/24 dev uplink && ip link set uplink up"
        ));
        shell("ip route add default via 192.0.2.9");
        shell(&format!(
            "ip -n outside addr add {OUTSIDER}/24 dev wire && ip -n outside link set wire up && ip -n outside link set lo up"
        ));
        // The kernel notices a carrier in its own time, and what a test compares with must not change by itself.
        while !shell("ip -o link show uplink").contains("LOWER_UP") {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The switch is as a laptop has it.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        Self {
            state: tempfile::tempdir().unwrap(),
            installation: "0a1b2c3d".parse().unwrap(),
        }
    }

    /// The machine's resolver, on this machine only.
    pub fn set_resolver(&self, text: &str) {
        std::fs::write("/run/resolv.conf", text).unwrap();
        shell("mount --bind /run/resolv.conf $(readlink -f /etc/resolv.conf)");
    }

    pub fn options(&self) -> Options {
        Options::new(self.installation.clone(), self.state.path().join("network"))
    }

    pub fn open(&self) -> Network {
        Network::open(self.options()).unwrap()
    }

    pub fn clean_up(&self) -> gantry_network::Removed {
        gantry_network::cleanup(&self.installation, &self.state.path().join("network")).unwrap()
    }
}

/// Everything of the kernel's that an installation could leave, in words.
pub fn everything() -> BTreeSet<String> {
    let lines = shell(
        "ip -o link | sed 's/ qlen.*//'; ip -4 route show table all; ip -4 neigh show nud permanent; nft list ruleset; ls /run/netns; sysctl net.ipv4.ip_forward",
    );
    lines.lines().map(str::to_owned).collect()
}

/// Waits until the kernel has this and nothing else: it removes interfaces in its own time.
pub fn eventually_everything(expected: &BTreeSet<String>) {
    let env = gantry_env::Env::real();
    let deadline = env.monotonic() + patience() * 20;
    while env.monotonic() < deadline {
        if everything() == *expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(everything(), *expected);
}

/// Longer than anything takes that works; what is dropped takes this long to be seen. An emulated machine says of
/// itself how many times slower it is.
fn patience() -> Duration {
    let said = std::env::var("GANTRY_TEST_PATIENCE").ok();
    Duration::from_millis(1500) * said.and_then(|times| times.parse().ok()).unwrap_or(1)
}

pub fn shell(command: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn task(n: u8) -> TaskId {
    format!("{n:032x}").parse().unwrap()
}

pub fn attach(network: &Network, n: u8, request: &AttachRequest) -> Attachment {
    network.attach(task(n), "web", request).unwrap()
}

/// Runs something in a place.
pub fn at<T: Send>(place: impl Into<Place>, run: impl FnOnce() -> T + Send) -> T {
    let place = place.into();
    std::thread::scope(|scope| {
        let moved = scope.spawn(move || {
            enter(&place);
            run()
        });
        moved.join().unwrap()
    })
}

fn enter(place: &Place) {
    let path = match place {
        Place::Host => return,
        Place::Outside => Path::new("/run/netns/outside"),
        Place::Container(path) => path,
    };
    let file = std::fs::File::open(path).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Serves TCP in a place: says `name` and who called.
pub fn serve(place: impl Into<Place>, port: u16, name: &'static str) {
    let place = place.into();
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        enter(&place);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        ready.send(()).unwrap();
        while let Ok((mut stream, peer)) = listener.accept() {
            // Whoever called may have gone.
            let _ = stream.write_all(format!("{name} heard {}", peer.ip()).as_bytes());
        }
    });
    is_ready.recv().unwrap();
}

/// The same with UDP.
pub fn serve_udp(place: impl Into<Place>, address: SocketAddrV4, name: &'static str) {
    let place = place.into();
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        enter(&place);
        let socket = UdpSocket::bind(address).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} heard {}", peer.ip()).as_bytes(), peer);
        }
    });
    is_ready.recv().unwrap();
}

/// Calls from a place and gives back what was said.
pub fn call(place: impl Into<Place>, to: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    at(place, || {
        let to = SocketAddr::from((to, port));
        let mut stream = TcpStream::connect_timeout(&to, patience()).map_err(|e| e.kind())?;
        stream.set_read_timeout(Some(patience())).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).map_err(|e| e.kind())?;
        Ok(said)
    })
}

pub fn call_udp(place: impl Into<Place>, to: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    at(place, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        ask_udp(&socket, to, port)
    })
}

/// Asks once: what a container is sent first counts, and so does what it answers.
pub fn ask_udp(socket: &UdpSocket, to: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.connect((to, port)).map_err(|e| e.kind())?;
    socket.send(b"hello").map_err(|e| e.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
