//! Who a node is: the principal that an agent's own credentials stand for.
//!
//! What always holds: a node's principal is a session of the node role, and its session's name says
//! which node it is and which cluster, in which region, it may join. So nobody has to look anything
//! up to know what a node may do, and an access log names the node.
//! What it leaves to others: issuing the credentials (`services/iam`), and what a node may do with
//! them (`gantry_ecs::acs::permissions`).

use gantry_arn::{AccountId, Arn, ClusterName, Region};

use crate::context::Principal;

/// The role as which agents call.
pub const NODE_ROLE: &str = "AWSServiceRoleForGantryNode";

/// One node: an agent that joined one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePrincipal {
    pub account: AccountId,
    pub region: Region,
    pub cluster: ClusterName,
    /// Hexadecimal digits, drawn when it joined.
    pub node: String,
}

impl NodePrincipal {
    /// `arn:aws:sts::ACCOUNT:assumed-role/AWSServiceRoleForGantryNode/NODE@REGION@CLUSTER`
    pub fn arn(&self) -> Arn {
        let NodePrincipal {
            account,
            region,
            cluster,
            node,
        } = self;
        let resource = format!("assumed-role/{NODE_ROLE}/{node}@{region}@{cluster}");
        Arn::global("sts", account, resource)
    }

    /// The node that calls, if it is one. A session of the node role whose name does not say all of
    /// this is nobody's: [`is_node`] still knows it, so it may do nothing.
    pub fn of(principal: &Principal) -> Option<NodePrincipal> {
        let session = session(&principal.arn)?;
        let mut parts = session.split('@');
        let (node, region, cluster) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || node.is_empty() {
            return None;
        }
        Some(NodePrincipal {
            account: principal.arn.account_id()?,
            region: region.parse().ok()?,
            cluster: cluster.parse().ok()?,
            node: node.to_owned(),
        })
    }
}

/// Whether this is a session of the node role, whatever it is called.
pub fn is_node(arn: &Arn) -> bool {
    session(arn).is_some()
}

fn session(arn: &Arn) -> Option<&str> {
    if arn.service != "sts" {
        return None;
    }
    let rest = arn.resource.strip_prefix("assumed-role/")?;
    rest.strip_prefix(NODE_ROLE)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(resource: &str) -> Principal {
        Principal {
            arn: Arn::global("sts", &AccountId::default(), resource),
            user_id: String::new(),
            access_key_id: String::new(),
        }
    }

    #[test]
    fn a_node_is_read_from_its_arn() {
        let node = NodePrincipal {
            account: AccountId::default(),
            region: Region::default(),
            cluster: "blue".parse().unwrap(),
            node: "0123456789abcdef".to_owned(),
        };
        let arn = node.arn();
        assert_eq!(
            arn.to_string(),
            "arn:aws:sts::000000000000:assumed-role/AWSServiceRoleForGantryNode/0123456789abcdef@us-east-1@blue"
        );
        let caller = Principal {
            arn,
            ..principal("")
        };
        assert_eq!(NodePrincipal::of(&caller), Some(node));
        assert!(is_node(&caller.arn));
    }

    #[test]
    fn others_are_no_nodes_and_a_half_named_session_is_nobody() {
        let role = principal("assumed-role/app/0123456789abcdef@us-east-1@blue");
        assert!(!is_node(&role.arn) && NodePrincipal::of(&role).is_none());
        let longer = principal("assumed-role/AWSServiceRoleForGantryNodeX/a@us-east-1@blue");
        assert!(!is_node(&longer.arn));
        for half in [
            "local",
            "a@us-east-1",
            "@us-east-1@blue",
            "a@us-east-1@blue@x",
            "a@@blue",
        ] {
            let caller = principal(&format!("assumed-role/{NODE_ROLE}/{half}"));
            assert!(is_node(&caller.arn), "{half}");
            assert_eq!(NodePrincipal::of(&caller), None, "{half}");
        }
    }
}
