//! A committed model, typed: what the generator reads.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::ServiceChoice;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    pub metadata: Metadata,
    pub operations: BTreeMap<String, Operation>,
    pub not_built: Vec<String>,
    pub shapes: BTreeMap<String, Shape>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub api_version: String,
    pub aws_query_compatible: Option<serde_json::Value>,
    pub endpoint_prefix: String,
    pub json_version: Option<String>,
    #[serde(rename = "protocol")]
    _protocol: String,
    pub protocols: Vec<String>,
    pub service_full_name: String,
    #[serde(rename = "serviceId")]
    _service_id: String,
    pub signing_name: Option<String>,
    pub target_prefix: Option<String>,
    pub xml_namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "http")]
    _http: serde_json::Value,
    #[serde(default, rename = "idempotent")]
    _idempotent: bool,
    #[serde(default)]
    pub readonly: bool,
    pub input: Option<Reference>,
    pub output: Option<Reference>,
    pub errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    pub shape: String,
    pub result_wrapper: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub members: BTreeMap<String, Member>,
    pub member: Option<Member>,
    pub key: Option<Member>,
    pub value: Option<Member>,
    #[serde(default)]
    pub required: BTreeSet<String>,
    #[serde(rename = "enum")]
    pub values: Option<Vec<String>>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub pattern: Option<String>,
    #[serde(default)]
    pub sensitive: bool,
    #[serde(default)]
    pub exception: bool,
    pub error: Option<ErrorTraits>,
    #[serde(default)]
    pub fault: bool,
    #[serde(default)]
    pub union: bool,
    #[serde(default)]
    pub document: bool,
    /// Not one value but many, one after the other, in frames of their own.
    #[serde(default)]
    pub eventstream: bool,
    #[serde(default)]
    pub flattened: bool,
    #[serde(rename = "locationName")]
    _location_name: Option<String>,
    pub timestamp_format: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    pub shape: String,
    pub location_name: Option<String>,
    #[serde(default)]
    pub flattened: bool,
    pub timestamp_format: Option<String>,
    #[serde(default)]
    pub idempotency_token: bool,
    #[serde(default)]
    pub sensitive: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorTraits {
    pub code: Option<String>,
    pub http_status_code: Option<u16>,
    pub sender_fault: Option<bool>,
}

impl Member {
    fn of(shape: &str) -> Self {
        Self {
            shape: shape.to_owned(),
            location_name: None,
            flattened: false,
            timestamp_format: None,
            idempotency_token: false,
            sensitive: false,
        }
    }
}

impl Model {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    pub fn shape(&self, name: &str) -> anyhow::Result<&Shape> {
        self.shapes
            .get(name)
            .with_context(|| format!("the model has no shape {name}"))
    }

    pub fn add_members(
        &mut self,
        additions: Option<&BTreeMap<String, BTreeMap<String, String>>>,
    ) -> anyhow::Result<()> {
        for (shape, members) in additions.into_iter().flatten() {
            for (member, target) in members {
                self.shape(target)?;
                let shape = self.shapes.get_mut(shape).with_context(|| {
                    format!("additions.toml names a shape {shape} that is not there")
                })?;
                let added = Member::of(target);
                if shape.members.insert(member.clone(), added).is_some() {
                    bail!("the model has {member} now; drop it from additions.toml");
                }
            }
        }
        Ok(())
    }

    /// Marks members as secrets. A shape that no built operation reaches is not there to mark.
    pub fn mark_secrets(&mut self, secrets: Option<&Vec<String>>) -> anyhow::Result<()> {
        for secret in secrets.into_iter().flatten() {
            let (shape, member) = secret
                .split_once('.')
                .with_context(|| format!("{secret} is not Shape.member"))?;
            if let Some(shape) = self.shapes.get_mut(shape) {
                shape
                    .members
                    .get_mut(member)
                    .with_context(|| format!("additions.toml names {secret}, which is not there"))?
                    .sensitive = true;
            }
        }
        Ok(())
    }

    /// AWS sends a message with every exception; some models do not say so.
    pub fn add_messages(&mut self) -> anyhow::Result<()> {
        const TEXT: &str = "ImplicitMessage";
        let mut added = false;
        for shape in self.shapes.values_mut().filter(|shape| shape.exception) {
            if !shape
                .members
                .keys()
                .any(|name| name.eq_ignore_ascii_case("message"))
            {
                shape.members.insert("message".to_owned(), Member::of(TEXT));
                added = true;
            }
        }
        if added {
            self.shapes.insert(
                TEXT.to_owned(),
                serde_json::from_str(r#"{"type": "string"}"#)?,
            );
        }
        Ok(())
    }

    pub fn check_operations(&self, choice: &ServiceChoice) -> anyhow::Result<()> {
        let chosen: BTreeSet<&String> = choice.operations.iter().collect();
        let committed: BTreeSet<&String> = self.operations.keys().collect();
        if chosen != committed {
            let differ: Vec<_> = chosen.symmetric_difference(&committed).collect();
            bail!("operations differ: {differ:?}");
        }
        Ok(())
    }

    /// Structures that hold themselves without a list or map between: such members are boxed.
    pub fn reaches_directly(&self, from: &str, wanted: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(name) = open.pop() {
            if name == wanted {
                return true;
            }
            if !seen.insert(name.clone()) {
                continue;
            }
            if let Some(shape) = self.shapes.get(&name) {
                open.extend(shape.members.values().map(|member| member.shape.clone()));
            }
        }
        false
    }
}
