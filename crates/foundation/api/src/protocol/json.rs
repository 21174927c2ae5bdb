//! awsJson 1.0 and 1.1: JSON both ways, the operation in `X-Amz-Target`.
//!
//! The two versions differ in their content type only. An empty body stands for an empty
//! input, as AWS takes it; anything else must be one JSON object with nothing after it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_env::Timestamp;
use http::request::Parts;

use super::{Call, Protocol, Rejection, Reply, timestamp};
use crate::error::{ApiError, ProtocolError};
use crate::generated;
use crate::read::{Missing, Trail};
use crate::schema::{Member, Schema, TimestampFormat};
use crate::serde_form::{self, not_finite};
use crate::service::{OperationModel, ServiceModel};
use crate::shape::{Structure, Value, write_structure, write_value};
use crate::write::ShapeWriter;

pub struct AwsJson {
    version: &'static str,
}

pub static JSON_1_0: AwsJson = AwsJson { version: "1.0" };
pub static JSON_1_1: AwsJson = AwsJson { version: "1.1" };

/// Finds the operation that a target header names.
pub(super) fn detect(target: &str, content_type: &str) -> Result<Call, Rejection> {
    let said = match content_type {
        "application/x-amz-json-1.0" => Some(&JSON_1_0),
        "application/x-amz-json-1.1" => Some(&JSON_1_1),
        _ => None,
    };
    let found = target.split_once('.').and_then(|(prefix, operation)| {
        let model = generated::MODELS
            .iter()
            .find(|model| model.target_prefix == Some(prefix))?;
        Some((*model, operation))
    });
    let Some((service, operation)) = found else {
        return Err(Rejection {
            protocol: said.unwrap_or(&JSON_1_1),
            error: ApiError::unknown_operation(),
        });
    };
    let of_model = if service.json_version == Some("1.0") {
        &JSON_1_0
    } else {
        &JSON_1_1
    };
    Ok(Call {
        service,
        operation: operation.to_owned(),
        protocol: said.unwrap_or(of_model),
    })
}

/// Reads a JSON body into a structure.
pub fn read(body: &[u8], structure: &mut dyn Structure) -> Result<Vec<Missing>, ProtocolError> {
    let body = if body.iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        body
    };
    let mut trail = Trail::default();
    let mut parser = serde_json::Deserializer::from_slice(body);
    serde_form::read(structure, &mut parser, &mut trail)?;
    parser.end().map_err(|error| ProtocolError::Syntax {
        reason: error.to_string(),
    })?;
    Ok(trail.into_missing())
}

/// Writes a structure as a JSON body.
pub fn write(structure: &dyn Structure) -> Vec<u8> {
    let mut writer = JsonWriter::default();
    write_structure(structure, &mut writer);
    writer.out
}

/// Writes any value as JSON.
pub fn write_any(value: &dyn Value, schema: &'static Schema) -> Vec<u8> {
    let mut writer = JsonWriter::default();
    write_value(value.view(), schema, &mut writer);
    writer.out
}

/// The code and message of an awsJson error body, for clients.
pub fn read_error(status: u16, body: &[u8]) -> ApiError {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| parsed.get(name).and_then(serde_json::Value::as_str);
    let code = text("__type")
        .or_else(|| text("code"))
        .unwrap_or("UnknownError");
    let code = code.rsplit('#').next().unwrap_or(code);
    let code = code.split(':').next().unwrap_or(code);
    let message = text("message")
        .or_else(|| text("Message"))
        .unwrap_or_default();
    ApiError::sender(code, message).with_status(status)
}

impl AwsJson {
    fn reply(&self, status: u16, body: Vec<u8>, request_id: &str) -> Reply {
        Reply {
            status,
            headers: vec![
                (
                    "content-type",
                    format!("application/x-amz-json-{}", self.version),
                ),
                ("x-amzn-requestid", request_id.to_owned()),
            ],
            body: Bytes::from(body),
            events: None,
        }
    }
}

