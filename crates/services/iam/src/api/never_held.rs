//! What no user holds here: passwords, SSH keys, signing certificates, service-specific credentials and MFA devices.
//!
//! What always holds: nothing makes any of them (each such operation is refused by its name), so that there are none is
//! the truth, and whoever removes a user and all it has can ask first.

use gantry_api::iam::{self, IamError};

use super::{Change, View};

/// Where a user is named, it must be there.
fn none<T>(view: &View<'_>, user: Option<&str>) -> Result<Vec<T>, IamError> {
    view.user_or_caller(user)?;
    Ok(Vec::new())
}

pub(super) fn mfa_devices(
    view: &View<'_>,
    input: &iam::ListMFADevicesRequest,
) -> Result<iam::ListMFADevicesResponse, IamError> {
    Ok(iam::ListMFADevicesResponse {
        mfa_devices: none(view, input.user_name.as_deref())?,
        is_truncated: Some(false),
        marker: None,
    })
}

pub(super) fn virtual_mfa_devices(
    _: &View<'_>,
    _: &iam::ListVirtualMFADevicesRequest,
) -> Result<iam::ListVirtualMFADevicesResponse, IamError> {
    Ok(iam::ListVirtualMFADevicesResponse {
        virtual_mfa_devices: Vec::new(),
        is_truncated: Some(false),
        marker: None,
    })
}

pub(super) fn ssh_public_keys(
    view: &View<'_>,
    input: &iam::ListSSHPublicKeysRequest,
) -> Result<iam::ListSSHPublicKeysResponse, IamError> {
    Ok(iam::ListSSHPublicKeysResponse {
        ssh_public_keys: Some(none(view, input.user_name.as_deref())?),
        is_truncated: Some(false),
        marker: None,
    })
}

pub(super) fn signing_certificates(
    view: &View<'_>,
    input: &iam::ListSigningCertificatesRequest,
) -> Result<iam::ListSigningCertificatesResponse, IamError> {
    Ok(iam::ListSigningCertificatesResponse {
        certificates: none(view, input.user_name.as_deref())?,
        is_truncated: Some(false),
        marker: None,
    })
}

pub(super) fn service_specific_credentials(
    view: &View<'_>,
    input: &iam::ListServiceSpecificCredentialsRequest,
) -> Result<iam::ListServiceSpecificCredentialsResponse, IamError> {
    let credentials = match input.all_users {
        Some(true) => Vec::new(),
        _ => none(view, input.user_name.as_deref())?,
    };
    Ok(iam::ListServiceSpecificCredentialsResponse {
        service_specific_credentials: Some(credentials),
        is_truncated: Some(false),
        marker: None,
    })
}

pub(super) fn login_profile(
    view: &View<'_>,
    input: &iam::GetLoginProfileRequest,
) -> Result<iam::GetLoginProfileResponse, IamError> {
    Err(no_login_profile(view, input.user_name.as_deref()))
}

pub(super) fn delete_login_profile(
    view: &View<'_>,
    input: &iam::DeleteLoginProfileRequest,
) -> Result<Change<()>, IamError> {
    Err(no_login_profile(view, input.user_name.as_deref()))
}

fn no_login_profile(view: &View<'_>, user: Option<&str>) -> IamError {
    match view.user_or_caller(user) {
        Ok(user) => {
            let name = user.map_or_else(|| "root".to_owned(), |user| user.name.clone());
            IamError::no_such_entity_exception(format!(
                "Login Profile for User {name} cannot be found."
            ))
        }
        Err(error) => error,
    }
}
