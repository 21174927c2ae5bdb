//! Values of shapes: what a codec needs to know of a type, and nothing of the type itself.
//!
//! A generated structure only says where its members are ([`Structure::member`],
//! [`Structure::member_mut`]). Writing, reading, validation, redacted `Debug` and serde are
//! each one walk over that, guided by the schema, so a new protocol costs one reader and one
//! writer and no generated code. The text and number types of Rust are values as they are.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use gantry_env::Timestamp;

use crate::error::ProtocolError;
use crate::read::ShapeReader;
use crate::schema::{Kind, Schema};
use crate::write::ShapeWriter;

/// Anything a member can hold.
pub trait Value: Send + Sync {
    fn view(&self) -> View<'_>;

    /// Takes what the reader holds. `schema` is the shape of this place, which for lists and
    /// maps carries more than the type does.
    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError>;
}

/// A structure: a generated type or a document with a schema built while running.
pub trait Structure: Any + Send + Sync + fmt::Debug {
    fn schema(&self) -> &'static Schema;
    /// The member at this index of the schema.
    fn member(&self, index: usize) -> Option<&dyn Value>;
    fn member_mut(&mut self, index: usize) -> Option<&mut dyn Value>;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn as_any(&self) -> &dyn Any;
}

/// What a value is, borrowed.
#[derive(Clone, Copy)]
pub enum View<'a> {
    Absent,
    String(&'a str),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Timestamp(Timestamp),
    Blob(&'a [u8]),
    Document(&'a serde_json::Value),
    List(&'a dyn ListView),
    Map(&'a dyn MapView),
    Structure(&'a dyn Structure),
}

pub trait ListView {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn element(&self, index: usize) -> Option<&dyn Value>;
}

pub trait MapView {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn each(&self, visit: &mut dyn FnMut(&str, &dyn Value));
}

impl View<'_> {
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Writes a value; absent members of structures are left out.
pub fn write_value(view: View<'_>, schema: &'static Schema, writer: &mut dyn ShapeWriter) {
    match (view, &schema.kind) {
        (View::Absent, _) => writer.null(),
        (View::String(text), _) => writer.string(text),
        (View::Integer(number), _) => writer.integer(number),
        (View::Double(number), _) => writer.double(number),
        (View::Boolean(flag), _) => writer.boolean(flag),
        (View::Timestamp(time), _) => writer.timestamp(schema, time),
        (View::Blob(bytes), _) => writer.blob(bytes),
        (View::Document(value), _) => writer.document(value),
        (View::Structure(structure), _) => write_structure(structure, writer),
        (View::List(list), Kind::List { element, .. }) => {
            writer.begin_list(schema, list.len());
            for index in 0..list.len() {
                if let Some(value) = list.element(index) {
                    writer.element(element);
                    write_value(value.view(), element.target(), writer);
                }
            }
            writer.end_list();
        }
        (
            View::Map(map),
            Kind::Map {
                key: key_member,
                value: member,
                ..
            },
        ) => {
            writer.begin_map(schema, map.len());
            map.each(&mut |key, value| {
                writer.entry(key, key_member, member);
                write_value(value.view(), member.target(), writer);
                writer.end_entry();
            });
            writer.end_map();
        }
        // A collection whose schema is of another kind cannot come out of codegen.
        (View::List(_) | View::Map(_), _) => writer.null(),
    }
}

/// Writes a structure and its present members, in the order of the model.
pub fn write_structure(structure: &dyn Structure, writer: &mut dyn ShapeWriter) {
    let schema = structure.schema();
    writer.begin_structure(schema);
    for (index, member) in schema.members().iter().enumerate() {
        let Some(value) = structure.member(index) else {
            continue;
        };
        let view = value.view();
        if !view.is_absent() {
            writer.member(member);
            write_value(view, member.target(), writer);
        }
    }
    writer.end_structure();
}

/// Fills a structure. Required members that did not come are noted in the reader's trail: the
/// service decides in whose words that is an error.
pub fn read_structure(
    structure: &mut dyn Structure,
    reader: &mut dyn ShapeReader,
) -> Result<(), ProtocolError> {
    let schema = structure.schema();
    let members = schema.members();
    let mut seen = Seen::default();
    reader.trail().descend()?;
    reader.structure(schema, &mut |index, reader| {
        let (Some(member), Some(slot)) = (members.get(index), structure.member_mut(index)) else {
            return Ok(());
        };
        seen.insert(index);
        reader.trail().push_member(member);
        slot.read(member.target(), reader)?;
        reader.trail().pop();
        Ok(())
    })?;
    for (index, member) in members.iter().enumerate() {
        if member.required && !seen.contains(index) {
            reader.trail().note_missing(member);
        }
    }
    reader.trail().ascend();
    Ok(())
}

/// Which members came. Structures are read by the thousand, so this stays off the heap;
/// codegen refuses a structure with more members than fit.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

macro_rules! scalar_value {
    ($type:ty, $reader:ident, $value:ident => $view:expr) => {
        impl Value for $type {
            fn view(&self) -> View<'_> {
                let $value = self;
                $view
            }

            fn read(
                &mut self,
                schema: &'static Schema,
                reader: &mut dyn ShapeReader,
            ) -> Result<(), ProtocolError> {
                *self = reader.$reader(schema)?;
                Ok(())
            }
        }
    };
}

scalar_value!(String, string, text => View::String(text));
scalar_value!(i32, integer, number => View::Integer(i64::from(*number)));
scalar_value!(i64, long, number => View::Integer(*number));
scalar_value!(f64, double, number => View::Double(*number));
scalar_value!(bool, boolean, flag => View::Boolean(*flag));
scalar_value!(Timestamp, timestamp, time => View::Timestamp(*time));
scalar_value!(Bytes, blob, bytes => View::Blob(bytes));
scalar_value!(serde_json::Value, document, value => View::Document(value));

impl<T: Value + Default> Value for Option<T> {
    fn view(&self) -> View<'_> {
        self.as_ref().map_or(View::Absent, Value::view)
    }

    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError> {
        self.insert(T::default()).read(schema, reader)
    }
}

impl<T: Value + Default> Value for Box<T> {
    fn view(&self) -> View<'_> {
        self.as_ref().view()
    }

    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError> {
        self.as_mut().read(schema, reader)
    }
}

impl<T: Value> ListView for Vec<T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn element(&self, index: usize) -> Option<&dyn Value> {
        self.get(index).map(|value| value as &dyn Value)
    }
}

impl<T: Value + Default> Value for Vec<T> {
    fn view(&self) -> View<'_> {
        View::List(self)
    }

    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError> {
        let Kind::List { element, .. } = &schema.kind else {
            return Ok(());
        };
        self.clear();
        reader.trail().descend()?;
        reader.list(schema, &mut |reader| {
            reader.trail().push_index(self.len());
            let mut value = T::default();
            value.read(element.target(), reader)?;
            reader.trail().pop();
            self.push(value);
            Ok(())
        })?;
        reader.trail().ascend();
        Ok(())
    }
}

