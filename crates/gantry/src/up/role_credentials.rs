//! What a task's roles are worth: sessions that IAM issues.

use async_trait::async_trait;
use gantry_api::RequestContext;
use gantry_api::acs::{RoleCredentials as Issued, RoleType};
use gantry_ecs::acs::{RoleCredentials, RoleRefusal};
use gantry_iam::{Credentials, Nodes, RoleSessionError, TASK_SESSION};

/// Issues them through IAM.
pub struct IamRoleCredentials {
    credentials: Credentials,
    nodes: Nodes,
}

impl IamRoleCredentials {
    pub fn new(credentials: Credentials, nodes: Nodes) -> IamRoleCredentials {
        IamRoleCredentials { credentials, nodes }
    }
}

#[async_trait]
impl RoleCredentials for IamRoleCredentials {
    async fn assume(
        &self,
        _context: &RequestContext,
        role_arn: &str,
        role: &RoleType,
        task_arn: &str,
    ) -> Result<Issued, RoleRefusal> {
        // As at AWS, the session is named after the task.
        let task = task_arn.rsplit('/').next().unwrap_or(task_arn);
        // The address where containers get their credentials is made of this id and stays the same for as
        // long as they run, so it does when the credentials are renewed.
        let id = match self
            .nodes
            .unguessable(&format!("{role:?} {task_arn}"))
            .await
        {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(%error, "the credentials of a role could not be issued");
                return Err(RoleRefusal::Unavailable);
            }
        };
        match self
            .credentials
            .issue_role_session(role_arn, task, TASK_SESSION)
            .await
        {
            Ok(session) => Ok(Issued {
                credentials_id: Some(id),
                role_arn: Some(role_arn.to_owned()),
                access_key_id: Some(session.access_key_id),
                secret_access_key: Some(session.secret_access_key),
                session_token: Some(session.session_token),
                expiration: Some(session.expiration.to_string()),
            }),
            Err(RoleSessionError::Store(error)) => {
                tracing::warn!(task = task_arn, role = role_arn, %error, "the credentials of a role could not be issued");
                Err(RoleRefusal::Unavailable)
            }
            Err(error) => {
                tracing::warn!(task = task_arn, role = role_arn, %error, "the role of a task cannot be assumed");
                Err(RoleRefusal::Unassumable)
            }
        }
    }
}
