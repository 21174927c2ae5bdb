//! Which images the tasks of a deployment run.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;
use std::collections::BTreeSet;

/// The digests of the images that run.
fn images(stage: &Stage) -> BTreeSet<String> {
    let tasks = stage.tasks("web");
    let containers = tasks.iter().filter(|it| is_running(it));
    let containers = containers.flat_map(|it| it.containers.iter().flatten());
    containers
        .filter_map(|it| it.image_digest.clone())
        .collect()
}

fn forced() -> ecs::UpdateServiceRequest {
    ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    }
}

#[test]
fn all_tasks_of_a_deployment_run_the_digest_that_its_first_found() {
    let mut stage = running(&[10], 2, within(100, 200));
    let before = images(&stage);
    assert_eq!(before.len(), 1);
    stage.push_images();
    stage.update(to_count(4));
    let gone = stage.tasks("web").remove(0);
    stage.stop_task(&gone);
    steady(&mut stage);
    assert_eq!(stage.tasks("web").len(), 4);
    assert_eq!(images(&stage), before);
    // And the next deployment finds what the tag is now.
    stage.update(forced());
    steady(&mut stage);
    let after = images(&stage);
    assert!(after.len() == 1 && after != before, "{after:?}");
}

#[test]
fn a_rollback_runs_the_very_images_that_were_good() {
    let mut stage = running(&[10], 2, with_breaker(breaker(true)));
    let before = images(&stage);
    stage.push_images();
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(within(0, 100)),
        ..change()
    });
    // All that was good is stopped first, so what comes back is new.
    let gone = arns(&stage.tasks("web"));
    let bad = stage.define(Behaviour::DoesNotStart, false);
    stage.update(to_revision(&bad));
    stage.until(1_200, "a rollback", |stage| {
        let now = arns(&stage.tasks("web"));
        is_steady(stage) && !now.iter().any(|arn| gone.contains(arn))
    });
    assert_eq!(images(&stage), before);
}

#[test]
fn with_version_consistency_disabled_each_task_finds_what_its_tag_is() {
    let mut stage = Stage::new(&[10]);
    let loose = stage.define_otherwise(Behaviour::Lives, |request| {
        let container = &mut request.container_definitions[0];
        container.version_consistency = Some(ecs::VersionConsistency::Disabled);
    });
    stage.create(web(1, &loose));
    steady(&mut stage);
    let before = images(&stage);
    stage.push_images();
    stage.update(to_count(2));
    steady(&mut stage);
    let after = images(&stage);
    assert!(after.len() == 2 && after.is_superset(&before), "{after:?}");
}
