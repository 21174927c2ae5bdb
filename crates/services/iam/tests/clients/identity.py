"""Users, groups, keys, providers and sessions with boto3, unmodified. The root key is in the environment."""
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


def named(service, key):
    return boto3.client(
        service,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key.get("SessionToken"),
    )


document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
execution = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
account = "000000000000"

# Users.
ann = iam.create_user(UserName="ann", Path="/a/b/", Tags=[{"Key": "team", "Value": "x"}])["User"]
assert ann["Arn"] == f"arn:aws:iam::{account}:user/a/b/ann" and ann["UserId"].startswith("AIDA"), ann
assert iam.get_user(UserName="ann")["User"]["Tags"] == [{"Key": "team", "Value": "x"}]
assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{account}:root"
message = refused("NoSuchEntity", iam.get_user, UserName="ghost")
assert message == "The user with name ghost cannot be found.", message
refused("EntityAlreadyExists", iam.create_user, UserName="ANN")
refused("ValidationError", iam.create_user, UserName="a b")
for number in range(5):
    iam.create_user(UserName=f"u{number}")
pages = iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 2})
assert [u["UserName"] for page in pages for u in page["Users"]] == ["ann", "u0", "u1", "u2", "u3", "u4"]
assert [u["UserName"] for u in iam.list_users(PathPrefix="/a/")["Users"]] == ["ann"]
refused("NotImplemented", iam.create_virtual_mfa_device, VirtualMFADeviceName="ann")
assert iam.list_mfa_devices(UserName="ann")["MFADevices"] == []

# Keys are good for signatures, two at most, and only while they are active.
key = iam.create_access_key(UserName="ann")["AccessKey"]
assert key["AccessKeyId"].startswith("AKIA") and key["Status"] == "Active", key
unused = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])
assert unused["UserName"] == "ann" and unused["AccessKeyLastUsed"]["ServiceName"] == "N/A", unused
assert "LastUsedDate" not in unused["AccessKeyLastUsed"], unused
as_ann = named("sts", key)
me = as_ann.get_caller_identity()
assert me["Arn"] == ann["Arn"] and me["UserId"] == ann["UserId"], me
used = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
assert used["ServiceName"] == "sts" and used["Region"] == "us-east-1" and used["LastUsedDate"], used
ann_iam = named("iam", key)
assert ann_iam.get_user()["User"]["UserName"] == "ann"
second = ann_iam.create_access_key()["AccessKey"]
assert second["UserName"] == "ann", second
message = refused("LimitExceeded", iam.create_access_key, UserName="ann")
assert message == "Cannot exceed quota for AccessKeysPerUser: 2", message
assert {k["AccessKeyId"] for k in ann_iam.list_access_keys()["AccessKeyMetadata"]} == {
    key["AccessKeyId"],
    second["AccessKeyId"],
}
iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
refused("InvalidClientTokenId", as_ann.get_caller_identity)
iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Active")
as_ann.get_caller_identity()
iam.delete_access_key(UserName="ann", AccessKeyId=second["AccessKeyId"])
refused("InvalidClientTokenId", named("sts", second).get_caller_identity)
refused("NoSuchEntity", iam.get_access_key_last_used, AccessKeyId=second["AccessKeyId"])

# A new name takes effect at once, and the key stays.
iam.update_user(UserName="ann", NewUserName="anna", NewPath="/c/")
assert as_ann.get_caller_identity()["Arn"] == f"arn:aws:iam::{account}:user/c/anna"
refused("NoSuchEntity", iam.get_user, UserName="ann")
refused("EntityAlreadyExists", iam.update_user, UserName="anna", NewUserName="u0")

# Groups, and the policies of groups and users.
group = iam.create_group(GroupName="ops", Path="/teams/")["Group"]
assert group["GroupId"].startswith("AGPA") and group["Arn"].endswith(":group/teams/ops"), group
iam.add_user_to_group(GroupName="ops", UserName="anna")
iam.update_group(GroupName="ops", NewGroupName="Operators")
assert [u["UserName"] for u in iam.get_group(GroupName="operators")["Users"]] == ["anna"]
assert [g["GroupName"] for g in iam.list_groups_for_user(UserName="anna")["Groups"]] == ["Operators"]
own = iam.create_policy(PolicyName="own", PolicyDocument=json.dumps(document))["Policy"]["Arn"]
iam.attach_group_policy(GroupName="operators", PolicyArn=own)
iam.attach_user_policy(UserName="anna", PolicyArn=own)
iam.put_user_permissions_boundary(UserName="anna", PermissionsBoundary=own)
iam.put_group_policy(GroupName="operators", PolicyName="in", PolicyDocument=json.dumps(document))
iam.put_user_policy(UserName="anna", PolicyName="in", PolicyDocument=json.dumps(document))
assert iam.get_user_policy(UserName="anna", PolicyName="in")["PolicyDocument"] == document
assert iam.list_group_policies(GroupName="operators")["PolicyNames"] == ["in"]
counted = iam.get_policy(PolicyArn=own)["Policy"]
assert (counted["AttachmentCount"], counted["PermissionsBoundaryUsageCount"]) == (2, 1), counted
holders = iam.list_entities_for_policy(PolicyArn=own)
assert [g["GroupName"] for g in holders["PolicyGroups"]] == ["Operators"], holders
assert [u["UserName"] for u in holders["PolicyUsers"]] == ["anna"] and holders["PolicyRoles"] == [], holders
details = [d for page in iam.get_paginator("get_account_authorization_details").paginate(
    PaginationConfig={"PageSize": 3}) for d in page["UserDetailList"]]
