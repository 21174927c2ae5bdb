//! What a node may do: the one place where it is decided.
//!
//! What always holds: a node calls what [`ALLOWED`] names and nothing else; in its own account, for
//! its own cluster, as its own container instance (the one that it registered), about the tasks that
//! were placed there; and it opens the two sockets of the agent protocol. Everything else is
//! `AccessDeniedException`, whatever policies say one day: an agent is the part of an installation that
//! stands next to what strangers run.
//! What it leaves to others: every caller that is no node; pushing images, which the registry
//! refuses nodes by itself, because it has an authentication of its own.

use std::sync::Arc;

use gantry_api::auth::node::{NodePrincipal, is_node};
use gantry_api::server::{Authorizer, UpgradeQuery};
use gantry_api::shape::{Structure, View};
use gantry_api::{ApiError, OperationModel, RequestContext, ServiceModel};
use gantry_arn::{Arn, ClusterName, ContainerInstanceId, EcsResource, TaskId};
use gantry_store::{Snapshot, Store};

use super::instance::ConnectingInstance;
use crate::model::reference::Scope;
use crate::tables::{ContainerInstanceRow, TaskRow, container_instance_name, task_name};

/// What of a node's own an operation must be about. The words are members of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// Nothing that belongs to anybody: tokens, image reads, log lines. In any region, because a
    /// task definition names the region of its logs and images.
    Anything,
    /// `cluster`, and nothing in it.
    Cluster,
    /// This member, where it is given, in `cluster`.
    Instance(&'static str),
    /// Each of this list, in `cluster`.
    Instances(&'static str),
    /// `task` in `cluster`.
    Task,
    /// The resource of this ARN.
    Arn(&'static str),
}

/// Everything that a node may call, sorted: what AWS's AmazonEC2ContainerServiceforEC2Role lets an
/// agent do, and nothing of it beyond its own instance.
const ALLOWED: [(&str, &str, About); 18] = [
    ("ecr", "BatchCheckLayerAvailability", About::Anything),
    ("ecr", "BatchGetImage", About::Anything),
    ("ecr", "GetAuthorizationToken", About::Anything),
    ("ecr", "GetDownloadUrlForLayer", About::Anything),
    (
        "ecs",
        "DeregisterContainerInstance",
        About::Instance("containerInstance"),
    ),
    (
        "ecs",
        "DescribeContainerInstances",
        About::Instances("containerInstances"),
    ),
    (
        "ecs",
        "DiscoverPollEndpoint",
        About::Instance("containerInstance"),
    ),
    ("ecs", "ListTagsForResource", About::Arn("resourceArn")),
    (
        "ecs",
        "RegisterContainerInstance",
        About::Instance("containerInstanceArn"),
    ),
    ("ecs", "SubmitAttachmentStateChanges", About::Cluster),
    ("ecs", "SubmitContainerStateChange", About::Task),
    ("ecs", "SubmitTaskStateChange", About::Task),
    (
        "ecs",
        "UpdateContainerInstancesState",
        About::Instances("containerInstances"),
    ),
    ("logs", "CreateLogGroup", About::Anything),
    ("logs", "CreateLogStream", About::Anything),
    ("logs", "DescribeLogStreams", About::Anything),
    ("logs", "PutLogEvents", About::Anything),
    ("sts", "GetCallerIdentity", About::Anything),
];

/// The sockets that a node may open, and what each calls its container instance.
const SOCKETS: [(&str, &str); 2] = [
    ("acs", "containerInstanceArn"),
    ("tcs", "containerInstance"),
];

/// The rules over the rows.
pub struct NodePermissions {
    store: Arc<dyn Store>,
}

impl NodePermissions {
    pub fn new(store: Arc<dyn Store>) -> NodePermissions {
        NodePermissions { store }
    }
}

impl Authorizer for NodePermissions {
    fn call(
        &self,
        context: &RequestContext,
        service: &'static ServiceModel,
        operation: &'static OperationModel,
        input: &dyn Structure,
    ) -> Result<(), ApiError> {
        if !is_node(&context.principal.arn) {
            return Ok(());
        }
        let refused = |resource: &str| {
            let action = format!("{}:{}", service.signing_name, operation.name);
            Err(ApiError::access_denied(context, service, &action, resource))
        };
        let (Some(node), Some(about)) = (
            NodePrincipal::of(&context.principal),
            about(service.name, operation.name),
        ) else {
            return refused("*");
        };
        let own = Own {
            snapshot: self.store.snapshot(),
            scope: Scope::of(context),
            node,
        };
        match own.covers(about, input) {
            Ok(()) => Ok(()),
            Err(resource) => refused(&resource),
        }
    }

    fn websocket(
        &self,
        context: &RequestContext,
        route: &'static str,
        query: &UpgradeQuery,
    ) -> Result<(), ApiError> {
        if !is_node(&context.principal.arn) {
            return Ok(());
        }
        let socket = SOCKETS.iter().find(|(name, _)| *name == route);
        let (Some(node), Some((_, member))) = (NodePrincipal::of(&context.principal), socket)
        else {
            return Err(denied(context, route, "*"));
        };
        let instance = ConnectingInstance::read(context, query, member)?;
        let own = Own {
            snapshot: self.store.snapshot(),
            scope: Scope::of(context),
            node,
        };
        if own.is_in_its_region()
            && instance.cluster == own.node.cluster
            && own.instance(&instance.cluster, &instance.id)
        {
            return Ok(());
        }
        Err(denied(context, route, &instance.arn))
    }
}

fn denied(context: &RequestContext, route: &str, resource: &str) -> ApiError {
    let action = match route {
        "acs" => "ecs:Poll".to_owned(),
        "tcs" => "ecs:StartTelemetrySession".to_owned(),
        other => format!("gantry:{other}"),
    };
    ApiError::access_denied(context, &gantry_api::ecs::MODEL, &action, resource)
}

fn about(service: &str, operation: &str) -> Option<About> {
    let found = ALLOWED.binary_search_by(|(s, o, _)| (*s, *o).cmp(&(service, operation)));
    found.ok().map(|index| ALLOWED[index].2)
}

/// A node and the rows by which things are its own.
struct Own {
    snapshot: Snapshot,
    scope: Scope,
    node: NodePrincipal,
}

impl Own {
    /// The error is the resource that is not the node's. What names nothing at all is let through,
    /// because the operation answers that better.
    fn covers(&self, about: About, input: &dyn Structure) -> Result<(), String> {
        if about == About::Anything {
            let here = self.scope.account == self.node.account;
            return if here { Ok(()) } else { Err("*".to_owned()) };
        }
        if let About::Arn(member) = about {
            return self.arn(text(input, member).unwrap_or_default());
        }
        let given = text(input, "cluster");
        if !self.is_in_its_region() {
            return Err(given.unwrap_or("*").to_owned());
        }
        let Ok(cluster) = self.scope.cluster(given) else {
            return Ok(());
        };
        if cluster != self.node.cluster {
            return Err(self.scope.cluster_arn(&cluster));
        }
        let instance = |text: &str| match self.scope.container_instance(&cluster, text) {
            Ok(id) if !self.instance(&cluster, &id) => {
                Err(self.scope.container_instance_arn(&cluster, &id))
            }
            _ => Ok(()),
        };
        match about {
            About::Anything | About::Cluster | About::Arn(_) => Ok(()),
            About::Instance(member) => match text(input, member) {
                None | Some("") => Ok(()),
                Some(named) => instance(named),
            },
            About::Instances(member) => texts(input, member).try_for_each(instance),
            About::Task => {
                let named = text(input, "task").unwrap_or_default();
                match self.scope.task(&cluster, named) {
                    Ok(id) if !self.task(&cluster, &id) => Err(self.scope.task_arn(&cluster, &id)),
                    _ => Ok(()),
                }
            }
        }
    }

    fn is_in_its_region(&self) -> bool {
        self.scope.account == self.node.account && self.scope.region == self.node.region
    }

    /// Whether this is the node's own container instance, or none.
    fn instance(&self, cluster: &ClusterName, id: &ContainerInstanceId) -> bool {
        let name = container_instance_name(cluster, id);
        let (account, region) = (&self.scope.account, &self.scope.region);
        self.snapshot
            .read::<ContainerInstanceRow>(account, region, &name)
            .is_none_or(|row| row.node.as_deref() == Some(&self.node.node))
    }

    /// Whether this task was placed on the node's own container instance, or is none.
    fn task(&self, cluster: &ClusterName, id: &TaskId) -> bool {
        let name = task_name(cluster, id);
        let (account, region) = (&self.scope.account, &self.scope.region);
        self.snapshot
            .read::<TaskRow>(account, region, &name)
            .is_none_or(|row| {
                // An instance that is gone has no tasks that anybody may speak of.
                let instance = container_instance_name(cluster, &row.container_instance);
                self.snapshot
                    .read::<ContainerInstanceRow>(account, region, &instance)
                    .is_some_and(|row| row.node.as_deref() == Some(&self.node.node))
            })
    }

    fn arn(&self, text: &str) -> Result<(), String> {
        let arn = text.parse::<Arn>().ok();
        let own = arn.filter(|arn| {
            self.is_in_its_region()
                && arn.region == self.node.region.as_str()
                && arn.account_id() == Some(self.node.account)
        });
        let its_own = match own.and_then(|arn| arn.ecs_resource()) {
            Some(EcsResource::ContainerInstance(cluster, id)) => {
                cluster == self.node.cluster && self.instance(&cluster, &id)
            }
            Some(EcsResource::Task(cluster, id)) => {
                cluster == self.node.cluster && self.task(&cluster, &id)
            }
            _ => false,
        };
        if its_own {
            Ok(())
        } else {
            Err(text.to_owned())
        }
    }
}

fn member<'a>(input: &'a dyn Structure, name: &str) -> View<'a> {
    let members = input.schema().members();
    let index = members.iter().position(|member| member.name == name);
    match index.and_then(|index| input.member(index)) {
        Some(value) => value.view(),
        None => View::Absent,
    }
}

