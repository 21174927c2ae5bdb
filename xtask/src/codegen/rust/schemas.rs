//! Static schemas: what codecs and validation know of each shape.

use std::fmt::Write as _;

use anyhow::{Context, bail};

use super::{Generator, HEADER, element};
use crate::codegen::model::{Member, Shape};
use crate::codegen::naming;

impl Generator<'_> {
    pub(super) fn schemas(&self) -> anyhow::Result<String> {
        let mut body = String::new();
        for (name, shape) in &self.model.shapes {
            let constant = &self.constants[name.as_str()];
            let mut expression = match shape.kind.as_str() {
                "structure" if shape.document => {
                    format!("Schema::scalar({name:?}, Kind::Document)")
                }
                "structure" => {
                    let mut members = String::new();
                    for (member_name, member) in &shape.members {
                        members.push_str(&self.member(
                            member_name,
                            member,
                            shape.required.contains(member_name),
                        )?);
                        members.push(',');
                    }
                    let _ = writeln!(
                        body,
                        "static {constant}_MEMBERS: [Member; {}] = [{members}];",
                        shape.members.len()
                    );
                    let make = if shape.union { "union" } else { "structure" };
                    format!("Schema::{make}({name:?}, &{constant}_MEMBERS)")
                }
                "list" => {
                    let element = self.member("member", element(name, shape)?, false)?;
                    format!("Schema::list({name:?}, {element})")
                }
                "map" => {
                    let key = shape
                        .key
                        .as_ref()
                        .with_context(|| format!("map {name} has no key"))?;
                    let value = shape
                        .value
                        .as_ref()
                        .with_context(|| format!("map {name} has no value"))?;
                    format!(
                        "Schema::map({name:?}, {}, {})",
                        self.member("key", key, false)?,
                        self.member("value", value, false)?
                    )
                }
                "string" if shape.values.is_some() => {
                    format!(
                        "Schema::enumeration({name:?}, enums::{}::VALUES)",
                        naming::type_name(name)
                    )
                }
                scalar => format!(
                    "Schema::scalar({name:?}, Kind::{})",
                    scalar_kind(name, scalar)?
                ),
            };
            expression.push_str(&self.shape_traits(name, shape)?);
            let _ = writeln!(body, "pub static {constant}: Schema = {expression};\n");
        }
        let mut out = HEADER.to_owned();
        if body.contains("enums::") {
            out.push_str("use super::enums;\n");
        }
        let mut names = vec![];
        for word in ["ErrorTraits", "Kind", "Member", "Schema", "TimestampFormat"] {
            if [
                format!("{word}::"),
                format!("{word} {{"),
                format!("[{word};"),
            ]
            .iter()
            .any(|found| body.contains(found))
            {
                names.push(word);
            }
        }
        let _ = writeln!(out, "use crate::schema::{{{}}};\n", names.join(", "));
        out.push_str(&body);
        Ok(out)
    }

    pub(super) fn member(
        &self,
        name: &str,
        member: &Member,
        required: bool,
    ) -> anyhow::Result<String> {
        let target = self
            .constants
            .get(member.shape.as_str())
            .with_context(|| format!("the model has no shape {}", member.shape))?;
        let mut out = format!("Member::new({name:?}, &{target})");
        if required {
            out.push_str(".required()");
        }
        if let Some(located) = member
            .location_name
            .as_deref()
            .filter(|located| *located != name)
        {
            let _ = write!(out, ".located({located:?})");
        }
        if member.flattened {
            out.push_str(".flattened()");
        }
        if let Some(format) = &member.timestamp_format {
            let _ = write!(out, ".formatted({})", timestamp_format(format)?);
        }
        if member.idempotency_token {
            out.push_str(".idempotency_token()");
        }
        if member.sensitive {
            out.push_str(".sensitive()");
        }
        Ok(out)
    }

    pub(super) fn shape_traits(&self, name: &str, shape: &Shape) -> anyhow::Result<String> {
        let mut out = String::new();
        if shape.min.is_some() || shape.max.is_some() {
            let _ = write!(
                out,
                ".limited({:?}, {:?})",
                shape.min.map(|min| min as i64),
                shape.max.map(|max| max as i64)
            );
        }
        if let Some(pattern) = &shape.pattern {
            let _ = write!(out, ".matching({pattern:?})");
        }
        if shape.sensitive {
            out.push_str(".secret()");
        }
        if shape.flattened {
            out.push_str(".flat()");
        }
        if let Some(format) = &shape.timestamp_format {
            let _ = write!(out, ".formatted({})", timestamp_format(format)?);
        }
        if shape.exception {
            let traits = shape.error.as_ref();
            let said = traits.and_then(|error| error.code.clone());
            let is_json = self.model.metadata.json_version.is_some();
            // awsJson names the shape; where a service moved on from Query, the old code is
            // kept beside it.
            let code = if is_json {
                name.to_owned()
            } else {
                said.clone().unwrap_or_else(|| name.to_owned())
            };
            let query_code = said.filter(|said| *said != code);
            let status = traits
                .and_then(|error| error.http_status_code)
                .unwrap_or(if shape.fault { 500 } else { 400 });
            let sender = traits
                .and_then(|error| error.sender_fault)
                .unwrap_or(!shape.fault);
            let _ = write!(
                out,
                ".exception(ErrorTraits {{ code: {code:?}, query_code: {query_code:?}, http_status: {status}, sender_fault: {sender} }})"
            );
        }
        Ok(out)
    }
}

fn scalar_kind(name: &str, kind: &str) -> anyhow::Result<&'static str> {
    Ok(match kind {
        "string" | "character" => "String",
        "integer" => "Integer",
        "long" => "Long",
        "float" | "double" => "Double",
        "boolean" => "Boolean",
        "timestamp" => "Timestamp",
        "blob" => "Blob",
        other => bail!("shape {name} is of an unknown type {other}"),
    })
}

fn timestamp_format(format: &str) -> anyhow::Result<&'static str> {
    Ok(match format {
        "unixTimestamp" => "TimestampFormat::EpochSeconds",
        "iso8601" => "TimestampFormat::Iso8601",
        "rfc822" => "TimestampFormat::HttpDate",
        other => bail!("unknown timestamp format {other}"),
    })
}
