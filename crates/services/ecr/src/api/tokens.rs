//! GetAuthorizationToken.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::ecr::{
    AuthorizationData, EcrError, GetAuthorizationTokenRequest, GetAuthorizationTokenResponse,
};
use gantry_api::{ApiError, RequestContext};

use crate::EcrService;
use crate::model::token::Grant;

/// The user name that goes with every password.
pub const USER: &str = "AWS";

impl EcrService {
    pub(super) fn authorize(
        &self,
        ctx: &RequestContext,
        input: GetAuthorizationTokenRequest,
    ) -> Result<GetAuthorizationTokenResponse, EcrError> {
        let registries = match input.registry_ids {
            Some(ids) if !ids.is_empty() => ids,
            _ => vec![ctx.account.to_string()],
        };
        let data = registries.iter().map(|registry| {
            Self::place(ctx, Some(registry), "GetAuthorizationToken", "*")?;
            self.authorization(ctx)
        });
        let data = data.collect::<Result<_, EcrError>>()?;
        Ok(GetAuthorizationTokenResponse {
            authorization_data: Some(data),
        })
    }

    fn authorization(&self, ctx: &RequestContext) -> Result<AuthorizationData, EcrError> {
        let expires_at = ctx.now + self.state.options.token_lifetime;
        let grant = Grant {
            account: ctx.account,
            region: ctx.region.clone(),
            principal: ctx.principal.arn.to_string(),
            expires_at,
        };
        let password = grant
            .password(&self.token_key)
            .map_err(ApiError::internal)?;
        Ok(AuthorizationData {
            authorization_token: Some(STANDARD.encode(format!("{USER}:{password}"))),
            expires_at: Some(expires_at),
            proxy_endpoint: Some(endpoint(ctx)),
        })
    }
}

/// This registry's address, by the name with which the caller found it.
pub(super) fn endpoint(ctx: &RequestContext) -> String {
    let host = EcrService::host(ctx);
    // Off loopback the endpoint speaks TLS (design: one port, both by sniffing).
    let scheme = if is_loopback(host) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_names_are_known() {
        for host in ["localhost:4566", "127.0.0.1", "[::1]:80", "x.localhost:1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1:4566", "localhost.example.com", "[fe80::1]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
