use gantry_api::ecs::{
    ClusterField, CreateClusterRequest, DeleteClusterRequest, DescribeClustersRequest, Ecs as _,
    ListClustersRequest,
};

use crate::harness::{Harness, done, refusal, run, tag};

fn describe(harness: &Harness, names: &[&str]) -> gantry_api::ecs::DescribeClustersResponse {
    let input = DescribeClustersRequest {
        clusters: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        include: Some(vec![
            ClusterField::Tags,
            ClusterField::Statistics,
            ClusterField::Settings,
        ]),
    };
    done(harness.service.describe_clusters(&harness.ctx(), input)).unwrap()
}

fn delete(
    harness: &Harness,
    name: &str,
) -> Result<gantry_api::ecs::DeleteClusterResponse, gantry_api::ecs::EcsError> {
    let input = DeleteClusterRequest {
        cluster: name.to_owned(),
    };
    done(harness.service.delete_cluster(&harness.ctx(), input))
}

#[test]
fn create_is_idempotent_and_nothing_means_default() {
    let harness = Harness::new();
    let input = CreateClusterRequest {
        tags: Some(vec![tag("a", "b")]),
        ..Default::default()
    };
    let first = done(harness.service.create_cluster(&harness.ctx(), input)).unwrap();
    let again = harness.create_cluster("default");
    assert_eq!(first.cluster, Some(again.clone()));
    assert_eq!(
        again.cluster_arn.as_deref(),
        Some("arn:aws:ecs:us-east-1:000000000000:cluster/default")
    );
    assert_eq!(again.status.as_deref(), Some("ACTIVE"));
    assert_eq!(again.tags, Some(vec![tag("a", "b")]));
}

#[test]
fn a_bad_name_and_a_capacity_provider_are_refused() {
    let harness = Harness::new();
    let input = CreateClusterRequest {
        cluster_name: Some("no spaces".to_owned()),
        ..Default::default()
    };
    let refused = refusal(done(harness.service.create_cluster(&harness.ctx(), input)));
    assert_eq!(refused.0, "InvalidParameterException");
    let input = CreateClusterRequest {
        capacity_providers: Some(vec!["FARGATE".to_owned()]),
        ..Default::default()
    };
    let refused = refusal(done(harness.service.create_cluster(&harness.ctx(), input)));
    assert!(refused.1.contains("not built"), "{refused:?}");
}

#[test]
fn a_missing_cluster_is_a_failure_and_a_deleted_one_is_described_as_inactive() {
    let harness = Harness::new();
    harness.create_cluster("one");
    let answer = describe(&harness, &["one", "two"]);
    assert_eq!(answer.clusters.unwrap().len(), 1);
    let failure = &answer.failures.unwrap()[0];
    assert_eq!(failure.reason.as_deref(), Some("MISSING"));
    assert!(failure.arn.as_ref().unwrap().ends_with(":cluster/two"));

    assert_eq!(
        delete(&harness, "one")
            .unwrap()
            .cluster
            .unwrap()
            .status
            .unwrap(),
        "INACTIVE"
    );
    assert_eq!(
        delete(&harness, "one")
            .unwrap()
            .cluster
            .unwrap()
            .status
            .unwrap(),
        "INACTIVE"
    );
    let clusters = describe(&harness, &["one"]).clusters.unwrap();
    assert_eq!(clusters[0].status.as_deref(), Some("INACTIVE"));
    let input = ListClustersRequest::default();
    let listed = done(harness.service.list_clusters(&harness.ctx(), input)).unwrap();
    assert_eq!(listed.cluster_arns, Some(vec![]));
    let refused = refusal(delete(&harness, "two"));
    assert_eq!(
        refused,
        (
            "ClusterNotFoundException".to_owned(),
            "Cluster not found.".to_owned()
        )
    );

    // The same name makes it ACTIVE again.
    harness.create_cluster("one");
    let clusters = describe(&harness, &["one"]).clusters.unwrap();
    assert_eq!(clusters[0].status.as_deref(), Some("ACTIVE"));
}

