//! Writing shapes: the events that every codec's writer understands.
//!
//! A walk over a value (see [`crate::shape::write_value`]) announces structures, members,
//! elements and scalars in order; the writer keeps what it needs to nest them. Writing cannot
//! fail: whatever a type can hold has a form in every protocol.

use gantry_env::Timestamp;

use crate::schema::{Member, Schema};

pub trait ShapeWriter {
    fn begin_structure(&mut self, schema: &'static Schema);
    /// The next value is this member's.
    fn member(&mut self, member: &'static Member);
    fn end_structure(&mut self);

    fn begin_list(&mut self, schema: &'static Schema, len: usize);
    /// The next value is an element.
    fn element(&mut self, element: &'static Member);
    fn end_list(&mut self);

    fn begin_map(&mut self, schema: &'static Schema, len: usize);
    /// The next value belongs to this key.
    fn entry(&mut self, key: &str, key_member: &'static Member, value: &'static Member);
    fn end_entry(&mut self);
    fn end_map(&mut self);

    fn null(&mut self);
    fn string(&mut self, text: &str);
    fn integer(&mut self, number: i64);
    fn double(&mut self, number: f64);
    fn boolean(&mut self, flag: bool);
    /// `schema` is the timestamp's own shape; the member it stands at may override its format.
    fn timestamp(&mut self, schema: &'static Schema, time: Timestamp);
    fn blob(&mut self, bytes: &[u8]);
    fn document(&mut self, value: &serde_json::Value);
}