impl Protocol for AwsJson {
    fn name(&self) -> &'static str {
        "json"
    }

    fn read_request(
        &self,
        _operation: &OperationModel,
        _parts: &Parts,
        body: &Bytes,
        input: &mut dyn Structure,
    ) -> Result<Vec<Missing>, ApiError> {
        Ok(read(body, input)?)
    }

    fn write_response(
        &self,
        _service: &ServiceModel,
        operation: &OperationModel,
        output: &dyn Structure,
        request_id: &str,
    ) -> Reply {
        // An operation without an output answers with no body at all.
        let body = if std::ptr::eq(operation.output, &raw const super::UNIT) {
            Vec::new()
        } else {
            write(output)
        };
        self.reply(200, body, request_id)
    }

    fn write_error(
        &self,
        service: Option<&ServiceModel>,
        error: &ApiError,
        request_id: &str,
    ) -> Reply {
        let mut writer = JsonWriter::default();
        writer.open(b'{');
        writer.name("__type");
        writer.string(&error.code);
        let mut has_message = false;
        if let Some(exception) = &error.exception {
            for (index, member) in exception.schema().members().iter().enumerate() {
                let Some(view) = exception.member(index).map(Value::view) else {
                    continue;
                };
                if !view.is_absent() {
                    has_message |= member.name.eq_ignore_ascii_case("message");
                    writer.member(member);
                    write_value(view, member.target(), &mut writer);
                }
            }
        }
        if !has_message && !error.message.is_empty() {
            writer.name("message");
            writer.string(&error.message);
        }
        writer.close(b'}');
        let mut reply = self.reply(error.http_status, writer.out, request_id);
        if service.is_some_and(|service| service.query_compatible) {
            let query_code = error
                .exception
                .as_ref()
                .and_then(|exception| exception.schema().error?.query_code)
                .unwrap_or(&error.code);
            let fault = match error.fault {
                crate::error::Fault::Sender => "Sender",
                crate::error::Fault::Receiver => "Receiver",
            };
            reply
                .headers
                .push(("x-amzn-query-error", format!("{query_code};{fault}")));
        }
        reply
    }

    fn unknown_operation(&self, _operation: &str, _version: &str) -> ApiError {
        ApiError::unknown_operation()
    }
}

/// Writes JSON text as the walk goes.
#[derive(Default)]
struct JsonWriter {
    out: Vec<u8>,
    /// The format of the timestamp that comes next, where its member says one.
    format: Option<TimestampFormat>,
}

impl JsonWriter {
    fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    /// A comma unless this is the first in its bracket.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    fn name(&mut self, name: &str) {
        self.separate();
        self.text(name);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        // Writing text into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }
}

impl ShapeWriter for JsonWriter {
    fn begin_structure(&mut self, _schema: &'static Schema) {
        self.open(b'{');
    }

    fn member(&mut self, member: &'static Member) {
        self.name(member.wire_name());
        self.format = member.timestamp_format;
    }

    fn end_structure(&mut self) {
        self.close(b'}');
    }

    fn begin_list(&mut self, _schema: &'static Schema, _len: usize) {
        self.open(b'[');
    }

    fn element(&mut self, element: &'static Member) {
        self.separate();
        self.format = element.timestamp_format;
    }

    fn end_list(&mut self) {
        self.close(b']');
    }

    fn begin_map(&mut self, _schema: &'static Schema, _len: usize) {
        self.open(b'{');
    }

    fn entry(&mut self, key: &str, _key_member: &'static Member, value: &'static Member) {
        self.name(key);
        self.format = value.timestamp_format;
    }

    fn end_entry(&mut self) {}

    fn end_map(&mut self) {
        self.close(b'}');
    }

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    fn string(&mut self, text: &str) {
        self.text(text);
    }

    fn integer(&mut self, number: i64) {
        self.out.extend_from_slice(number.to_string().as_bytes());
    }

    fn double(&mut self, number: f64) {
        if number.is_finite() {
            let _ = serde_json::to_writer(&mut self.out, &number);
        } else {
            self.text(not_finite(number));
        }
    }

    fn boolean(&mut self, flag: bool) {
        self.out
            .extend_from_slice(if flag { b"true" } else { b"false" });
    }

    fn timestamp(&mut self, schema: &'static Schema, time: Timestamp) {
        let format = self
            .format
            .or(schema.timestamp_format)
            .unwrap_or(TimestampFormat::EpochSeconds);
        let text = timestamp::format(time, format);
        if format == TimestampFormat::EpochSeconds {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.text(&text);
        }
    }

    fn blob(&mut self, bytes: &[u8]) {
        let text = STANDARD.encode(bytes);
        self.text(&text);
    }

    fn document(&mut self, value: &serde_json::Value) {
        let _ = serde_json::to_writer(&mut self.out, value);
    }
}
