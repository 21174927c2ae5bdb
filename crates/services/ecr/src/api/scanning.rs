//! When images are to be scanned: settings that are kept. There is no scanner, so a scan is
//! refused and has no findings.

use gantry_api::RequestContext;
use gantry_api::ecr::{
    BatchGetRepositoryScanningConfigurationRequest,
    BatchGetRepositoryScanningConfigurationResponse, DescribeImageScanFindingsRequest,
    DescribeImageScanFindingsResponse, EcrError, GetRegistryScanningConfigurationRequest,
    GetRegistryScanningConfigurationResponse, ImageIdentifier, ImageScanningConfiguration,
    PutImageScanningConfigurationRequest, PutImageScanningConfigurationResponse,
    PutRegistryScanningConfigurationRequest, PutRegistryScanningConfigurationResponse,
    RegistryScanningConfiguration, RegistryScanningRule, RepositoryScanningConfiguration,
    RepositoryScanningConfigurationFailure, ScanFrequency, ScanType,
    ScanningConfigurationFailureCode, StartImageScanRequest, StartImageScanResponse,
};
use gantry_store::{Snapshot, Transaction};

use super::images::not_found;
use super::{Found, not_built};
use crate::EcrService;
use crate::layers::Place;
use crate::model::immutability::wildcard;
use crate::tables::{ONLY, RegistryScanningRow, RepositoryRow};

