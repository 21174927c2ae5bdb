//! Shapes and serde: the awsJson form of any value, to and from any serde format.
//!
//! This is both the awsJson reader (over `serde_json`, whose parser has met every hostile
//! input there is) and what lets a generated type stand inside a row. Wrong types are refused
//! in the words of AWS's front end; an explicit null counts as not present.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_env::Timestamp;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::error::ProtocolError;
use crate::protocol::timestamp;
use crate::read::{OnElement, OnEntry, OnMember, ShapeReader, Trail};
use crate::schema::{Kind, Schema};
use crate::shape::{Structure, View, read_structure};

/// Serializes a structure in its awsJson form.
pub fn serialize<S: Serializer>(
    structure: &dyn Structure,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Tree {
        view: View::Structure(structure),
        schema: structure.schema(),
    }
    .serialize(serializer)
}

/// Fills a structure from its awsJson form. A required member that is not there is an error.
pub fn deserialize<'de, D: Deserializer<'de>>(
    structure: &mut dyn Structure,
    deserializer: D,
) -> Result<(), D::Error> {
    let mut trail = Trail::default();
    read(structure, deserializer, &mut trail).map_err(D::Error::custom)?;
    match trail.into_missing().first() {
        Some(missing) => Err(D::Error::custom(format!("missing member {}", missing.path))),
        None => Ok(()),
    }
}

/// Fills a structure and notes missing members in the trail.
pub fn read<'de, D: Deserializer<'de>>(
    structure: &mut dyn Structure,
    deserializer: D,
    trail: &mut Trail,
) -> Result<(), ProtocolError> {
    read_structure(
        structure,
        &mut SerdeReader {
            deserializer: Some(deserializer),
            trail,
        },
    )
}

struct Tree<'a> {
    view: View<'a>,
    schema: &'static Schema,
}

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.view, &self.schema.kind) {
            (View::String(text), _) => serializer.serialize_str(text),
            (View::Integer(number), _) => serializer.serialize_i64(number),
            (View::Double(number), _) if number.is_finite() => serializer.serialize_f64(number),
            (View::Double(number), _) => serializer.serialize_str(not_finite(number)),
            (View::Boolean(flag), _) => serializer.serialize_bool(flag),
            (View::Timestamp(time), _) if time.as_millis() % 1000 == 0 => {
                serializer.serialize_i64(time.as_epoch_seconds())
            }
            (View::Timestamp(time), _) => serializer.serialize_f64(time.as_epoch_seconds_f64()),
            (View::Blob(bytes), _) => serializer.serialize_str(&STANDARD.encode(bytes)),
            (View::Document(value), _) => value.serialize(serializer),
            (View::Structure(structure), _) => {
                let mut map = serializer.serialize_map(None)?;
                for (index, member) in structure.schema().members().iter().enumerate() {
                    let Some(value) = structure.member(index) else {
                        continue;
                    };
                    let view = value.view();
                    if !view.is_absent() {
                        map.serialize_entry(
                            member.wire_name(),
                            &Tree {
                                view,
                                schema: member.target(),
                            },
                        )?;
                    }
                }
                map.end()
            }
            (View::List(list), Kind::List { element, .. }) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for index in 0..list.len() {
                    if let Some(value) = list.element(index) {
                        seq.serialize_element(&Tree {
                            view: value.view(),
                            schema: element.target(),
                        })?;
                    }
                }
                seq.end()
            }
            (View::Map(entries), Kind::Map { value: member, .. }) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                let mut outcome = Ok(());
                entries.each(&mut |key, value| {
                    if outcome.is_ok() {
                        outcome = map.serialize_entry(
                            key,
                            &Tree {
                                view: value.view(),
                                schema: member.target(),
                            },
                        );
                    }
                });
                outcome?;
                map.end()
            }
            (View::Absent | View::List(_) | View::Map(_), _) => serializer.serialize_unit(),
        }
    }
}

/// JSON has no such numbers; AWS writes them as text.
pub(crate) fn not_finite(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// A reader over any serde deserializer.
struct SerdeReader<'t, D> {
    deserializer: Option<D>,
    trail: &'t mut Trail,
}

impl<'de, D: Deserializer<'de>> SerdeReader<'_, D> {
    fn take(&mut self) -> Result<D, ProtocolError> {
        self.deserializer.take().ok_or(ProtocolError::Syntax {
            reason: "value read twice".to_owned(),
        })
    }

    fn token(&mut self, expected: &'static str) -> Result<Token, ProtocolError> {
        let deserializer = self.take()?;
        let outcome = deserializer
            .deserialize_any(TokenVisitor { trail: self.trail })
            .map_err(|error| error.to_string());
        match outcome {
            Ok(Token::Null) => Err(self.wrong("NULL_VALUE", expected)),
            Ok(token) => Ok(token),
            Err(reason) => Err(self
                .trail
                .error
                .clone()
                .unwrap_or(ProtocolError::Syntax { reason })),
        }
    }

    fn wrong(&self, found: &str, expected: &'static str) -> ProtocolError {
        ProtocolError::WrongType {
            member: self.trail.path(),
            found: found.to_owned(),
            expected,
        }
    }

    fn whole(&mut self, expected: &'static str) -> Result<i64, ProtocolError> {
        match self.token(expected)? {
            Token::Integer(number) => Ok(number),
            // A whole number in floating form is what some languages write for any number.
            Token::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Ok(number as i64)
            }
            other => Err(self.wrong(other.name(), expected)),
        }
    }
}

