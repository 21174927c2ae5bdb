//! How each registry is reached: ECR through the endpoint that this agent joined, with its password.
//!
//! What always holds: a password is asked for once and used until it is nearly over or a pull fails.
//! What it leaves to others: the pull.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use gantry_api::ecr;
use gantry_arn::TaskId;
use gantry_env::{Env, Timestamp};
use gantry_runtime::RegistryAccess;

use super::calls::Clients;
use crate::core::plan;

/// A password that ends sooner than this is not used for a pull, which may take long.
const PASSWORD_LEFT_MIN: Duration = Duration::from_secs(30 * 60);
/// What ECR's passwords are good for, where the answer does not say.
const PASSWORD_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

pub struct Registries {
    clients: Arc<Clients>,
    env: Env,
    passwords: Mutex<BTreeMap<PasswordKey, Password>>,
    /// Many pulls begin at once; one of them asks.
    asking: tokio::sync::Mutex<()>,
}

/// The registry's region and account, and the task whose execution role asks, if one does.
type PasswordKey = (String, String, Option<TaskId>);

#[derive(Clone)]
struct Password {
    user: String,
    password: String,
    expires_at: Timestamp,
}

impl Registries {
    pub fn new(clients: Arc<Clients>, env: Env) -> Registries {
        Registries {
            clients,
            env,
            passwords: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The error is the task's reason.
    pub async fn access(
        &self,
        task: TaskId,
        registry: &plan::RegistryAccess,
    ) -> Result<RegistryAccess, String> {
        let plan::RegistryAccess::Ecr {
            registry_id,
            region,
            endpoint_override: _,
            use_execution_role,
        } = registry
        else {
            return Ok(RegistryAccess::default());
        };
        let region = region.clone().unwrap_or_default();
        let account = registry_id.clone().unwrap_or_default();
        let role_of = use_execution_role.then_some(task);
        let key = (region.clone(), account.clone(), role_of);
        let password = match self.kept(&key) {
            Some(password) => password,
            None => {
                let _asking = self.asking.lock().await;
                match self.kept(&key) {
                    Some(password) => password,
                    None => {
                        let password = self
                            .ask(task, &region, &account, *use_execution_role)
                            .await?;
                        self.lock().insert(key, password.clone());
                        password
                    }
                }
            }
        };
        Ok(RegistryAccess {
            endpoint: Some(self.clients.endpoint().to_owned()),
            basic: Some((password.user, password.password)),
            bearer: None,
        })
    }

    fn kept(&self, key: &PasswordKey) -> Option<Password> {
        let kept = self.lock().get(key).cloned();
        kept.filter(|password| password.expires_at > self.env.now() + PASSWORD_LEFT_MIN)
    }

    /// Passwords for this registry are asked for again.
    pub fn forget(&self, registry: &plan::RegistryAccess) {
        if let plan::RegistryAccess::Ecr {
            registry_id,
            region,
            ..
        } = registry
        {
            let region = region.clone().unwrap_or_default();
            let account = registry_id.clone().unwrap_or_default();
            self.lock()
                .retain(|(r, a, _), _| *r != region || *a != account);
        }
    }

    async fn ask(
        &self,
        task: TaskId,
        region: &str,
        account: &str,
        use_execution_role: bool,
    ) -> Result<Password, String> {
        let failed = |cause: String| {
            format!(
                "CannotPullECRContainerError: the registry's authorization token could not be had: {cause}"
            )
        };
        let client = self
            .clients
            .for_task(task, region, use_execution_role)
            .map_err(|error| failed(error.to_string()))?;
        let request = ecr::GetAuthorizationTokenRequest {
            registry_ids: (!account.is_empty()).then(|| vec![account.to_owned()]),
        };
        let answer = client
            .call::<ecr::GetAuthorizationToken>(request)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let data = answer
            .authorization_data
            .unwrap_or_default()
            .into_iter()
            .next();
        let data = data.ok_or_else(|| failed("the answer is empty".to_owned()))?;
        let (user, password) = data
            .authorization_token
            .as_deref()
            .and_then(decode)
            .ok_or_else(|| failed("the answer is not a token".to_owned()))?;
        let expires_at = data
            .expires_at
            .unwrap_or_else(|| self.env.now() + PASSWORD_LIFE);
        Ok(Password {
            user,
            password,
            expires_at,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PasswordKey, Password>> {
        self.passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// `AWS:password` in base64.
fn decode(token: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(token)
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_user_and_a_password() {
        assert_eq!(
            decode("QVdTOmh1c2g6aHVzaA=="),
            Some(("AWS".into(), "hush:hush".into()))
        );
        assert_eq!(decode("%%"), None);
    }
}
