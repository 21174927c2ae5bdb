import base64, datetime, json, os, re, subprocess

os.chdir(FOLDER)
PROTOCOL, ASSERTION = "urn:oasis:names:tc:SAML:2.0:protocol", "urn:oasis:names:tc:SAML:2.0:assertion"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ATTRIBUTES = "https://aws.amazon.com/SAML/Attributes/"

def run(*words):
    subprocess.run(words, check=True, capture_output=True)

def keys(name, *kind):
    run("openssl", "req", "-x509", *kind, "-nodes", "-keyout", name + ".pem", "-out", name + ".crt", "-subj", "/CN=idp", "-days", "2")
    return "".join(open(name + ".crt").read().splitlines()[1:-1])

def moment(seconds):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

def response(key, attributes, of="Assertion", method="rsa-sha256", since=0, subject="ann@corp.example"):
    signature = f"""<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>
      <ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}"/>
      <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#{method}"/>
      <ds:Reference URI="#{'_a' if of == 'Assertion' else '_r'}"><ds:Transforms>
        <ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/><ds:Transform Algorithm="{EXCLUSIVE}"/>
      </ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue/></ds:Reference>
    </ds:SignedInfo><ds:SignatureValue/></ds:Signature>"""
    here = lambda where: signature if where == of else ""
    shown = "".join(f'<saml:Attribute Name="{ATTRIBUTES}{name}">' + "".join(
        f'<saml:AttributeValue xsi:type="xs:string">{value}</saml:AttributeValue>' for value in values) + "</saml:Attribute>"
        for name, values in attributes.items())
    open("in.xml", "w").write(f"""<samlp:Response xmlns:samlp="{PROTOCOL}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
        xmlns:xs="http://www.w3.org/2001/XMLSchema" ID="_r" Version="2.0" IssueInstant="{moment(since)}">{here("Response")}
      <samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>
      <saml:Assertion xmlns:saml="{ASSERTION}" ID="_a" Version="2.0" IssueInstant="{moment(since)}">
        <saml:Issuer>https://idp.corp.example/saml</saml:Issuer>{here("Assertion")}
        <saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">{subject}</saml:NameID>
          <saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
            <saml:SubjectConfirmationData NotOnOrAfter="{moment(since + 300)}" Recipient="https://signin.aws.amazon.com/saml"/>
          </saml:SubjectConfirmation></saml:Subject>
        <saml:Conditions NotBefore="{moment(since - 60)}" NotOnOrAfter="{moment(since + 300)}"><saml:AudienceRestriction>
          <saml:Audience>https://signin.aws.amazon.com/saml</saml:Audience></saml:AudienceRestriction></saml:Conditions>
        <saml:AuthnStatement AuthnInstant="{moment(since)}" SessionNotOnOrAfter="{moment(since + 36000)}"/>
        <saml:AttributeStatement>{shown}</saml:AttributeStatement>
      </saml:Assertion></samlp:Response>""")
    run("xmlsec1", "--sign", "--privkey-pem", key + ".pem", "--id-attr:ID", "Assertion", "--id-attr:ID", "Response", "--output", "out.xml", "in.xml")
    return open("out.xml").read()

rsa, curve = keys("rsa", "-newkey", "rsa:2048"), keys("curve", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
keys("other", "-newkey", "rsa:2048")
described = "".join(f"""<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
  <ds:X509Certificate>{key}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>""" for key in (rsa, curve))
metadata = f"""<?xml version="1.0"?><md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.corp.example/saml">
<md:IDPSSODescriptor protocolSupportEnumeration="{PROTOCOL}">{described}</md:IDPSSODescriptor></md:EntityDescriptor>"""

iam = boto3.client("iam")
provider = iam.create_saml_provider(Name="corp", SAMLMetadataDocument=metadata)["SAMLProviderArn"]
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Federated": provider},
    "Action": ["sts:AssumeRoleWithSAML", "sts:TagSession"], "Condition": {
        "StringEquals": {"SAML:aud": "https://signin.aws.amazon.com/saml", "SAML:sub_type": "persistent"},
        "StringLike": {"SAML:sub": "*@corp.example"}}}]}
role = iam.create_role(RoleName="people", AssumeRolePolicyDocument=json.dumps(trust), MaxSessionDuration=7200)["Role"]["Arn"]
about = {"Role": [role + "," + provider], "RoleSessionName": ["ann"], "SessionDuration": ["7200"],
    "PrincipalTag:Team": ["blue"], "TransitiveTagKeys": ["Team"]}

# Whoever asks has no key at all.
unsigned = botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1})
sts = boto3.client("sts", config=unsigned)
def ask(text, **more):
    return dict(RoleArn=role, PrincipalArn=provider, SAMLAssertion=base64.b64encode(text.encode()).decode(), **more)

for signed in (response("rsa", about), response("rsa", about, of="Response"), response("curve", about, method="ecdsa-sha256")):
    answer = sts.assume_role_with_saml(**ask(signed))
    assert (answer["Subject"], answer["SubjectType"]) == ("ann@corp.example", "persistent"), answer
    assert answer["Issuer"] == "https://idp.corp.example/saml" and answer["Audience"] == "https://signin.aws.amazon.com/saml", answer
    assert answer["NameQualifier"], answer
    key = answer["Credentials"]
    left = (key["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 7000 < left <= 7200, left
    as_ann = dict(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"], aws_session_token=key["SessionToken"])
    who = boto3.client("sts", **as_ann).get_caller_identity()["Arn"]
    assert who == "arn:aws:sts::000000000000:assumed-role/people/ann", who
    assert boto3.client("ecs", **as_ann).list_clusters()["clusterArns"]

good = response("rsa", about)
forged = good.replace("ann@corp.example", "eve@corp.example")
alone = re.search(r"<saml:Assertion.*</saml:Assertion>", good, re.S).group(0)
evil = re.sub(r"<ds:Signature .*</ds:Signature>", "", alone, flags=re.S).replace("ann@", "eve@").replace('ID="_a"', 'ID="_e"')
bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY a{n} "{"&a" + str(n - 1 if n else "") + ";"}{"&a;" * 9}">' for n in range(9)) + "]>"
for attack in (forged, response("other", about), re.sub(r"<ds:Signature .*</ds:Signature>", "", good, flags=re.S),
               good.replace(alone, evil + alone), good.replace(alone, evil.replace("</saml:Assertion>", alone + "</saml:Assertion>")),
               good.replace("<samlp:Response", bomb + "<samlp:Response"), "<a>" * 20000):
    refused(sts.assume_role_with_saml, "InvalidIdentityToken", **ask(attack.replace('<?xml version="1.0"?>', "")))
refused(sts.assume_role_with_saml, "ExpiredTokenException", "within 5 minutes", **ask(response("rsa", about, since=-301)))
refused(sts.assume_role_with_saml, "AccessDenied", "sts:AssumeRoleWithSAML", **ask(response("rsa", about, subject="ann@other.example")))
refused(sts.assume_role_with_saml, "AccessDenied", "sts:AssumeRoleWithSAML", **ask(response("rsa", {**about, "Role": [role + "x," + provider]})))
refused(sts.assume_role_with_saml, "ValidationError", "MaxSessionDuration", **ask(good, DurationSeconds=7201))
sts.assume_role_with_saml(**ask(good))
iam.delete_saml_provider(SAMLProviderArn=provider)
refused(sts.assume_role_with_saml, "InvalidIdentityToken", "Specified provider doesn't exist", **ask(good))
