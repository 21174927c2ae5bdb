//! OpenID Connect providers: stored, so that what declares them finds them again.
//!
//! What always holds: thumbprints are those that were given; none are fetched.
//! What it leaves to others: asking a provider for its keys (`federation`), which happens when a token comes.

use std::net::Ipv4Addr;

use gantry_api::ApiError;
use gantry_api::iam::{self, IamError};
use gantry_arn::Arn;
use gantry_store::{Transaction, Versioned};

use super::{Change, View, tags};
use crate::tables::{OidcProviderRow, OidcProviders};

/// AWS's default quotas.
const MAX_CLIENT_IDS: usize = 100;
const MAX_THUMBPRINTS: usize = 5;
const MAX_PROVIDERS: usize = 100;

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateOpenIDConnectProviderRequest,
) -> Result<Change<iam::CreateOpenIDConnectProviderResponse>, IamError> {
    let url = without_scheme(&input.url)?;
    let thumbprints = input.thumbprint_list.clone().unwrap_or_default();
    check_thumbprints(&thumbprints)?;
    let mut client_ids = Vec::new();
    for id in input.client_id_list.iter().flatten() {
        if !client_ids.contains(id) {
            client_ids.push(id.clone());
        }
    }
    check_client_ids(&client_ids)?;
    let tags = tags::new_tags(input.tags.as_deref().unwrap_or_default())?;
    let taken = view
        .snapshot
        .read::<OidcProviders>(view.account, &view.region, url);
    if taken.is_some() {
        return Err(IamError::entity_already_exists_exception(format!(
            "Provider with url {} already exists.",
            input.url
        )));
    }
    if all(view).len() >= MAX_PROVIDERS {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for OpenIdConnectProvidersPerAccount: {MAX_PROVIDERS}"
        )));
    }
    let row = OidcProviderRow {
        arn: Arn::global("iam", view.account, format!("oidc-provider/{url}")),
        url: url.to_owned(),
        created_at: view.now,
        client_ids,
        thumbprints,
        tags,
    };
    let mut transaction = Transaction::new();
    transaction.create::<OidcProviders>(view.account, &view.region, url, &row);
    let output = iam::CreateOpenIDConnectProviderResponse {
        open_id_connect_provider_arn: Some(row.arn.to_string()),
        tags: (!row.tags.is_empty()).then(|| tags::shown(&row.tags)),
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetOpenIDConnectProviderRequest,
) -> Result<iam::GetOpenIDConnectProviderResponse, IamError> {
    let provider = find(view, &input.open_id_connect_provider_arn)?;
    Ok(iam::GetOpenIDConnectProviderResponse {
        url: Some(provider.url.clone()),
        client_id_list: Some(provider.client_ids.clone()),
        thumbprint_list: Some(provider.thumbprints.clone()),
        create_date: Some(provider.created_at),
        tags: Some(tags::shown(&provider.tags)),
    })
}

pub(super) fn list(
    view: &View<'_>,
    _input: &iam::ListOpenIDConnectProvidersRequest,
) -> Result<iam::ListOpenIDConnectProvidersResponse, IamError> {
    let providers = all(view)
        .iter()
        .map(|provider| iam::OpenIDConnectProviderListEntry {
            arn: Some(provider.arn.to_string()),
        })
        .collect();
    Ok(iam::ListOpenIDConnectProvidersResponse {
        open_id_connect_provider_list: Some(providers),
    })
}

/// Deleting one that is not there is no error, as at AWS.
pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteOpenIDConnectProviderRequest,
) -> Result<Change<()>, IamError> {
    let mut transaction = Transaction::new();
    if let Ok(provider) = find(view, &input.open_id_connect_provider_arn) {
        transaction.expect_read(&provider);
        transaction.delete(provider.key.clone());
    }
    Ok(Change::new(transaction, ()))
}

pub(super) fn update_thumbprints(
    view: &View<'_>,
    input: &iam::UpdateOpenIDConnectProviderThumbprintRequest,
) -> Result<Change<()>, IamError> {
    check_thumbprints(&input.thumbprint_list)?;
    edit(view, &input.open_id_connect_provider_arn, |row| {
        row.thumbprints.clone_from(&input.thumbprint_list);
        Ok(())
    })
}

