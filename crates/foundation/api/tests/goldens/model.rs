//! The models that protocol cases bring along, as schemas and documents.
//!
//! Schemas are leaked: a test process is short, and schemas are static everywhere else.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use gantry_api::document::{Document, Dynamic};
use gantry_api::protocol::{UNIT, timestamp};
use gantry_api::schema::{
    ErrorTraits, Kind, Member, Schema, Target, TimestampFormat, XmlNamespace,
};
use gantry_api::shape::Unit;
use gantry_api::validate::ValidationStyle;
use gantry_api::{OperationModel, ServiceModel};
use gantry_env::Timestamp;
use serde_json::Value;

type Cell = &'static OnceLock<&'static Schema>;

/// One suite of cases with its model.
pub struct Suite<'v> {
    value: &'v Value,
    pub model: &'static ServiceModel,
    shapes: BTreeMap<String, Cell>,
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn text(value: &Value, name: &str) -> Option<&'static str> {
    value[name].as_str().map(leak)
}

fn flag(value: &Value, name: &str) -> bool {
    value[name].as_bool() == Some(true)
}

impl<'v> Suite<'v> {
    pub fn new(value: &'v Value) -> Self {
        let metadata = &value["metadata"];
        let protocols: Vec<&'static str> = metadata["protocols"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(leak))
            .collect();
        let model = ServiceModel {
            name: "case",
            full_name: "Protocol cases",
            signing_name: "case",
            endpoint_prefix: "case",
            api_version: text(metadata, "apiVersion").unwrap_or_default(),
            target_prefix: text(metadata, "targetPrefix"),
            xml_namespace: text(metadata, "xmlNamespace"),
            protocols: Box::leak(protocols.into_boxed_slice()),
            json_version: text(metadata, "jsonVersion"),
            query_compatible: metadata.get("awsQueryCompatible").is_some(),
            validation: ValidationStyle::Own,
            operations: &[],
            not_built: &[],
        };
        let mut suite = Self {
            value,
            model: Box::leak(Box::new(model)),
            shapes: BTreeMap::new(),
        };
        let shapes = value["shapes"].as_object().expect("shapes");
        for name in shapes.keys() {
            let cell: &'static OnceLock<&'static Schema> = Box::leak(Box::default());
            suite.shapes.insert(name.clone(), cell);
        }
        for (name, shape) in shapes {
            let schema: &'static Schema = Box::leak(Box::new(suite.build(name, shape)));
            suite.shapes[name].set(schema).expect("set once");
        }
        suite
    }

    pub fn cases(&self) -> impl Iterator<Item = &'v Value> {
        self.value["cases"].as_array().expect("cases").iter()
    }

    pub fn schema(&self, name: &str) -> &'static Schema {
        self.shapes[name].get().expect("schema is built")
    }

    pub fn operation(&self, given: &Value) -> OperationModel {
        let schema = |side: &str| match given[side]["shape"].as_str() {
            Some(name) => self.schema(name),
            None => &UNIT,
        };
        let (input, output) = (schema("input"), schema("output"));
        let name = text(given, "name").unwrap_or_default();
        // Real models name the wrapper; these cases have it in their answers only.
        let wrapper = given.get("output").map(|_| leak(&format!("{name}Result")));
        OperationModel {
            name,
            input,
            output,
            result_wrapper: wrapper,
            readonly: false,
            new_input: || Box::new(Unit::default()),
            new_output: || Box::new(Unit::default()),
        }
    }

    fn build(&self, name: &str, shape: &Value) -> Schema {
        let kind = match shape["type"].as_str().expect("type") {
            "structure" if flag(shape, "document") => Kind::Document,
            "structure" => {
                let members: Vec<Member> = shape["members"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, member)| self.member(name, member))
                    .collect();
                Kind::Structure {
                    members: Box::leak(members.into_boxed_slice()),
                    union: flag(shape, "union"),
                }
            }
            "list" => Kind::List {
                element: self.member("member", &shape["member"]),
                flattened: flag(shape, "flattened"),
            },
            "map" => Kind::Map {
                key: self.member("key", &shape["key"]),
                value: self.member("value", &shape["value"]),
                flattened: flag(shape, "flattened"),
            },
            "string" | "character" => Kind::String,
            "integer" => Kind::Integer,
            "long" => Kind::Long,
            "float" | "double" => Kind::Double,
            "boolean" => Kind::Boolean,
            "timestamp" => Kind::Timestamp,
            "blob" => Kind::Blob,
            other => panic!("unknown type {other}"),
        };
        let mut schema = Schema::scalar(leak(name), kind);
        schema.timestamp_format = format(shape);
        schema.location_name = text(shape, "locationName");
        if flag(shape, "exception") {
            let error = &shape["error"];
            let is_json = self.model.json_version.is_some();
            let code = text(error, "code");
            let status = error["httpStatusCode"].as_u64();
            let fault = flag(shape, "fault");
            schema.error = Some(ErrorTraits {
                code: code.filter(|_| !is_json).unwrap_or(leak(name)),
                query_code: code.filter(|_| is_json),
                http_status: status.map_or(if fault { 500 } else { 400 }, |status| status as u16),
                sender_fault: !fault,
            });
        }
        schema
    }

    fn member(&self, name: &str, value: &Value) -> Member {
        let target = value["shape"].as_str().expect("shape");
        let mut member = Member::new(leak(name), &UNIT);
        member.target = Target::Late(self.shapes[target]);
        member.location_name = text(value, "locationName");
        member.flattened = flag(value, "flattened");
        member.timestamp_format = format(value);
        member.idempotency_token = flag(value, "idempotencyToken");
        member.xml_namespace = value.get("xmlNamespace").and_then(|namespace| {
            let uri = text(namespace, "uri").or_else(|| namespace.as_str().map(leak))?;
            Some(XmlNamespace {
                uri,
                prefix: text(namespace, "prefix"),
            })
        });
        member
    }
}

