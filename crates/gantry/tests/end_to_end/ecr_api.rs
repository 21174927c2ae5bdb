//! The ECR API beyond pushing and pulling, with boto3: lifecycle policies, settings, templates,
//! layers in parts, links and referrers.

use crate::boto3;
use crate::image::{busybox_layout, password, run};
use crate::installation::Installation;

const PRELUDE: &str = r#"
import base64, hashlib, json, time, urllib.error, urllib.request
ecr = boto3.client("ecr", config=botocore.config.Config(retries={"total_max_attempts": 1}))
token = ecr.get_authorization_token()["authorizationData"][0]
def oci(method, path, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(token["proxyEndpoint"] + path, method=method, data=body,
        headers={"Authorization": "Basic " + token["authorizationToken"], **headers})
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, dict((k.lower(), v) for k, v in answer.headers.items()), answer.read()
def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()
def blob(name, data):
    status, _, body = oci("POST", "/v2/%s/blobs/uploads/?digest=%s" % (name, digest(data)), data)
    assert status == 201, (status, body)
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(data), "size": len(data)}
IMAGE, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
def image(name, tag, data, **more):
    config = dict(blob(name, b"{}"), mediaType="application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [blob(name, data)], **more}
    text = json.dumps(manifest).encode()
    status, headers, body = oci("PUT", "/v2/%s/manifests/%s" % (name, tag), text, Content_Type=IMAGE)
    assert status == 201, (status, body)
    return {"mediaType": IMAGE, "digest": digest(text), "size": len(text)}, headers
def eventually(condition):
    end = time.time() + 20 * PATIENCE
    while not condition():
        assert time.time() < end, "it did not come true"
        time.sleep(0.05)
def policy(**selection):
    return json.dumps({"rules": [{"rulePriority": 1, "description": "what is not needed any more", "selection": selection, "action": {"type": "expire"}}]})
"#;

fn python(gantry: &Installation, program: &str) {
    boto3::python(gantry, PRELUDE, program);
}

#[test]
fn a_lifecycle_policy_is_previewed_and_then_applied() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
ecr.create_repository(repositoryName="app")
of = {"repositoryName": "app"}
for number in range(4):
    image("app", "v%d" % number, b"layer %d" % number)
refused(ecr.get_lifecycle_policy, "LifecyclePolicyNotFoundException", **of)
refused(ecr.get_lifecycle_policy_preview, "LifecyclePolicyPreviewNotFoundException", **of)
text = policy(tagStatus="any", countType="imageCountMoreThan", countNumber=1)
refused(ecr.put_lifecycle_policy, INVALID, "rulePriority", lifecyclePolicyText=json.dumps({"rules": [], "x": "y" * 100}).replace("rules", "rulePriority"), **of)
started = ecr.start_lifecycle_policy_preview(lifecyclePolicyText=text, **of)
assert started["status"] == "IN_PROGRESS", started
ecr.get_waiter("lifecycle_policy_preview_complete").wait(**of)
pages = list(ecr.get_paginator("get_lifecycle_policy_preview").paginate(PaginationConfig={"PageSize": 2}, **of))
results = [it for page in pages for it in page["previewResults"]]
assert [it["imageTags"] for it in results] == [["v0"], ["v1"], ["v2"]] and len(pages) == 2, pages
assert results[0]["action"]["type"] == "EXPIRE" and results[0]["appliedRulePriority"] == 1, results
assert pages[0]["summary"]["expiringImageTotalCount"] == 3, pages
tags = lambda: sorted(it["imageTag"] for it in ecr.list_images(**of)["imageIds"])
assert tags() == ["v0", "v1", "v2", "v3"]
put = ecr.put_lifecycle_policy(lifecyclePolicyText=text, **of)
assert put["lifecyclePolicyText"] == text, put
eventually(lambda: tags() == ["v3"])
assert ecr.get_lifecycle_policy(**of)["lastEvaluatedAt"] is not None
ecr.delete_lifecycle_policy(**of)
refused(ecr.delete_lifecycle_policy, "LifecyclePolicyNotFoundException", **of)
"#,
    );
}

