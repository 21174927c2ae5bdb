//! Clusters, attributes, account settings, tags and task lists with boto3: each operation, its
//! filters and pages, and what it refuses.

use crate::boto3;
use crate::installation::Installation;

const PRELUDE: &str = r#"
ecs = boto3.client("ecs")
def register(cluster, attributes=(), **more):
    number = lambda name, value: {"name": name, "type": "INTEGER", "integerValue": value}
    return ecs.register_container_instance(cluster=cluster, attributes=list(attributes),
        totalResources=[number("CPU", 2048), number("MEMORY", 4096)], **more)["containerInstance"]["containerInstanceArn"]
"#;

fn python(gantry: &Installation, program: &str) {
    boto3::python(gantry, PRELUDE, program);
}

#[test]
fn clusters_are_changed_and_described_with_all_that_is_asked_for() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
cluster = ecs.create_cluster(clusterName="shop", tags=[{"key": "team", "value": "web"}])["cluster"]
assert cluster["settings"] == [{"name": "containerInsights", "value": "disabled"}], cluster
cluster = ecs.update_cluster_settings(cluster="shop", settings=[{"name": "containerInsights", "value": "enhanced"}])["cluster"]
assert cluster["settings"][0]["value"] == "enhanced", cluster
cluster = ecs.update_cluster(cluster="shop", configuration={"executeCommandConfiguration": {"logging": "NONE"}},
    serviceConnectDefaults={"namespace": "internal"})["cluster"]
assert cluster["settings"][0]["value"] == "enhanced", cluster
bare = ecs.describe_clusters(clusters=["shop"])["clusters"][0]
assert bare["settings"] == bare["tags"] == bare["statistics"] == [] and "configuration" not in bare, bare
full = ecs.describe_clusters(clusters=["shop", "gone"], include=["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"])
assert full["failures"][0]["reason"] == "MISSING", full
full = full["clusters"][0]
assert full["configuration"]["executeCommandConfiguration"]["logging"] == "NONE" and full["attachments"] == [], full
assert full["tags"] == [{"key": "team", "value": "web"}], full
assert {it["name"]: it["value"] for it in full["statistics"]}["runningEC2TasksCount"] == "0", full
refused(ecs.update_cluster, "ClusterNotFoundException", cluster="gone")
refused(ecs.update_cluster_settings, INVALID, "containerInsights", cluster="shop", settings=[{"name": "containerInsights", "value": "loud"}])
refused(ecs.update_cluster, INVALID, "Log configuration", cluster="shop", configuration={"executeCommandConfiguration": {"logging": "OVERRIDE"}})
# What belongs to services and capacity providers says so by name.
try:
    ecs.put_cluster_capacity_providers(cluster="shop", capacityProviders=[], defaultCapacityProviderStrategy=[])
    raise SystemExit("accepted")
except botocore.exceptions.ClientError as error:
    assert "PutClusterCapacityProviders" in error.response["Error"]["Message"], error
"#,
    );
}

#[test]
fn attributes_and_tags_are_put_listed_and_taken_away() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
ecs.create_cluster(clusterName="racks")
arns = sorted(register("racks", [{"name": "ecs.os-type", "value": "linux"}]) for _ in range(3))
short = arns[0].rsplit("/", 1)[1]
put = ecs.put_attributes(cluster="racks", attributes=[{"name": "rack", "value": "7", "targetType": "container-instance", "targetId": short},
    {"name": "fast", "targetId": arns[1]}])["attributes"]
