//! Reading shapes: what every codec's reader offers, and where in a request it is.
//!
//! One reader object is handed down through a whole value. It calls back for what is present,
//! so nothing is built before its type is known. The [`Trail`] keeps the path for messages,
//! bounds the depth, and collects required members that did not come.

use bytes::Bytes;
use gantry_env::Timestamp;

use crate::error::ProtocolError;
use crate::schema::{Kind, Member, Schema};

/// Deeper values than this are refused. AWS's own deepest shapes stay far below.
pub const MAX_DEPTH: usize = 64;

pub type OnMember<'a> = &'a mut dyn FnMut(usize, &mut dyn ShapeReader) -> Result<(), ProtocolError>;
pub type OnElement<'a> = &'a mut dyn FnMut(&mut dyn ShapeReader) -> Result<(), ProtocolError>;
pub type OnEntry<'a> = &'a mut dyn FnMut(String, &mut dyn ShapeReader) -> Result<(), ProtocolError>;

/// Gives out the value it stands at. Every method consumes that value.
pub trait ShapeReader {
    /// Calls back for each member that is present, with its index in the schema. Members that
    /// the schema does not have are skipped; an explicit null counts as not present.
    fn structure(
        &mut self,
        schema: &'static Schema,
        on_member: OnMember<'_>,
    ) -> Result<(), ProtocolError>;
    fn list(
        &mut self,
        schema: &'static Schema,
        on_element: OnElement<'_>,
    ) -> Result<(), ProtocolError>;
    fn map(&mut self, schema: &'static Schema, on_entry: OnEntry<'_>) -> Result<(), ProtocolError>;

    fn string(&mut self, schema: &'static Schema) -> Result<String, ProtocolError>;
    fn integer(&mut self, schema: &'static Schema) -> Result<i32, ProtocolError>;
    fn long(&mut self, schema: &'static Schema) -> Result<i64, ProtocolError>;
    fn double(&mut self, schema: &'static Schema) -> Result<f64, ProtocolError>;
    fn boolean(&mut self, schema: &'static Schema) -> Result<bool, ProtocolError>;
    fn timestamp(&mut self, schema: &'static Schema) -> Result<Timestamp, ProtocolError>;
    fn blob(&mut self, schema: &'static Schema) -> Result<Bytes, ProtocolError>;
    fn document(&mut self, schema: &'static Schema) -> Result<serde_json::Value, ProtocolError>;

    fn trail(&mut self) -> &mut Trail;
}

/// A required member that did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// In the form of AWS's messages: `tags.1.member.key`.
    pub path: String,
    /// Text, a list or a map: an operation can see for itself that it is empty.
    pub may_be_blank: bool,
}

/// Where the reader is.
#[derive(Default)]
pub struct Trail {
    segments: Vec<Segment>,
    depth: usize,
    missing: Vec<Missing>,
    /// The first error, kept beside whatever a parser makes of it on the way out.
    pub(crate) error: Option<ProtocolError>,
}

enum Segment {
    Member(&'static Member),
    Index(usize),
    Key(String),
}

impl Trail {
    pub fn descend(&mut self) -> Result<(), ProtocolError> {
        if self.depth >= MAX_DEPTH {
            return Err(ProtocolError::TooDeep {
                member: self.path(),
                limit: MAX_DEPTH,
            });
        }
        self.depth += 1;
        Ok(())
    }

    pub fn ascend(&mut self) {
        self.depth -= 1;
    }

    pub fn push_member(&mut self, member: &'static Member) {
        self.segments.push(Segment::Member(member));
    }

    pub fn push_index(&mut self, index: usize) {
        self.segments.push(Segment::Index(index));
    }

    pub fn push_key(&mut self, key: &str) {
        self.segments.push(Segment::Key(key.to_owned()));
    }

    pub fn pop(&mut self) {
        self.segments.pop();
    }

    /// The member through which the reader came here: it may say how a value is written.
    pub fn member(&self) -> Option<&'static Member> {
        match self.segments.last() {
            Some(Segment::Member(member)) => Some(member),
            _ => None,
        }
    }

    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Member(member) => push_name(&mut path, member.name),
                Segment::Index(index) => {
                    path.push_str(&format!(".{}.member", index + 1));
                }
                Segment::Key(key) => {
                    path.push_str(&format!(".{key}.member"));
                }
            }
        }
        path
    }

    pub fn note_missing(&mut self, member: &'static Member) {
        let mut path = self.path();
        push_name(&mut path, member.name);
        let may_be_blank = matches!(
            member.target().kind,
            Kind::String | Kind::Enum { .. } | Kind::List { .. } | Kind::Map { .. }
        );
        self.missing.push(Missing { path, may_be_blank });
    }

    pub fn into_missing(self) -> Vec<Missing> {
        self.missing
    }
}

/// AWS writes members in messages with a small first letter, whatever the wire has.
pub(crate) fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    let mut letters = name.chars();
    if let Some(first) = letters.next() {
        path.push(first.to_ascii_lowercase());
        path.push_str(letters.as_str());
    }
}