#[test]
fn settings_are_kept_and_what_is_not_built_is_refused_by_name() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
ecr.create_repository(repositoryName="app")
of = {"repositoryName": "app"}
text = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": ["ecr:BatchGetImage"]}]})
refused(ecr.get_repository_policy, "RepositoryPolicyNotFoundException", **of)
refused(ecr.set_repository_policy, INVALID, "Effect", policyText='{"Statement": [{}]}', **of)
assert ecr.set_repository_policy(policyText=text, **of)["policyText"] == text
assert ecr.get_repository_policy(**of)["policyText"] == text
ecr.delete_repository_policy(**of)
refused(ecr.get_registry_policy, "RegistryPolicyNotFoundException")
ecr.put_registry_policy(policyText=text)
assert ecr.get_registry_policy()["policyText"] == text
ecr.delete_registry_policy()
ecr.put_image_scanning_configuration(imageScanningConfiguration={"scanOnPush": True}, **of)
assert ecr.describe_repositories()["repositories"][0]["imageScanningConfiguration"] == {"scanOnPush": True}
assert ecr.batch_get_repository_scanning_configuration(repositoryNames=["app"])["scanningConfigurations"][0]["scanFrequency"] == "SCAN_ON_PUSH"
rules = [{"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "prod*", "filterType": "WILDCARD"}]}]
ecr.put_registry_scanning_configuration(scanType="BASIC", rules=rules)
assert ecr.get_registry_scanning_configuration()["scanningConfiguration"] == {"scanType": "BASIC", "rules": rules}
refused(ecr.put_registry_scanning_configuration, "NotImplemented", "ENHANCED", scanType="ENHANCED")
made, _ = image("app", "v1", b"layer")
refused(ecr.start_image_scan, "NotImplemented", "scanner", imageId={"imageTag": "v1"}, **of)
refused(ecr.describe_image_scan_findings, "ScanNotFoundException", imageId={"imageTag": "v1"}, **of)
assert ecr.describe_registry()["replicationConfiguration"] == {"rules": []}
ecr.put_replication_configuration(replicationConfiguration={"rules": []})
refused(ecr.put_replication_configuration, "NotImplemented", "PutReplicationConfiguration",
    replicationConfiguration={"rules": [{"destinations": [{"region": "eu-west-1", "registryId": "123456789012"}]}]})
assert ecr.get_account_setting(name="REGISTRY_POLICY_SCOPE")["value"] == "V2"
ecr.put_account_setting(name="REGISTRY_POLICY_SCOPE", value="V1")
assert ecr.get_account_setting(name="REGISTRY_POLICY_SCOPE")["value"] == "V1"
refused(ecr.create_pull_through_cache_rule, "NotImplemented", "CreatePullThroughCacheRule", ecrRepositoryPrefix="quay", upstreamRegistryUrl="quay.io")

# A template makes what a push needs.
lifecycle = policy(tagStatus="any", countType="imageCountMoreThan", countNumber=9)
ecr.create_repository_creation_template(prefix="team", appliedFor=["CREATE_ON_PUSH"], imageTagMutability="IMMUTABLE",
    lifecyclePolicy=lifecycle, resourceTags=[{"Key": "team", "Value": "web"}])
refused(ecr.create_repository_creation_template, "TemplateAlreadyExistsException", prefix="team", appliedFor=["CREATE_ON_PUSH"])
image("team/app", "v1", b"pushed")
pushed = ecr.describe_repositories(repositoryNames=["team/app"])["repositories"][0]
assert pushed["imageTagMutability"] == "IMMUTABLE", pushed
assert ecr.list_tags_for_resource(resourceArn=pushed["repositoryArn"])["tags"] == [{"Key": "team", "Value": "web"}]
assert ecr.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"] == lifecycle
assert oci("POST", "/v2/other/app/blobs/uploads/")[0] == 404
ecr.update_repository_creation_template(prefix="team", description="teams")
assert ecr.describe_repository_creation_templates()["repositoryCreationTemplates"][0]["description"] == "teams"
ecr.delete_repository_creation_template(prefix="team")
refused(ecr.describe_repository_creation_templates, "TemplateNotFoundException", prefixes=["team"])
"#,
    );
}

