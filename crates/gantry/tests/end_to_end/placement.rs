//! Placement with boto3: expressions, strategies, launch types, instances that drain, and why tasks
//! found no place. One instance is this machine; the others are registered, but have no agent.

use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn tasks_go_where_constraints_strategies_and_the_caller_say() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "placed", &[]);
    let printed = gantry.python(&format!(
        r#"
import boto3, botocore
ecs = boto3.client("ecs")
here = ecs.list_container_instances()["containerInstanceArns"][0]
number = lambda name, value: {{"name": name, "type": "INTEGER", "integerValue": value}}
there = ecs.register_container_instance(totalResources=[number("CPU", 2048), number("MEMORY", 4096)],
    attributes=[{{"name": "rack", "value": "7"}}])["containerInstance"]["containerInstanceArn"]
outside = ecs.register_container_instance(totalResources=[number("CPU", 2048), number("MEMORY", 4096)],
    attributes=[{{"name": "ecs.capability.external"}}])["containerInstance"]["containerInstanceArn"]
ecs.register_task_definition(family="placed", networkMode="host", tags=[{{"key": "from", "value": "definition"}}],
    containerDefinitions=[{{"name": "a", "image": "{image}", "memory": 16, "command": ["sleep", "600"]}}])
def run(**more):
    return ecs.run_task(taskDefinition="placed", **more)
def member_of(expression):
    return [{{"type": "memberOf", "expression": expression}}]
def refused(call, words, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        assert words in error.response["Error"]["Message"], error
    else:
        raise SystemExit("accepted: %r" % (arguments,))

answer = run(count=2, placementConstraints=member_of("agentConnected == true and attribute:ecs.os-type == linux"),
    placementStrategy=[{{"type": "spread", "field": "attribute:ecs.availability-zone"}}, {{"type": "binpack", "field": "memory"}}],
    startedBy="first", group="mine", referenceId="r-1", propagateTags="TASK_DEFINITION", enableECSManagedTags=True)
assert answer["failures"] == [] and [it["containerInstanceArn"] for it in answer["tasks"]] == [here, here], answer
tags = {{it["key"]: it["value"] for it in answer["tasks"][0]["tags"]}}
assert tags == {{"from": "definition", "aws:ecs:clusterName": "default"}}, tags
mine = sorted(it["taskArn"] for it in answer["tasks"])

answer = run(placementConstraints=member_of("attribute:rack == 7"), startedBy="nightly")
reasons = {{it["arn"]: it["reason"] for it in answer["failures"]}}
assert reasons == {{here: "MemberOf constraint unsatisfied.", there: "AGENT"}}, reasons
answer = run(group="mine", placementConstraints=[{{"type": "distinctInstance"}}])
reasons = {{it["arn"]: it["reason"] for it in answer["failures"]}}
assert reasons[here].startswith("distinctInstance"), reasons
answer = run(launchType="EXTERNAL")
assert [(it["arn"], it["reason"]) for it in answer["failures"]] == [(outside, "AGENT")], answer
refused(run, "Invalid expression", placementConstraints=member_of("rack == 7"))
refused(run, "requires an expression", placementConstraints=[{{"type": "memberOf"}}])
refused(run, "enableExecuteCommand", enableExecuteCommand=True)
refused(run, "FARGATE", launchType="FARGATE")

answer = ecs.start_task(taskDefinition="placed", containerInstances=[here, there], startedBy="first")
assert [it["containerInstanceArn"] for it in answer["tasks"]] == [here], answer
assert [it["reason"] for it in answer["failures"]] == ["AGENT"], answer
mine = sorted(mine + [answer["tasks"][0]["taskArn"]])
ecs.get_waiter("tasks_running").wait(tasks=mine, WaiterConfig={{"Delay": 1, "MaxAttempts": 60}})
listed = lambda **filters: sorted(ecs.list_tasks(**filters)["taskArns"])
assert listed() == listed(family="placed") == listed(startedBy="first") == listed(containerInstance=here) == listed(launchType="EC2") == mine
assert listed(startedBy="nightly") == listed(launchType="EXTERNAL") == listed(desiredStatus="STOPPED") == listed(containerInstance=there) == []
pages = [page["taskArns"] for page in ecs.get_paginator("list_tasks").paginate(PaginationConfig={{"PageSize": 2}})]
assert [len(page) for page in pages] == [2, 1] and sorted(sum(pages, [])) == mine, pages
assert ecs.list_container_instances(filter="runningTasksCount == 3")["containerInstanceArns"] == [here]
assert ecs.list_container_instances(filter="task:group == mine")["containerInstanceArns"] == [here]

# Draining: what runs stays, nothing new comes, and ACTIVE again takes tasks again.
ecs.update_container_instances_state(containerInstances=[here], status="DRAINING")
assert ecs.list_container_instances(status="DRAINING")["containerInstanceArns"] == [here]
reasons = {{it["arn"]: it["reason"] for it in run()["failures"]}}
assert reasons[here] == "INACTIVE", reasons
assert {{it["lastStatus"] for it in ecs.describe_tasks(tasks=mine)["tasks"]}} == {{"RUNNING"}}
ecs.update_container_instances_state(containerInstances=[here], status="ACTIVE")
again = run()["tasks"][0]["taskArn"]
refused(ecs.deregister_container_instance, "Found running tasks", containerInstance=here)
assert ecs.deregister_container_instance(containerInstance=there)["containerInstance"]["status"] == "INACTIVE"
for arn in mine + [again]:
    ecs.stop_task(task=arn)
ecs.get_waiter("tasks_stopped").wait(tasks=mine + [again], WaiterConfig={{"Delay": 1, "MaxAttempts": 60}})
print("all of it")
"#
    ));
    assert!(printed.contains("all of it"), "{printed}");
    // A task that found no place was never made, so it is asked for by its task definition.
    for question in [
        ["explain", "placement", "--started-by", "nightly"],
        ["explain", "task", "placed:1", "--cluster=default"],
    ] {
        let output = gantry.gantry(&question);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(
            text.contains("1 of 1 tasks of placed:1, started by nightly, found no place.")
                && text.contains("it is not a member of attribute:rack == 7")
                && text.contains("its agent is not connected"),
            "{text}"
        );
    }
    for (question, why) in [
        (["explain", "task", "plaecd"], "'plaecd' is no task's id"),
        (
            ["explain", "placement", "--cluster=nowhere"],
            "There is no cluster nowhere",
        ),
    ] {
        let output = gantry.gantry(&question);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{output:?}");
    }
}
