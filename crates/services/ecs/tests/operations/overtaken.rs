//! Deployments that come to nothing: overtaken before they were begun, or of a service that is deleted; and what
//! a request means whose service is gone.

use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::{SERVICE_DEPLOYMENTS_MAX, ServiceHistory};
use gantry_ecs::tables::ServiceDeploymentRow;
use gantry_reconcile::Controller;

use crate::harness::{done, refusal};
use crate::services::{Plane, change, describe_deployment, list_deployments, three};

/// An update that the controller does not come by for.
fn ask(plane: &Plane) {
    let input = ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    };
    let service = &plane.harness.service;
    done(service.update_service(&plane.harness.ctx(), input)).unwrap();
    plane
        .harness
        .env
        .advance(std::time::Duration::from_millis(1));
}

fn statuses(plane: &Plane) -> Vec<String> {
    let all = list_deployments(plane).into_iter();
    all.map(|it| it.status.unwrap().to_string()).collect()
}

#[test]
fn a_deployment_that_is_overtaken_before_it_is_begun_is_stopped() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    ask(&plane);
    ask(&plane);
    assert_eq!(statuses(&plane), ["PENDING", "STOPPED", "SUCCESSFUL"]);
    let arn = list_deployments(&plane)[1]
        .service_deployment_arn
        .clone()
        .unwrap();
    let whole = describe_deployment(&plane, &arn);
    assert!(
        whole
            .status_reason
            .unwrap()
            .contains("a newer service deployment")
    );
    assert_eq!(whole.started_at, None);
    assert_eq!(whole.finished_at, whole.created_at);
    let input = ecs::StopServiceDeploymentRequest {
        service_deployment_arn: arn,
        ..Default::default()
    };
    let service = &plane.harness.service;
    let stop = done(service.stop_service_deployment(&plane.harness.ctx(), input));
    assert_eq!(refusal(stop).0, "ConflictException");
    plane.settle();
    plane.converge();
    assert_eq!(statuses(&plane), ["SUCCESSFUL", "STOPPED", "SUCCESSFUL"]);
}

#[test]
fn what_was_never_begun_is_forgotten_like_what_was() {
    let (plane, _) = Plane::new();
    plane.create(three());
    for _ in 0..SERVICE_DEPLOYMENTS_MAX + 20 {
        ask(&plane);
    }
    plane.settle();
    let history = ServiceHistory;
    for _ in 0..20 {
        for key in history.all_keys(&plane.harness.store.snapshot()) {
            let snapshot = plane.harness.store.snapshot();
            let plan = history.reconcile(&snapshot, plane.harness.env.now(), &key);
            if !plan.is_nothing() {
                done(plane.harness.store.commit(plan.transaction)).unwrap();
            }
        }
    }
    let left = plane.harness.store.snapshot();
    let left = left.list_everywhere::<ServiceDeploymentRow>().len();
    // Those that are taken up stay whatever their number.
    assert!(left <= SERVICE_DEPLOYMENTS_MAX + 2, "{left}");
}

#[test]
fn a_deleted_service_deploys_nothing_any_more() {
    let (plane, _) = Plane::new();
    plane.create(three());
    plane.converge();
    ask(&plane);
    plane.settle();
    ask(&plane);
    plane.delete(true).unwrap();
    let service = plane.service();
    assert_eq!(service.desired_count, Some(0));
    let deployments = service.deployments.unwrap().into_iter();
    let desired: Vec<_> = deployments.map(|it| it.desired_count.unwrap()).collect();
    assert!(desired.iter().all(|count| *count == 0), "{desired:?}");
    plane.settle();
    assert_eq!(statuses(&plane), ["STOPPED", "STOPPED", "SUCCESSFUL"]);
    let arns = list_deployments(&plane).into_iter();
    let arns: Vec<_> = arns.map(|it| it.service_deployment_arn.unwrap()).collect();
    for arn in &arns[..2] {
        let whole = describe_deployment(&plane, arn);
        let reason = whole.status_reason.unwrap();
        assert_eq!(
            reason,
            "Service deployment stopped because the service was deleted."
        );
        assert!(whole.finished_at.is_some() && whole.stopped_at.is_some());
    }
}

#[test]
fn a_client_token_makes_its_service_again_after_that_was_deleted() {
    let (plane, _) = Plane::new();
    let with_token = || ecs::CreateServiceRequest {
        client_token: Some("once".to_owned()),
        desired_count: Some(0),
        ..three()
    };
    let first = plane.create(with_token());
    plane.delete(false).unwrap();
    plane.settle();
    assert_eq!(plane.service().status.as_deref(), Some("INACTIVE"));
    plane.harness.env.advance(std::time::Duration::from_secs(1));
    let again = plane.create(with_token());
    assert_eq!(again.status.as_deref(), Some("ACTIVE"));
    assert_ne!(again.created_at, first.created_at);
    // From then on it is the same request once more.
    let same = plane.create(with_token());
    assert_eq!(same.created_at, again.created_at);
}

#[test]
fn what_is_said_to_be_off_is_kept_and_returned() {
    let (plane, _) = Plane::new();
    let off = ecs::ServiceConnectConfiguration {
        enabled: false,
        ..Default::default()
    };
    let early = ecs::DeploymentEarlySuccessCriteria {
        enable: false,
        healthy_percent: Some(50),
        ..Default::default()
    };
    let made = plane.create(ecs::CreateServiceRequest {
        service_connect_configuration: Some(off.clone()),
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            early_success_criteria: Some(early.clone()),
            ..Default::default()
        }),
        ..three()
    });
    let configuration = made.deployment_configuration.unwrap();
    assert_eq!(configuration.early_success_criteria, Some(early));
    let changed = plane.update(ecs::UpdateServiceRequest {
        desired_count: Some(1),
        ..change()
    });
    let deployment = changed.deployments.unwrap().remove(0);
    assert_eq!(deployment.service_connect_configuration, Some(off.clone()));
    let arn = changed.current_service_revisions.unwrap().remove(0).arn;
    let input = ecs::DescribeServiceRevisionsRequest {
        service_revision_arns: vec![arn.unwrap()],
    };
    let service = &plane.harness.service;
    let answer = done(service.describe_service_revisions(&plane.harness.ctx(), input));
    let revision = answer.unwrap().service_revisions.unwrap().remove(0);
    assert_eq!(revision.service_connect_configuration, Some(off));
}

#[test]
fn words_that_no_list_of_the_model_has_are_refused() {
    let (plane, _) = Plane::new();
    plane.create(three());
    let service = &plane.harness.service;
    let input = ecs::DescribeServicesRequest {
        services: vec!["web".to_owned()],
        include: Some(vec!["TAGZ".into()]),
        ..Default::default()
    };
    let (code, message) = refusal(done(service.describe_services(&plane.harness.ctx(), input)));
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message.contains("'[TAGZ]' at 'include'") && message.contains("enum value set: [TAGS]"),
        "{message}"
    );
}
