//! How an image's registry is logged in to.
//!
//! What it leaves to others: getting the password (the shell).

use gantry_api::acs::{self, AuthenticationType};

use super::unknown::not_built;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryAccess {
    Anonymous,
    /// A registry of ECR, through the endpoint that this agent joined.
    Ecr {
        registry_id: Option<String>,
        region: Option<String>,
        endpoint_override: Option<String>,
        use_execution_role: bool,
    },
}

pub(super) fn registry_access(
    authentication: Option<&acs::RegistryAuthentication>,
    name: &str,
) -> Result<RegistryAccess, String> {
    let Some(acs::RegistryAuthentication {
        asm_auth_data: _,
        ecr_auth_data,
        kind,
    }) = authentication
    else {
        return Ok(RegistryAccess::Anonymous);
    };
    match kind {
        Some(AuthenticationType::Ecr) => {
            let acs::EcrAuthData {
                endpoint_override,
                region,
                registry_id,
                use_execution_role,
            } = ecr_auth_data.clone().unwrap_or_default();
            Ok(RegistryAccess::Ecr {
                registry_id,
                region,
                endpoint_override,
                use_execution_role: use_execution_role.unwrap_or(false),
            })
        }
        None => Ok(RegistryAccess::Anonymous),
        Some(AuthenticationType::Asm) => Err(not_built(
            "container member",
            "repositoryCredentials",
            Some(name),
        )),
        Some(AuthenticationType::Unknown(other)) => {
            Err(not_built("registryAuthentication type", other, Some(name)))
        }
    }
}
