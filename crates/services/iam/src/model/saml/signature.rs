//! Signatures of XML, in the one form that SAML allows: enveloped, over the element that it stands in, by its id.
//!
//! What always holds: who asks gets the canonical text whose digest was signed, and nothing else is to be read. What
//! the signature says of itself (which element, which digest) is likewise read from its verified text. A key is one of
//! those that were registered; what the signature brings as a key is not looked at.
//! What it leaves to others: canonical XML (`bergshamra-c14n`).

use bergshamra_c14n::{C14nMode, canonicalize_doc};
use bergshamra_xml::NodeSet;
use ring::digest;
use uppsala::Document;

use super::certificate::{Algorithm, SigningKey};
use super::xml::{self, Element, SIGNATURE};

const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// Why there is no text to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// There is no signature.
    Missing,
    /// It is not of the form that SAML allows.
    Form(&'static str),
    /// It needs what is not built.
    Algorithm(String),
    /// It is not one of these keys', or not of this text.
    Wrong,
}

use Unsigned::{Form, Missing, Wrong};

/// The canonical text of `element`, which one of `keys` signed.
pub(super) fn signed_text(
    element: Element<'_, '_>,
    keys: &[SigningKey],
) -> Result<String, Unsigned> {
    let signature = match element.children(SIGNATURE, "Signature").as_slice() {
        [] => return Err(Missing),
        [one] => *one,
        _ => return Err(Form("there are several signatures in one element")),
    };
    if !signature.children(SIGNATURE, "Object").is_empty() {
        return Err(Form("there is an object in the signature"));
    }
    let (Some(info), Some(value)) = (
        signature.only(SIGNATURE, "SignedInfo"),
        signature.only(SIGNATURE, "SignatureValue"),
    ) else {
        return Err(Form("there is no signed info or no signature value"));
    };

    // What the signature says of itself, before it is believed: only how to verify it.
    let claimed = Instructions::read(info)?;
    let value = value.text().and_then(|text| xml::base64(&text));
    let value = value.ok_or(Form("the signature value is not base64"))?;
    let nodes = NodeSet::tree_without_comments(info.id, info.document);
    let info = canonical(info.document, &nodes, &claimed.info_prefixes)?;
    let good = |key: &SigningKey| key.signed(claimed.algorithm, info.as_bytes(), &value);
    if !keys.iter().any(good) {
        return Err(Wrong);
    }

    // From here on what it says counts, as it was signed.
    let info = xml::parse(&info).ok_or(Form("the signed info is not XML"))?;
    let info = xml::root(&info).ok_or(Form("the signed info is empty"))?;
    let said = Instructions::read(info)?;
    if said != claimed {
        return Err(Form("the signed info reads otherwise when it is canonical"));
    }
    match element.attribute("ID") {
        Some(id) if !id.is_empty() && said.reference.strip_prefix('#') == Some(id) => {
            if !xml::is_only_id(element.document, id) {
                return Err(Form("several elements have the id that is referred to"));
            }
        }
        _ => {
            return Err(Form(
                "the signature is not of the element that it stands in",
            ));
        }
    }
    let whole = NodeSet::tree_without_comments(element.id, element.document);
    let itself = NodeSet::tree_with_comments(signature.id, element.document);
    let nodes = whole.subtract(&itself);
    let text = canonical(element.document, &nodes, &said.element_prefixes)?;
    let digest = digest::digest(said.digest.of(), text.as_bytes());
    match digest.as_ref() == said.digest_value {
        true => Ok(text),
        false => Err(Wrong),
    }
}

fn canonical(
    document: &Document<'_>,
    nodes: &NodeSet,
    prefixes: &[String],
) -> Result<String, Unsigned> {
    let text = canonicalize_doc(document, C14nMode::Exclusive, Some(nodes), prefixes);
    text.ok()
        .and_then(|text| String::from_utf8(text).ok())
        .ok_or(Form("there is no canonical form of it"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    fn named(uri: &str) -> Option<Self> {
        match uri {
            "http://www.w3.org/2001/04/xmlenc#sha256" => Some(Self::Sha256),
            "http://www.w3.org/2001/04/xmldsig-more#sha384" => Some(Self::Sha384),
            "http://www.w3.org/2001/04/xmlenc#sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn of(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// What a signed info says.
#[derive(Debug, PartialEq, Eq)]
struct Instructions {
    algorithm: Algorithm,
    info_prefixes: Vec<String>,
    reference: String,
    element_prefixes: Vec<String>,
    digest: Digest,
    digest_value: Vec<u8>,
}

impl Instructions {
    fn read(info: Element<'_, '_>) -> Result<Self, Unsigned> {
        let unknown = |uri: String| Unsigned::Algorithm(uri.chars().take(100).collect());
        let (canonical, uri) = method(info, "CanonicalizationMethod")?;
        if uri != EXCLUSIVE {
            return Err(unknown(uri));
        }
        let info_prefixes = prefixes(canonical)?;
        let (_, uri) = method(info, "SignatureMethod")?;
        let algorithm = Algorithm::of(&uri).ok_or_else(|| unknown(uri))?;

        let reference = info
            .only(SIGNATURE, "Reference")
            .ok_or(Form("there is not exactly one reference"))?;
        let transforms = reference.only(SIGNATURE, "Transforms");
        let transforms = transforms.map(|all| (all.count(), all.children(SIGNATURE, "Transform")));
        let element_prefixes = match transforms.as_ref().map(|(count, all)| (count, &all[..])) {
            Some((2, [first, second])) => {
                let first = first.attribute("Algorithm").unwrap_or_default();
                let other = second.attribute("Algorithm").unwrap_or_default();
                if (first, other) != (ENVELOPED, EXCLUSIVE) {
                    let odd = if first == ENVELOPED { other } else { first };
                    return Err(unknown(odd.to_owned()));
                }
                prefixes(*second)?
            }
            _ => {
                return Err(Form(
                    "the transforms are not the enveloped signature and exclusive canonicalization",
                ));
            }
        };
        let (_, uri) = method(reference, "DigestMethod")?;
        let digest = Digest::named(&uri).ok_or_else(|| unknown(uri))?;
        let digest_value = reference
            .only(SIGNATURE, "DigestValue")
            .and_then(|value| xml::base64(&value.text()?))
            .ok_or(Form("the digest value is missing or not base64"))?;
        Ok(Self {
            algorithm,
            info_prefixes,
            reference: reference.attribute("URI").unwrap_or_default().to_owned(),
            element_prefixes,
            digest,
            digest_value,
        })
    }
}

/// A method by its name, and the URI that it names.
fn method<'d, 'a>(of: Element<'d, 'a>, name: &str) -> Result<(Element<'d, 'a>, String), Unsigned> {
    of.only(SIGNATURE, name)
        .and_then(|method| Some((method, method.attribute("Algorithm")?.to_owned())))
        .ok_or(Form("a method is missing"))
}

/// The prefixes whose namespaces are part of the canonical form although no name uses them.
fn prefixes(method: Element<'_, '_>) -> Result<Vec<String>, Unsigned> {
    if method.count() == 0 {
        return Ok(Vec::new());
    }
    let listed = method
        .only(EXCLUSIVE, "InclusiveNamespaces")
        .filter(|_| method.count() == 1)
        .and_then(|list| list.attribute("PrefixList"));
    let listed = listed.ok_or(Form("a method has parameters that are not known"))?;
    Ok(listed.split_ascii_whitespace().map(str::to_owned).collect())
}
