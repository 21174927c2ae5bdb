//! Values whose schema is only known while running.
//!
//! A document goes through exactly the walk, readers and writers that generated types go
//! through, so a test case that brings its own model tests the codecs the services use.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use gantry_env::Timestamp;

use crate::error::ProtocolError;
use crate::read::ShapeReader;
use crate::schema::{Kind, Schema};
use crate::shape::{Structure, Value, View, debug_structure, read_structure};

/// A structure of any schema.
pub struct Document {
    schema: &'static Schema,
    members: Vec<Option<Dynamic>>,
}

/// A value of any shape.
pub enum Dynamic {
    String(String),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Timestamp(Timestamp),
    Blob(Bytes),
    Json(serde_json::Value),
    List(Vec<Dynamic>),
    Map(BTreeMap<String, Dynamic>),
    Structure(Document),
}

impl Document {
    pub fn new(schema: &'static Schema) -> Self {
        let members = schema.members().iter().map(|_| None).collect();
        Self { schema, members }
    }

    /// Sets the member at this index of the schema.
    pub fn set(&mut self, index: usize, value: Dynamic) {
        if let Some(slot) = self.members.get_mut(index) {
            *slot = Some(value);
        }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_structure(self, f)
    }
}

impl Structure for Document {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn member(&self, index: usize) -> Option<&dyn Value> {
        self.members.get(index).map(|value| value as &dyn Value)
    }

    fn member_mut(&mut self, index: usize) -> Option<&mut dyn Value> {
        self.members
            .get_mut(index)
            .map(|value| value as &mut dyn Value)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A value that is about to be read; its schema then says what it becomes.
impl Default for Dynamic {
    fn default() -> Self {
        Self::Json(serde_json::Value::Null)
    }
}

impl Value for Dynamic {
    fn view(&self) -> View<'_> {
        match self {
            Self::String(text) => View::String(text),
            Self::Integer(number) => View::Integer(*number),
            Self::Double(number) => View::Double(*number),
            Self::Boolean(flag) => View::Boolean(*flag),
            Self::Timestamp(time) => View::Timestamp(*time),
            Self::Blob(bytes) => View::Blob(bytes),
            Self::Json(value) => View::Document(value),
            Self::List(list) => View::List(list),
            Self::Map(map) => View::Map(map),
            Self::Structure(document) => View::Structure(document),
        }
    }

    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError> {
        *self = match &schema.kind {
            Kind::Structure { .. } => {
                let mut document = Document::new(schema);
                read_structure(&mut document, reader)?;
                Self::Structure(document)
            }
            Kind::List { .. } => {
                let mut list: Vec<Self> = Vec::new();
                list.read(schema, reader)?;
                Self::List(list)
            }
            Kind::Map { .. } => {
                let mut map: BTreeMap<String, Self> = BTreeMap::new();
                map.read(schema, reader)?;
                Self::Map(map)
            }
            Kind::String | Kind::Enum { .. } => Self::String(reader.string(schema)?),
            Kind::Integer => Self::Integer(i64::from(reader.integer(schema)?)),
            Kind::Long => Self::Integer(reader.long(schema)?),
            Kind::Double => Self::Double(reader.double(schema)?),
            Kind::Boolean => Self::Boolean(reader.boolean(schema)?),
            Kind::Timestamp => Self::Timestamp(reader.timestamp(schema)?),
            Kind::Blob => Self::Blob(reader.blob(schema)?),
            Kind::Document => Self::Json(reader.document(schema)?),
        };
        Ok(())
    }
}
