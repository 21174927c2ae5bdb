//! Whether an image is in Gantry's own registry, read from its name.
//!
//! What always holds: `ACCOUNT.dkr.ecr.REGION.…` is ECR's whatever the domain, and so is a name under
//! the host that the agent joined through. Every other name is some other registry's.
//! What it leaves to others: reaching the registry (agents map ECR's names to their endpoint).

use gantry_api::acs::{AuthenticationType, EcrAuthData, RegistryAuthentication};
use gantry_arn::{AccountId, Region};

/// Where a session's agent finds the registry, and whose it is.
#[derive(Clone, Debug)]
pub struct RegistryNames {
    pub account: AccountId,
    pub region: Region,
    /// `HOST:PORT` as the agent connected.
    pub joined: Option<String>,
}

impl RegistryNames {
    /// How to log in for this image. None for a registry that is not ECR.
    pub fn authentication(
        &self,
        image: &str,
        execution_role: bool,
    ) -> Option<RegistryAuthentication> {
        let (host, _) = image.split_once('/')?;
        let (registry_id, region) = match ecr_host(host) {
            Some((account, region)) => (account.to_owned(), region.to_owned()),
            None if self.is_joined(host) => (self.account.to_string(), self.region.to_string()),
            None => return None,
        };
        Some(RegistryAuthentication {
            asm_auth_data: None,
            ecr_auth_data: Some(EcrAuthData {
                endpoint_override: self.joined.as_ref().map(|host| format!("http://{host}")),
                region: Some(region),
                registry_id: Some(registry_id),
                use_execution_role: execution_role.then_some(true),
            }),
            kind: Some(AuthenticationType::Ecr),
        })
    }

    fn is_joined(&self, host: &str) -> bool {
        let Some(joined) = &self.joined else {
            return false;
        };
        let port = |name: &str| name.rsplit_once(':').map(|(_, port)| port.to_owned());
        let loopback = |name: &str| {
            matches!(
                name.rsplit_once(':').map_or(name, |(h, _)| h),
                "localhost" | "127.0.0.1" | "[::1]"
            )
        };
        host == joined || (loopback(host) && loopback(joined) && port(host) == port(joined))
    }
}

/// The account and region of `ACCOUNT.dkr.ecr.REGION.DOMAIN`.
fn ecr_host(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once(".dkr.ecr.")?;
    let (region, _) = rest.split_once('.')?;
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (digits && !region.is_empty()).then_some((account, region))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> RegistryNames {
        RegistryNames {
            account: AccountId::default(),
            region: Region::default(),
            joined: Some("127.0.0.1:4566".to_owned()),
        }
    }

    fn of(image: &str) -> Option<(String, String)> {
        let data = names().authentication(image, false)?.ecr_auth_data?;
        Some((data.registry_id?, data.region?))
    }

    #[test]
    fn every_form_of_an_ecr_image_is_known() {
        let own = Some(("000000000000".to_owned(), "us-east-1".to_owned()));
        assert_eq!(of("localhost:4566/app:1"), own);
        assert_eq!(of("127.0.0.1:4566/team/app@sha256:00"), own);
        assert_eq!(
            of("123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1"),
            Some(("123456789012".to_owned(), "eu-west-1".to_owned()))
        );
    }

    #[test]
    fn other_registries_are_left_alone() {
        for image in [
            "busybox",
            "library/busybox",
            "localhost:5000/app",
            "quay.io/x/y:1",
            "x.dkr.ecr.us-east-1.amazonaws.com/y",
        ] {
            assert_eq!(of(image), None, "{image}");
        }
    }
}
