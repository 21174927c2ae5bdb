"""IAM and STS with boto3, unmodified. The root key is in the environment."""
import json
import boto3
from botocore.exceptions import ClientError

iam, sts = boto3.client("iam"), boto3.client("sts")


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, (code, found)
        return found["Message"]
    raise AssertionError(f"{call} was not refused with {code}")


me = sts.get_caller_identity()
assert me["Arn"] == "arn:aws:iam::000000000000:root", me
assert me["UserId"] == me["Account"] == "000000000000", me

trust = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
role = iam.create_role(
    RoleName="task",
    AssumeRolePolicyDocument=json.dumps(trust),
    Tags=[{"Key": "team", "Value": "a"}],
)["Role"]
# boto3 decodes the document, which it can only do if it was encoded as AWS encodes it.
assert role["AssumeRolePolicyDocument"] == trust, role
got = iam.get_role(RoleName="task")["Role"]
assert got["Tags"] == [{"Key": "team", "Value": "a"}] and got["RoleLastUsed"] == {}, got
iam.get_waiter("role_exists").wait(RoleName="task")
message = refused("NoSuchEntity", iam.get_role, RoleName="ghost")
assert message == "The role with name ghost cannot be found.", message
refused("EntityAlreadyExists", iam.create_role, RoleName="task", AssumeRolePolicyDocument=json.dumps(trust))
refused("MalformedPolicyDocument", iam.create_role, RoleName="x", AssumeRolePolicyDocument="{}")
refused("ValidationError", iam.create_role, RoleName="a b", AssumeRolePolicyDocument=json.dumps(trust))

execution = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
iam.attach_role_policy(RoleName="task", PolicyArn=execution)
attached = iam.list_attached_role_policies(RoleName="task")["AttachedPolicies"]
assert attached == [{"PolicyName": "AmazonECSTaskExecutionRolePolicy", "PolicyArn": execution}], attached
version = iam.get_policy(PolicyArn=execution)["Policy"]["DefaultVersionId"]
document = iam.get_policy_version(PolicyArn=execution, VersionId=version)["PolicyVersion"]["Document"]
assert "logs:PutLogEvents" in document["Statement"][0]["Action"], document
refused("DeleteConflict", iam.delete_role, RoleName="task")

mine = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
arn = iam.create_policy(PolicyName="mine", PolicyDocument=json.dumps(mine))["Policy"]["Arn"]
pages = iam.get_paginator("list_policies").paginate(PaginationConfig={"PageSize": 4})
names = [policy["PolicyName"] for page in pages for policy in page["Policies"]]
assert names == sorted(names, key=str.lower) and "mine" in names and len(names) > 20, names
iam.put_role_policy(RoleName="task", PolicyName="inline", PolicyDocument=json.dumps(mine))
assert iam.get_role_policy(RoleName="task", PolicyName="inline")["PolicyDocument"] == mine
roles = [r["RoleName"] for page in iam.get_paginator("list_roles").paginate() for r in page["Roles"]]
assert "task" in roles and "AWSServiceRoleForECS" in roles, roles

# A session of the role is the role, with its token and not without.
key = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="me")["Credentials"]
session = dict(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
as_role = boto3.client("sts", aws_session_token=key["SessionToken"], **session)
assert as_role.get_caller_identity()["Arn"] == "arn:aws:sts::000000000000:assumed-role/task/me"
forged = boto3.client("sts", aws_session_token="forged", **session)
refused("InvalidClientTokenId", forged.get_caller_identity)

iam.delete_role_policy(RoleName="task", PolicyName="inline")
iam.detach_role_policy(RoleName="task", PolicyArn=execution)
assert iam.list_instance_profiles_for_role(RoleName="task")["InstanceProfiles"] == []
iam.delete_role(RoleName="task")
iam.delete_policy(PolicyArn=arn)
refused("InvalidClientTokenId", as_role.get_caller_identity)
refused("NotImplemented", iam.create_login_profile, UserName="x", Password="secret")
