//! Host ports that the network chose: in every report, also after the agent was killed.

use std::collections::BTreeMap;

use gantry_agent::core::step::{AdoptedTask, NetworkBinding, RuntimeEvent};
use gantry_agent::core::{Input, TaskStatus};
use serde_json::json;

use crate::scripted::{Agent, BEGIN, adopted_running, id};

fn binding(host_port: u16) -> NetworkBinding {
    NetworkBinding {
        container_port: 80,
        host_port,
        protocol: "tcp".to_owned(),
        last_container_port: None,
    }
}

fn started_with_a_port() -> Agent {
    let mut agent = Agent::new();
    agent.payload(
        "RUNNING",
        json!([{"name": "web", "portMappings": [{"containerPort": 80, "hostPort": 0}]}]),
    );
    agent.persist_all();
    agent.pulled("web");
    agent.step(Input::Runtime(RuntimeEvent::PortsBound {
        task: id(),
        container: "web".to_owned(),
        bindings: vec![binding(32770)],
    }));
    agent
}

#[test]
fn a_report_says_the_ports_that_the_network_gave() {
    let mut agent = started_with_a_port();
    agent.started("web");
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Running);
    assert_eq!(report.containers[0].network_bindings, [binding(32770)]);
    agent.exited("web", 0, false);
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Stopped);
    assert_eq!(report.containers[0].network_bindings, [binding(32770)]);
}

#[test]
fn an_agent_killed_before_it_wrote_them_down_learns_them_from_the_network() {
    let dead = started_with_a_port();
    let mut agent = Agent::new();
    let containers = BTreeMap::from([("web".to_owned(), adopted_running("web", BEGIN, 0))]);
    agent.reborn_with(
        dead.disk,
        AdoptedTask {
            task: id(),
            containers,
            ports: BTreeMap::from([("web".to_owned(), vec![binding(32771)])]),
        },
    );
    agent.step(Input::Connected);
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Running);
    assert_eq!(report.containers[0].network_bindings, [binding(32771)]);
}