#[test]
fn layers_come_in_parts_and_are_read_through_links() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
ecr.create_repository(repositoryName="app")
of = {"repositoryName": "app"}
data = bytes(range(256)) * (24 * 1024)  # 6 MiB
begun = ecr.initiate_layer_upload(**of)
upload, size = begun["uploadId"], 5 << 20
refused(ecr.complete_layer_upload, "EmptyUploadException", uploadId=upload, layerDigests=[digest(data)], **of)
for first in range(0, len(data), size):
    part = data[first:first + size]
    sent = ecr.upload_layer_part(uploadId=upload, partFirstByte=first, partLastByte=first + len(part) - 1, layerPartBlob=part, **of)
    assert sent["lastByteReceived"] == first + len(part) - 1, sent
refused(ecr.upload_layer_part, "InvalidLayerPartException", uploadId=upload, partFirstByte=0, partLastByte=0, layerPartBlob=b"x", **of)
ecr.complete_layer_upload(uploadId=upload, layerDigests=[digest(data)], **of)
refused(ecr.complete_layer_upload, "UploadNotFoundException", uploadId=upload, layerDigests=[digest(data)], **of)
layers = ecr.batch_check_layer_availability(layerDigests=[digest(data), digest(b"x")], **of)["layers"]
assert [it["layerAvailability"] for it in layers] == ["AVAILABLE", "UNAVAILABLE"], layers
url = ecr.get_download_url_for_layer(layerDigest=digest(data), **of)["downloadUrl"]
assert urllib.request.urlopen(url).read() == data
try:
    urllib.request.urlopen(url.replace("/app/", "/other/"))
    raise SystemExit("the link opens another repository")
except urllib.error.HTTPError as error:
    assert error.code == 403, error.code
"#,
    );
}

#[test]
fn the_distribution_api_resumes_lists_refers_and_deletes() {
    let gantry = Installation::up();
    python(
        &gantry,
        r#"
for name in ("app", "other"):
    ecr.create_repository(repositoryName=name)
# An upload in chunks that is asked where it stands, and goes on there.
_, headers, _ = oci("POST", "/v2/app/blobs/uploads/")
place = headers["location"]
assert oci("PATCH", place, b"hello", Content_Range="0-4", Content_Type="application/octet-stream")[0] == 202
assert oci("PATCH", place, b"hello", Content_Range="0-4", Content_Type="application/octet-stream")[0] == 416
status, headers, _ = oci("GET", place)
assert (status, headers["range"]) == (204, "0-4"), headers
status, _, body = oci("PUT", place + "?digest=" + digest(b"hello world"), b" world", Content_Range="5-10")
assert status == 201, body
path = "/v2/app/blobs/" + digest(b"hello world")
status, headers, body = oci("GET", path, Range="bytes=6-")
assert (status, body, headers["content-range"]) == (206, b"world", "bytes 6-10/11"), headers
assert oci("GET", path, Range="bytes=20-")[0] == 416
assert oci("GET", path, If_None_Match='"%s"' % digest(b"hello world"))[0] == 304
assert oci("POST", "/v2/other/blobs/uploads/?from=app&mount=" + digest(b"hello world"))[0] == 201
assert oci("DELETE", path)[0] == 202 and oci("HEAD", path)[0] == 404
assert oci("GET", path.replace("app", "other"))[2] == b"hello world"

made, _ = image("app", "v1", b"layer")
for tag in ("a", "b", "c"):
    image("app", tag, b"layer")
status, headers, body = oci("GET", "/v2/app/tags/list?n=2")
assert json.loads(body) == {"name": "app", "tags": ["a", "b"]} and 'rel="next"' in headers["link"], (headers, body)
status, headers, body = oci("GET", headers["link"].split(">")[0].strip("<"))
assert json.loads(body)["tags"] == ["c", "v1"] and "link" not in headers, (headers, body)

# What is about an image is found by its type.
signature, headers = image("app", "sig", b"signed", subject=made, artifactType="application/vnd.example.signature", annotations={"by": "me"})
assert headers["oci-subject"] == made["digest"], headers
image("app", "sbom", b"listed", subject=made, artifactType="application/spdx+json")
about = "/v2/app/referrers/" + made["digest"]
status, headers, body = oci("GET", about)
assert len(json.loads(body)["manifests"]) == 2 and headers["content-type"] == INDEX and "oci-filters-applied" not in headers, (headers, body)
status, headers, body = oci("GET", about + "?artifactType=application/vnd.example.signature")
found = json.loads(body)["manifests"]
assert [it["digest"] for it in found] == [signature["digest"]] and found[0]["annotations"] == {"by": "me"}, found
assert headers["oci-filters-applied"] == "artifactType", headers
listed = ecr.list_image_referrers(repositoryName="app", subjectId={"imageDigest": made["digest"]}, filter={"artifactTypes": ["application/spdx+json"]})
assert [it["artifactType"] for it in listed["referrers"]] == ["application/spdx+json"], listed

# An index keeps its images; then all of it is deleted.
index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [made]}).encode()
assert oci("PUT", "/v2/app/manifests/all", index, Content_Type=INDEX)[0] == 201
status, _, body = oci("DELETE", "/v2/app/manifests/" + made["digest"])
assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED"), body
status, _, body = oci("DELETE", "/v2/app/blobs/" + digest(b"layer"))
assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED"), body
for reference in ("all", made["digest"]):
    assert oci("DELETE", "/v2/app/manifests/" + reference)[0] == 202, reference
