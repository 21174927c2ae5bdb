//! What a course does by itself: its order, its hooks, its bake time.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(0) + Duration::from_secs(seconds)
}

fn ids(stage: Stage, at: usize) -> String {
    format!("{stage}-{at}")
}

fn pause(stages: &[Stage], timeout_action: Action) -> PauseHook {
    PauseHook {
        stages: stages.iter().copied().collect(),
        timeout: Duration::from_secs(60),
        timeout_action,
    }
}

fn route(bake_time_s: u64, hooks: Vec<PauseHook>) -> Route {
    Route {
        bake_time: Duration::from_secs(bake_time_s),
        hooks,
    }
}

fn seen(now_s: u64, green_is_up: bool) -> Sight {
    Sight {
        now: at(now_s),
        others_are_gone: true,
        green_is_up,
    }
}

fn begin(route: &Route, revisions: usize) -> Course {
    Course::begin(Some("blue".to_owned()), revisions, route, at(0), &ids)
}

#[test]
fn the_names_of_the_stages_are_those_of_aws() {
    for stage in Stage::ALL {
        assert_eq!(Stage::named(stage.as_str()), Some(stage));
    }
    assert!(Stage::ALL.is_sorted());
}

#[test]
fn a_course_waits_for_green_and_for_its_bake_time_and_for_nothing_else() {
    let route = route(120, Vec::new());
    let mut course = begin(&route, 1);
    assert_eq!(course.stage, Stage::PreScaleUp);
    let none = BTreeMap::new();
    let outlook = course.advance(&route, &seen(1, false), &none, &ids);
    assert_eq!(
        (course.stage, outlook),
        (Stage::ScaleUp, Outlook::Waits(None))
    );
    let outlook = course.advance(&route, &seen(50, true), &none, &ids);
    let ends = Outlook::Waits(Some(at(170)));
    assert_eq!((course.stage, outlook), (Stage::BakeTime, ends));
    // What green becomes later does not take it back.
    course.advance(&route, &seen(169, false), &none, &ids);
    assert_eq!(course.stage, Stage::BakeTime);
    course.advance(&route, &seen(170, true), &none, &ids);
    assert_eq!(course.stage, Stage::CleanUp);
    assert!(course.is_at_its_end());
}

#[test]
fn a_service_that_runs_more_than_one_revision_is_reconciled_first() {
    let route = route(0, Vec::new());
    let mut course = begin(&route, 2);
    let waits = Sight {
        others_are_gone: false,
        ..seen(1, false)
    };
    course.advance(&route, &waits, &BTreeMap::new(), &ids);
    assert_eq!(course.stage, Stage::ReconcileService);
    course.advance(&route, &seen(2, false), &BTreeMap::new(), &ids);
    assert_eq!(course.stage, Stage::ScaleUp);
}

#[test]
fn the_first_deployment_has_no_blue_and_bakes_nothing() {
    let route = route(600, Vec::new());
    let mut course = Course::begin(None, 0, &route, at(0), &ids);
    course.advance(&route, &seen(1, true), &BTreeMap::new(), &ids);
    assert_eq!(course.stage, Stage::CleanUp);
}

#[test]
fn a_hook_pauses_until_it_is_answered() {
    let stages = [Stage::PreScaleUp, Stage::PostScaleUp];
    let route = route(0, vec![pause(&stages, Action::Rollback)]);
    let mut course = begin(&route, 1);
    let mut answers = BTreeMap::new();
    let outlook = course.advance(&route, &seen(59, true), &answers, &ids);
    assert_eq!(outlook, Outlook::Waits(Some(at(60))));
    assert_eq!(course.stage, Stage::PreScaleUp);
    answers.insert("PRE_SCALE_UP-0".to_owned(), Action::Continue);
    // The answer was taken in time, and is looked at late.
    let outlook = course.advance(&route, &seen(100, true), &answers, &ids);
    assert_eq!(outlook, Outlook::Waits(Some(at(160))));
    assert_eq!(course.stage, Stage::PostScaleUp);
    assert_eq!(course.hooks.len(), 2);
    answers.insert("POST_SCALE_UP-0".to_owned(), Action::Rollback);
    let outlook = course.advance(&route, &seen(101, true), &answers, &ids);
    assert_eq!(outlook, Outlook::RollsBack(RolledBackBy::Answer));
    let statuses: Vec<_> = course.hooks.iter().map(|hook| hook.status).collect();
    assert_eq!(statuses, [HookStatus::Succeeded, HookStatus::Failed]);
}

