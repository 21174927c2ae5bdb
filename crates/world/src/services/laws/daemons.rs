//! What a service of daemons starts and stops: one task on each container instance.

use std::collections::BTreeSet;

use gantry_api::ecs::SchedulingStrategy;
use gantry_arn::ContainerInstanceId;
use gantry_ecs::tables::ContainerInstanceStatus;

use super::{Deed, ServiceLaws, Sight};
use crate::services::replicas::Replica;

impl ServiceLaws {
    pub(super) fn check_daemons(&self, sight: &Sight<'_>, deed: &Deed) {
        self.check_beginnings(sight, deed);
        let name = sight.name;
        let spec = &self.mirror.services[name].spec;
        // Also where one is still stopping, there is one.
        let mut taken: BTreeSet<ContainerInstanceId> = self
            .mirror
            .tasks_of(spec)
            .map(|(_, task)| task)
            .filter(|task| !task.last_status().is_stopped())
            .filter(|task| !deed.created.iter().any(|it| it.id == task.spec.id))
            .map(|task| task.spec.container_instance)
            .collect();
        for task in &deed.created {
            let instance = task.container_instance;
            assert!(
                taken.insert(instance),
                "{name} starts {} on {instance}, where one of its tasks is",
                task.id
            );
            assert_eq!(
                self.mirror.instances.get(&instance),
                Some(&ContainerInstanceStatus::Active),
                "{name} starts {} on {instance}",
                task.id
            );
        }
        if deed.stopped.is_empty() || spec.deleted_at.is_some() {
            return;
        }
        self.check_protection(sight, deed);
        self.check_daemon_stops(sight, deed);
    }

    fn check_daemon_stops(&self, sight: &Sight<'_>, deed: &Deed) {
        let (name, shape) = (sight.name, sight.shape);
        if !shape.is_constrained {
            let up = |of: &[Replica]| {
                let there = of.iter().filter(|it| !it.is_draining && it.is_up());
                there.count()
            };
            let (up_before, up_after) = (up(sight.before), up(sight.after));
            assert!(
                up_after >= shape.lower.min(up_before),
                "{name} needs {} that are up, and stops {:?}: {up_after} are left of {up_before}",
                shape.lower,
                deed.stopped
            );
            let stays = sight.before.iter().filter(|it| it.stays());
            for replica in stays {
                assert!(
                    !deed.stopped.contains_key(&replica.name),
                    "{name} stops {replica:?}, which is as it should be"
                );
            }
        }
        let leaves = sight.before.iter().filter(|it| {
            let status = self.mirror.instances.get(&it.instance);
            let drains = status == Some(&ContainerInstanceStatus::Draining);
            drains && it.is_running && deed.stopped.contains_key(&it.name)
        });
        for replica in leaves {
            let others = self.mirror.tasks.iter().filter(|(_, task)| {
                task.spec.container_instance == replica.instance
                    && !task.last_status().is_stopped()
                    && !self.is_of_a_daemon(&task.spec.group)
            });
            let others: Vec<&String> = others.map(|(name, _)| name).collect();
            assert!(
                others.is_empty(),
                "{name} stops {} on an instance that drains before {others:?}",
                replica.name
            );
        }
    }

    fn is_of_a_daemon(&self, group: &str) -> bool {
        let services = self.mirror.services.values();
        services
            .filter(|it| it.spec.scheduling_strategy == SchedulingStrategy::Daemon)
            .any(|it| group == format!("service:{}", it.spec.name))
    }
}