fn format(traits: &Value) -> Option<TimestampFormat> {
    Some(match traits["timestampFormat"].as_str()? {
        "unixTimestamp" => TimestampFormat::EpochSeconds,
        "iso8601" => TimestampFormat::Iso8601,
        "rfc822" => TimestampFormat::HttpDate,
        other => panic!("unknown format {other}"),
    })
}

/// A case's parameters or result: blobs are plain text there, timestamps epoch seconds.
pub fn document(schema: &'static Schema, value: &Value) -> Result<Document, String> {
    let mut document = Document::new(schema);
    for (name, value) in value.as_object().into_iter().flatten() {
        let index = schema
            .members()
            .iter()
            .position(|member| member.name == name)
            .ok_or_else(|| format!("{} has no member {name}", schema.name))?;
        if !value.is_null() {
            document.set(index, dynamic(schema.members()[index].target(), value)?);
        }
    }
    Ok(document)
}

fn dynamic(schema: &'static Schema, value: &Value) -> Result<Dynamic, String> {
    let wrong = || format!("{value} is no {}", schema.name);
    Ok(match &schema.kind {
        Kind::Structure { .. } => Dynamic::Structure(document(schema, value)?),
        Kind::List { element, .. } => Dynamic::List(
            value
                .as_array()
                .ok_or_else(wrong)?
                .iter()
                .map(|value| dynamic(element.target(), value))
                .collect::<Result<_, _>>()?,
        ),
        Kind::Map { value: member, .. } => Dynamic::Map(
            value
                .as_object()
                .ok_or_else(wrong)?
                .iter()
                .map(|(key, value)| Ok((key.clone(), dynamic(member.target(), value)?)))
                .collect::<Result<_, String>>()?,
        ),
        Kind::String | Kind::Enum { .. } => {
            Dynamic::String(value.as_str().ok_or_else(wrong)?.to_owned())
        }
        Kind::Integer | Kind::Long => Dynamic::Integer(value.as_i64().ok_or_else(wrong)?),
        Kind::Double => Dynamic::Double(match value.as_str() {
            Some("NaN") => f64::NAN,
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            _ => value.as_f64().ok_or_else(wrong)?,
        }),
        Kind::Boolean => Dynamic::Boolean(value.as_bool().ok_or_else(wrong)?),
        Kind::Timestamp => Dynamic::Timestamp(match value.as_str() {
            Some(text) => timestamp::parse(text).ok_or_else(wrong)?,
            None => Timestamp::from_epoch_seconds_f64(value.as_f64().ok_or_else(wrong)?),
        }),
        Kind::Blob => Dynamic::Blob(Bytes::from(value.as_str().ok_or_else(wrong)?.to_owned())),
        Kind::Document => Dynamic::Json(value.clone()),
    })
}
