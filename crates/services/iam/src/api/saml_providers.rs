//! SAML providers: their metadata, as they were given.
//!
//! What it leaves to others: assertions of theirs (`api::saml`). Members that only matter to encrypted assertions are
//! refused by name.

use gantry_api::ApiError;
use gantry_api::iam::{self, IamError};
use gantry_arn::Arn;
use gantry_env::Timestamp;
use gantry_store::{Transaction, Versioned};

use super::{Change, View, tags};
use crate::model::saml::Metadata;
use crate::tables::{SamlProviderRow, SamlProviders, row_name};

const MAX_PROVIDERS: usize = 100;

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateSAMLProviderRequest,
) -> Result<Change<iam::CreateSAMLProviderResponse>, IamError> {
    refuse_encryption(
        "CreateSAMLProvider",
        input.assertion_encryption_mode.is_some(),
        input.add_private_key.is_some(),
        false,
    )?;
    check_metadata(&input.saml_metadata_document)?;
    let tags = tags::new_tags(input.tags.as_deref().unwrap_or_default())?;
    let key = row_name(&input.name);
    let taken = view
        .snapshot
        .read::<SamlProviders>(view.account, &view.region, &key);
    if taken.is_some() {
        return Err(IamError::entity_already_exists_exception(format!(
            "SAMLProvider with name {} already exists.",
            input.name
        )));
    }
    if all(view).len() >= MAX_PROVIDERS {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for SAMLProvidersPerAccount: {MAX_PROVIDERS}"
        )));
    }
    let row = SamlProviderRow {
        arn: Arn::global("iam", view.account, format!("saml-provider/{}", input.name)),
        name: input.name.clone(),
        created_at: view.now,
        metadata: input.saml_metadata_document.clone(),
        tags,
    };
    let mut transaction = Transaction::new();
    transaction.create::<SamlProviders>(view.account, &view.region, &key, &row);
    let output = iam::CreateSAMLProviderResponse {
        saml_provider_arn: Some(row.arn.to_string()),
        tags: (!row.tags.is_empty()).then(|| tags::shown(&row.tags)),
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetSAMLProviderRequest,
) -> Result<iam::GetSAMLProviderResponse, IamError> {
    let provider = find(view, &input.saml_provider_arn)?;
    Ok(iam::GetSAMLProviderResponse {
        saml_metadata_document: Some(provider.metadata.clone()),
        create_date: Some(provider.created_at),
        valid_until: valid_until(&provider.metadata),
        tags: Some(tags::shown(&provider.tags)),
        ..Default::default()
    })
}

pub(super) fn list(
    view: &View<'_>,
    _input: &iam::ListSAMLProvidersRequest,
) -> Result<iam::ListSAMLProvidersResponse, IamError> {
    let providers = all(view)
        .iter()
        .map(|provider| iam::SAMLProviderListEntry {
            arn: Some(provider.arn.to_string()),
            valid_until: valid_until(&provider.metadata),
            create_date: Some(provider.created_at),
        })
        .collect();
    Ok(iam::ListSAMLProvidersResponse {
        saml_provider_list: Some(providers),
    })
}

pub(super) fn update(
    view: &View<'_>,
    input: &iam::UpdateSAMLProviderRequest,
) -> Result<Change<iam::UpdateSAMLProviderResponse>, IamError> {
    refuse_encryption(
        "UpdateSAMLProvider",
        input.assertion_encryption_mode.is_some(),
        input.add_private_key.is_some(),
        input.remove_private_key.is_some(),
    )?;
    let change = edit(view, &input.saml_provider_arn, |row| {
        if let Some(metadata) = &input.saml_metadata_document {
            check_metadata(metadata)?;
            row.metadata.clone_from(metadata);
        }
        Ok(())
    })?;
    let output = iam::UpdateSAMLProviderResponse {
        saml_provider_arn: Some(input.saml_provider_arn.clone()),
    };
    Ok(Change::new(change.transaction, output))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteSAMLProviderRequest,
) -> Result<Change<()>, IamError> {
    let provider = find(view, &input.saml_provider_arn)?;
    let mut transaction = Transaction::new();
    transaction.expect_read(&provider);
    transaction.delete(provider.key.clone());
    Ok(Change::new(transaction, ()))
}

pub(super) fn tag(
    view: &View<'_>,
    input: &iam::TagSAMLProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.saml_provider_arn, |row| {
        tags::add(&mut row.tags, &input.tags)
    })
}

pub(super) fn untag(
    view: &View<'_>,
    input: &iam::UntagSAMLProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.saml_provider_arn, |row| {
        tags::remove(&mut row.tags, &input.tag_keys);
        Ok(())
    })
}

pub(super) fn list_tags(
    view: &View<'_>,
    input: &iam::ListSAMLProviderTagsRequest,
) -> Result<iam::ListSAMLProviderTagsResponse, IamError> {
    let provider = find(view, &input.saml_provider_arn)?;
    let page = tags::page(
        view,
        &provider.tags,
        &provider.arn.to_string(),
        input.marker.as_deref(),
        input.max_items,
    )?;
    Ok(iam::ListSAMLProviderTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}

fn edit(
    view: &View<'_>,
    arn: &str,
    change: impl FnOnce(&mut SamlProviderRow) -> Result<(), IamError>,
) -> Result<Change<()>, IamError> {
    let provider = find(view, arn)?;
    let mut row = SamlProviderRow::clone(&provider);
    change(&mut row)?;
    let mut transaction = Transaction::new();
    if row != *provider.row {
        transaction.update::<SamlProviders>(&provider, &row);
    }
    Ok(Change::new(transaction, ()))
}

fn find(view: &View<'_>, arn: &str) -> Result<Versioned<SamlProviderRow>, IamError> {
    arn.split_once(":saml-provider/")
        .and_then(|(_, name)| {
            view.snapshot
                .read::<SamlProviders>(view.account, &view.region, &row_name(name))
        })
        .filter(|provider| provider.arn.to_string() == arn)
        .ok_or_else(|| {
            IamError::no_such_entity_exception(format!("SAMLProvider not found for arn {arn}"))
        })
}

fn all(view: &View<'_>) -> Vec<Versioned<SamlProviderRow>> {
    view.snapshot
        .list::<SamlProviders>(view.account, &view.region)
}

fn refuse_encryption(
    operation: &str,
    mode: bool,
    add_key: bool,
    remove_key: bool,
) -> Result<(), IamError> {
    for (member, given) in [
        ("AssertionEncryptionMode", mode),
        ("AddPrivateKey", add_key),
        ("RemovePrivateKey", remove_key),
    ] {
        if given {
            return Err(ApiError::not_built("iam", &format!("{operation} with {member}")).into());
        }
    }
    Ok(())
}

/// Metadata describe an entity that signs in users. One whose keys are missing is taken, and vouches for nobody.
fn check_metadata(document: &str) -> Result<(), IamError> {
    match Metadata::read(document) {
        Some(_) => Ok(()),
        None => Err(IamError::invalid_input_exception(
            "Could not parse metadata",
        )),
    }
}

/// When the metadata themselves say that they end.
fn valid_until(document: &str) -> Option<Timestamp> {
    Metadata::read(document)?.valid_until
}