impl EcrService {
    pub(super) async fn put_scanning(
        &self,
        ctx: &RequestContext,
        input: PutImageScanningConfigurationRequest,
    ) -> Result<PutImageScanningConfigurationResponse, EcrError> {
        let scan_on_push = input.image_scanning_configuration.scan_on_push;
        let scanning = ImageScanningConfiguration {
            scan_on_push: Some(scan_on_push.unwrap_or(false)),
        };
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let action = "PutImageScanningConfiguration";
        let (found, ()) = self
            .change_beside(ctx, registry, action, name, |found, transaction| {
                let row = RepositoryRow {
                    scanning: scanning.clone(),
                    ..RepositoryRow::clone(&found.repository.row)
                };
                transaction.update::<RepositoryRow>(&found.repository, &row);
                Ok(())
            })
            .await?;
        Ok(PutImageScanningConfigurationResponse {
            image_scanning_configuration: Some(scanning),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) fn repositories_scanning(
        &self,
        ctx: &RequestContext,
        input: BatchGetRepositoryScanningConfigurationRequest,
    ) -> Result<BatchGetRepositoryScanningConfigurationResponse, EcrError> {
        let (mut configurations, mut failures) = (Vec::new(), Vec::new());
        for name in &input.repository_names {
            let action = "BatchGetRepositoryScanningConfiguration";
            match self.find(ctx, None, action, name) {
                Ok(found) => configurations.push(scanning_of(&found)),
                Err(EcrError::RepositoryNotFoundException(exception)) => {
                    failures.push(RepositoryScanningConfigurationFailure {
                        failure_code: Some(ScanningConfigurationFailureCode::RepositoryNotFound),
                        failure_reason: exception.message,
                        repository_name: Some(name.clone()),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(BatchGetRepositoryScanningConfigurationResponse {
            failures: Some(failures),
            scanning_configurations: Some(configurations),
        })
    }

    pub(super) async fn put_registry_scanning(
        &self,
        ctx: &RequestContext,
        input: PutRegistryScanningConfigurationRequest,
    ) -> Result<PutRegistryScanningConfigurationResponse, EcrError> {
        match input.scan_type {
            None | Some(ScanType::Basic) => {}
            Some(other) => {
                return Err(not_built(&format!("scanType {} of ecr", other.as_str())));
            }
        }
        let rules = input.rules.unwrap_or_default();
        for rule in &rules {
            if !matches!(
                rule.scan_frequency,
                ScanFrequency::ScanOnPush | ScanFrequency::Manual
            ) {
                return Err(EcrError::invalid_parameter_exception(format!(
                    "Invalid parameter at 'rules' failed to satisfy constraint: 'scanFrequency {} does not go with scanType BASIC'",
                    rule.scan_frequency.as_str()
                )));
            }
        }
        let place = Self::place(ctx, None, "PutRegistryScanningConfiguration", "*")?;
        let row = RegistryScanningRow { rules };
        let mut transaction = Transaction::new();
        transaction.write::<RegistryScanningRow>(&place.account, &place.region, ONLY, &row);
        self.state.commit(transaction).await?;
        Ok(PutRegistryScanningConfigurationResponse {
            registry_scanning_configuration: Some(basic(row.rules)),
        })
    }

    pub(super) fn get_registry_scanning(
        &self,
        ctx: &RequestContext,
        _: GetRegistryScanningConfigurationRequest,
    ) -> Result<GetRegistryScanningConfigurationResponse, EcrError> {
        let place = Self::place(ctx, None, "GetRegistryScanningConfiguration", "*")?;
        let rules = rules_of(&self.state.store.snapshot(), &place);
        Ok(GetRegistryScanningConfigurationResponse {
            registry_id: Some(place.account.to_string()),
            scanning_configuration: Some(basic(rules)),
        })
    }

    pub(super) fn start_scan(
        &self,
        ctx: &RequestContext,
        input: StartImageScanRequest,
    ) -> Result<StartImageScanResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "StartImageScan", &input.repository_name)?;
        self.image_of(&found, &input.image_id)?;
        Err(not_built(
            "ecr:StartImageScan needs a scanner of images, which",
        ))
    }

    pub(super) fn scan_findings(
        &self,
        ctx: &RequestContext,
        input: DescribeImageScanFindingsRequest,
    ) -> Result<DescribeImageScanFindingsResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(
            ctx,
            registry,
            "DescribeImageScanFindings",
            &input.repository_name,
        )?;
        self.image_of(&found, &input.image_id)?;
        // Nothing was ever scanned, so this is what ECR would say as well.
        let text = |part: &Option<String>| part.clone().unwrap_or_else(|| "null".to_owned());
        Err(EcrError::scan_not_found_exception(format!(
            "Image scan does not exist for the image with '{{imageDigest:'{}', imageTag:'{}'}}' in the repository with name '{}' in the registry with id '{}'. Gantry has no scanner of images yet.",
            text(&input.image_id.image_digest),
            text(&input.image_id.image_tag),
            found.name,
            found.place.account
        )))
    }

    fn image_of(&self, found: &Found, id: &ImageIdentifier) -> Result<(), EcrError> {
        match self.resolve(found, id) {
            Ok(_) => Ok(()),
            Err(_) => Err(EcrError::image_not_found_exception(not_found(found, id))),
        }
    }
}

fn basic(rules: Vec<RegistryScanningRule>) -> RegistryScanningConfiguration {
    RegistryScanningConfiguration {
        rules: Some(rules),
        scan_type: Some(ScanType::Basic),
    }
}

fn rules_of(snapshot: &Snapshot, place: &Place) -> Vec<RegistryScanningRule> {
    let row = snapshot.read::<RegistryScanningRow>(&place.account, &place.region, ONLY);
    row.map(|row| row.rules.clone()).unwrap_or_default()
}

/// What holds for a repository: the registry's filters, or else its own setting.
fn scanning_of(found: &Found) -> RepositoryScanningConfiguration {
    let rules = rules_of(&found.snapshot, &found.place);
    let on_push = rules
        .into_iter()
        .filter(|rule| rule.scan_frequency == ScanFrequency::ScanOnPush);
    let mut filters: Vec<_> = on_push.flat_map(|rule| rule.repository_filters).collect();
    // A filter without a wildcard names all that contains it, as at ECR.
    filters.retain(|it| match it.filter.contains('*') {
        true => wildcard(&it.filter, found.name.as_str()),
        false => found.name.as_str().contains(&it.filter),
    });
    let scan_on_push = !filters.is_empty() || found.repository.scanning.scan_on_push == Some(true);
    RepositoryScanningConfiguration {
        applied_scan_filters: Some(filters),
        repository_arn: Some(EcrService::arn(&found.place, &found.name)),
        repository_name: Some(found.name.to_string()),
        scan_frequency: Some(match scan_on_push {
            true => ScanFrequency::ScanOnPush,
            false => ScanFrequency::Manual,
        }),
        scan_on_push: Some(scan_on_push),
    }
}