impl<T: Value> MapView for BTreeMap<String, T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &dyn Value)) {
        for (key, value) in self {
            visit(key, value);
        }
    }
}

impl<T: Value + Default> Value for BTreeMap<String, T> {
    fn view(&self) -> View<'_> {
        View::Map(self)
    }

    fn read(
        &mut self,
        schema: &'static Schema,
        reader: &mut dyn ShapeReader,
    ) -> Result<(), ProtocolError> {
        let Kind::Map { value: member, .. } = &schema.kind else {
            return Ok(());
        };
        self.clear();
        reader.trail().descend()?;
        reader.map(schema, &mut |key, reader| {
            reader.trail().push_key(&key);
            let mut value = T::default();
            value.read(member.target(), reader)?;
            reader.trail().pop();
            self.insert(key, value);
            Ok(())
        })?;
        reader.trail().ascend();
        Ok(())
    }
}

/// What an operation without an input or output takes or gives.
#[derive(Clone, Default, PartialEq)]
pub struct Unit {}

crate::structure_impls!(Unit, crate::protocol::UNIT);

/// `Debug` of any structure: secrets are shown as such, absent members not at all.
pub fn debug_structure(structure: &dyn Structure, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let schema = structure.schema();
    let mut out = f.debug_struct(schema.name);
    for (index, member) in schema.members().iter().enumerate() {
        let Some(value) = structure.member(index) else {
            continue;
        };
        let view = value.view();
        if view.is_absent() {
            continue;
        }
        if member.sensitive || member.target().sensitive {
            out.field(member.name, &format_args!("<secret>"));
        } else {
            out.field(
                member.name,
                &Shown {
                    view,
                    schema: member.target(),
                },
            );
        }
    }
    out.finish()
}

