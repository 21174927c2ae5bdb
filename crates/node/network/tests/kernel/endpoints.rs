//! What containers reach at 169.254.170.2.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr};

use gantry_network::{AttachRequest, ENDPOINT, Network};

use crate::scene::{Place, Scene, attach, call, task};

/// Answers with the container that called.
fn answer(network: &Network) {
    let listener = network.endpoint_listener().unwrap();
    let network = network.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let owner = network.owner_of(peer.ip());
            let _ = stream.write_all(format!("{owner:?}").as_bytes());
        }
    });
}

#[test]
fn each_caller_is_known() {
    let scene = Scene::new();
    let network = scene.open();
    let a = attach(&network, 1, &AttachRequest::default());
    // Until somebody serves, nobody waits.
    assert_eq!(call(&a, ENDPOINT, 80), Err(ErrorKind::ConnectionRefused));
    answer(&network);
    let b = attach(&network, 2, &AttachRequest::default());
    for (n, place) in [(1, &a), (2, &b)] {
        let expected = Some((task(n), "web".to_owned()));
        assert_eq!(call(place, ENDPOINT, 80), Ok(format!("{expected:?}")));
    }
    let host = network.owner_of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(host, None);
}

#[test]
fn two_installations_answer_their_own() {
    let scene = Scene::new();
    let first = scene.open();
    let other = Scene {
        state: tempfile::tempdir().unwrap(),
        installation: "ffffffff".parse().unwrap(),
    };
    let second = other.open();
    answer(&first);
    answer(&second);
    let a = attach(&first, 1, &AttachRequest::default());
    let b = attach(&second, 2, &AttachRequest::default());
    let said = |n| Ok(format!("{:?}", Some((task(n), "web".to_owned()))));
    assert_eq!(call(&a, ENDPOINT, 80), said(1));
    assert_eq!(call(&b, ENDPOINT, 80), said(2));
    // By address, installations are strangers to one another.
    crate::scene::serve(Place::from(&b), 80, "b");
    assert!(call(&a, b.address, 80).is_err());
}
