//! Errors, operation models, the trait of a service and its dispatch table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::bail;

use super::{Generator, HEADER};
use crate::codegen::model::Reference;
use crate::codegen::naming;

impl Generator<'_> {
    pub(super) fn errors(&self) -> anyhow::Result<String> {
        let error = self.error_type();
        let mut out = HEADER.to_owned();
        out.push_str("use std::fmt;\nuse std::sync::Arc;\n\n");
        let mut variants = String::new();
        let mut constructors = String::new();
        let mut conversions = String::new();
        let mut imports = Vec::new();
        for shape_name in &self.exceptions {
            let shape = self.model.shape(shape_name)?;
            let type_name = naming::type_name(shape_name);
            let _ = writeln!(variants, "{type_name}({type_name}),");
            let constructor = naming::function(shape_name);
            let message = shape
                .members
                .keys()
                .find(|name| name.eq_ignore_ascii_case("message"));
            if let Some(message) = message {
                let field = naming::field(message);
                let value = if shape.required.contains(message) {
                    "message.into()"
                } else {
                    "Some(message.into())"
                };
                let rest = if shape.members.len() > 1 {
                    ", ..Default::default()"
                } else {
                    ""
                };
                let _ = writeln!(
                    constructors,
                    "pub fn {constructor}(message: impl Into<String>) -> Self {{ Self::{type_name}({type_name} {{ {field}: {value}{rest} }}) }}\n"
                );
            } else {
                let _ = writeln!(
                    constructors,
                    "pub fn {constructor}() -> Self {{ Self::{type_name}({type_name}::default()) }}\n"
                );
            }
            let _ = writeln!(
                conversions,
                "{error}::{type_name}(exception) => Self::modelled(Arc::new(exception)),"
            );
            imports.push(type_name);
        }
        let arc_used = !imports.is_empty();
        if !arc_used {
            out = out.replace("use std::sync::Arc;\n", "");
        }
        if arc_used {
            let _ = writeln!(out, "use super::types::{{{}}};", imports.join(", "));
        }
        let _ = write!(
            out,
            "use crate::error::ApiError;\n\n\
            /// What an operation of this service fails with.\n\
            #[derive(Clone, Debug, PartialEq)]\npub enum {error} {{ {variants}\n/// An error that the model does not list.\nOther(ApiError), }}\n\n\
            impl {error} {{ {constructors}\n/// The error as the caller sees it.\npub fn into_api_error(self) -> ApiError {{ self.into() }} }}\n\n\
            impl From<ApiError> for {error} {{ fn from(error: ApiError) -> Self {{ Self::Other(error) }} }}\n\n\
            impl From<{error}> for ApiError {{ fn from(error: {error}) -> Self {{ match error {{ {conversions} {error}::Other(error) => error, }} }} }}\n\n\
            impl fmt::Display for {error} {{ fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{ fmt::Display::fmt(&self.clone().into_api_error(), f) }} }}\n\n\
            impl std::error::Error for {error} {{}}\n"
        );
        Ok(out)
    }

    pub(super) fn operation_types(&self, name: &str) -> (Option<String>, Option<String>) {
        let operation = &self.model.operations[name];
        let of = |reference: &Option<Reference>| {
            reference.as_ref().map(|of| naming::type_name(&of.shape))
        };
        (of(&operation.input), of(&operation.output))
    }

    /// Whether the operation's output has a stream of events in it.
    fn streams_events(&self, name: &str) -> anyhow::Result<bool> {
        let Some(output) = &self.model.operations[name].output else {
            return Ok(false);
        };
        for member in self.model.shape(&output.shape)?.members.values() {
            if self.model.shape(&member.shape)?.eventstream {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn operations(&self) -> anyhow::Result<String> {
        let error = self.error_type();
        let mut types = BTreeSet::new();
        let mut body = String::new();
        let mut table = String::new();
        for (name, operation) in &self.model.operations {
            let (input, output) = self.operation_types(name);
            let constant = naming::constant(name);
            let schema = |reference: &Option<Reference>| match reference {
                Some(of) => format!("&schemas::{}", self.constants[of.shape.as_str()]),
                None => "&crate::protocol::UNIT".to_owned(),
            };
            let wrapper = operation
                .output
                .as_ref()
                .and_then(|of| of.result_wrapper.clone());
            let (input_type, output_type) = (
                input.clone().unwrap_or_else(|| "Unit".to_owned()),
                output.clone().unwrap_or_else(|| "Unit".to_owned()),
            );
            types.extend([input_type.clone(), output_type.clone()]);
            let _ = write!(
                body,
                "static {constant}: OperationModel = OperationModel {{ name: {name:?}, input: {}, output: {}, result_wrapper: {wrapper:?}, readonly: {}, new_input: || Box::new({input_type}::default()), new_output: || Box::new({output_type}::default()) }};\n\n\
                /// The operation, for a client.\n#[derive(Clone, Copy, Debug)]\npub struct {name};\n\n\
                impl Operation for {name} {{ type Input = {input_type}; type Output = {output_type}; type Error = {error}; const NAME: &'static str = {name:?};\n\
                fn model() -> &'static OperationModel {{ &{constant} }}\nfn service() -> &'static ServiceModel {{ &MODEL }} }}\n\n",
                schema(&operation.input),
                schema(&operation.output),
                operation.readonly,
            );
            let _ = write!(table, "&{constant},");
        }
        let metadata = &self.model.metadata;
        let mut not_built = self.model.not_built.clone();
        not_built.sort();
        let not_built: Vec<String> = not_built.iter().map(|name| format!("{name:?}")).collect();
        let protocols: Vec<String> = metadata
            .protocols
            .iter()
            .map(|name| format!("{name:?}"))
            .collect();
        let validation = match self.choice.validation.as_str() {
            "own" => "ValidationStyle::Own".to_owned(),
            "invalid-parameter" => "ValidationStyle::InvalidParameter".to_owned(),
            other => match other.strip_prefix("front-end:") {
                Some(code) => format!("ValidationStyle::FrontEnd {{ code: {code:?} }}"),
                None => bail!("unknown validation style {other}"),
            },
        };
        let uses_unit = types.remove("Unit");
        let mut out = HEADER.to_owned();
        let _ = write!(
            out,
            "use super::errors::{error};\nuse super::schemas;\nuse super::types::{{{}}};\nuse crate::service::{{Operation, OperationModel, ServiceModel}};\n{}use crate::validate::ValidationStyle;\n\n",
            types.into_iter().collect::<Vec<_>>().join(", "),
            if uses_unit {
                "use crate::shape::Unit;\n"
            } else {
                ""
            },
        );
        let _ = write!(
            out,
            "/// The service, as its model describes it.\npub static MODEL: ServiceModel = ServiceModel {{ name: {:?}, full_name: {:?}, signing_name: {:?}, endpoint_prefix: {:?}, api_version: {:?}, target_prefix: {:?}, xml_namespace: {:?}, protocols: &[{}], json_version: {:?}, query_compatible: {}, validation: {validation}, operations: &[{table}], not_built: &[{}] }};\n\n",
            self.name,
            metadata.service_full_name,
            metadata
                .signing_name
                .as_ref()
                .unwrap_or(&metadata.endpoint_prefix),
            metadata.endpoint_prefix,
            metadata.api_version,
            metadata.target_prefix,
            metadata.xml_namespace,
            protocols.join(", "),
            metadata.json_version,
            metadata.aws_query_compatible.is_some(),
            not_built.join(", "),
        );
        out.push_str(&body);
        Ok(out)
    }

    pub(super) fn dispatch(&self) -> anyhow::Result<String> {
        let (trait_name, error) = (&self.choice.trait_name, self.error_type());
        let mut types = BTreeSet::new();
        let mut methods = String::new();
        let mut arms = String::new();
        for (index, name) in self.model.operations.keys().enumerate() {
            let (input, output) = self.operation_types(name);
            let function = naming::function(name);
            let streams = self.streams_events(name)?;
            types.extend(input.clone());
            // What is streamed is not one value of the output's type.
            types.extend(output.clone().filter(|_| !streams));
            let parameter = input
                .as_ref()
                .map_or(String::new(), |input| format!(", input: {input}"));
            let silent = output.is_none();
            let output_type = match output {
                Some(_) if streams => "EventStream".to_owned(),
                Some(output) => output,
                None => "()".to_owned(),
            };
            let _ = writeln!(
                methods,
                "async fn {function}(&self, ctx: &RequestContext{parameter}) -> Result<{output_type}, {error}>;\n"
            );
            let argument = if input.is_some() {
                ", downcast(input)?"
            } else {
                ""
            };
            let unit = if silent { ".map(|()| Unit {})" } else { "" };
            let _ = writeln!(
                arms,
                "{index} => Box::pin(async move {{ answer(self.0.{function}(ctx{argument}).await{unit}) }}),"
            );
        }
        let mut out = HEADER.to_owned();
        let _ = write!(
            out,
            "use std::sync::Arc;\n\nuse async_trait::async_trait;\n\n\
            use super::errors::{error};\nuse super::operations::MODEL;\nuse super::types::{{{}}};\nuse crate::context::RequestContext;\n{}use crate::service::{{Dispatch, DispatchFuture, Service, answer, downcast, no_such_index}};\nuse crate::shape::{};\n\n\
            /// The built operations of this service.\n#[async_trait]\npub trait {trait_name}: Send + Sync {{ {methods} }}\n\n\
            /// The service, ready to be called over the wire.\npub fn service(implementation: Arc<dyn {trait_name}>) -> Service {{ Service::new(&MODEL, Arc::new(Table(implementation))) }}\n\n\
            struct Table(Arc<dyn {trait_name}>);\n\n\
            impl Dispatch for Table {{ fn dispatch<'a>(&'a self, operation: usize, ctx: &'a RequestContext, input: Box<dyn Structure>) -> DispatchFuture<'a> {{ match operation {{ {arms} _ => no_such_index(operation), }} }} }}\n",
            types.into_iter().collect::<Vec<_>>().join(", "),
            if methods.contains("EventStream") {
                "use crate::event_stream::EventStream;\n"
            } else {
                ""
            },
            if arms.contains("Unit {}") {
                "{Structure, Unit}"
            } else {
                "Structure"
            },
        );
        Ok(out)
    }
}
