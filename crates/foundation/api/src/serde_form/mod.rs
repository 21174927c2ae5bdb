//! Shapes and serde: the awsJson form of any value, to and from any serde format.
//!
//! This is both the awsJson reader (over `serde_json`, whose parser has met every hostile
//! input there is) and what lets a generated type stand inside a row. Wrong types are refused
//! in the words of AWS's front end; an explicit null counts as not present.

mod reader;
mod visitors;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::error::ProtocolError;
use crate::read::Trail;
use crate::schema::{Kind, Schema};
use crate::shape::{Structure, View, read_structure};
use reader::SerdeReader;

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
