//! awsQuery: a form with `Action` and `Version` in, XML in two envelopes out.
//!
//! The form may stand in the body of a POST or in the query string of a GET. Errors name a
//! fault (Sender or Receiver) beside their code.

use bytes::Bytes;
use http::request::Parts;

use super::form::{Form, FormReader};
use super::xml::XmlWriter;
use super::{Call, Protocol, Rejection, Reply};
use crate::error::{ApiError, Fault, ProtocolError};
use crate::generated;
use crate::read::Missing;
use crate::service::{OperationModel, ServiceModel};
use crate::shape::{Structure, Value, read_structure, write_structure, write_value};
use crate::write::ShapeWriter;

pub struct AwsQuery;

pub static QUERY: AwsQuery = AwsQuery;

/// Finds the operation that a form names.
pub(super) fn detect(parts: &Parts, body: &[u8], scope: Option<&str>) -> Result<Call, Rejection> {
    let reject = |error: ApiError| Rejection {
        protocol: &QUERY,
        error,
    };
    let form = form(parts, body).map_err(|error| reject(malformed(&error)))?;
    let Some(action) = form.get("Action").filter(|action| !action.is_empty()) else {
        return Err(reject(ApiError::sender(
            "MissingAction",
            "The request must contain the parameter Action.",
        )));
    };
    let version = form.get("Version");
    match service(version, scope) {
        Some(service) => Ok(Call {
            service,
            operation: action.to_owned(),
            protocol: &QUERY,
        }),
        None => Err(reject(
            QUERY.unknown_operation(action, version.unwrap_or_default()),
        )),
    }
}

/// The service of an API version; the scope decides between several.
fn service(version: Option<&str>, scope: Option<&str>) -> Option<&'static ServiceModel> {
    let of_version = || {
        generated::MODELS.iter().copied().filter(|model| {
            model.protocols.contains(&"query")
                && version.is_none_or(|version| model.api_version == version)
        })
    };
    let of_scope = of_version().find(|model| Some(model.signing_name) == scope);
    // Without a version only the scope can tell.
    of_scope.or_else(|| version.and_then(|_| of_version().next()))
}

fn form(parts: &Parts, body: &[u8]) -> Result<Form, ProtocolError> {
    let has_form = super::content_type(parts) == "application/x-www-form-urlencoded";
    let text = if has_form && !body.is_empty() {
        body
    } else {
        parts.uri.query().unwrap_or_default().as_bytes()
    };
    Form::parse(text)
}

fn malformed(error: &ProtocolError) -> ApiError {
    let code = match error {
        ProtocolError::Syntax { .. } => "MalformedQueryString",
        _ => "MalformedInput",
    };
    ApiError::sender(code, error.to_string())
}

/// Reads a form's text into a structure.
pub fn read(form: &Form, structure: &mut dyn Structure) -> Result<Vec<Missing>, ProtocolError> {
    let mut reader = FormReader::new(form);
    read_structure(structure, &mut reader)?;
    Ok(reader.into_trail().into_missing())
}

fn reply(status: u16, text: String, request_id: &str) -> Reply {
    Reply {
        status,
        headers: vec![
            ("content-type", "text/xml".to_owned()),
            ("x-amzn-requestid", request_id.to_owned()),
        ],
        body: Bytes::from(text),
        events: None,
    }
}

impl Protocol for AwsQuery {
    fn name(&self) -> &'static str {
        "query"
    }

    fn read_request(
        &self,
        _operation: &OperationModel,
        parts: &Parts,
        body: &Bytes,
        input: &mut dyn Structure,
    ) -> Result<Vec<Missing>, ApiError> {
        form(parts, body)
            .and_then(|form| read(&form, input))
            .map_err(|error| malformed(&error))
    }

    fn write_response(
        &self,
        service: &ServiceModel,
        operation: &OperationModel,
        output: &dyn Structure,
        request_id: &str,
    ) -> Reply {
        let mut writer = XmlWriter::default();
        let envelope = format!("{}Response", operation.name);
        writer.start(&envelope, service.xml_namespace);
        if let Some(wrapper) = operation.result_wrapper {
            writer.start(wrapper, None);
            write_structure(output, &mut writer);
            writer.end(wrapper);
        } else {
            write_structure(output, &mut writer);
        }
        writer.start("ResponseMetadata", None);
        writer.leaf("RequestId", request_id);
        writer.end("ResponseMetadata");
        writer.end(&envelope);
        reply(200, writer.into_text(), request_id)
    }

    fn write_error(
        &self,
        service: Option<&ServiceModel>,
        error: &ApiError,
        request_id: &str,
    ) -> Reply {
        let mut writer = XmlWriter::default();
        writer.start(
            "ErrorResponse",
            service.and_then(|service| service.xml_namespace),
        );
        writer.start("Error", None);
        let fault = match error.fault {
            Fault::Sender => "Sender",
            Fault::Receiver => "Receiver",
        };
        writer.leaf("Type", fault);
        writer.leaf("Code", &error.code);
        if error.exception.is_none() || !error.message.is_empty() {
            writer.leaf("Message", &error.message);
        }
        if let Some(exception) = &error.exception {
            for (index, member) in exception.schema().members().iter().enumerate() {
                let Some(view) = exception.member(index).map(Value::view) else {
                    continue;
                };
                if !view.is_absent() && !member.name.eq_ignore_ascii_case("message") {
                    writer.member(member);
                    write_value(view, member.target(), &mut writer);
                }
            }
        }
        writer.end("Error");
        writer.leaf("RequestId", request_id);
        writer.end("ErrorResponse");
        reply(error.http_status, writer.into_text(), request_id)
    }

    fn unknown_operation(&self, operation: &str, version: &str) -> ApiError {
        ApiError::sender(
            "InvalidAction",
            format!("Could not find operation {operation} for version {version}"),
        )
    }
}
