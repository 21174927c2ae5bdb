//! An agent that is an external container instance.

use serde_json::Value;

use crate::agents::{Agents, connected, reaches, token};
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn an_external_agent_runs_tasks_of_its_launch_type_and_no_others() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "fleet", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "fleet"]);
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "far",
        "--network-mode",
        "host",
        "--container-definitions",
        &format!(
            r#"[{{"name":"c","image":"{image}","memory":32,"stopTimeout":2,
                "command":["sh","-c","test $AWS_EXECUTION_ENV = EXTERNAL && exit 7"]}}]"#
        ),
    ]);
    let agents = Agents::new();
    let mut agent = agents.agent(&gantry, "far");
    agent.external = true;
    agent.start(Some(&token(&gantry, &["--cluster", "fleet"])));
    let arn = agent.container_instance();
    connected(&gantry, &arn, true);
    let run = |launch_type| {
        let run_task = ["ecs", "run-task", "--cluster", "fleet", "--task-definition"];
        [&run_task[..], &["far", "--launch-type", launch_type]].concat()
    };
    let answer = gantry.aws(&run("EXTERNAL"));
    assert_eq!(answer["failures"], Value::Array(Vec::new()), "{answer}");
    assert_eq!(answer["tasks"][0]["launchType"], "EXTERNAL", "{answer}");
    let task = answer["tasks"][0]["taskArn"].as_str().expect("an ARN");
    let stopped = reaches(&gantry, task, "STOPPED");
    assert_eq!(stopped["containers"][0]["exitCode"], 7, "{stopped}");
    let refused = gantry.aws_refused(&run("EC2"));
    assert!(refused.contains("No Container Instances"), "{refused}");
    agent.signal_and_wait("INT");
    agent.down();
}
