//! A response with one assertion, and what the assertion claims.
//!
//! What always holds: an assertion is either signed itself or part of a signed response; where both are, both must be
//! good. What is not signed can only make the response be refused.

use std::collections::BTreeMap;

use gantry_api::protocol::timestamp;
use gantry_env::Timestamp;

use super::metadata::Metadata;
use super::signature::{Unsigned, signed_text};
use super::xml::{self, ASSERTION, Element, PROTOCOL, SIGNATURE};

const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";
/// What AWS leaves out when it shows the format of a name.
const FORMATS: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:";
/// The format of a name that says none, by the letter of SAML.
const UNSPECIFIED: &str = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified";
/// What the names of the attributes that AWS reads begin with.
const ATTRIBUTES: &str = "https://aws.amazon.com/SAML/Attributes/";

/// What somebody who is in [`Metadata`] signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    pub issuer: String,
    pub issued_at: Timestamp,
    pub subject: String,
    pub subject_type: String,
    /// How a bearer may be known for the subject.
    pub confirmations: Vec<Confirmation>,
    pub not_before: Option<Timestamp>,
    pub not_on_or_after: Option<Timestamp>,
    /// Each restriction is good for any of its audiences, and all of them must be met.
    pub audiences: Vec<Vec<String>>,
    /// When the provider ends what it began for the subject.
    pub session_ends_at: Option<Timestamp>,
    /// The attributes that AWS reads, by what follows their common beginning.
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// To whom the assertion may be presented, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub recipient: String,
    pub not_before: Option<Timestamp>,
    pub not_on_or_after: Timestamp,
}

/// Why nothing can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("The response is not a SAML 2.0 response: {0}")]
    Malformed(&'static str),
    #[error(
        "The identity provider (IdP) reported that authentication failed. This might be because the claim is invalid."
    )]
    Failed,
    #[error("the assertion is encrypted")]
    Encrypted,
    #[error("Issuer not present in specified provider")]
    OtherIssuer,
    #[error(
        "Response signature cannot be verified: {0} is not built. Use exclusive canonicalization, SHA-256, SHA-384 or SHA-512, and RSA or ECDSA"
    )]
    Algorithm(String),
    #[error("Response signature invalid: {0}")]
    Signature(&'static str),
}

use Refused::Malformed;

impl From<Unsigned> for Refused {
    fn from(unsigned: Unsigned) -> Self {
        match unsigned {
            Unsigned::Missing => {
                Self::Signature("neither the response nor its assertion is signed")
            }
            Unsigned::Form(form) => Self::Signature(form),
            Unsigned::Algorithm(uri) => Self::Algorithm(uri),
            Unsigned::Wrong => {
                Self::Signature("it is not of this text by a key of the specified provider")
            }
        }
    }
}

/// The assertion in `response`, verified against the keys of the provider that `metadata` are of.
pub fn read(response: &str, metadata: &Metadata) -> Result<Assertion, Refused> {
    let document = xml::parse(response).ok_or(Malformed(
        "it is not well-formed XML without a document type",
    ))?;
    let response = xml::root(&document)
        .filter(|root| root.is(PROTOCOL, "Response") && root.attribute("Version") == Some("2.0"))
        .ok_or(Malformed("its root is another element"))?;
    let status = response.only(PROTOCOL, "Status");
    let status = status.and_then(|status| status.only(PROTOCOL, "StatusCode"));
    let status = status.ok_or(Malformed("it has no status"))?;
    if status.attribute("Value") != Some(SUCCESS) {
        return Err(Refused::Failed);
    }
    if !response
        .children(ASSERTION, "EncryptedAssertion")
        .is_empty()
    {
        return Err(Refused::Encrypted);
    }
    let assertion = the_assertion(response)?;
    // So far only to say it well; the issuer that counts is in what was signed.
    if metadata.entity.is_none() || issuer(assertion) != metadata.entity {
        return Err(Refused::OtherIssuer);
    }

    let is_signed = |element: Element<'_, '_>| !element.children(SIGNATURE, "Signature").is_empty();
    let text = if is_signed(response) {
        if is_signed(assertion) {
            signed_text(assertion, &metadata.keys)?;
        }
        signed_text(response, &metadata.keys)?
    } else {
        signed_text(assertion, &metadata.keys)?
    };
    let document = xml::parse(&text).ok_or(Malformed("its canonical form is not XML"))?;
    let root = xml::root(&document).ok_or(Malformed("its canonical form is empty"))?;
    let assertion = match root.is(ASSERTION, "Assertion") {
        true => root,
        false => the_assertion(root)?,
    };
    if issuer(assertion) != metadata.entity {
        return Err(Refused::OtherIssuer);
    }
    claims(assertion)
}

