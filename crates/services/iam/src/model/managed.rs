//! The AWS-managed policies that users of ECS attach, the same in every account.
//!
//! They are not rows: they cannot be changed, have one version, and their ids are
//! derived from their names. The documents stand in `managed/`, written from the
//! actions that AWS documents for each; `ReadOnlyAccess` names the services that
//! ECS users meet and not every service of AWS. A policy that is not here does
//! not exist, and attaching it says so.

use gantry_env::Timestamp;

use crate::model::ids::{IdKind, fixed_id};

/// One AWS-managed policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedPolicy {
    pub name: &'static str,
    pub path: &'static str,
    pub document: &'static str,
    /// The day AWS introduced it, in days since the epoch.
    introduced_day: i64,
}

/// The only version of every AWS-managed policy here.
pub const VERSION: &str = "v1";

impl ManagedPolicy {
    pub fn arn(&self) -> String {
        format!("arn:aws:iam::aws:policy{}{}", self.path, self.name)
    }

    pub fn id(&self) -> String {
        fixed_id(IdKind::ManagedPolicy, self.name)
    }

    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_millis(self.introduced_day * 24 * 60 * 60 * 1000)
    }
}

/// The policy with exactly this ARN.
pub fn find(arn: &str) -> Option<&'static ManagedPolicy> {
    let name = arn
        .strip_prefix("arn:aws:iam::aws:policy/")?
        .rsplit('/')
        .next()?;
    let at = ALL.binary_search_by(|policy| policy.name.cmp(name)).ok()?;
    (ALL[at].arn() == arn).then_some(&ALL[at])
}

/// Every policy, ordered by name.
pub fn all() -> &'static [ManagedPolicy] {
    ALL
}

macro_rules! managed {
    ($($name:literal $path:literal $day:literal,)*) => {
        &[$(ManagedPolicy {
            name: $name,
            path: $path,
            document: include_str!(concat!("../../managed/", $name, ".json")),
            introduced_day: $day,
        },)*]
    };
}

const ALL: &[ManagedPolicy] = managed! {
    "AWSApplicationAutoscalingECSServicePolicy" "/aws-service-role/" 17464,
    "AWSCodeDeployRoleForECS" "/" 17862,
    "AWSXRayDaemonWriteAccess" "/" 17771,
    "AdministratorAccess" "/" 16472,
    "AmazonEC2ContainerRegistryFullAccess" "/" 16790,
    "AmazonEC2ContainerRegistryPowerUser" "/" 16790,
    "AmazonEC2ContainerRegistryPullOnly" "/" 20006,
    "AmazonEC2ContainerRegistryReadOnly" "/" 16790,
    "AmazonEC2ContainerServiceAutoscaleRole" "/service-role/" 16933,
    "AmazonEC2ContainerServiceEventsRole" "/service-role/" 17316,
    "AmazonEC2ContainerServiceRole" "/service-role/" 16534,
    "AmazonEC2ContainerServiceforEC2Role" "/service-role/" 16513,
    "AmazonECSInfrastructureRolePolicyForLoadBalancers" "/" 20285,
    "AmazonECSInfrastructureRolePolicyForVolumes" "/service-role/" 19732,
    "AmazonECSServiceRolePolicy" "/aws-service-role/" 17453,
    "AmazonECSTaskExecutionRolePolicy" "/service-role/" 17486,
    "AmazonECS_FullAccess" "/" 17477,
    "AmazonS3FullAccess" "/" 16472,
    "AmazonS3ReadOnlyAccess" "/" 16472,
    "AmazonSSMManagedInstanceCore" "/" 17970,
    "AmazonSSMReadOnlyAccess" "/" 16584,
    "CloudWatchAgentServerPolicy" "/" 17597,
    "CloudWatchLogsFullAccess" "/" 16472,
    "CloudWatchLogsReadOnlyAccess" "/" 16472,
    "IAMFullAccess" "/" 16472,
    "IAMReadOnlyAccess" "/" 16472,
    "PowerUserAccess" "/" 16472,
    "ReadOnlyAccess" "/" 16472,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::{DocumentKind, validate};

    #[test]
    fn every_document_is_one_we_would_accept_ourselves() {
        for policy in all() {
            validate(DocumentKind::Managed, policy.document)
                .unwrap_or_else(|e| panic!("{}: {e}", policy.name));
        }
    }

    #[test]
    fn policies_are_ordered_and_found_by_their_whole_arn() {
        assert!(all().is_sorted_by(|a, b| a.name < b.name));
        for policy in all() {
            assert_eq!(find(&policy.arn()), Some(policy));
        }
        assert!(find("arn:aws:iam::aws:policy/AmazonECSTaskExecutionRolePolicy").is_none());
        assert!(
            find("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy").is_some()
        );
        assert!(find("arn:aws:iam::aws:policy/").is_none());
        assert!(find("").is_none());
    }
}
