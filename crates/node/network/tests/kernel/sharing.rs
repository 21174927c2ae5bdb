//! What installations share with one another and with everybody else on the machine.

use std::net::Ipv4Addr;

use gantry_network::{AttachRequest, PortRequest, Protocol};

use crate::scene::{
    HOST, OUTSIDER, Place, Scene, attach, call, eventually_everything, everything, serve, shell,
};

fn another(id: &str) -> Scene {
    Scene {
        state: tempfile::tempdir().unwrap(),
        installation: id.parse().unwrap(),
    }
}

fn is_forwarding() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .unwrap()
        .trim()
        == "1"
}

#[test]
fn nothing_is_touched_before_the_first_container_and_nothing_is_left_after_cleanup() {
    let scene = Scene::new();
    let before = everything();
    let network = scene.open();
    assert_eq!(everything(), before);
    attach(&network, 1, &AttachRequest::default());
    attach(&network, 2, &AttachRequest::default());
    assert_ne!(everything(), before);
    drop(network);
    let removed = scene.clean_up();
    assert_eq!((removed.links, removed.namespaces), (2, 2));
    assert_eq!((removed.tables, removed.routes), (1, 1));
    eventually_everything(&before);
    assert_eq!(scene.clean_up(), gantry_network::Removed::default());
}

#[test]
fn the_last_installation_switches_forwarding_back() {
    let scene = Scene::new();
    let before = everything();
    let other = another("ffffffff");
    let networks = [scene.open(), other.open()];
    for network in &networks {
        attach(network, 1, &AttachRequest::default());
    }
    drop(networks);
    scene.clean_up();
    assert!(is_forwarding());
    other.clean_up();
    eventually_everything(&before);
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let scene = Scene::new();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let before = everything();
    let network = scene.open();
    attach(&network, 1, &AttachRequest::default());
    scene.clean_up();
    assert!(is_forwarding());
    eventually_everything(&before);
}

#[test]
fn a_machine_that_was_no_router_becomes_none() {
    let scene = Scene::new();
    shell("ip netns add lan && ip link add lan0 type veth peer name lan1 netns lan");
    shell("ip addr add 198.51.100.1/24 dev lan0 && ip link set lan0 up");
    shell("ip -n lan addr add 198.51.100.2/24 dev lan1 && ip -n lan link set lan1 up");
    shell("ip -n lan route add default via 198.51.100.1");
    shell(&format!(
        "ip -n outside route add 198.51.100.0/24 via {HOST}"
    ));
    let lan = Place::Container("/run/netns/lan".into());
    let inside = "198.51.100.2".parse().unwrap();
    serve(lan.clone(), 80, "lan");
    assert!(call(Place::Outside, inside, 80).is_err());
    let network = scene.open();
    attach(&network, 1, &AttachRequest::default());
    assert!(is_forwarding());
    assert!(call(Place::Outside, inside, 80).is_err());
    // With the switch on from the start it was one, and it remains one.
    scene.clean_up();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    assert!(call(Place::Outside, inside, 80).is_ok());
    let network = scene.open();
    attach(&network, 1, &AttachRequest::default());
    assert!(call(Place::Outside, inside, 80).is_ok());
}

#[test]
fn two_installations_have_different_ranges_also_when_they_look_at_the_same_place_first() {
    let scene = Scene::new();
    let ranges = 128;
    let number = u32::from_str_radix(scene.installation.as_str(), 16).unwrap();
    let other = another(&format!("{:08x}", number + ranges));
    let a = attach(&scene.open(), 1, &AttachRequest::default());
    let b = attach(&other.open(), 1, &AttachRequest::default());
    assert_ne!(u32::from(a.address) >> 12, u32::from(b.address) >> 12);
}

/// As Docker leaves iptables: what it does not know is not forwarded.
#[test]
fn where_others_drop_what_is_forwarded_the_machine_itself_still_reaches_ports() {
    let scene = Scene::new();
    shell(
        "nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'",
    );
    let network = scene.open();
    let request = AttachRequest::from(vec![PortRequest {
        container_port: 80,
        host_port: Some(8080),
        protocol: Protocol::Tcp,
    }]);
    let a = attach(&network, 1, &request);
    serve(&a, 80, "a");
    serve(Place::Outside, 80, "outside");
    assert!(call(Place::Host, Ipv4Addr::LOCALHOST, 8080).is_ok());
    assert!(call(Place::Host, HOST, 8080).is_ok());
    assert!(call(Place::Outside, HOST, 8080).is_err());
    assert!(call(&a, OUTSIDER, 80).is_err());
    for word in ["iifname", "oifname"] {
        shell(&format!(
            "nft insert rule ip filter FORWARD {word} 'gv*' accept"
        ));
    }
    assert!(call(Place::Outside, HOST, 8080).is_ok());
    assert!(call(&a, OUTSIDER, 80).is_ok());
}