fn the_assertion<'d, 'a>(response: Element<'d, 'a>) -> Result<Element<'d, 'a>, Refused> {
    let only = response.only(ASSERTION, "Assertion");
    only.ok_or(Malformed("it has not exactly one assertion"))
}

fn issuer(assertion: Element<'_, '_>) -> Option<String> {
    assertion.only(ASSERTION, "Issuer")?.text()
}

fn claims(assertion: Element<'_, '_>) -> Result<Assertion, Refused> {
    let subject = assertion
        .only(ASSERTION, "Subject")
        .ok_or(Malformed("its assertion has not exactly one subject"))?;
    let name = subject.only(ASSERTION, "NameID");
    let text = name.and_then(Element::text).filter(|text| !text.is_empty());
    let (Some(name), Some(text)) = (name, text) else {
        return Err(Malformed("its subject has no name"));
    };
    let format = name.attribute("Format").unwrap_or(UNSPECIFIED);
    let conditions = assertion.only(ASSERTION, "Conditions").ok_or(Malformed(
        "its assertion has not exactly one set of conditions",
    ))?;
    let restrictions = conditions.children(ASSERTION, "AudienceRestriction");
    let audiences = restrictions.into_iter().map(|restriction| {
        let audiences = restriction.children(ASSERTION, "Audience").into_iter();
        audiences.filter_map(Element::text).collect()
    });
    let mut session_ends_at: Option<Timestamp> = None;
    for statement in assertion.children(ASSERTION, "AuthnStatement") {
        if let Some(end) = moment(statement, "SessionNotOnOrAfter")? {
            session_ends_at = Some(session_ends_at.map_or(end, |first| first.min(end)));
        }
    }
    Ok(Assertion {
        issuer: issuer(assertion).unwrap_or_default(),
        issued_at: moment(assertion, "IssueInstant")?
            .ok_or(Malformed("its assertion does not say when it was issued"))?,
        subject: text,
        subject_type: format.strip_prefix(FORMATS).unwrap_or(format).to_owned(),
        confirmations: confirmations(subject)?,
        not_before: moment(conditions, "NotBefore")?,
        not_on_or_after: moment(conditions, "NotOnOrAfter")?,
        audiences: audiences.collect(),
        session_ends_at,
        attributes: attributes(assertion)?,
    })
}

/// Those by which whoever bears the assertion is its subject; others need a key that nobody shows here.
fn confirmations(subject: Element<'_, '_>) -> Result<Vec<Confirmation>, Refused> {
    let mut found = Vec::new();
    for confirmation in subject.children(ASSERTION, "SubjectConfirmation") {
        if confirmation.attribute("Method") != Some(BEARER) {
            continue;
        }
        let Some(data) = confirmation.only(ASSERTION, "SubjectConfirmationData") else {
            continue;
        };
        // By the profile of SAML a bearer's confirmation has both.
        if let (Some(recipient), Some(not_on_or_after)) =
            (data.attribute("Recipient"), moment(data, "NotOnOrAfter")?)
        {
            found.push(Confirmation {
                recipient: recipient.to_owned(),
                not_before: moment(data, "NotBefore")?,
                not_on_or_after,
            });
        }
    }
    Ok(found)
}

fn attributes(assertion: Element<'_, '_>) -> Result<BTreeMap<String, Vec<String>>, Refused> {
    let mut attributes = BTreeMap::new();
    for statement in assertion.children(ASSERTION, "AttributeStatement") {
        for attribute in statement.children(ASSERTION, "Attribute") {
            let name = attribute.attribute("Name").unwrap_or_default();
            let Some(name) = name.strip_prefix(ATTRIBUTES) else {
                continue;
            };
            let values = attribute.children(ASSERTION, "AttributeValue").into_iter();
            let values: Option<Vec<String>> = values.map(Element::text).collect();
            let values = values.ok_or(Malformed("an attribute has a value that is not text"))?;
            if attributes.insert(name.to_owned(), values).is_some() {
                return Err(Malformed("an attribute stands twice"));
            }
        }
    }
    Ok(attributes)
}

fn moment(of: Element<'_, '_>, name: &str) -> Result<Option<Timestamp>, Refused> {
    match of.attribute(name) {
        None => Ok(None),
        Some(text) => match timestamp::parse(text) {
            None => Err(Malformed("a moment is not written as one")),
            moment => Ok(moment),
        },
    }
}
