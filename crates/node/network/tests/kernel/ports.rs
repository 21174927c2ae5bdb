//! Host ports: from where they are answered, and whose they are.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use gantry_network::{AttachRequest, NetworkError, PortRequest, Protocol};

use crate::scene::{
    HOST, OUTSIDER, Place, Scene, ask_udp, attach, call, call_udp, serve, serve_udp, task,
};

fn port(host_port: Option<u16>, protocol: Protocol) -> PortRequest {
    PortRequest {
        container_port: 80,
        host_port,
        protocol,
    }
}

fn ports(ports: &[PortRequest]) -> AttachRequest {
    AttachRequest::from(ports.to_vec())
}

#[test]
fn a_port_is_answered_on_loopback_on_the_hosts_addresses_from_tasks_and_from_itself() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &ports(&[port(None, Protocol::Tcp)]));
    let b = attach(&network, 2, &ports(&[port(Some(8080), Protocol::Tcp)]));
    serve(&a, 80, "a");
    serve(&b, 80, "b");
    let dynamic = a.bindings[0].host_port;
    assert!(dynamic >= 32768, "{dynamic}");
    for (name, port) in [("a", dynamic), ("b", 8080)] {
        let said = |who: &str| Ok(format!("{name} heard {who}"));
        assert_eq!(call(Place::Host, HOST, port), said("192.0.2.1"));
        assert_eq!(
            call(Place::Outside, HOST, port),
            said(&OUTSIDER.to_string())
        );
        let local = call(Place::Host, Ipv4Addr::LOCALHOST, port).unwrap();
        assert!(local.starts_with(name), "{local}");
    }
    assert_eq!(call(&a, HOST, 8080), Ok(format!("b heard {}", a.address)));
    // To itself: it must not see its own address as the caller's.
    let own = call(&a, HOST, dynamic).unwrap();
    assert!(own.starts_with("a heard ") && !own.ends_with(&a.address.to_string()));
}

#[test]
fn udp_ports_are_answered_too() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &ports(&[port(None, Protocol::Udp)]));
    let any = |port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    serve_udp(&a, any(80), "a");
    let port = a.bindings[0].host_port;
    assert_eq!(
        call_udp(Place::Outside, HOST, port),
        Ok(format!("a heard {OUTSIDER}"))
    );
    for (place, to) in [
        (Place::Host, Ipv4Addr::LOCALHOST),
        (Place::Host, HOST),
        (Place::from(&a), HOST),
    ] {
        let said = call_udp(place.clone(), to, port);
        assert!(
            said.as_ref().is_ok_and(|said| said.starts_with('a')),
            "{place:?}: {said:?}"
        );
    }
}

#[test]
fn a_peer_that_never_stops_sending_is_led_to_the_next_container() {
    let scene = Scene::new();
    let network = scene.open();
    let request = ports(&[port(Some(5300), Protocol::Udp)]);
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 80);
    let client = crate::scene::at(Place::Outside, || UdpSocket::bind("0.0.0.0:0").unwrap());
    // Before anybody serves there.
    assert!(ask_udp(&client, HOST, 5300).is_err());
    let a = attach(&network, 1, &request);
    serve_udp(&a, any, "a");
    assert!(ask_udp(&client, HOST, 5300).unwrap().starts_with('a'));
    network.detach(task(1), "web").unwrap();
    let b = attach(&network, 2, &request);
    serve_udp(&b, any, "b");
    assert!(ask_udp(&client, HOST, 5300).unwrap().starts_with('b'));
}

#[test]
fn a_port_is_held_until_its_container_is_detached() {
    let scene = Scene::new();
    let network = scene.open();
    let request = ports(&[port(Some(8080), Protocol::Tcp)]);
    attach(&network, 1, &request);
    assert!(TcpListener::bind("0.0.0.0:8080").is_err());
    let refused = network.attach(task(2), "web", &request).unwrap_err();
    assert!(
        matches!(refused, NetworkError::PortTaken { port: 8080, .. }),
        "{refused}"
    );
    // What was refused left nothing that would be in the way of another try.
    network.detach_task(task(1)).unwrap();
    attach(&network, 2, &request);
    network.detach_task(task(2)).unwrap();
    TcpListener::bind("0.0.0.0:8080").unwrap();
}

#[test]
fn a_port_that_somebody_on_the_machine_has_is_refused() {
    let scene = Scene::new();
    let network = scene.open();
    let _somebody = TcpListener::bind("127.0.0.1:8080").unwrap();
    let request = ports(&[port(Some(8080), Protocol::Tcp)]);
    assert!(network.attach(task(1), "web", &request).is_err());
}