detail = next(d for d in details if d["UserName"] == "anna")
assert detail["GroupList"] == ["Operators"] and detail["UserPolicyList"][0]["PolicyDocument"] == document, detail
refused("DeleteConflict", iam.delete_policy, PolicyArn=own)
summary = iam.get_account_summary()["SummaryMap"]
assert (summary["Users"], summary["Groups"], summary["Policies"]) == (6, 1, 1), summary

# Sessions of users, and of those whom they vouch for.
token = as_ann.get_session_token(DurationSeconds=900)["Credentials"]
assert named("sts", token).get_caller_identity()["Arn"] == f"arn:aws:iam::{account}:user/c/anna"
refused("InvalidClientTokenId", named("iam", token).list_users)
refused("AccessDenied", named("sts", token).get_session_token)
federated = as_ann.get_federation_token(Name="bob", Policy=json.dumps(document))
assert federated["FederatedUser"]["Arn"] == f"arn:aws:sts::{account}:federated-user/bob", federated
assert federated["PackedPolicySize"] > 0, federated
as_bob = named("sts", federated["Credentials"])
assert as_bob.get_caller_identity()["UserId"] == f"{account}:bob"
refused("AccessDenied", as_bob.assume_role, RoleArn=f"arn:aws:iam::{account}:role/x", RoleSessionName="me")
assert sts.get_access_key_info(AccessKeyId=key["AccessKeyId"])["Account"] == account
refused("InvalidAuthorizationMessageException", sts.decode_authorization_message, EncodedMessage="x")

# One role's session begins another's for an hour at most.
trust = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}]}
role = iam.create_role(
    RoleName="r", AssumeRolePolicyDocument=json.dumps(trust), MaxSessionDuration=7200)["Role"]["Arn"]
first = as_ann.assume_role(RoleArn=role, RoleSessionName="one", DurationSeconds=7200,
                           Tags=[{"Key": "k", "Value": "v"}], TransitiveTagKeys=["k"])["Credentials"]
as_role = named("sts", first)
refused("ValidationError", as_role.assume_role, RoleArn=role, RoleSessionName="two", DurationSeconds=3601)
refused("ValidationError", as_role.assume_role, RoleArn=role, RoleSessionName="two", Tags=[{"Key": "k", "Value": "w"}])
as_role.assume_role(RoleArn=role, RoleSessionName="two")
refused("ValidationError", as_ann.assume_role, RoleArn=role, RoleSessionName="one", DurationSeconds=7201)

# A role's trust policy decides who with a key becomes it; the root user may write it, so it is not kept out.
def trusting(name, **statement):
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", **statement}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
tasks = trusting("of-tasks", Principal={"Service": "ecs-tasks.amazonaws.com"})
refused("AccessDenied", as_ann.assume_role, RoleArn=tasks, RoleSessionName="one")
sts.assume_role(RoleArn=tasks, RoleSessionName="one")
guarded = trusting("guarded", Principal={"AWS": f"arn:aws:iam::{account}:user/c/anna"}, Condition={"StringEquals": {"sts:ExternalId": "77"}})
refused("AccessDenied", as_ann.assume_role, RoleArn=guarded, RoleSessionName="one")
refused("AccessDenied", as_role.assume_role, RoleArn=guarded, RoleSessionName="one", ExternalId="77")
as_guarded = named("sts", as_ann.assume_role(RoleArn=guarded, RoleSessionName="one", ExternalId="77")["Credentials"])
after = trusting("after", Principal={"AWS": guarded})
as_guarded.assume_role(RoleArn=after, RoleSessionName="two")
refused("AccessDenied", as_ann.assume_role, RoleArn=after, RoleSessionName="two")

