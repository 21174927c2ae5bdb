//! What a pass tells of in EventBridge's words, beside what the service itself says.
//!
//! What always holds: all of it is one row of the pass's own commit. Deployments that began or were
//! completed, and the steady state, are told from what the pass has made of the service's state, so that no
//! step can forget to; a failure is told where it is decided, because what fails may be let go at once.

use super::derived::Derived;
use super::pass::Pass;
use crate::api::describe_tasks::task_event;
use crate::model::state_changes::{
    self, OfService, ServiceAction, deployments_changed, messages_added,
};
use crate::model::task_view::TaskState;
use crate::tables::{ChangeKind, StateChange};

impl Pass<'_> {
    /// A task of the service has become something else.
    pub(super) fn tell_of(&mut self, before: Option<&TaskState>, after: TaskState) {
        let told = task_event(self.rows, before, &after, self.now);
        self.told.extend(told);
    }

    pub(super) fn tell_action(&mut self, action: &ServiceAction) {
        let mut derived = Derived {
            incarnation: &self.spec.incarnation,
            next: &mut self.state.next_number,
        };
        let id = derived.uuid();
        let told = self.of_service().action(id, action);
        self.told.push(told);
    }

    /// The PRIMARY deployment has just failed.
    pub(super) fn tell_failed(&mut self) {
        let told = self.primary().map(|it| self.of_service().deployment(it));
        self.told.extend(told);
    }

    /// Adds all that follows from the state, puts it in order, and writes it into the commit.
    pub(super) fn write_told(&mut self) {
        let was_steady = self.state_before.as_ref().is_some_and(|it| it.steady);
        if self.state.steady && !was_steady {
            self.tell_action(&ServiceAction::SteadyState);
        }
        let (failed, others): (Vec<StateChange>, Vec<StateChange>) = std::mem::take(&mut self.told)
            .into_iter()
            .partition(|told| told.kind == ChangeKind::Deployment);
        let same = |incarnation: &str| incarnation == self.spec.incarnation;
        let before = self.state_before.as_ref();
        let before = before.filter(|it| same(&it.incarnation));
        let before = before.map_or(&[][..], |it| &it.deployments);
        let (began, completed) = deployments_changed(before, &self.state.deployments);
        let said = self.events_before.as_ref();
        let said = said.filter(|it| same(&it.incarnation));
        let said = said.map_or(&[][..], |it| &it.events);
        let of = self.of_service();
        let messages = messages_added(said, &self.events.events);
        let all = failed
            .into_iter()
            .chain(began.iter().map(|it| of.deployment(it)))
            .chain(completed.iter().map(|it| of.deployment(it)))
            .chain(messages.into_iter().map(|it| of.message(it)))
            .chain(others);
        let all: Vec<StateChange> = all.collect();
        state_changes::write(self.rows.scope, self.now, all, &mut self.transaction);
    }

    fn of_service(&self) -> OfService<'_> {
        OfService::of(self.rows.scope, &self.spec, self.now)
    }
}