/// Adding one that is there already is no error, as at AWS; nor is removing one that is not.
pub(super) fn add_client_id(
    view: &View<'_>,
    input: &iam::AddClientIDToOpenIDConnectProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.open_id_connect_provider_arn, |row| {
        if !row.client_ids.contains(&input.client_id) {
            row.client_ids.push(input.client_id.clone());
        }
        check_client_ids(&row.client_ids)
    })
}

pub(super) fn remove_client_id(
    view: &View<'_>,
    input: &iam::RemoveClientIDFromOpenIDConnectProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.open_id_connect_provider_arn, |row| {
        row.client_ids.retain(|id| *id != input.client_id);
        Ok(())
    })
}

pub(super) fn tag(
    view: &View<'_>,
    input: &iam::TagOpenIDConnectProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.open_id_connect_provider_arn, |row| {
        tags::add(&mut row.tags, &input.tags)
    })
}

pub(super) fn untag(
    view: &View<'_>,
    input: &iam::UntagOpenIDConnectProviderRequest,
) -> Result<Change<()>, IamError> {
    edit(view, &input.open_id_connect_provider_arn, |row| {
        tags::remove(&mut row.tags, &input.tag_keys);
        Ok(())
    })
}

pub(super) fn list_tags(
    view: &View<'_>,
    input: &iam::ListOpenIDConnectProviderTagsRequest,
) -> Result<iam::ListOpenIDConnectProviderTagsResponse, IamError> {
    let provider = find(view, &input.open_id_connect_provider_arn)?;
    let page = tags::page(
        view,
        &provider.tags,
        &provider.arn.to_string(),
        input.marker.as_deref(),
        input.max_items,
    )?;
    Ok(iam::ListOpenIDConnectProviderTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}

fn edit(
    view: &View<'_>,
    arn: &str,
    change: impl FnOnce(&mut OidcProviderRow) -> Result<(), IamError>,
) -> Result<Change<()>, IamError> {
    let provider = find(view, arn)?;
    let mut row = OidcProviderRow::clone(&provider);
    change(&mut row)?;
    let mut transaction = Transaction::new();
    if row != *provider.row {
        transaction.update::<OidcProviders>(&provider, &row);
    }
    Ok(Change::new(transaction, ()))
}

fn find(view: &View<'_>, arn: &str) -> Result<Versioned<OidcProviderRow>, IamError> {
    arn.split_once(":oidc-provider/")
        .and_then(|(_, url)| {
            view.snapshot
                .read::<OidcProviders>(view.account, &view.region, url)
        })
        .filter(|provider| provider.arn.to_string() == arn)
        .ok_or_else(|| {
            IamError::no_such_entity_exception(format!(
                "OpenIDConnect Provider not found for arn {arn}"
            ))
        })
}

fn all(view: &View<'_>) -> Vec<Versioned<OidcProviderRow>> {
    view.snapshot
        .list::<OidcProviders>(view.account, &view.region)
}

fn without_scheme(url: &str) -> Result<&str, IamError> {
    let invalid = || ApiError::sender("ValidationError", "Invalid Open ID Connect Provider URL");
    let rest = url.strip_prefix("https://").ok_or_else(invalid)?;
    let authority = rest.split('/').next().unwrap_or_default();
    // AWS takes no port. An issuer on this machine seldom has 443 to itself, and AWS could not reach it anyway.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_loopback(host) && port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if host.is_empty()
        || !host.bytes().all(plain)
        || rest
            .bytes()
            .any(|byte| !byte.is_ascii_graphic() || b"?#".contains(&byte))
    {
        return Err(invalid().into());
    }
    Ok(rest)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

fn check_thumbprints(thumbprints: &[String]) -> Result<(), IamError> {
    if thumbprints.len() > MAX_THUMBPRINTS {
        return Err(IamError::invalid_input_exception(format!(
            "Thumbprint list must contain fewer than {} entries.",
            MAX_THUMBPRINTS + 1
        )));
    }
    let hexadecimal = |text: &String| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !thumbprints.iter().all(hexadecimal) {
        return Err(IamError::invalid_input_exception(
            "Thumbprints must be 40 hexadecimal digits.",
        ));
    }
    Ok(())
}

fn check_client_ids(ids: &[String]) -> Result<(), IamError> {
    if ids.len() > MAX_CLIENT_IDS {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {MAX_CLIENT_IDS}"
        )));
    }
    Ok(())
}