assert {it["targetId"] for it in put} == {arns[0], arns[1]}, put
pages = ecs.get_paginator("list_attributes").paginate(cluster="racks", targetType="container-instance", PaginationConfig={"PageSize": 2})
pages = [page["attributes"] for page in pages]
assert sum(map(len, pages)) == 3 * 2 + 2 and max(map(len, pages)) == 2, pages
found = ecs.list_attributes(cluster="racks", targetType="container-instance", attributeName="rack", attributeValue="7")["attributes"]
assert found == [{"name": "rack", "value": "7", "targetId": arns[0]}], found
listed = lambda filter: sorted(ecs.list_container_instances(cluster="racks", filter=filter)["containerInstanceArns"])
assert listed("attribute:rack == 7") == [arns[0]]
assert listed("attribute:rack exists or attribute:fast exists") == arns[:2]
assert listed("agentConnected == true") == []
assert listed("registeredAt > 2020-01-01 and runningTasksCount == 0") == arns
refused(ecs.list_container_instances, INVALID, "Invalid expression", cluster="racks", filter="attribute:rack ~ 7")
gone = ecs.delete_attributes(cluster="racks", attributes=[{"name": "rack", "targetId": arns[0]}])["attributes"]
assert gone[0]["value"] == "7" and listed("attribute:rack exists") == []
refused(ecs.put_attributes, INVALID, "reserved", cluster="racks", attributes=[{"name": "ecs.os-type", "value": "x", "targetId": short}])
refused(ecs.put_attributes, "TargetNotFoundException", cluster="racks", attributes=[{"name": "a", "value": "x", "targetId": "0" * 32}])
refused(ecs.list_attributes, INVALID, "attribute name", cluster="racks", targetType="container-instance", attributeValue="7")

tags = lambda arn: {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}
definition = ecs.register_task_definition(family="tagged", containerDefinitions=[{"name": "a", "image": "b", "memory": 8}])["taskDefinition"]["taskDefinitionArn"]
cluster = ecs.describe_clusters(clusters=["racks"])["clusters"][0]["clusterArn"]
for arn in [cluster, arns[0], definition]:
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "3"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["b"])
    assert tags(arn) == {"a": "3"}, arn
    refused(ecs.tag_resource, INVALID, "reserved", resourceArn=arn, tags=[{"key": "aws:x", "value": "1"}])
    refused(ecs.tag_resource, INVALID, "50", resourceArn=arn, tags=[{"key": str(n), "value": ""} for n in range(50)])
described = ecs.describe_container_instances(cluster="racks", containerInstances=[arns[0]], include=["TAGS", "CONTAINER_INSTANCE_HEALTH"])
assert described["containerInstances"][0]["tags"] == [{"key": "a", "value": "3"}], described
assert described["containerInstances"][0]["healthStatus"]["overallStatus"] == "INSUFFICIENT_DATA", described
refused(ecs.update_container_agent, "MissingVersionException", cluster="racks", containerInstance=arns[0])
"#,
    );
}

#[test]
fn account_settings_are_kept_and_have_their_effect() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
def effective():
    settings, token = {}, {}
    while True:
        page = ecs.list_account_settings(effectiveSettings=True, **token)
        settings.update({it["name"]: it["value"] for it in page["settings"]})
        if not page.get("nextToken"):
            return settings
        token = {"nextToken": page["nextToken"]}
settings = effective()
assert settings["defaultLogDriverMode"] == "non-blocking" and settings["taskLongArnFormat"] == "enabled", settings
assert len(settings) == 11, settings
assert ecs.list_account_settings()["settings"] == []
setting = ecs.put_account_setting(name="defaultLogDriverMode", value="blocking")["setting"]
assert setting["value"] == "blocking" and setting["principalArn"].endswith(":root"), setting
alice = setting["principalArn"].replace(":root", ":user/alice")
ecs.put_account_setting(name="defaultLogDriverMode", value="non-blocking", principalArn=alice)
listed = ecs.list_account_settings(name="defaultLogDriverMode", principalArn=alice)["settings"]
assert [it["value"] for it in listed] == ["non-blocking"], listed
assert ecs.delete_account_setting(name="defaultLogDriverMode", principalArn=alice)["setting"]["value"] == "blocking"
ecs.put_account_setting_default(name="containerInsights", value="enabled")
assert ecs.create_cluster(clusterName="watched")["cluster"]["settings"][0]["value"] == "enabled"
refused(ecs.put_account_setting, INVALID, "cannot be disabled", name="taskLongArnFormat", value="disabled")
refused(ecs.put_account_setting, INVALID, "managed by AWS", name="guardDutyActivate", value="on")
refused(ecs.put_account_setting, INVALID, "Valid values", name="containerInsights", value="loud")
refused(ecs.put_account_setting, INVALID, "principal", name="containerInsights", value="enabled", principalArn="alice")
"#,
    );
}
