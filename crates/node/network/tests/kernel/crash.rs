//! A process that dies, and the next one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use gantry_network::{AttachRequest, Network, Options, PortRequest, Protocol};

use crate::scene::{
    HOST, Place, Scene, attach, call, eventually_everything, everything, serve, shell, task,
};

fn with_ports() -> AttachRequest {
    let request = |host_port, protocol| PortRequest {
        container_port: 80,
        host_port,
        protocol,
    };
    AttachRequest::from(vec![
        request(None, Protocol::Tcp),
        request(Some(8080), Protocol::Tcp),
        request(None, Protocol::Udp),
    ])
}

#[test]
fn the_next_process_gives_the_same_and_holds_the_same_ports() {
    let scene = Scene::new();
    let network = scene.open();
    let first = attach(&network, 1, &with_ports());
    serve(&first, 80, "first");
    drop(network);
    // The kernel answers while nobody is there.
    assert!(call(Place::Outside, HOST, 8080).is_ok());
    let network = scene.open();
    network.adopt(&BTreeSet::from([task(1)])).unwrap();
    for binding in first
        .bindings
        .iter()
        .filter(|b| b.protocol == Protocol::Tcp)
    {
        assert!(TcpListener::bind(("0.0.0.0", binding.host_port)).is_err());
    }
    assert_eq!(network.attachment(task(1), "web"), Some(first.clone()));
    assert_eq!(attach(&network, 1, &with_ports()), first);
    assert_eq!(
        network.owner_of(first.address.into()),
        Some((task(1), "web".to_owned()))
    );
    for (place, to) in [(Place::Outside, HOST), (Place::Host, Ipv4Addr::LOCALHOST)] {
        let said = call(place, to, first.bindings[0].host_port).unwrap();
        assert!(said.starts_with("first"), "{said}");
    }
}

#[test]
fn what_belongs_to_nobody_is_removed() {
    let scene = Scene::new();
    let network = scene.open();
    let kept = attach(&network, 1, &AttachRequest::default());
    let all_of_one = everything();
    let gone = attach(&network, 2, &with_ports());
    drop(network);
    // Left by a process of which not even a record is there any more.
    let prefix = format!("gv{}", scene.installation);
    shell(&format!(
        "ip link add {prefix}abc type veth peer name x{prefix}"
    ));
    shell(&format!("ip netns add gantry-{}-abc", scene.installation));
    let network = scene.open();
    network.adopt(&BTreeSet::from([task(1)])).unwrap();
    eventually_everything(&all_of_one);
    assert_eq!(network.owner_of(gone.address.into()), None);
    assert_eq!(
        network.attachment(task(1), "web").unwrap().address,
        kept.address
    );
    TcpListener::bind("0.0.0.0:8080").unwrap();
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_held_again_when_it_is_free() {
    let scene = Scene::new();
    let network = scene.open();
    attach(&network, 1, &with_ports());
    drop(network);
    let somebody = TcpListener::bind("0.0.0.0:8080").unwrap();
    let network = scene.open();
    assert!(!network.hold_again());
    drop(somebody);
    assert!(network.hold_again());
    assert!(TcpListener::bind("0.0.0.0:8080").is_err());
}

#[test]
fn a_container_is_made_whole_again_after_the_machine_started_anew() {
    let scene = Scene::new();
    let network = scene.open();
    let before = attach(&network, 1, &with_ports());
    drop(network);
    shell(&format!(
        "ip link del gv{}2; umount {1} && rm {1}",
        scene.installation,
        before.namespace.display()
    ));
    shell("nft flush ruleset; ip route flush proto 71; sysctl -qw net.ipv4.ip_forward=0");
    let network = scene.open();
    let after = attach(&network, 1, &with_ports());
    assert_eq!(after, before);
    serve(&after, 80, "again");
    assert!(call(Place::Outside, HOST, 8080).is_ok());
}

/// More than attaching and detaching a first container take.
const STEPS: u32 = 24;
const DIR: &str = "GANTRY_TEST_STATE";
const KILL_AFTER: &str = "GANTRY_TEST_STEPS";

#[test]
fn whoever_is_killed_in_any_step_leaves_nothing_that_is_not_found() {
    let scene = Scene::new();
    let before = everything();
    let mut killed = 0;
    for steps in 1..=STEPS {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--ignored", "--test-threads=1"])
            .env(DIR, scene.state.path().join("network"))
            .env(KILL_AFTER, steps.to_string())
            .output()
            .unwrap()
            .status;
        if status.signal() != Some(9) {
            assert!(status.success(), "step {steps}: {status}");
            break;
        }
        killed += 1;
        if steps % 2 == 0 {
            // The next process goes on from there.
            let network = scene.open();
            network.adopt(&BTreeSet::new()).unwrap();
            let one = attach(&network, 2, &with_ports());
            serve(&one, 80, "next");
            assert!(call(Place::Outside, HOST, 8080).is_ok(), "step {steps}");
        }
        scene.clean_up();
        eventually_everything(&before);
    }
    assert!((8..STEPS).contains(&killed), "{killed} steps");
}

#[test]
#[ignore = "it is run, and killed, by the test above"]
fn victim() {
    let mut options = Options::new("0a1b2c3d".parse().unwrap(), std::env::var(DIR).unwrap());
    options.steps_until_killed = Some(std::env::var(KILL_AFTER).unwrap().parse().unwrap());
    let network = Network::open(options).unwrap();
    attach(&network, 1, &with_ports());
    network.detach_task(task(1)).unwrap();
}
