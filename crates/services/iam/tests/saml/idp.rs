//! An identity provider: a key, metadata, and assertions that it signs; and the account that it is registered in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::iam::{self, Iam};
use gantry_api::sts::{self, Sts};
use gantry_env::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use crate::desk::{Desk, refusal};

pub const PROVIDER: &str = "arn:aws:iam::000000000000:saml-provider/idp";
pub const ROLE: &str = "arn:aws:iam::000000000000:role/web";
pub const SIGN_IN: &str = "https://signin.aws.amazon.com/saml";
/// Where a signature goes.
pub const HERE: &str = "<!--here-->";

pub struct Idp {
    pair: EcdsaKeyPair,
    certificate: String,
}

impl Idp {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["idp.example".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let random = SystemRandom::new();
        let pkcs8 = key.serialize_der();
        Self {
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
                .unwrap(),
            certificate: STANDARD.encode(certificate.der()),
        }
    }

    pub fn metadata(&self) -> String {
        format!(
            r#"<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="urn:idp"><md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor></md:IDPSSODescriptor></md:EntityDescriptor>{}"#,
            self.certificate,
            " ".repeat(1000)
        )
    }

    /// `text`, in canonical form but for [`HERE`], with a signature over the element of this id there.
    pub fn signed(&self, text: &str, id: &str) -> String {
        self.signed_by(text, &references(text, id))
    }

    /// The same with a signed info of one's own.
    pub fn signed_by(&self, text: &str, info: &str) -> String {
        // On its own its canonical form says what its prefix is; in the signature that has been said.
        let names = r#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#""#;
        let alone = format!("<ds:SignedInfo{names}>{info}</ds:SignedInfo>");
        let signature = self.pair.sign(&SystemRandom::new(), alone.as_bytes());
        let signature = STANDARD.encode(signature.unwrap());
        let element = format!(
            "<ds:Signature{names}><ds:SignedInfo>{info}</ds:SignedInfo><ds:SignatureValue>{signature}</ds:SignatureValue></ds:Signature>"
        );
        text.replacen(HERE, &element, 1)
    }
}

/// A signed info of the usual kind over `text` without its [`HERE`].
pub fn references(text: &str, id: &str) -> String {
    let digest = STANDARD.encode(digest(&SHA256, text.replace(HERE, "").as_bytes()));
    format!(
        r##"<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"></ds:SignatureMethod><ds:Reference URI="#{id}"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"##
    )
}

/// A response around `content`, with a place for a signature.
pub fn response(content: &str) -> String {
    format!(
        r#"<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_r" Version="2.0">{HERE}<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"></samlp:StatusCode></samlp:Status>{content}</samlp:Response>"#
    )
}

pub fn attribute(name: &str, values: &[&str]) -> String {
    let value = |value: &&str| format!("<saml:AttributeValue>{value}</saml:AttributeValue>");
    let values: String = values.iter().map(value).collect();
    format!(
        r#"<saml:Attribute Name="https://aws.amazon.com/SAML/Attributes/{name}">{values}</saml:Attribute>"#
    )
}

/// An account with the provider and a role that trusts it.
pub struct Bench {
    pub desk: Desk,
    pub idp: Idp,
}

const TRUST: &str = r#""Action":["sts:AssumeRoleWithSAML","sts:TagSession","sts:SetSourceIdentity"],"Condition":{"StringEquals":{"SAML:aud":"https://signin.aws.amazon.com/saml","saml:iss":"urn:idp","saml:doc":"000000000000/idp"}}"#;

impl Bench {
    pub fn new() -> Self {
        let bench = Self {
            desk: Desk::new(),
            idp: Idp::new(),
        };
        bench.register("idp", &bench.idp.metadata());
        bench.desk.role("web");
        bench.trust(TRUST);
        bench
    }

    pub fn register(&self, name: &str, metadata: &str) {
        let input = iam::CreateSAMLProviderRequest {
            name: name.into(),
            saml_metadata_document: metadata.into(),
            ..Default::default()
        };
        let desk = &self.desk;
        desk.wait(desk.iam.create_saml_provider(&desk.ctx, input))
            .unwrap();
    }

    pub fn trust(&self, statement: &str) {
        let input = iam::UpdateAssumeRolePolicyRequest {
            role_name: "web".into(),
            policy_document: format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Federated":"{PROVIDER}"}},{statement}}}]}}"#
            ),
        };
        let desk = &self.desk;
        desk.wait(desk.iam.update_assume_role_policy(&desk.ctx, input))
            .unwrap();
    }

    pub fn now(&self) -> Timestamp {
        self.desk.world.now()
    }

    /// `seconds` from now, as SAML writes it.
    pub fn in_s(&self, seconds: i64) -> String {
        let now = self.now().as_epoch_seconds_f64();
        Timestamp::from_epoch_seconds_f64(now + seconds as f64).to_string()
    }

    /// The usual assertion, in canonical form, with a place for a signature.
    pub fn assertion(&self) -> String {
        let (now, soon) = (self.in_s(0), self.in_s(300));
        let attributes = [
            attribute("Role", &["x,y", &format!("{ROLE},{PROVIDER}")]),
            attribute("RoleSessionName", &["ann@example"]),
        ]
        .concat();
        format!(
            r#"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="_a" IssueInstant="{now}" Version="2.0"><saml:Issuer>urn:idp</saml:Issuer>{HERE}<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">ann</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="{soon}" Recipient="{SIGN_IN}"></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotBefore="{now}" NotOnOrAfter="{soon}"><saml:AudienceRestriction><saml:Audience>{SIGN_IN}</saml:Audience></saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement AuthnInstant="{now}"></saml:AuthnStatement><saml:AttributeStatement>{attributes}</saml:AttributeStatement></saml:Assertion>"#
        )
    }

    /// A response whose assertion is signed after `from` was replaced by `to` in it.
    pub fn with(&self, from: &str, to: &str) -> String {
        let assertion = self.assertion();
        assert!(assertion.contains(from), "{from}");
        let assertion = assertion.replace(from, to);
        response(&self.idp.signed(&assertion, "_a"))
    }

    /// A response whose assertion has another attribute.
    pub fn with_attribute(&self, name: &str, values: &[&str]) -> String {
        let end = "</saml:AttributeStatement>";
        self.with(end, &format!("{}{end}", attribute(name, values)))
    }

    pub fn assume_with(
        &self,
        response: &str,
        edit: impl FnOnce(&mut sts::AssumeRoleWithSAMLRequest),
    ) -> Result<sts::AssumeRoleWithSAMLResponse, sts::StsError> {
        let mut input = sts::AssumeRoleWithSAMLRequest {
            role_arn: ROLE.into(),
            principal_arn: PROVIDER.into(),
            saml_assertion: STANDARD.encode(response),
            ..Default::default()
        };
        edit(&mut input);
        let mut ctx = self.desk.ctx.clone();
        ctx.now = self.now();
        self.desk
            .wait(self.desk.iam.assume_role_with_saml(&ctx, input))
    }

    pub fn assume(&self, response: &str) -> Result<sts::AssumeRoleWithSAMLResponse, sts::StsError> {
        self.assume_with(response, |_| {})
    }

    /// Code and message of the refusal.
    pub fn refused(&self, response: &str) -> (String, String) {
        refusal(self.assume(response))
    }
}