#[test]
fn a_cluster_in_use_is_not_deleted_and_its_numbers_are_real() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let running = harness.run_one("web");
    harness.run_one("web");
    harness.submit(&running, "RUNNING", None);
    let cluster = describe(&harness, &["default"]).clusters.unwrap().remove(0);
    assert_eq!(cluster.registered_container_instances_count, Some(1));
    assert_eq!(
        (cluster.running_tasks_count, cluster.pending_tasks_count),
        (Some(1), Some(1))
    );
    let statistics = cluster.statistics.unwrap();
    let value = |name: &str| {
        let pair = statistics
            .iter()
            .find(|pair| pair.name.as_deref() == Some(name))
            .unwrap();
        pair.value.clone().unwrap()
    };
    assert_eq!(
        (value("runningEC2TasksCount"), value("pendingEC2TasksCount")),
        ("1".into(), "1".into())
    );

    let refused = refusal(delete(&harness, "default"));
    assert_eq!(refused.0, "ClusterContainsContainerInstancesException");
    assert_eq!(
        refused.1,
        "The Cluster cannot be deleted while Container Instances are active or draining."
    );
    let input = gantry_api::ecs::DeregisterContainerInstanceRequest {
        container_instance: instance,
        force: Some(true),
        ..Default::default()
    };
    done(
        harness
            .service
            .deregister_container_instance(&harness.ctx(), input),
    )
    .unwrap();
    let refused = refusal(delete(&harness, "default"));
    assert_eq!(refused.0, "ClusterContainsTasksException");
    assert_eq!(
        refused.1,
        "The Cluster cannot be deleted while Tasks are active."
    );
}

#[test]
fn what_is_to_be_included_is_one_of_the_models_words() {
    let harness = Harness::new();
    harness.create_cluster("c");
    let input = DescribeClustersRequest {
        clusters: Some(vec!["c".to_owned()]),
        include: Some(vec![
            ClusterField::Tags,
            ClusterField::Unknown("MOON".into()),
        ]),
    };
    let refused = refusal(done(
        harness.service.describe_clusters(&harness.ctx(), input),
    ));
    assert_eq!(refused.0, "InvalidParameterException");
    assert!(
        refused.1.contains("Value '[TAGS, MOON]' at 'include'"),
        "{}",
        refused.1
    );
}

#[test]
fn lists_come_in_pages_whose_tokens_cannot_be_made_up() {
    let harness = Harness::new();
    for n in 0..25 {
        harness.create_cluster(&format!("c{n:02}"));
    }
    let (mut token, mut seen) = (None, Vec::new());
    loop {
        let input = ListClustersRequest {
            max_results: Some(10),
            next_token: token.clone(),
        };
        let page = done(harness.service.list_clusters(&harness.ctx(), input)).unwrap();
        seen.extend(page.cluster_arns.unwrap());
        match page.next_token {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    seen.dedup();
    assert_eq!(seen.len(), 25);
    for (max_results, next_token) in [
        (Some(0), None),
        (Some(101), None),
        (None, Some("AAAA".to_owned())),
    ] {
        let input = ListClustersRequest {
            max_results,
            next_token,
        };
        let refused = refusal(done(harness.service.list_clusters(&harness.ctx(), input)));
        assert_eq!(refused.0, "InvalidParameterException");
    }
}

#[test]
fn nothing_can_be_done_in_a_cluster_that_is_gone_or_never_was() {
    let harness = Harness::new();
    harness.create_cluster("gone");
    delete(&harness, "gone").unwrap();
    harness.register_web();
    for (cluster, message) in [
        ("never", "Cluster not found."),
        ("gone", "The referenced cluster was inactive."),
    ] {
        let mut input = run("web");
        input.cluster = Some(cluster.to_owned());
        let refused = refusal(harness.run(input));
        assert_eq!(
            refused,
            ("ClusterNotFoundException".to_owned(), message.to_owned())
        );
    }
}
