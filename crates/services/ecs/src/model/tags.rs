//! Tags: at most 50, keys unique and not AWS's own.

use std::collections::BTreeSet;

use gantry_api::ecs::{EcsError, Tag};

use super::refusal::invalid;

pub const TAGS_MAX: usize = 50;
const KEY_LENGTH_MAX: usize = 128;
const VALUE_LENGTH_MAX: usize = 256;

/// Tags as a caller may give them.
pub fn validate(tags: &[Tag]) -> Result<(), EcsError> {
    let mut keys = BTreeSet::new();
    for tag in tags {
        let key = tag.key.as_deref().unwrap_or_default();
        validate_key(key)?;
        if !keys.insert(key) {
            return Err(invalid(format!(
                "Duplicate tag key found: '{key}'. Tag keys must be unique."
            )));
        }
        let value = tag.value.as_deref().unwrap_or_default();
        if value.chars().count() > VALUE_LENGTH_MAX {
            return Err(invalid(format!(
                "1 validation error detected: Value '{value}' at 'tags.member.value' failed to satisfy constraint: Member must have length less than or equal to {VALUE_LENGTH_MAX}"
            )));
        }
        if !value.chars().all(is_tag_character) {
            return Err(invalid(format!(
                "Tag value '{value}' contains invalid characters."
            )));
        }
    }
    validate_count(tags.len())
}

/// How many tags a resource has after all.
pub fn validate_count(count: usize) -> Result<(), EcsError> {
    if count > TAGS_MAX {
        return Err(invalid(format!(
            "The number of tags exceeds the limit of {TAGS_MAX}."
        )));
    }
    Ok(())
}

pub fn validate_key(key: &str) -> Result<(), EcsError> {
    if key.is_empty() {
        return Err(invalid(
            "1 validation error detected: Value '' at 'tags.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ));
    }
    if key.chars().count() > KEY_LENGTH_MAX {
        return Err(invalid(format!(
            "1 validation error detected: Value '{key}' at 'tags.member.key' failed to satisfy constraint: Member must have length less than or equal to {KEY_LENGTH_MAX}"
        )));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Err(invalid(
            "Tag keys that begin with 'aws:' are reserved for system use.",
        ));
    }
    if !key.chars().all(is_tag_character) {
        return Err(invalid(format!(
            "Tag key '{key}' contains invalid characters."
        )));
    }
    Ok(())
}

/// Letters, numbers and separators of any script, and `_ . : / = + - @`.
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric()
        || c == ' '
        || (c.is_whitespace() && !c.is_control())
        || "_.:/=+-@".contains(c)
}

/// `new` over `old`: a key that is there takes its new value in its old place.
pub fn merge(old: &[Tag], new: &[Tag]) -> Vec<Tag> {
    let mut merged = old.to_vec();
    for tag in new {
        match merged.iter_mut().find(|there| there.key == tag.key) {
            Some(there) => there.value.clone_from(&tag.value),
            None => merged.push(tag.clone()),
        }
    }
    merged
}