impl<'de, D: Deserializer<'de>> ShapeReader for SerdeReader<'_, D> {
    fn structure(
        &mut self,
        schema: &'static Schema,
        on_member: OnMember<'_>,
    ) -> Result<(), ProtocolError> {
        let deserializer = self.take()?;
        let visitor = StructureVisitor {
            schema,
            on_member,
            trail: self.trail,
        };
        let outcome = deserializer
            .deserialize_any(visitor)
            .map_err(|error| error.to_string());
        self.settle(outcome)
    }

    fn list(
        &mut self,
        _schema: &'static Schema,
        on_element: OnElement<'_>,
    ) -> Result<(), ProtocolError> {
        let deserializer = self.take()?;
        let visitor = ListVisitor {
            on_element,
            trail: self.trail,
        };
        let outcome = deserializer
            .deserialize_any(visitor)
            .map_err(|error| error.to_string());
        self.settle(outcome)
    }

    fn map(
        &mut self,
        _schema: &'static Schema,
        on_entry: OnEntry<'_>,
    ) -> Result<(), ProtocolError> {
        let deserializer = self.take()?;
        let visitor = EntriesVisitor {
            on_entry,
            trail: self.trail,
        };
        let outcome = deserializer
            .deserialize_any(visitor)
            .map_err(|error| error.to_string());
        self.settle(outcome)
    }

    fn string(&mut self, _schema: &'static Schema) -> Result<String, ProtocolError> {
        match self.token("String")? {
            Token::Text(text) => Ok(text),
            other => Err(self.wrong(other.name(), "String")),
        }
    }

    fn integer(&mut self, _schema: &'static Schema) -> Result<i32, ProtocolError> {
        let number = self.whole("Integer")?;
        i32::try_from(number).map_err(|_| self.wrong("NUMBER_VALUE", "Integer"))
    }

    fn long(&mut self, _schema: &'static Schema) -> Result<i64, ProtocolError> {
        self.whole("Long")
    }

    fn double(&mut self, _schema: &'static Schema) -> Result<f64, ProtocolError> {
        match self.token("Double")? {
            Token::Integer(number) => Ok(number as f64),
            Token::Float(number) => Ok(number),
            Token::Text(text) if text == "NaN" => Ok(f64::NAN),
            Token::Text(text) if text == "Infinity" => Ok(f64::INFINITY),
            Token::Text(text) if text == "-Infinity" => Ok(f64::NEG_INFINITY),
            other => Err(self.wrong(other.name(), "Double")),
        }
    }

    fn boolean(&mut self, _schema: &'static Schema) -> Result<bool, ProtocolError> {
        match self.token("Boolean")? {
            Token::Boolean(flag) => Ok(flag),
            other => Err(self.wrong(other.name(), "Boolean")),
        }
    }

    fn timestamp(&mut self, _schema: &'static Schema) -> Result<Timestamp, ProtocolError> {
        match self.token("Timestamp")? {
            Token::Integer(seconds) => seconds
                .checked_mul(1000)
                .map(Timestamp::from_millis)
                .ok_or_else(|| self.wrong("NUMBER_VALUE", "Timestamp")),
            Token::Float(seconds) if seconds.abs() < 9e12 => {
                Ok(Timestamp::from_epoch_seconds_f64(seconds))
            }
            Token::Text(text) => {
                timestamp::parse(&text).ok_or_else(|| self.wrong("STRING_VALUE", "Timestamp"))
            }
            other => Err(self.wrong(other.name(), "Timestamp")),
        }
    }

    fn blob(&mut self, _schema: &'static Schema) -> Result<Bytes, ProtocolError> {
        match self.token("Blob")? {
            Token::Text(text) => STANDARD
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|_| self.wrong("STRING_VALUE", "Blob")),
            other => Err(self.wrong(other.name(), "Blob")),
        }
    }

    fn document(&mut self, _schema: &'static Schema) -> Result<serde_json::Value, ProtocolError> {
        let outcome = <serde_json::Value as serde::Deserialize>::deserialize(self.take()?)
            .map_err(|error| error.to_string());
        self.settle(outcome)
    }

    fn trail(&mut self) -> &mut Trail {
        self.trail
    }
}

impl<D> SerdeReader<'_, D> {
    /// The error that was met first, not what the parser made of it on its way out.
    fn settle<T>(&mut self, outcome: Result<T, String>) -> Result<T, ProtocolError> {
        outcome.map_err(|reason| {
            self.trail
                .error
                .clone()
                .unwrap_or(ProtocolError::Syntax { reason })
        })
    }
}