fn text<'a>(input: &'a dyn Structure, name: &str) -> Option<&'a str> {
    match member(input, name) {
        View::String(text) => Some(text),
        _ => None,
    }
}

fn texts<'a>(input: &'a dyn Structure, name: &str) -> impl Iterator<Item = &'a str> {
    let list = match member(input, name) {
        View::List(list) => Some(list),
        _ => None,
    };
    list.into_iter().flat_map(|list| {
        (0..list.len()).filter_map(move |index| match list.element(index)?.view() {
            View::String(text) => Some(text),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_operations_and_members_that_exist() {
        assert!(ALLOWED.is_sorted_by_key(|(service, operation, _)| (*service, *operation)));
        for (service, operation, _) in ALLOWED {
            let coverage = gantry_api::coverage();
            let known = coverage.iter().find(|c| c.service == service).unwrap();
            assert!(
                known.built.contains(&operation) || known.not_built.contains(&operation),
                "{service}:{operation}"
            );
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_allowed() {
        let mut refused = 0;
        for service in gantry_api::coverage() {
            for operation in service.built {
                refused += usize::from(about(service.service, operation).is_none());
            }
        }
        assert!(refused > 50, "{refused}");
        for (service, operation) in [
            ("ecs", "RunTask"),
            ("ecs", "StopTask"),
            ("ecs", "CreateCluster"),
            ("ecs", "DescribeTasks"),
            ("ecr", "PutImage"),
            ("ecr", "CreateRepository"),
            ("iam", "CreateRole"),
            ("sts", "AssumeRole"),
            ("logs", "GetLogEvents"),
            ("logs", "DeleteLogGroup"),
        ] {
            assert_eq!(about(service, operation), None, "{service}:{operation}");
        }
    }
}
