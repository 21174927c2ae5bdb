//! XML: the output side of awsQuery (and of ec2Query and restXml, when they come).
//!
//! Every value is an element whose name the place decides, so a scalar is written only once
//! its member, element or entry has been announced. The root of a value has no element of its
//! own here; protocols wrap it as they need.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_env::Timestamp;

use super::timestamp;
use crate::schema::{Kind, Member, Schema, TimestampFormat, XmlNamespace};
use crate::serde_form::not_finite;
use crate::write::ShapeWriter;

#[derive(Default)]
pub struct XmlWriter {
    out: String,
    /// The place of the next value.
    next: Option<Place>,
    open: Vec<Frame>,
}

#[derive(Clone)]
struct Place {
    name: &'static str,
    namespace: Option<XmlNamespace>,
    flattened: bool,
    format: Option<TimestampFormat>,
}

struct Frame {
    /// The element to close, if this value has one of its own.
    element: Option<&'static str>,
    /// The name of each element or entry of a list or map.
    inner: &'static str,
    /// A flattened map's entries carry the namespace of its member.
    inner_namespace: Option<XmlNamespace>,
}

impl Place {
    fn of(member: &'static Member) -> Self {
        Self {
            name: member
                .location_name
                .or(member.target().location_name)
                .unwrap_or(member.name),
            namespace: member.xml_namespace,
            flattened: member.flattened,
            format: member.timestamp_format,
        }
    }
}

impl XmlWriter {
    pub fn into_text(self) -> String {
        self.out
    }

    /// Opens an element that stands outside the value, such as an envelope.
    pub fn start(&mut self, name: &str, namespace: Option<&str>) {
        self.out.push('<');
        self.out.push_str(name);
        if let Some(namespace) = namespace {
            self.out.push_str(" xmlns=\"");
            self.escaped(namespace);
            self.out.push('"');
        }
        self.out.push('>');
    }

    pub fn end(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// A whole element with text in it.
    pub fn leaf(&mut self, name: &str, text: &str) {
        self.start(name, None);
        self.escaped(text);
        self.end(name);
    }

    fn start_place(&mut self, place: &Place) {
        self.out.push('<');
        self.out.push_str(place.name);
        if let Some(namespace) = place.namespace {
            self.out.push_str(" xmlns");
            if let Some(prefix) = namespace.prefix {
                self.out.push(':');
                self.out.push_str(prefix);
            }
            self.out.push_str("=\"");
            self.escaped(namespace.uri);
            self.out.push('"');
        }
        self.out.push('>');
    }

    fn scalar(&mut self, text: &str) {
        match self.next.take() {
            Some(place) => {
                self.start_place(&place);
                self.escaped(text);
                self.end(place.name);
            }
            None => self.escaped(text),
        }
    }

    fn begin(&mut self, own_element: bool, inner: impl FnOnce(Option<&Place>) -> &'static str) {
        let place = self.next.take();
        let inner = inner(place.as_ref());
        let inner_namespace = place
            .as_ref()
            .filter(|_| !own_element)
            .and_then(|place| place.namespace);
        let element = place.filter(|_| own_element).map(|place| {
            self.start_place(&place);
            place.name
        });
        self.open.push(Frame {
            element,
            inner,
            inner_namespace,
        });
    }

    fn finish(&mut self) {
        if let Some(element) = self.open.pop().and_then(|frame| frame.element) {
            self.end(element);
        }
    }

    fn is_flattened(&self, of_schema: bool) -> bool {
        of_schema || self.next.as_ref().is_some_and(|place| place.flattened)
    }

    fn escaped(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                // A bare carriage return would come back as a line feed.
                '\r' => self.out.push_str("&#xD;"),
                // XML 1.0 has no other control characters, not even escaped.
                letter if letter < ' ' && letter != '\n' && letter != '\t' => {
                    self.out.push(char::REPLACEMENT_CHARACTER);
                }
                '\u{FFFE}' | '\u{FFFF}' => self.out.push(char::REPLACEMENT_CHARACTER),
                letter => self.out.push(letter),
            }
        }
    }
}

impl ShapeWriter for XmlWriter {
    fn begin_structure(&mut self, _schema: &'static Schema) {
        self.begin(true, |_| "");
    }

    fn member(&mut self, member: &'static Member) {
        self.next = Some(Place::of(member));
    }

    fn end_structure(&mut self) {
        self.finish();
    }

    fn begin_list(&mut self, schema: &'static Schema, _len: usize) {
        let Kind::List { element, flattened } = &schema.kind else {
            return;
        };
        let flattened = self.is_flattened(*flattened);
        self.begin(!flattened, |place| match (element.location_name, place) {
            (Some(name), _) => name,
            (None, Some(place)) if flattened => place.name,
            (None, _) => "member",
        });
    }

    fn element(&mut self, element: &'static Member) {
        let name = self.open.last().map_or("member", |frame| frame.inner);
        self.next = Some(Place {
            name,
            ..Place::of(element)
        });
    }

    fn end_list(&mut self) {
        self.finish();
    }

    fn begin_map(&mut self, schema: &'static Schema, _len: usize) {
        let Kind::Map { flattened, .. } = &schema.kind else {
            return;
        };
        let flattened = self.is_flattened(*flattened);
        self.begin(!flattened, |place| match place {
            Some(place) if flattened => place.name,
            _ => "entry",
        });
    }

    fn entry(&mut self, key: &str, key_member: &'static Member, value: &'static Member) {
        let (name, namespace) = self.open.last().map_or(("entry", None), |frame| {
            (frame.inner, frame.inner_namespace)
        });
        self.start_place(&Place {
            name,
            namespace,
            flattened: false,
            format: None,
        });
        let key_place = Place {
            name: key_member.location_name.unwrap_or("key"),
            ..Place::of(key_member)
        };
        self.start_place(&key_place);
        self.escaped(key);
        self.end(key_place.name);
        self.next = Some(Place {
            name: value.location_name.unwrap_or("value"),
            ..Place::of(value)
        });
    }

    fn end_entry(&mut self) {
        let name = self.open.last().map_or("entry", |frame| frame.inner);
        self.end(name);
    }

    fn end_map(&mut self) {
        self.finish();
    }

    fn null(&mut self) {
        self.next = None;
    }

    fn string(&mut self, text: &str) {
        self.scalar(text);
    }

    fn integer(&mut self, number: i64) {
        self.scalar(&number.to_string());
    }

    fn double(&mut self, number: f64) {
        if number.is_finite() {
            self.scalar(&number.to_string());
        } else {
            self.scalar(not_finite(number));
        }
    }

    fn boolean(&mut self, flag: bool) {
        self.scalar(if flag { "true" } else { "false" });
    }

    fn timestamp(&mut self, schema: &'static Schema, time: Timestamp) {
        let of_member = self.next.as_ref().and_then(|place| place.format);
        let format = of_member
            .or(schema.timestamp_format)
            .unwrap_or(TimestampFormat::Iso8601);
        self.scalar(&timestamp::format(time, format));
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.scalar(&STANDARD.encode(bytes));
    }

    fn document(&mut self, value: &serde_json::Value) {
        self.scalar(&value.to_string());
    }
}