assert oci("GET", "/v2/app/manifests/v1")[0] == 404
assert oci("DELETE", "/v2/app/blobs/" + digest(b"layer"))[0] == 202
"#,
    );
}

#[test]
fn skopeo_copies_an_index_with_all_of_its_images() {
    let gantry = Installation::up();
    let layout = busybox_layout(&gantry.scratch("image"), &[]);
    // An index of two platforms around the one image of the layout.
    let program = r#"
import hashlib, json, sys
folder = sys.argv[1]
index = json.load(open(folder + "/index.json"))
entry = index["manifests"][0]
entry = {key: entry[key] for key in ("mediaType", "digest", "size")}
images = [dict(entry, platform={"os": "linux", "architecture": it}) for it in ("amd64", "arm64")]
text = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images}).encode()
name = hashlib.sha256(text).hexdigest()
open(folder + "/blobs/sha256/" + name, "wb").write(text)
index["manifests"] = [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + name, "size": len(text),
    "annotations": {"org.opencontainers.image.ref.name": "all"}}]
json.dump(index, open(folder + "/index.json", "w"))
"#;
    run(std::process::Command::new("python3")
        .args(["-c", program])
        .arg(&layout));
    let repository = gantry.aws(&["ecr", "create-repository", "--repository-name", "multi"]);
    let uri = repository["repository"]["repositoryUri"]
        .as_str()
        .expect("a URI")
        .to_owned();
    let creds = format!("AWS:{}", password(&gantry));
    let skopeo = |from: &str, to: &str, side: &str| {
        run(std::process::Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--all", "--quiet"])
            .arg(format!("--{side}-tls-verify=false"))
            .arg(format!("--{side}-creds={creds}"))
            .args([from, to]));
    };
    let from = format!("oci:{}:all", layout.display());
    skopeo(&from, &format!("docker://{uri}:all"), "dest");
    let images = gantry.aws(&["ecr", "describe-images", "--repository-name", "multi"]);
    let images = images["imageDetails"].as_array().expect("images");
    assert_eq!(images.len(), 2, "{images:?}");
    let back = gantry.scratch("back");
    let to = format!("oci:{}:all", back.display());
    skopeo(&format!("docker://{uri}:all"), &to, "src");
    let digest = |folder: &std::path::Path| {
        let index = std::fs::read(folder.join("index.json")).expect("index.json");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        index["manifests"][0]["digest"].clone()
    };
    assert_eq!(digest(&layout), digest(&back));
}
