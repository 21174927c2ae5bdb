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
refused("NotImplemented", logs.filter_log_events, logGroupName=group, filterPattern="ERROR")
refused("NotImplemented", logs.put_metric_filter, logGroupName=group, filterName="f", filterPattern="x",
        metricTransformations=[{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}])
logs.delete_log_stream(logGroupName=group, logStreamName="web/2")
logs.delete_log_group(logGroupName=group)
assert logs.describe_log_groups()["logGroups"] == []
