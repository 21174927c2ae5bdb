//! XML as far as SAML needs it: elements by namespace and name, attributes without a namespace, text that is text alone.
//!
//! What always holds: a document with a document type is refused, so nothing is ever expanded or fetched; nothing is
//! deeper than [`DEEPEST`]; text that has anything but text between its tags is no text.

use uppsala::parser::Parser;
use uppsala::{Document, NodeId, NodeKind};

pub(super) const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
pub(super) const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
pub(super) const METADATA: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
pub(super) const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";

/// An attribute's value that is an element of a signed response is about ten deep.
const DEEPEST: u32 = 32;

pub(super) fn parse(text: &str) -> Option<Document<'_>> {
    Parser::new()
        .with_forbid_dtd(true)
        .with_forbid_entities(true)
        .with_max_depth(DEEPEST)
        .parse(text)
        .ok()
}

pub(super) fn root<'d, 'a>(document: &'d Document<'a>) -> Option<Element<'d, 'a>> {
    let id = document.document_element()?;
    Some(Element { document, id })
}

#[derive(Clone, Copy)]
pub(super) struct Element<'d, 'a> {
    pub document: &'d Document<'a>,
    pub id: NodeId,
}

impl<'d, 'a> Element<'d, 'a> {
    pub fn is(self, namespace: &str, name: &str) -> bool {
        let element = self.document.element(self.id);
        element.is_some_and(|element| element.matches_name_ns(namespace, name))
    }

    pub fn children(self, namespace: &str, name: &str) -> Vec<Self> {
        let found = self
            .document
            .child_elements_by_name_ns(self.id, namespace, name);
        let document = self.document;
        let found = found.into_iter();
        found.map(|id| Self { document, id }).collect()
    }

    /// The child of this name, if there is exactly one.
    pub fn only(self, namespace: &str, name: &str) -> Option<Self> {
        match self.children(namespace, name).as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// How many elements there are in it, whatever their names.
    pub fn count(self) -> usize {
        let children = self.document.children_iter(self.id);
        children
            .filter(|id| self.document.element(*id).is_some())
            .count()
    }

    /// An attribute without a namespace.
    pub fn attribute(self, name: &str) -> Option<&'d str> {
        let element = self.document.element(self.id)?;
        let mut found = element.attributes.iter().filter(|attribute| {
            attribute.name.namespace_uri.is_none() && attribute.name.local_name == name
        });
        found.next().map(|attribute| &*attribute.value)
    }

    /// What stands between its tags, without white space around it; `None` if there is more than text. A comment is
    /// nothing: the text goes on behind it.
    pub fn text(self) -> Option<String> {
        let mut text = String::new();
        for id in self.document.children_iter(self.id) {
            match self.document.node_kind(id) {
                Some(NodeKind::Text(part) | NodeKind::CData(part)) => text.push_str(part),
                Some(NodeKind::Comment(_)) => {}
                _ => return None,
            }
        }
        Some(text.trim().to_owned())
    }
}

/// Whether exactly one element of the document is known by this id, by whatever attribute an id may be written.
pub(super) fn is_only_id(document: &Document<'_>, id: &str) -> bool {
    let elements = document.descendants(document.root());
    let elements = elements.iter().filter_map(|id| document.element(*id));
    let attributes = elements.flat_map(|element| element.attributes.iter());
    let known = attributes.filter(|attribute| {
        attribute.name.local_name.eq_ignore_ascii_case("id") && attribute.value == id
    });
    known.count() == 1
}

/// Base64 in which lines may end.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(dense).ok()
}