struct Shown<'a> {
    view: View<'a>,
    schema: &'static Schema,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema.sensitive {
            return f.write_str("<secret>");
        }
        match (self.view, &self.schema.kind) {
            (View::Absent, _) => f.write_str("null"),
            (View::String(text), _) => fmt::Debug::fmt(text, f),
            (View::Integer(number), _) => fmt::Debug::fmt(&number, f),
            (View::Double(number), _) => fmt::Debug::fmt(&number, f),
            (View::Boolean(flag), _) => fmt::Debug::fmt(&flag, f),
            (View::Timestamp(time), _) => write!(f, "{}ms", time.as_millis()),
            (View::Blob(bytes), _) => write!(f, "<{} bytes>", bytes.len()),
            (View::Document(value), _) => write!(f, "{value}"),
            (View::Structure(structure), _) => debug_structure(structure, f),
            (View::List(list), Kind::List { element, .. }) => f
                .debug_list()
                .entries((0..list.len()).filter_map(|index| {
                    let view = list.element(index)?.view();
                    Some(Shown {
                        view,
                        schema: element.target(),
                    })
                }))
                .finish(),
            (View::Map(map), Kind::Map { value: member, .. }) => {
                let mut out = f.debug_map();
                map.each(&mut |key, value| {
                    out.entry(
                        &key,
                        &Shown {
                            view: value.view(),
                            schema: member.target(),
                        },
                    );
                });
                out.finish()
            }
            (View::List(_) | View::Map(_), _) => f.write_str("?"),
        }
    }
}

/// The impls that every generated structure has: where its members are, and the rest from that.
#[macro_export]
#[doc(hidden)]
macro_rules! structure_impls {
    ($type:ident, $schema:expr $(, $index:literal = $field:ident)* $(,)?) => {
        impl $crate::shape::Structure for $type {
            fn schema(&self) -> &'static $crate::schema::Schema {
                &$schema
            }

            fn member(&self, index: usize) -> Option<&dyn $crate::shape::Value> {
                match index {
                    $($index => Some(&self.$field),)*
                    _ => None,
                }
            }

            fn member_mut(&mut self, index: usize) -> Option<&mut dyn $crate::shape::Value> {
                match index {
                    $($index => Some(&mut self.$field),)*
                    _ => None,
                }
            }

            fn into_any(self: Box<Self>) -> Box<dyn ::std::any::Any> {
                self
            }

            fn as_any(&self) -> &dyn ::std::any::Any {
                self
            }
        }

        impl $type {
            /// Checks the constraints of the model, in AWS's words.
            pub fn validate(&self) -> Result<(), $crate::validate::ValidationErrors> {
                $crate::validate::validate(self)
            }
        }

        impl $crate::shape::Value for $type {
            fn view(&self) -> $crate::shape::View<'_> {
                $crate::shape::View::Structure(self)
            }

            fn read(
                &mut self,
                _schema: &'static $crate::schema::Schema,
                reader: &mut dyn $crate::read::ShapeReader,
            ) -> Result<(), $crate::error::ProtocolError> {
                $crate::shape::read_structure(self, reader)
            }
        }

        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                $crate::shape::debug_structure(self, f)
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::serde_form::serialize(self, serializer)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let mut value = Self::default();
                $crate::serde_form::deserialize(&mut value, deserializer)?;
                Ok(value)
            }
        }
    };
}

/// An enum of a model: its listed values, and whatever else came.
#[macro_export]
#[doc(hidden)]
macro_rules! open_enum {
    ($name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($variant,)*
            /// A value that the model does not list, kept as it came.
            Unknown(String),
        }

        impl $name {
            pub const VALUES: &'static [&'static str] = &[$($text),*];

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        $crate::enum_impls!($name);
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! enum_impls {
    ($name:ident) => {
        impl Default for $name {
            fn default() -> Self {
                Self::Unknown(String::new())
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::shape::Value for $name {
            fn view(&self) -> $crate::shape::View<'_> {
                $crate::shape::View::String(self.as_str())
            }

            fn read(
                &mut self,
                schema: &'static $crate::schema::Schema,
                reader: &mut dyn $crate::read::ShapeReader,
            ) -> Result<(), $crate::error::ProtocolError> {
                *self = Self::from(reader.string(schema)?.as_str());
                Ok(())
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(
                    deserializer,
                )?;
                Ok(Self::from(text.as_ref()))
            }
        }
    };
}
