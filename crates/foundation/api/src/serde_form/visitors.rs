//! The serde visitors behind the reader: what a parser meets, as the reader wants it.
//!
//! Values of the wrong kind are refused in the words of AWS's front end. A null in a place
//! that may be absent counts as absent.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::reader::SerdeReader;
use crate::error::ProtocolError;
use crate::read::{OnElement, OnEntry, OnMember, Trail};
use crate::schema::Schema;

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

pub(super) enum Token {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Token {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "NULL_VALUE",
            Self::Boolean(true) => "TRUE_VALUE",
            Self::Boolean(false) => "FALSE_VALUE",
            Self::Integer(_) | Self::Float(_) => "NUMBER_VALUE",
            Self::Text(_) => "STRING_VALUE",
        }
    }
}

pub(super) struct TokenVisitor<'t> {
    pub(super) trail: &'t mut Trail,
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

pub(super) struct StructureVisitor<'t, 'f> {
    pub(super) schema: &'static Schema,
    pub(super) on_member: OnMember<'f>,
    pub(super) trail: &'t mut Trail,
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

pub(super) struct ListVisitor<'t, 'f> {
    pub(super) on_element: OnElement<'f>,
    pub(super) trail: &'t mut Trail,
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

pub(super) struct EntriesVisitor<'t, 'f> {
    pub(super) on_entry: OnEntry<'f>,
    pub(super) trail: &'t mut Trail,
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
