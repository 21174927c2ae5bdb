"""CloudWatch Logs with boto3, unmodified."""
import time
import boto3
from botocore.exceptions import ClientError

logs = boto3.client("logs")


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, (code, found)
        return found["Message"]
    raise AssertionError(f"{call} was not refused with {code}")


group = "/ecs/app"
logs.create_log_group(logGroupName=group, tags={"team": "a"})
logs.create_log_stream(logGroupName=group, logStreamName="web/1")
logs.create_log_stream(logGroupName=group, logStreamName="web/2")
refused("ResourceAlreadyExistsException", logs.create_log_group, logGroupName=group)
message = refused("ResourceNotFoundException", logs.create_log_stream, logGroupName="ghost", logStreamName="x")
assert message == "The specified log group does not exist.", message
message = refused("InvalidParameterException", logs.create_log_group, logGroupName="a b")
assert "'logGroupName' failed to satisfy constraint" in message, message

now = int(time.time() * 1000) - 60_000
for stream in ("web/1", "web/2"):
    answer = logs.put_log_events(
        logGroupName=group,
        logStreamName=stream,
        logEvents=[{"timestamp": now + n, "message": f"{stream} {n} grüß"} for n in range(1000)],
    )
    assert "rejectedLogEventsInfo" not in answer, answer

seen, token = [], None
while True:
    more = {"nextToken": token} if token else {}
    page = logs.get_log_events(logGroupName=group, logStreamName="web/1", startFromHead=True, limit=300, **more)
    seen += [event["message"] for event in page["events"]]
    if page["nextForwardToken"] == token:
        break
    token = page["nextForwardToken"]
assert seen == [f"web/1 {n} grüß" for n in range(1000)]

pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 450})
events = [event for page in pages for event in page["events"]]
assert len(events) == 2000 and len({event["eventId"] for event in events}) == 2000
assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)

described = logs.describe_log_groups(logGroupNamePrefix="/ecs")["logGroups"][0]
assert described["arn"].endswith(":log-group:/ecs/app:*"), described
assert described["logGroupArn"].endswith(":log-group:/ecs/app"), described
assert described["storedBytes"] > 20_000, described
newest = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True, limit=1)
assert newest["logStreams"][0]["lastEventTimestamp"] == now + 999, newest
assert logs.list_tags_for_resource(resourceArn=described["logGroupArn"])["tags"] == {"team": "a"}

logs.put_retention_policy(logGroupName=group, retentionInDays=7)
assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
refused("InvalidParameterException", logs.put_retention_policy, logGroupName=group, retentionInDays=8)
found = logs.filter_log_events(logGroupName=group, filterPattern='"web/2 77 " -grün')["events"]
assert [event["message"] for event in found] == ["web/2 77 grüß"], found
message = refused("InvalidParameterException", logs.filter_log_events, logGroupName=group, filterPattern="{ $.a")
assert message.startswith("Invalid filter pattern: "), message
refused("NotImplemented", logs.put_subscription_filter, logGroupName=group, filterName="f", filterPattern="x",
        destinationArn="arn:aws:lambda:us-east-1:000000000000:function:f")
refused("NotImplemented", logs.start_query, logGroupName=group, startTime=0, endTime=1, queryString="fields @message")
refused("NotImplemented", logs.put_data_protection_policy, logGroupIdentifier=group, policyDocument="{}")
assert logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"] == []

# Metric filters.
for name in ("errors", "slow"):
    logs.put_metric_filter(logGroupName=group, filterName=name, filterPattern="{ $.ms > 100 }",
        metricTransformations=[{"metricName": name, "metricNamespace": "n", "metricValue": "$.ms", "unit": "Milliseconds"}])
pages = logs.get_paginator("describe_metric_filters").paginate(logGroupName=group, PaginationConfig={"PageSize": 1})
filters = [it for page in pages for it in page["metricFilters"]]
assert [it["filterName"] for it in filters] == ["errors", "slow"], filters
assert filters[0]["metricTransformations"][0]["unit"] == "Milliseconds", filters
of_metric = logs.describe_metric_filters(metricName="slow", metricNamespace="n")["metricFilters"]
assert [it["filterName"] for it in of_metric] == ["slow"], of_metric
assert logs.describe_log_groups()["logGroups"][0]["metricFilterCount"] == 2
refused("InvalidParameterException", logs.put_metric_filter, logGroupName=group, filterName="x", filterPattern="a/b",
        metricTransformations=[{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}])
