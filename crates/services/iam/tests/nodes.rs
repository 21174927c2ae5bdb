//! Joining from outside: a token is good for what it was made for, and for nothing else.

mod desk;

use std::time::Duration;

use desk::Desk;
use gantry_api::auth::CredentialSource;
use gantry_api::auth::node::NodePrincipal;
use gantry_arn::{AccountId, ClusterName, Region};
use gantry_iam::{JoinError, Nodes};

const NONCE: &[u8] = b"0123456789abcdef0123456789abcdef";
const HOUR: Duration = Duration::from_secs(3600);

fn nodes(desk: &Desk) -> Nodes {
    Nodes::new(desk.store.clone(), desk.world.env())
}

fn blue() -> (AccountId, Region, ClusterName) {
    (
        AccountId::default(),
        Region::default(),
        "blue".parse().unwrap(),
    )
}

#[test]
fn a_token_joins_as_many_nodes_as_it_was_made_for() {
    let desk = Desk::new();
    let nodes = nodes(&desk);
    let (token, listed) = desk.wait(nodes.create_token(blue(), HOUR, 2)).unwrap();
    assert_eq!((listed.uses, listed.used), (2, 0));
    let first = desk.wait(nodes.join(&token, NONCE)).unwrap();
    // The answer got lost: the same node, and no second use.
    assert_eq!(desk.wait(nodes.join(&token, NONCE)).unwrap(), first);
    assert_eq!(nodes.tokens()[0].used, 1);
    let second = desk.wait(nodes.join(&token, &[7; 32])).unwrap();
    assert_ne!(second.node, first.node);
    assert_ne!(second.access_key_id, first.access_key_id);
    assert_eq!(
        desk.wait(nodes.join(&token, &[8; 32])),
        Err(JoinError::Used)
    );

    let credentials = desk.iam.credentials();
    let known = desk.wait(credentials.lookup(&first.access_key_id)).unwrap();
    assert_eq!(known.secret, first.secret_access_key);
    let principal = NodePrincipal::of(&known.principal).unwrap();
    assert_eq!(principal.cluster.as_str(), "blue");
    assert_eq!(principal.node, first.node);
    assert!(!format!("{first:?}").contains(&first.secret_access_key));
}

#[test]
fn what_is_forged_ended_or_revoked_joins_nobody() {
    let desk = Desk::new();
    let nodes = nodes(&desk);
    let (token, listed) = desk.wait(nodes.create_token(blue(), HOUR, 9)).unwrap();
    let mut forged = token.clone();
    forged.pop();
    for bad in ["", "gj1.", "gj1.a.b", &forged, &"x".repeat(9000)] {
        let refused = desk.wait(nodes.join(bad, NONCE));
        assert_eq!(refused, Err(JoinError::Invalid), "{bad}");
    }
    assert_eq!(
        desk.wait(nodes.join(&token, b"short")),
        Err(JoinError::Nonce)
    );
    let key = desk.wait(nodes.join(&token, NONCE)).unwrap();

    assert_eq!(desk.wait(nodes.revoke("no-such", true)).unwrap(), None);
    assert_eq!(desk.wait(nodes.revoke(&listed.id, false)).unwrap(), Some(0));
    assert!(nodes.tokens()[0].revoked);
    assert_eq!(
        desk.wait(nodes.join(&token, NONCE)),
        Err(JoinError::Revoked)
    );
    // Who has joined stays, until that is ended as well.
    let lookup = || desk.wait(desk.iam.credentials().lookup(&key.access_key_id));
    assert!(lookup().is_some());
    assert_eq!(desk.wait(nodes.revoke(&listed.id, true)).unwrap(), Some(1));
    assert!(lookup().is_none());

    let (token, _) = desk.wait(nodes.create_token(blue(), HOUR, 1)).unwrap();
    desk.world.advance(HOUR);
    assert_eq!(
        desk.wait(nodes.join(&token, NONCE)),
        Err(JoinError::Expired)
    );
}

#[test]
fn the_node_inside_has_one_key_for_ever() {
    let desk = Desk::new();
    let key = desk.wait(nodes(&desk).local(blue())).unwrap();
    assert_eq!(desk.wait(nodes(&desk).local(blue())).unwrap(), key);
    let name = desk.wait(nodes(&desk).unguessable("task/1")).unwrap();
    assert_eq!(desk.wait(nodes(&desk).unguessable("task/1")).unwrap(), name);
    assert_ne!(desk.wait(nodes(&desk).unguessable("task/2")).unwrap(), name);
    assert_eq!(name.len(), 36);
}