/// Keeps the first error and hands the parser one of its own.
fn keep<E: serde::de::Error>(trail: &mut Trail, error: ProtocolError) -> E {
    let text = error.to_string();
    trail.error.get_or_insert(error);
    E::custom(text)
}

fn unexpected<E: serde::de::Error>(trail: &mut Trail, found: &'static str) -> E {
    let error = ProtocolError::Unexpected {
        member: trail.path(),
        found,
    };
    keep(trail, error)
}

enum Token {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "NULL_VALUE",
            Self::Boolean(true) => "TRUE_VALUE",
            Self::Boolean(false) => "FALSE_VALUE",
            Self::Integer(_) | Self::Float(_) => "NUMBER_VALUE",
            Self::Text(_) => "STRING_VALUE",
        }
    }
}

struct TokenVisitor<'t> {
    trail: &'t mut Trail,
}

impl<'de> Visitor<'de> for TokenVisitor<'_> {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Token, E> {
        Ok(Token::Boolean(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Token, E> {
        Ok(Token::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Token, E> {
        Ok(i64::try_from(number).map_or(Token::Float(number as f64), Token::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Token, E> {
        Ok(Token::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Token, E> {
        Ok(Token::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Token, E> {
        Ok(Token::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Token, E> {
        Ok(Token::Null)
    }

    fn visit_none<E>(self) -> Result<Token, E> {
        Ok(Token::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Token, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<Token, A::Error> {
        Err(unexpected(self.trail, "Start of list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _map: A) -> Result<Token, A::Error> {
        Err(unexpected(self.trail, "Start of structure or map"))
    }
}

/// What a structure, list or map cannot be.
macro_rules! refuse_scalars {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a structure, list or map")
        }

        fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
            Err(unexpected(
                self.trail,
                if flag { "TRUE_VALUE" } else { "FALSE_VALUE" },
            ))
        }

        fn visit_i64<E: serde::de::Error>(self, _number: i64) -> Result<(), E> {
            Err(unexpected(self.trail, "NUMBER_VALUE"))
        }

        fn visit_u64<E: serde::de::Error>(self, _number: u64) -> Result<(), E> {
            Err(unexpected(self.trail, "NUMBER_VALUE"))
        }

        fn visit_f64<E: serde::de::Error>(self, _number: f64) -> Result<(), E> {
            Err(unexpected(self.trail, "NUMBER_VALUE"))
        }

        fn visit_str<E: serde::de::Error>(self, _text: &str) -> Result<(), E> {
            Err(unexpected(self.trail, "STRING_VALUE"))
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
            Err(unexpected(self.trail, "NULL_VALUE"))
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    };
}

struct StructureVisitor<'t, 'f> {
    schema: &'static Schema,
    on_member: OnMember<'f>,
    trail: &'t mut Trail,
}

impl<'de> Visitor<'de> for StructureVisitor<'_, '_> {
    type Value = ();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(index) = map.next_key_seed(MemberName {
            schema: self.schema,
        })? {
            match index {
                Some(index) => {
                    let on_member = &mut *self.on_member;
                    map.next_value_seed(Present {
                        trail: self.trail,
                        read: &mut |reader| on_member(index, reader),
                    })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<(), A::Error> {
        Err(unexpected(self.trail, "Start of list"))
    }

    refuse_scalars!();
}

/// The index of the member that a key names, without keeping the key.
struct MemberName {
    schema: &'static Schema,
}

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberName {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.schema.member_index(name))
    }
}

struct ListVisitor<'t, 'f> {
    on_element: OnElement<'f>,
    trail: &'t mut Trail,
}

impl<'de> Visitor<'de> for ListVisitor<'_, '_> {
    type Value = ();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Present {
                trail: self.trail,
                read: &mut *self.on_element,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, _map: A) -> Result<(), A::Error> {
        Err(unexpected(self.trail, "Start of structure or map"))
    }

    refuse_scalars!();
}

struct EntriesVisitor<'t, 'f> {
    on_entry: OnEntry<'f>,
    trail: &'t mut Trail,
}

impl<'de> Visitor<'de> for EntriesVisitor<'_, '_> {
    type Value = ();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let on_entry = &mut *self.on_entry;
            let mut key = Some(key);
            map.next_value_seed(Present {
                trail: self.trail,
                read: &mut |reader| on_entry(key.take().unwrap_or_default(), reader),
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<(), A::Error> {
        Err(unexpected(self.trail, "Start of list"))
    }

    refuse_scalars!();
}

/// Reads a value unless it is null, which counts as not there.
struct Present<'t, 'f> {
    trail: &'t mut Trail,
    read: OnElement<'f>,
}

impl<'de> DeserializeSeed<'de> for Present<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Present<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut reader = SerdeReader {
            deserializer: Some(deserializer),
            trail: &mut *self.trail,
        };
        let outcome = (self.read)(&mut reader);
        outcome.map_err(|error| keep(self.trail, error))
    }
}
