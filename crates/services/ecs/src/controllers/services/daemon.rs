//! What a pass starts and stops of a service of daemons: one task on each container instance.

use std::collections::BTreeSet;
use std::rc::Rc;

use gantry_arn::ContainerInstanceId;
use gantry_placement::Rejection;

use super::pass::Pass;
use crate::api::placing::Choice;
use crate::api::service_instances::ServiceInstances;
use crate::model::service::daemon::{self, Instances};
use crate::model::service::events;
use crate::tables::DesiredPhase;

impl Pass<'_> {
    /// The container instances that the daemon has to do with, for the PRIMARY deployment's revision.
    pub(super) fn instances(&mut self) -> Rc<Instances> {
        let Some(primary) = self.primary() else {
            return Rc::default();
        };
        let revision = primary.revision.id.clone();
        if let Some((known, instances)) = &self.instances
            && *known == revision
        {
            return instances.clone();
        }
        let definition = self.definition(primary);
        let instances = definition.and_then(|definition| {
            Some(ServiceInstances::of(self.rows, &self.spec, &definition)?.standing())
        });
        let instances = Rc::new(instances.unwrap_or_default());
        self.instances = Some((revision, instances.clone()));
        instances
    }

    pub(super) fn act_as_daemon(&mut self) {
        let rows = self.rows;
        let spec = self.spec.clone();
        let Some(primary) = self.primary().cloned() else {
            return;
        };
        let definition = self.definition(&primary);
        let asks = definition
            .as_ref()
            .and_then(|it| ServiceInstances::of(rows, &spec, it));
        let Some(asks) = asks else {
            return;
        };
        let instances = self.instances();
        let bounds = self.bounds();
        let replicas = self.replicas();
        let held: BTreeSet<ContainerInstanceId> = self
            .tasks
            .iter()
            .filter(|task| {
                task.desired_phase() == DesiredPhase::Stopped && !task.last_status().is_stopped()
            })
            .map(|task| task.spec.container_instance)
            .collect();
        let lacking = daemon::lacking(&instances, &replicas, &held);
        let may_start = self.may_start(&primary.id);
        match may_start && !lacking.is_empty() {
            true => self.start_daemons(&asks, lacking),
            false => self.state.unplaced = None,
        }
        let protected = self.protected(&replicas);
        let replaceable = |id: &ContainerInstanceId| may_start && asks.against(id).is_empty();
        let stops = daemon::stops(&bounds, &instances, &replicas, &protected, replaceable);
        self.carry_out(stops, &replicas);
    }

    /// Starts a task on each of these instances that has room for it. The others are tried again.
    fn start_daemons(&mut self, asks: &ServiceInstances<'_>, lacking: Vec<ContainerInstanceId>) {
        let Some(primary) = self.primary().cloned() else {
            return;
        };
        let due = self.unpaced(&primary.id, lacking, |task| task.container_instance);
        let (mut fitting, mut rejections) = (Vec::new(), Vec::new());
        for instance in due {
            let reasons = asks.against(&instance);
            match reasons.is_empty() {
                true => fitting.push(instance),
                false => rejections.push(Rejection { instance, reasons }),
            }
        }
        let mut started = Vec::new();
        if !fitting.is_empty() {
            let slots = vec![0; fitting.len()];
            let choice = Choice::These(&fitting);
            let Some((plan, placed)) = self.place(&primary, &slots, choice) else {
                return;
            };
            started = placed;
            if started.len() + plan.rejections.len() < fitting.len() {
                self.look_again(self.now);
            }
            rejections.extend(plan.rejections);
        }
        if !started.is_empty() {
            self.say(events::started(&self.spec.name.clone(), &started));
        }
        let waits = self.state.unplaced.filter(|it| self.now < it.again_at);
        match waits {
            _ if rejections.is_empty() => self.state.unplaced = None,
            Some(unplaced) if started.is_empty() => self.look_again(unplaced.again_at),
            _ => self.note_unplaced(&rejections, !started.is_empty()),
        }
    }
}
