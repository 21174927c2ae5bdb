//! Structures, their member tables, and open enums.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Generator, HEADER};
use crate::codegen::naming;

impl Generator<'_> {
    pub(super) fn types(&self) -> anyhow::Result<String> {
        let mut body = String::new();
        for (name, shape) in self.structures() {
            let type_name = naming::type_name(name);
            let _ = writeln!(
                body,
                "#[derive(Clone, Default, PartialEq)]\npub struct {type_name} {{"
            );
            let mut fields = Vec::new();
            for (member_name, member) in &shape.members {
                let field = naming::field(member_name);
                let _ = writeln!(
                    body,
                    "pub {field}: {},",
                    self.field_type(name, shape, member_name, member)?
                );
                fields.push(field);
            }
            let _ = writeln!(body, "}}\n");
            let _ = write!(
                body,
                "structure_impls!({type_name}, schemas::{}",
                self.constants[name.as_str()]
            );
            for (index, field) in fields.iter().enumerate() {
                let _ = write!(body, ", {index} = {field}");
            }
            body.push_str(");\n\n");
        }
        let mut out = HEADER.to_owned();
        if body.contains("BTreeMap<") {
            out.push_str("use std::collections::BTreeMap;\n\n");
        }
        for (word, path) in [
            ("Bytes", "bytes::Bytes"),
            ("Timestamp", "gantry_env::Timestamp"),
        ] {
            if [format!(": {word}"), format!("<{word}"), format!(" {word}>")]
                .iter()
                .any(|found| body.contains(found))
            {
                let _ = writeln!(out, "use {path};");
            }
        }
        if self.enum_shapes().next().is_some() {
            out.push_str("\nuse super::enums::*;");
        }
        out.push_str("\nuse super::schemas;\nuse crate::structure_impls;\n\n");
        out.push_str(&body);
        Ok(out)
    }

    pub(super) fn enums(&self) -> anyhow::Result<String> {
        let mut out = HEADER.to_owned();
        if self.enum_shapes().next().is_none() {
            return Ok(out);
        }
        out.push_str("use crate::open_enum;\n\n");
        for (name, shape) in self.enum_shapes() {
            let mut taken = BTreeSet::new();
            let _ = writeln!(out, "open_enum! {{ {} {{", naming::type_name(name));
            for value in shape.values.iter().flatten() {
                let mut variant = naming::variant(value);
                while !taken.insert(variant.clone()) {
                    variant.push('2');
                }
                let _ = writeln!(out, "    {variant} = {value:?},");
            }
            out.push_str("} }\n\n");
        }
        Ok(out)
    }
}