logs.delete_metric_filter(logGroupName=group, filterName="slow")
refused("ResourceNotFoundException", logs.delete_metric_filter, logGroupName=group, filterName="slow")
tested = logs.test_metric_filter(filterPattern="[ip, ..., status = 4*, size]",
    logEventMessages=["1.2.3.4 - [a b] 200 7", '1.2.3.4 - "c d" 404 8'])["matches"]
assert tested == [{"eventNumber": 2, "eventMessage": '1.2.3.4 - "c d" 404 8', "extractedValues":
    {"$ip": "1.2.3.4", "$2": "-", "$3": "c d", "$status": "404", "$size": "8"}}], tested

# Policies.
document = '{"Version": "2012-10-17", "Statement": []}'
put = logs.put_resource_policy(policyName="p", policyDocument=document)
assert put["resourcePolicy"]["policyDocument"] == document, put
refused("OperationAbortedException", logs.put_resource_policy, policyName="p", policyDocument=document, expectedRevisionId="9")
assert [it["policyName"] for it in logs.describe_resource_policies()["resourcePolicies"]] == ["p"]
logs.delete_resource_policy(policyName="p")
refused("ResourceNotFoundException", logs.delete_resource_policy, policyName="p")
logs.put_account_policy(policyName="i", policyType="FIELD_INDEX_POLICY", policyDocument='{"Fields": ["a"]}')
policies = logs.describe_account_policies(policyType="FIELD_INDEX_POLICY")["accountPolicies"]
assert [it["policyName"] for it in policies] == ["i"], policies
logs.delete_account_policy(policyName="i", policyType="FIELD_INDEX_POLICY")
refused("NotImplemented", logs.put_account_policy, policyName="i", policyType="DATA_PROTECTION_POLICY", policyDocument="{}")
listed = logs.list_log_groups(logGroupNamePattern="^/ecs/a|nothing")["logGroups"]
assert [it["logGroupName"] for it in listed] == [group], listed

# A live tail: what is written after its start, and only what its pattern says.
from botocore.config import Config
live = boto3.client("logs", config=Config(inject_host_prefix=False))
tail = live.start_live_tail(logGroupIdentifiers=[described["logGroupArn"]], logStreamNamePrefixes=["web/"], logEventFilterPattern="live")
seen = []
for event in tail["responseStream"]:
    if "sessionStart" in event:
        assert event["sessionStart"]["logEventFilterPattern"] == "live", event
        moment = int(time.time() * 1000)
        logs.put_log_events(logGroupName=group, logStreamName="web/1", logEvents=[
            {"timestamp": moment, "message": "dead"}, {"timestamp": moment, "message": "live 1"}])
        continue
    update = event["sessionUpdate"]
    assert update["sessionMetadata"]["sampled"] is False, update
    for result in update["sessionResults"]:
        assert result["logStreamName"] == "web/1" and result["logGroupIdentifier"].endswith(":" + group), result
        seen.append(result["message"])
        if seen == ["live 1"]:
            logs.put_log_events(logGroupName=group, logStreamName="web/1", logEvents=[{"timestamp": moment, "message": "live 2"}])
    if len(seen) == 2:
        break
tail["responseStream"].close()
assert seen == ["live 1", "live 2"], seen
refused("ResourceNotFoundException", live.start_live_tail, logGroupIdentifiers=["arn:aws:logs:us-east-1:000000000000:log-group:ghost"])
refused("InvalidParameterException", live.start_live_tail, logGroupIdentifiers=[group], logStreamNames=["a"], logStreamNamePrefixes=["b"])

logs.delete_log_stream(logGroupName=group, logStreamName="web/2")
logs.delete_log_group(logGroupName=group)
assert logs.describe_log_groups()["logGroups"] == []