#[test]
fn a_hook_that_nobody_answers_takes_its_timeout_action() {
    for (action, outlook) in [
        (Action::Continue, Outlook::Waits(None)),
        (Action::Rollback, Outlook::RollsBack(RolledBackBy::TimeOut)),
    ] {
        let route = route(0, vec![pause(&[Stage::PreScaleUp], action)]);
        let mut course = begin(&route, 1);
        let seen = course.advance(&route, &seen(60, false), &BTreeMap::new(), &ids);
        assert_eq!(seen, outlook);
        assert_eq!(course.hooks[0].status, HookStatus::TimedOut);
    }
}

#[test]
fn two_hooks_of_one_stage_must_both_be_answered() {
    let both = pause(&[Stage::PostScaleUp], Action::Rollback);
    let route = route(0, vec![both.clone(), both]);
    let mut course = begin(&route, 1);
    let mut answers = BTreeMap::from([("POST_SCALE_UP-1".to_owned(), Action::Continue)]);
    course.advance(&route, &seen(1, true), &answers, &ids);
    assert_eq!(course.stage, Stage::PostScaleUp);
    answers.insert("POST_SCALE_UP-0".to_owned(), Action::Continue);
    course.advance(&route, &seen(2, true), &answers, &ids);
    assert_eq!(course.stage, Stage::CleanUp);
}

fn stage() -> impl Strategy<Value = Stage> {
    prop::sample::select(Stage::ALL.to_vec())
}

proptest! {
    #[test]
    fn stages_only_go_forward_and_what_is_settled_stays_settled(
        bake in 0..100_u64, revisions in 0..4_usize, first in any::<bool>(),
        hooks in prop::collection::vec((prop::collection::vec(stage(), 1..4), any::<bool>()), 0..4),
        sights in prop::collection::vec((0..40_u64, any::<bool>(), any::<bool>()), 1..40),
        answered in prop::collection::vec((stage(), 0..4_usize, any::<bool>()), 0..6),
        gives_up_at in prop::option::of(0..40_usize),
    ) {
        let hooks = hooks.iter().map(|(stages, continues)| {
            let action = if *continues { Action::Continue } else { Action::Rollback };
            pause(stages, action)
        });
        let route = route(bake, hooks.collect());
        let blue = (!first).then(|| "blue".to_owned());
        let mut course = Course::begin(blue, revisions, &route, at(0), &ids);
        let (mut now, mut answers) = (0, BTreeMap::new());
        for (step, (passes, others_are_gone, green_is_up)) in sights.into_iter().enumerate() {
            now += passes;
            if let Some((stage, hook, goes_on)) = answered.get(step) {
                let action = if *goes_on { Action::Continue } else { Action::Rollback };
                answers.entry(ids(*stage, *hook)).or_insert(action);
            }
            if gives_up_at == Some(step) {
                course.give_up();
            }
            let before = course.clone();
            let sight = Sight { now: at(now), others_are_gone, green_is_up };
            let outlook = course.advance(&route, &sight, &answers, &ids);
            prop_assert!(course.stage >= before.stage);
            prop_assert!(!before.given_up || course == before, "a course that was given up stands still");
            for (was, is) in before.hooks.iter().zip(&course.hooks) {
                prop_assert_eq!(&was.id, &is.id);
                prop_assert!(was.status == HookStatus::AwaitingAction || was == is);
            }
            // Asked again of the same sight, it goes nowhere.
            let again = course.clone();
            prop_assert_eq!(course.advance(&route, &sight, &answers, &ids), outlook.clone());
            prop_assert_eq!(&again, &course);
            if let Outlook::RollsBack(_) = outlook {
                course.give_up();
            }
        }
    }
}
