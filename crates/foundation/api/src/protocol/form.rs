//! Forms: the input side of awsQuery, where every value is a text under a dotted name.
//!
//! `Tags.member.1.Key=a` is the member Key of the first element of Tags. The form is kept
//! sorted, so whether anything stands under a name is one lookup. Names that no schema asks
//! for are ignored, as AWS does; a text that is not of its type is an error.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_env::Timestamp;

use super::timestamp;
use crate::error::ProtocolError;
use crate::read::{OnElement, OnEntry, OnMember, ShapeReader, Trail};
use crate::schema::{Kind, Member, Schema};

/// AWS refuses forms with more parameters than anybody sends.
const MAX_PARAMETERS: usize = 10_000;

/// A decoded form. Of a name that comes twice, the last value counts.
#[derive(Debug, Default)]
pub struct Form {
    values: BTreeMap<String, String>,
}

impl Form {
    /// Decodes `a=b&c=d`, as in a body or a query string.
    pub fn parse(text: &[u8]) -> Result<Self, ProtocolError> {
        let mut values = BTreeMap::new();
        for (count, pair) in text.split(|byte| *byte == b'&').enumerate() {
            if count >= MAX_PARAMETERS {
                return Err(ProtocolError::TooMany {
                    member: "The request".to_owned(),
                    limit: MAX_PARAMETERS,
                });
            }
            if pair.is_empty() {
                continue;
            }
            let split = pair
                .iter()
                .position(|byte| *byte == b'=')
                .unwrap_or(pair.len());
            let (name, value) = (&pair[..split], pair.get(split + 1..).unwrap_or_default());
            values.insert(decode(name)?, decode(value)?);
        }
        Ok(Self { values })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a value stands at this name or below it.
    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.below(name).next().is_some()
    }

    /// What follows `name.` in every name that starts with it.
    fn below<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let prefix = format!("{name}.");
        self.values
            .range(prefix.clone()..)
            .map_while(move |(name, _)| name.strip_prefix(prefix.as_str()))
    }

    /// The numbers right below a name, in their order; gaps do not matter.
    fn indices(&self, name: &str) -> BTreeSet<u32> {
        self.below(name)
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect()
    }
}

fn decode(text: &[u8]) -> Result<String, ProtocolError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| (*digit as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(ProtocolError::Syntax {
                        reason: "a % that two hexadecimal digits do not follow".to_owned(),
                    });
                };
                out.push((high * 16 + low) as u8);
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).map_err(|_| ProtocolError::Syntax {
        reason: "a form that is not UTF-8".to_owned(),
    })
}

/// Reads shapes from a form.
pub struct FormReader<'f> {
    form: &'f Form,
    /// The name of the value the reader stands at; empty at the root.
    place: String,
    /// Whether the member through which it came says that a list or map is flattened.
    flattened: bool,
    trail: Trail,
}

impl<'f> FormReader<'f> {
    pub fn new(form: &'f Form) -> Self {
        Self {
            form,
            place: String::new(),
            flattened: false,
            trail: Trail::default(),
        }
    }

    pub fn into_trail(self) -> Trail {
        self.trail
    }

    /// The value here. A name without one that has others below it holds no scalar.
    fn text(&self) -> &'f str {
        self.form.get(&self.place).unwrap_or_default()
    }

    fn parsed<T>(&self, expected: &'static str, value: Option<T>) -> Result<T, ProtocolError> {
        value.ok_or_else(|| ProtocolError::Malformed {
            member: self.trail.path(),
            expected,
        })
    }

    fn at<T>(&mut self, place: String, flattened: bool, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = (std::mem::replace(&mut self.place, place), self.flattened);
        self.flattened = flattened;
        let outcome = read(self);
        (self.place, self.flattened) = before;
        outcome
    }
}

