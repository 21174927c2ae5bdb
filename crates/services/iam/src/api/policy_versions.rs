//! Versions of a managed policy: at most five, numbers never used again.

use gantry_api::iam::{self, IamError};

use super::policies::{self, Found};
use super::{Change, View};
use crate::model::document::url_encode;
use crate::model::managed::{self, ManagedPolicy};
use crate::tables::{PolicyRow, PolicyVersionRow};

const MAX_VERSIONS: usize = 5;

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreatePolicyVersionRequest,
) -> Result<Change<iam::CreatePolicyVersionResponse>, IamError> {
    let policy = policies::own(view, &input.policy_arn)?;
    policies::check_document(&input.policy_document)?;
    if policy.versions.len() >= MAX_VERSIONS {
        return Err(IamError::limit_exceeded_exception(
            "A managed policy can have up to 5 versions. Before you create a new version, you \
             must delete an existing version.",
        ));
    }
    let mut row = PolicyRow::clone(&policy);
    let number = row.next_version;
    row.next_version += 1;
    row.versions.insert(
        number,
        PolicyVersionRow {
            document: input.policy_document.clone(),
            created_at: view.now,
        },
    );
    row.updated_at = view.now;
    let is_default = input.set_as_default == Some(true);
    if is_default {
        row.default_version = number;
    }
    let output = iam::CreatePolicyVersionResponse {
        policy_version: Some(iam::PolicyVersion {
            document: None,
            version_id: Some(format!("v{number}")),
            is_default_version: Some(is_default),
            create_date: Some(view.now),
        }),
    };
    Ok(policies::write(&policy, &row, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetPolicyVersionRequest,
) -> Result<iam::GetPolicyVersionResponse, IamError> {
    let version = match policies::find(view, &input.policy_arn)? {
        Found::Own(policy) => {
            let number = number_of(&policy, &input.policy_arn, &input.version_id)?;
            let version = &policy.versions[&number];
            shown(
                &policy,
                number,
                version,
                Some(url_encode(&version.document)),
            )
        }
        Found::Aws(policy) if input.version_id == managed::VERSION => shown_aws(policy),
        Found::Aws(_) => return Err(no_such_version(&input.policy_arn, &input.version_id)),
    };
    Ok(iam::GetPolicyVersionResponse {
        policy_version: Some(version),
    })
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListPolicyVersionsRequest,
) -> Result<iam::ListPolicyVersionsResponse, IamError> {
    // Newest first, as AWS lists them; named by how far each is from the newest there can be.
    let versions = match policies::find(view, &input.policy_arn)? {
        Found::Own(policy) => policy
            .versions
            .iter()
            .rev()
            .map(|(number, version)| {
                let name = format!("{:010}", u32::MAX - number);
                (name, shown(&policy, *number, version, None))
            })
            .collect(),
        Found::Aws(policy) => vec![(
            String::from("only"),
            iam::PolicyVersion {
                document: None,
                version_id: Some(managed::VERSION.to_owned()),
                is_default_version: Some(true),
                create_date: Some(policy.created_at()),
            },
        )],
    };
    let scope = format!("versions/{}", input.policy_arn);
    let page = view.page(versions, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListPolicyVersionsResponse {
        is_truncated: Some(page.marker.is_some()),
        marker: page.marker,
        versions: Some(page.items),
    })
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeletePolicyVersionRequest,
) -> Result<Change<()>, IamError> {
    let policy = policies::own(view, &input.policy_arn)?;
    let number = number_of(&policy, &input.policy_arn, &input.version_id)?;
    if number == policy.default_version {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete the default version of a policy.",
        ));
    }
    let mut row = PolicyRow::clone(&policy);
    row.versions.remove(&number);
    row.updated_at = view.now;
    Ok(policies::write(&policy, &row, ()))
}

pub(super) fn set_default(
    view: &View<'_>,
    input: &iam::SetDefaultPolicyVersionRequest,
) -> Result<Change<()>, IamError> {
    let policy = policies::own(view, &input.policy_arn)?;
    let mut row = PolicyRow::clone(&policy);
    row.default_version = number_of(&policy, &input.policy_arn, &input.version_id)?;
    if row.default_version != policy.default_version {
        row.updated_at = view.now;
    }
    Ok(policies::write(&policy, &row, ()))
}

fn number_of(policy: &PolicyRow, arn: &str, version: &str) -> Result<u32, IamError> {
    version
        .strip_prefix('v')
        .and_then(|number| number.parse().ok())
        .filter(|number| policy.versions.contains_key(number))
        .ok_or_else(|| no_such_version(arn, version))
}

fn no_such_version(arn: &str, version: &str) -> IamError {
    IamError::no_such_entity_exception(format!(
        "Policy {arn} version {version} does not exist or is not attachable."
    ))
}

/// Every version with its document, newest first.
pub(super) fn all_whole(policy: &PolicyRow) -> Vec<iam::PolicyVersion> {
    let versions = policy.versions.iter().rev();
    versions
        .map(|(number, version)| {
            let document = Some(url_encode(&version.document));
            shown(policy, *number, version, document)
        })
        .collect()
}

/// The only version of a policy of AWS.
pub(super) fn shown_aws(policy: &ManagedPolicy) -> iam::PolicyVersion {
    iam::PolicyVersion {
        document: Some(url_encode(policy.document)),
        version_id: Some(managed::VERSION.to_owned()),
        is_default_version: Some(true),
        create_date: Some(policy.created_at()),
    }
}

fn shown(
    policy: &PolicyRow,
    number: u32,
    version: &PolicyVersionRow,
    document: Option<String>,
) -> iam::PolicyVersion {
    iam::PolicyVersion {
        document,
        version_id: Some(format!("v{number}")),
        is_default_version: Some(number == policy.default_version),
        create_date: Some(version.created_at),
    }
}
