//! The terms of a session: its policies, tags and source identity, checked before anything is issued.
//!
//! What always holds: tags and policies of any session pass here, whoever asks for it. They are kept with the
//! session and not evaluated (`docs/security.md`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ApiError;
use gantry_api::sts::{self, StsError};

use super::sts::{denied, invalid};
use crate::model::document::{DocumentKind, validate};
use crate::tables::SessionTerms;

/// AWS's limit for a session's policy and the ARNs of its managed policies together.
const POLICY_CHARACTERS: usize = 2048;
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

pub(super) fn policy_arns(given: Option<&[sts::PolicyDescriptorType]>) -> Vec<String> {
    let given = given.unwrap_or_default().iter();
    given.filter_map(|policy| policy.arn.clone()).collect()
}

pub(super) fn tags<'a>(
    given: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>, StsError> {
    let given: Vec<_> = given.collect();
    let keys: BTreeSet<_> = given.iter().map(|(key, _)| key.to_lowercase()).collect();
    if keys.len() < given.len() {
        return Err(invalid(
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        ));
    }
    if keys.iter().any(|key| key.starts_with("aws:")) {
        return Err(invalid(
            "Tag keys starting with aws: are reserved for system use.",
        ));
    }
    if given.len() > MAX_TAGS {
        return Err(invalid(&format!(
            "A session can have at most {MAX_TAGS} tags."
        )));
    }
    // Tags of a request were held against the model; those in a token come from elsewhere.
    for (key, value) in &given {
        let (key_len, value_len) = (key.chars().count(), value.chars().count());
        if key_len == 0 || key_len > MAX_TAG_KEY || value_len > MAX_TAG_VALUE {
            return Err(invalid(&format!(
                "A tag's key has 1 to {MAX_TAG_KEY} characters, and its value {MAX_TAG_VALUE} at most."
            )));
        }
    }
    let tags = given.into_iter();
    Ok(tags
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Every tag that shall go on must be there.
pub(super) fn check_transitive(terms: &SessionTerms) -> Result<(), StsError> {
    let mut transitive = terms.transitive.iter();
    match transitive.find(|key| !terms.tags.contains_key(*key)) {
        None => Ok(()),
        Some(unknown) => Err(invalid(&format!(
            "Transitive tag key {unknown} is not among the tags of the session."
        ))),
    }
}

/// How much of the room for policies a session takes, in percent; `None` where it brings none.
pub(super) fn check_policies(terms: &SessionTerms) -> Result<Option<i32>, StsError> {
    if let Some(policy) = &terms.policy {
        validate(DocumentKind::Inline, policy)
            .map_err(|fault| StsError::malformed_policy_document_exception(fault.0))?;
    }
    let policy = terms.policy.iter().chain(&terms.policy_arns);
    let characters: usize = policy.map(|text| text.chars().count()).sum();
    if characters > POLICY_CHARACTERS {
        return Err(StsError::packed_policy_too_large_exception(format!(
            "The session policy and the ARNs of its managed policies have {characters} characters \
             together, and there is room for {POLICY_CHARACTERS}."
        )));
    }
    let percent = (characters * 100).div_ceil(POLICY_CHARACTERS);
    Ok((percent > 0).then(|| i32::try_from(percent).unwrap_or(100)))
}

/// What goes on from the session that begins another: its transitive tags, which cannot be given
/// anew, and its source identity, which cannot become another.
pub(super) fn inherit(terms: &mut SessionTerms, before: &SessionTerms) -> Result<(), StsError> {
    for key in &before.transitive {
        // Keys are told apart without regard to case.
        let mut given = terms.tags.keys();
        if given.any(|given| given.to_lowercase() == key.to_lowercase()) {
            return Err(invalid(&format!(
                "One of the specified transitive tag keys can't be set because it conflicts with a \
                 transitive tag key from the calling session: {key}"
            )));
        }
        if let Some(value) = before.tags.get(key) {
            terms.tags.insert(key.clone(), value.clone());
            terms.transitive.insert(key.clone());
        }
    }
    if terms.tags.len() > MAX_TAGS {
        return Err(invalid(&format!(
            "A session can have at most {MAX_TAGS} tags, those of the calling session that are transitive included."
        )));
    }
    if let Some(identity) = &before.source_identity {
        let given = terms
            .source_identity
            .get_or_insert_with(|| identity.clone());
        if given != identity {
            return Err(denied(
                "The source identity of a session cannot be changed by role chaining.".to_owned(),
            ));
        }
    }
    Ok(())
}

pub(super) fn is_source_identity(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && !text.to_ascii_lowercase().starts_with("aws:")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
}

/// A member that nothing here can act on is refused, never left out.
pub(super) fn refuse(given: bool, what: &str) -> Result<(), StsError> {
    match given {
        true => Err(ApiError::not_built("sts", what).into()),
        false => Ok(()),
    }
}