/// Where a member stands. A flattened list may stand under the name of its elements (as
/// botocore writes it) or under the name that its member has of its own (as Smithy has it).
fn member_place(form: &Form, outer: &str, member: &Member) -> Option<String> {
    let schema = member.target();
    let place = |name: &str| {
        let place = if outer.is_empty() {
            name.to_owned()
        } else {
            format!("{outer}.{name}")
        };
        form.has(&place).then_some(place)
    };
    if let Kind::List { element, flattened } = &schema.kind
        && (*flattened || member.flattened)
        && let Some(of_element) = element.location_name.and_then(place)
    {
        return Some(of_element);
    }
    place(
        member
            .location_name
            .or(schema.location_name)
            .unwrap_or(member.name),
    )
}

impl ShapeReader for FormReader<'_> {
    fn structure(
        &mut self,
        schema: &'static Schema,
        on_member: OnMember<'_>,
    ) -> Result<(), ProtocolError> {
        for (index, member) in schema.members().iter().enumerate() {
            if let Some(place) = member_place(self.form, &self.place, member) {
                self.at(place, member.flattened, |reader| on_member(index, reader))?;
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        schema: &'static Schema,
        on_element: OnElement<'_>,
    ) -> Result<(), ProtocolError> {
        let Kind::List { element, flattened } = &schema.kind else {
            return Ok(());
        };
        let place = if self.flattened || *flattened {
            self.place.clone()
        } else {
            format!(
                "{}.{}",
                self.place,
                element.location_name.unwrap_or("member")
            )
        };
        for index in self.form.indices(&place) {
            self.at(format!("{place}.{index}"), element.flattened, |reader| {
                on_element(reader)
            })?;
        }
        Ok(())
    }

    fn map(&mut self, schema: &'static Schema, on_entry: OnEntry<'_>) -> Result<(), ProtocolError> {
        let Kind::Map {
            key,
            value,
            flattened,
        } = &schema.kind
        else {
            return Ok(());
        };
        let place = if self.flattened || *flattened {
            self.place.clone()
        } else {
            format!("{}.entry", self.place)
        };
        for index in self.form.indices(&place) {
            let key_place = format!("{place}.{index}.{}", key.location_name.unwrap_or("key"));
            let Some(key) = self.form.get(&key_place) else {
                return Err(ProtocolError::Malformed {
                    member: self.trail.path(),
                    expected: "a key for every entry",
                });
            };
            let value_place = format!("{place}.{index}.{}", value.location_name.unwrap_or("value"));
            self.at(value_place, value.flattened, |reader| {
                on_entry(key.to_owned(), reader)
            })?;
        }
        Ok(())
    }

    fn string(&mut self, _schema: &'static Schema) -> Result<String, ProtocolError> {
        Ok(self.text().to_owned())
    }

    fn integer(&mut self, _schema: &'static Schema) -> Result<i32, ProtocolError> {
        self.parsed("an integer", self.text().parse().ok())
    }

    fn long(&mut self, _schema: &'static Schema) -> Result<i64, ProtocolError> {
        self.parsed("an integer", self.text().parse().ok())
    }

    fn double(&mut self, _schema: &'static Schema) -> Result<f64, ProtocolError> {
        self.parsed("a number", self.text().parse().ok())
    }

    fn boolean(&mut self, _schema: &'static Schema) -> Result<bool, ProtocolError> {
        let text = self.text();
        let flag = if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        };
        self.parsed("true or false", flag)
    }

    fn timestamp(&mut self, _schema: &'static Schema) -> Result<Timestamp, ProtocolError> {
        self.parsed("a timestamp", timestamp::parse(self.text()))
    }

    fn blob(&mut self, _schema: &'static Schema) -> Result<Bytes, ProtocolError> {
        self.parsed("base64", STANDARD.decode(self.text()).ok().map(Bytes::from))
    }

    fn document(&mut self, _schema: &'static Schema) -> Result<serde_json::Value, ProtocolError> {
        self.parsed("a JSON document", serde_json::from_str(self.text()).ok())
    }

    fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }
}
