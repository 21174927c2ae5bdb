//! The roles that belong to services: there from the start, and changed by nobody else.

use gantry_arn::{AccountId, Arn, Region};
use gantry_env::Env;
use gantry_store::{Snapshot, Transaction};

use crate::model::ids::{IdKind, unique_id};
use crate::tables::{RoleRow, Roles, row_name};

/// The role as which the agent of this machine calls.
pub const NODE_ROLE: &str = "AWSServiceRoleForGantryNode";
/// The role as which ECS calls other services.
pub const ECS_ROLE: &str = "AWSServiceRoleForECS";

/// A service that has a role of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLinked {
    pub service: &'static str,
    pub role: &'static str,
    pub policy: Option<&'static str>,
    /// What the role says of itself that is there before anybody asks for it; `None`: it is made when somebody
    /// does, and says what they say.
    from_the_start: Option<&'static str>,
}

/// The services of which CreateServiceLinkedRole knows what their role is called.
const SERVICES: [ServiceLinked; 5] = [
    ServiceLinked {
        service: "ecs.amazonaws.com",
        role: ECS_ROLE,
        policy: Some("arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy"),
        from_the_start: Some("Role to enable Amazon ECS to manage your cluster."),
    },
    ServiceLinked {
        service: "node.gantry.internal",
        role: NODE_ROLE,
        policy: Some("arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"),
        from_the_start: Some("Role of the agent that runs tasks on this machine."),
    },
    ServiceLinked {
        service: "ecs.application-autoscaling.amazonaws.com",
        role: "AWSServiceRoleForApplicationAutoScaling_ECSService",
        policy: Some(
            "arn:aws:iam::aws:policy/aws-service-role/AWSApplicationAutoscalingECSServicePolicy",
        ),
        from_the_start: None,
    },
    ServiceLinked {
        service: "elasticloadbalancing.amazonaws.com",
        role: "AWSServiceRoleForElasticLoadBalancing",
        policy: None,
        from_the_start: None,
    },
    ServiceLinked {
        service: "autoscaling.amazonaws.com",
        role: "AWSServiceRoleForAutoScaling",
        policy: None,
        from_the_start: None,
    },
];

pub fn find(service: &str) -> Option<&'static ServiceLinked> {
    SERVICES.iter().find(|linked| linked.service == service)
}

/// Whether Gantry itself works as the role of this service.
pub(crate) fn is_from_the_start(service: &str) -> bool {
    find(service).is_some_and(|linked| linked.from_the_start.is_some())
}

/// Adds to the transaction the roles that are there from the start and are missing. Returns the
/// id of the node's role.
pub(crate) fn create_missing(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    account: &AccountId,
    env: &Env,
) -> String {
    let mut node_role_id = String::new();
    for linked in &SERVICES {
        let Some(description) = linked.from_the_start else {
            continue;
        };
        let name = row_name(linked.role);
        let id = match snapshot.read::<Roles>(account, &Region::global(), &name) {
            Some(role) => role.id.clone(),
            None => {
                let role = linked.row(account, None, Some(description.to_owned()), env);
                transaction.create::<Roles>(account, &Region::global(), &name, &role);
                role.id
            }
        };
        if linked.role == NODE_ROLE {
            node_role_id = id;
        }
    }
    node_role_id
}

impl ServiceLinked {
    /// The role's row, made now.
    pub(crate) fn row(
        &self,
        account: &AccountId,
        suffix: Option<&str>,
        description: Option<String>,
        env: &Env,
    ) -> RoleRow {
        let mut random = [0; 32];
        env.entropy.fill(&mut random);
        let name = match suffix {
            Some(suffix) => format!("{}_{suffix}", self.role),
            None => self.role.to_owned(),
        };
        let path = format!("/aws-service-role/{}/", self.service);
        RoleRow {
            arn: Arn::global("iam", account, format!("role{path}{name}")),
            id: unique_id(IdKind::Role, random),
            created_at: env.now(),
            trust_policy: format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Service":"{}"}},"Action":"sts:AssumeRole"}}]}}"#,
                self.service
            ),
            description,
            max_session_duration_s: 3600,
            permissions_boundary: None,
            tags: Default::default(),
            attached: self.policy.map(str::to_owned).into_iter().collect(),
            inline: Default::default(),
            linked_to: Some(self.service.to_owned()),
            name,
            path,
        }
    }
}
