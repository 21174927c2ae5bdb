//! Where packets go, and where they do not.

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_network::{AttachRequest, Link};

use crate::scene::{
    HOST, OUTSIDER, Place, Scene, at, attach, call, everything, serve, serve_udp, shell, task,
};

#[test]
fn containers_reach_one_another_the_host_and_the_outside() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    let b = attach(&network, 2, &AttachRequest::default());
    serve(&b, 80, "b");
    serve(Place::Host, 8000, "host");
    serve(Place::Outside, 8000, "outside");
    assert_eq!(
        call(&a, b.address, 80),
        Ok(format!("b heard {}", a.address))
    );
    assert_eq!(
        call(&a, HOST, 8000),
        Ok(format!("host heard {}", a.address))
    );
    // Nobody outside knows the containers' addresses.
    assert_eq!(
        call(&a, OUTSIDER, 8000),
        Ok(format!("outside heard {HOST}"))
    );
    assert_eq!(
        call(Place::Host, b.address, 80),
        Ok(format!("b heard {HOST}"))
    );
    // Loopback is up and a low port is anybody's in a namespace of one's own.
    serve(&a, 81, "a");
    assert_eq!(
        call(&a, Ipv4Addr::LOCALHOST, 81),
        Ok("a heard 127.0.0.1".to_owned())
    );
}

#[test]
fn nobody_outside_reaches_a_container_but_through_a_port() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    serve(&a, 80, "a");
    shell(&format!("ip -n outside route add {} via {HOST}", a.address));
    assert!(call(Place::Outside, a.address, 80).is_err());
}

#[test]
fn a_container_cannot_speak_for_another_nor_to_the_hosts_loopback() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    let b = attach(&network, 2, &AttachRequest::default());
    serve(&b, 80, "b");
    serve(Place::Host, 8000, "host");
    assert!(call(&a, HOST, 8000).is_ok());
    at(&a, || {
        shell(&format!("ip addr add {} dev eth0", b.address));
        shell(&format!(
            "ip route change default via 169.254.1.1 src {}",
            b.address
        ));
    });
    assert!(call(&a, HOST, 8000).is_err());
    at(&a, || {
        shell(&format!(
            "ip route change default via 169.254.1.1 src {}",
            a.address
        ));
        // A container with NET_ADMIN may try to be led to the host's own loopback.
        shell("sysctl -qw net.ipv4.conf.eth0.route_localnet=1 && ip addr del 127.0.0.1/8 dev lo");
        shell(
            "ip route flush table local 127.0.0.0/8 2>/dev/null; ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0",
        );
    });
    assert!(call(&a, HOST, 8000).is_ok());
    assert!(call(&a, Ipv4Addr::LOCALHOST, 8000).is_err());
}

#[test]
fn the_range_avoids_the_machines_routes_and_an_address_that_nobody_has_is_unreachable() {
    let scene = Scene::new();
    // All that would be looked at first is taken.
    shell("ip route add 10.216.0.0/13 via 192.0.2.9");
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    assert_eq!(
        a.address.octets()[..2],
        [10, 160 + (a.address.octets()[1] - 160)]
    );
    assert!((160..168).contains(&a.address.octets()[1]), "{}", a.address);
    let nobody = Ipv4Addr::from(u32::from(a.address) + 100);
    assert!(call(Place::Host, nobody, 80).is_err());
    assert!(shell("ip route").contains("unreachable 10.1"));
}

#[test]
fn a_named_range_that_collides_is_refused_with_the_route() {
    let scene = Scene::new();
    let mut options = scene.options();
    options.pool = Some("192.0.2.0/25".parse().unwrap());
    let before = everything();
    let error = gantry_network::Network::open(options)
        .unwrap()
        .attach(task(1), "web", &AttachRequest::default())
        .unwrap_err();
    assert!(error.to_string().contains("192.0.2.0/24"), "{error}");
    assert_eq!(everything(), before);
}

#[test]
fn links_are_names_of_containers_that_may_come_later() {
    let scene = Scene::new();
    let network = scene.open();
    let request = AttachRequest {
        links: vec![Link {
            container: "redis".to_owned(),
            alias: "cache".to_owned(),
        }],
        hostname: Some("shop".to_owned()),
        ..AttachRequest::default()
    };
    let web = attach(&network, 1, &request);
    let redis = network
        .attach(task(1), "redis", &AttachRequest::default())
        .unwrap();
    let line = format!("{}\tcache redis\n", redis.address);
    assert!(web.hosts.contains(&line), "{}", web.hosts);
    assert!(web.hosts.ends_with(&format!("{}\tshop\n", web.address)));
    // Another task's container of that name is another one.
    let other = network
        .attach(task(2), "redis", &AttachRequest::default())
        .unwrap();
    assert_ne!(other.address, redis.address);
    assert!(!web.hosts.contains(&other.address.to_string()));
}

#[test]
fn a_resolver_on_the_hosts_loopback_answers_containers() {
    let scene = Scene::new();
    scene.set_resolver("nameserver 127.0.0.53\n");
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    assert_eq!(a.resolv_conf, "nameserver 169.254.169.253\n");
    let resolver = Ipv4Addr::new(127, 0, 0, 53);
    serve_udp(Place::Host, SocketAddrV4::new(resolver, 53), "resolver");
    let stand_in = Ipv4Addr::new(169, 254, 169, 253);
    // It sees a caller on its own loopback, since it may answer nobody else.
    assert_eq!(
        crate::scene::call_udp(&a, stand_in, 53),
        Ok("resolver heard 127.0.0.1".to_owned())
    );
}

#[test]
fn the_largest_packet_is_that_of_the_way_out() {
    let scene = Scene::new();
    shell("ip link set uplink mtu 1400");
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    assert!(at(&a, || shell("ip link show eth0")).contains("mtu 1400"));
}