# What is in the way of a user's end, and that its sessions end with it.
refused("DeleteConflict", iam.delete_user, UserName="anna")
iam.delete_access_key(UserName="anna", AccessKeyId=key["AccessKeyId"])
refused("DeleteConflict", iam.delete_user, UserName="anna")
refused("DeleteConflict", iam.delete_group, GroupName="operators")
iam.remove_user_from_group(GroupName="operators", UserName="anna")
refused("NoSuchEntity", iam.remove_user_from_group, GroupName="operators", UserName="anna")
refused("DeleteConflict", iam.delete_user, UserName="anna")
iam.detach_user_policy(UserName="anna", PolicyArn=own)
refused("DeleteConflict", iam.delete_user, UserName="anna")
iam.delete_user_policy(UserName="anna", PolicyName="in")
iam.delete_user(UserName="anna")
refused("InvalidClientTokenId", named("sts", token).get_caller_identity)
refused("InvalidClientTokenId", as_bob.get_caller_identity)
refused("DeleteConflict", iam.delete_group, GroupName="operators")
iam.detach_group_policy(GroupName="operators", PolicyArn=own)
iam.delete_group_policy(GroupName="operators", PolicyName="in")
iam.delete_group(GroupName="operators")
iam.delete_policy(PolicyArn=own)

# Providers are stored.
url = "https://token.actions.example.com/path"
oidc = iam.create_open_id_connect_provider(
    Url=url, ClientIDList=["sts"], ThumbprintList=["a" * 40])["OpenIDConnectProviderArn"]
assert oidc == f"arn:aws:iam::{account}:oidc-provider/token.actions.example.com/path", oidc
refused("EntityAlreadyExists", iam.create_open_id_connect_provider, Url=url)
refused("ValidationError", iam.create_open_id_connect_provider, Url="http://plain.example.com")
iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=oidc, ClientID="other")
iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=oidc, ClientID="sts")
iam.update_open_id_connect_provider_thumbprint(OpenIDConnectProviderArn=oidc, ThumbprintList=["b" * 40])
iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=oidc, Tags=[{"Key": "a", "Value": "b"}])
got = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=oidc)
assert got["Url"] == url.removeprefix("https://") and got["ClientIDList"] == ["other"], got
assert got["ThumbprintList"] == ["b" * 40] and got["Tags"] == [{"Key": "a", "Value": "b"}], got
assert [p["Arn"] for p in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]] == [oidc]
iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=oidc)
refused("NoSuchEntity", iam.get_open_id_connect_provider, OpenIDConnectProviderArn=oidc)
metadata = '<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="urn:idp"><md:IDPSSODescriptor/>'
metadata += "<!--" + "x" * 1000 + "--></md:EntityDescriptor>"
saml = iam.create_saml_provider(Name="idp", SAMLMetadataDocument=metadata)["SAMLProviderArn"]
assert iam.get_saml_provider(SAMLProviderArn=saml)["SAMLMetadataDocument"] == metadata
assert iam.list_saml_providers()["SAMLProviderList"][0]["Arn"] == saml
refused("InvalidInput", iam.update_saml_provider, SAMLProviderArn=saml, SAMLMetadataDocument="x" * 1000)
iam.delete_saml_provider(SAMLProviderArn=saml)

# What an account has one of.
iam.create_account_alias(AccountAlias="blue")
iam.create_account_alias(AccountAlias="green")
assert iam.list_account_aliases()["AccountAliases"] == ["green"]
refused("NoSuchEntity", iam.delete_account_alias, AccountAlias="blue")
iam.delete_account_alias(AccountAlias="green")
refused("NoSuchEntity", iam.get_account_password_policy)
iam.update_account_password_policy(MinimumPasswordLength=12, MaxPasswordAge=90)
policy = iam.get_account_password_policy()["PasswordPolicy"]
assert policy["MinimumPasswordLength"] == 12 and policy["ExpirePasswords"] is True, policy
iam.delete_account_password_policy()

# Service-linked roles: those that Gantry works as stay.
stays = iam.delete_service_linked_role(RoleName="AWSServiceRoleForECS")["DeletionTaskId"]
assert iam.get_service_linked_role_deletion_status(DeletionTaskId=stays)["Status"] == "FAILED"
iam.create_service_linked_role(AWSServiceName="autoscaling.amazonaws.com")
goes = iam.delete_service_linked_role(RoleName="AWSServiceRoleForAutoScaling")["DeletionTaskId"]
assert iam.get_service_linked_role_deletion_status(DeletionTaskId=goes)["Status"] == "SUCCEEDED"
refused("NoSuchEntity", iam.get_role, RoleName="AWSServiceRoleForAutoScaling")
