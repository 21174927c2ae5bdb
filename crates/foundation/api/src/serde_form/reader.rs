//! The awsJson reader: a [`ShapeReader`] over any serde deserializer.
//!
//! The parser pushes and a shape reader is pulled, so each value is read within the visitor
//! that met it. The error that was met first is kept in the trail: parsers only pass on text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_env::Timestamp;
use serde::de::Deserializer;

use super::visitors::{EntriesVisitor, ListVisitor, StructureVisitor, Token, TokenVisitor};
use crate::error::ProtocolError;
use crate::protocol::timestamp;
use crate::read::{OnElement, OnEntry, OnMember, ShapeReader, Trail};
use crate::schema::Schema;

/// A reader over any serde deserializer.
pub(super) struct SerdeReader<'t, D> {
    pub(super) deserializer: Option<D>,
    pub(super) trail: &'t mut Trail,
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
