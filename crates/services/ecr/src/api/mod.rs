//! The ECR API: wire type in, transaction on the store, wire type out.
//!
//! What it leaves to others: constraints of the model (the dispatcher checks them before), and
//! the bytes of layers, which go over the distribution API (`registry`).

mod deletion;
mod images;
mod layers;
mod lifecycle;
mod operations;
mod policies;
mod pushing;
mod referrers;
mod repositories;
mod scanning;
mod settings;
mod tags;
mod templates;
mod tokens;

use gantry_api::ecr::EcrError;
use gantry_api::{ApiError, RequestContext};
use gantry_arn::{Arn, RepositoryName};
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::EcrService;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::registry_state::RegistryState;
use crate::tables::RepositoryRow;

/// Both the default and what most lists of ECR allow at once.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// A repository as an operation found it.
struct Found {
    place: Place,
    name: RepositoryName,
    snapshot: Snapshot,
    repository: Versioned<RepositoryRow>,
}

impl EcrService {
    /// The registry that is meant. Another account's is closed: repositories' policies are what
    /// would open it, and they are not built.
    fn place(
        ctx: &RequestContext,
        registry: Option<&str>,
        action: &str,
        name: &str,
    ) -> Result<Place, EcrError> {
        match registry {
            Some(registry) if registry != ctx.account.as_str() => {
                let principal = &ctx.principal.arn;
                let (partition, region) = (ctx.region.partition().as_str(), &ctx.region);
                let resource = format!("arn:{partition}:ecr:{region}:{registry}:repository/{name}");
                let message = format!(
                    "User: {principal} is not authorized to perform: ecr:{action} on resource: {resource} because no resource-based policy allows the ecr:{action} action"
                );
                Err(ApiError::sender("AccessDeniedException", message).into())
            }
            _ => Ok(Place {
                account: ctx.account,
                region: ctx.region.clone(),
            }),
        }
    }

    fn find(
        &self,
        ctx: &RequestContext,
        registry: Option<&str>,
        action: &str,
        name: &str,
    ) -> Result<Found, EcrError> {
        let place = Self::place(ctx, registry, action, name)?;
        let name = repository_name(name)?;
        let snapshot = self.state.store.snapshot();
        let repository = self.state.repository(&snapshot, &place, &name)?;
        Ok(Found {
            place,
            name,
            snapshot,
            repository,
        })
    }

    /// Commits what `change` writes about a repository, decided anew for as long as somebody
    /// else is faster. The repository must still be as it was found.
    async fn change_beside<R>(
        &self,
        ctx: &RequestContext,
        registry: Option<&str>,
        action: &str,
        name: &str,
        change: impl Fn(&Found, &mut Transaction) -> Result<R, EcrError>,
    ) -> Result<(Found, R), EcrError> {
        for _ in 0..RegistryState::TRIES {
            let found = self.find(ctx, registry, action, name)?;
            let mut transaction = Transaction::new();
            transaction.expect_read(&found.repository);
            let result = change(&found, &mut transaction)?;
            if self.state.commit(transaction).await? {
                return Ok((found, result));
            }
        }
        Err(RegistryError::Contended.into())
    }

    /// The name by which the caller reaches this registry.
    fn host(ctx: &RequestContext) -> &str {
        ctx.host.as_deref().unwrap_or("localhost:4566")
    }

    fn arn(place: &Place, name: &RepositoryName) -> String {
        Arn::new(
            "ecr",
            &place.region,
            &place.account,
            format!("repository/{name}"),
        )
        .to_string()
    }
}

fn repository_name(name: &str) -> Result<RepositoryName, EcrError> {
    RepositoryName::new(name).map_err(|_| {
        EcrError::invalid_parameter_exception(
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*''",
        )
    })
}

fn page_limit(max_results: Option<i32>) -> usize {
    max_results
        .and_then(|limit| usize::try_from(limit).ok())
        .map_or(PAGE, |limit| limit.clamp(1, PAGE_MAX))
}

/// A part of an operation that AWS has and Gantry does not yet.
fn not_built(what: &str) -> EcrError {
    let message = format!("{what} is not built in Gantry yet");
    ApiError {
        message,
        ..ApiError::not_built("ecr", "")
    }
    .into()
}

fn invalid_token() -> EcrError {
    EcrError::invalid_parameter_exception(
        "Invalid parameter at 'NextToken' failed to satisfy constraint: 'Invalid Pagination Token'",
    )
}

impl From<RegistryError> for EcrError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::RepositoryUnknown { .. } => {
                EcrError::repository_not_found_exception(message)
            }
            RegistryError::ManifestUnknown(_) => EcrError::image_not_found_exception(message),
            RegistryError::LayersMissing(_) | RegistryError::BlobUnknown(_) => {
                EcrError::layers_not_found_exception(message)
            }
            RegistryError::ImagesMissing(_) => {
                EcrError::referenced_images_not_found_exception(message)
            }
            RegistryError::TagImmutable { .. } => {
                EcrError::image_tag_already_exists_exception(message)
            }
            RegistryError::DigestMismatch { .. } => {
                EcrError::image_digest_does_not_match_exception(message)
            }
            RegistryError::ManifestInvalid(_) | RegistryError::LayerSize { .. } => {
                EcrError::invalid_parameter_exception(format!(
                    "Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{message}'"
                ))
            }
            RegistryError::TooManyUploads => EcrError::limit_exceeded_exception(message),
            RegistryError::UploadUnknown => EcrError::upload_not_found_exception(message),
            RegistryError::Upload(_)
            | RegistryError::LayerNeeded { .. }
            | RegistryError::ReferencedByIndex(_) => EcrError::invalid_parameter_exception(message),
            RegistryError::Body(_)
            | RegistryError::Storage(_)
            | RegistryError::Store(_)
            | RegistryError::Contended => ApiError::internal(error).into(),
        }
    }
}
