//! Every rule of services, played: the whole control plane, simulated agents, virtual time. Each test is named
//! after the rule (of `docs/services.md`) that it shows; the laws of the world hold in all of them.
//!
//! | rule | shown by |
//! |---|---|
//! | minimum rounded up, maximum down; 100 and 200 | `bounds`: `the_minimum_is_rounded_up_and_the_maximum_down` |
//! | RUNNING and PENDING count toward the maximum | `bounds`: `running_and_pending_count_toward_the_maximum` |
//! | replaced first where there is room, stopped first otherwise | `health`: `an_unhealthy_task_is_replaced_first_where_the_maximum_allows`, `an_unhealthy_task_is_stopped_first_where_there_is_no_room_for_both`; `bounds`: `a_maximum_that_leaves_no_room_beside_the_minimum_lets_nothing_roll` |
//! | healthy: 40 seconds, or its check | `health`: `without_a_check_a_task_is_healthy_once_it_has_run_for_40_seconds`, `with_a_check_a_task_is_healthy_when_the_check_passes`, `health_that_was_lost_is_told_again_once_for_all_of_a_machine` |
//! | grace period | `health`: `the_grace_period_covers_container_checks` |
//! | slots | `health`: `a_replacement_takes_the_slot_of_the_task_it_replaces` |
//! | paced restarts | `health`: `what_ends_within_ten_seconds_is_started_again_only_when_those_are_over` |
//! | what begins a deployment, and what does not | `deployments`: `force_new_deployment_replaces_every_task_of_the_same_revision`, `a_change_of_the_count_starts_no_deployment` |
//! | one PRIMARY, the others ACTIVE | `deployments`: `there_is_one_primary_deployment_and_those_before_it_are_active_until_their_tasks_are_gone` |
//! | an update during a deployment, or its rollback | `deployments`: `an_update_during_a_deployment_wins`, `an_update_during_a_rollback_wins` |
//! | StopServiceDeployment | `deployments`: `a_deployment_that_is_stopped_is_rolled_back` |
//! | a deployment that is over shows its end | `deployments`: `a_deployment_that_is_over_shows_the_tasks_that_it_had_at_its_end` |
//! | circuit breaker: half, 3 to 200 | `breaker`: `it_opens_after_half_of_the_desired_count_rounded_up_at_least_3`, `it_opens_after_200_at_most` |
//! | forms of the threshold | `breaker`: `a_bounded_percent_is_at_least_3`, `an_unbounded_percent_may_be_less_than_3`, `a_count_is_a_count` |
//! | its second stage | `breaker`: `a_task_that_ends_before_its_health_check_has_passed_counts_and_puts_nothing_off`, `a_task_that_ends_where_nothing_checks_its_health_does_not_count`, `its_second_stage_counts_failed_health_checks` |
//! | resetOnHealthyTask | `breaker`: `a_healthy_task_takes_back_what_was_counted`, `with_reset_on_healthy_task_false_nothing_is_taken_back` |
//! | rollback to the last completed one, or none | `breaker`: `a_broken_revision_rolls_back_to_the_last_completed_one_and_says_so`, `what_failed_before_a_rollback_does_not_count_against_it`, `where_nothing_was_completed_there_is_nothing_to_return_to` |
//! | without a rollback it fails | `breaker`: `without_a_rollback_it_fails_and_starts_nothing_more_and_what_runs_runs_on` |
//! | throttling up to 27 minutes | `throttle`: `starts_are_put_off_for_longer_and_longer_up_to_27_minutes`, `only_tasks_that_stop_before_they_run_put_starts_off` |
//! | what ends it | `throttle`: `a_task_that_comes_up_ends_the_delay`, `a_new_task_definition_resets_the_delay`, `a_forced_deployment_resets_the_delay_as_well` |
//! | scale-in order | `scale_in`: `scale_in_takes_first_what_does_not_run_yet` |
//! | scale-in balanced over zones | `scale_in`: `scale_in_keeps_the_balance_of_the_zones` |
//! | scale-in under a binpack | `scale_in`: `scale_in_under_a_binpack_empties_the_instances_on_which_most_is_left_free`, `scale_in_under_a_spread_and_a_binpack_keeps_the_zones_and_empties_instances_in_each` |
//! | protection: scale-in, deployments, draining | `scale_in`: `a_protected_task_is_left_alone_by_scale_in_until_its_protection_ends`, `a_protected_task_is_left_alone_by_a_deployment`; `capacity`: `a_protected_task_keeps_its_draining_instance` |
//! | protection: 2 hours, 1 minute to 48 hours | `scale_in`: `a_protection_lasts_2_hours_unless_it_says_otherwise`, `a_protection_lasts_from_a_minute_to_48_hours` |
//! | who heeds no protection | `scale_in`: `stop_task_heeds_no_protection`; `ending`: `deletion_heeds_no_protection_and_no_minimum` |
//! | draining instances | `capacity`: `pending_tasks_of_a_draining_instance_stop_at_once`, `running_tasks_of_a_draining_instance_are_replaced_within_the_bounds`, `where_the_minimum_allows_no_stop_a_draining_instance_keeps_its_tasks` |
//! | set back to ACTIVE | `capacity`: `an_instance_that_is_active_again_keeps_the_tasks_that_are_still_there`, `an_instance_that_is_active_again_takes_tasks` |
//! | instances that go | `capacity`: `a_task_whose_agent_is_disconnected_runs_on_and_counts_and_nothing_new_is_started_there`, `what_a_power_cut_took_is_replaced` |
//! | capacity that comes later | `capacity`: `what_finds_no_place_is_started_when_capacity_comes`, `what_finds_no_place_is_tried_again_as_soon_as_a_task_of_the_service_has_stopped` |
//! | DAEMON: one on each | `daemons`: `each_active_instance_that_meets_the_constraints_has_one_task`, `an_instance_that_registers_gets_its_own`, `where_the_constraints_no_longer_hold_the_task_stops_without_a_deployment` |
//! | DAEMON: 0 and 100, what is refused | `daemons`: `its_minimum_is_0_and_its_maximum_100`, `a_maximum_above_100_a_desired_count_and_strategies_are_refused` |
//! | DAEMON: deployments | `daemons`: `a_deployment_goes_from_instance_to_instance_as_the_minimum_allows`, `it_is_not_stopped_while_its_successor_could_not_be_started_there`, `a_broken_revision_of_a_daemon_rolls_back`, `a_protected_daemon_is_left_alone_by_a_deployment` |
//! | DAEMON: draining, disconnected | `daemons`: `on_a_draining_instance_the_daemon_goes_last`, `an_instance_whose_agent_is_disconnected_counts_and_gets_its_task_when_it_is_back` |
//! | rebalancing: where it is ENABLED | `zones`: `it_is_enabled_for_a_service_that_does_not_say_where_it_can_be`, `an_update_that_would_rule_it_out_is_refused_while_it_is_on` |
//! | rebalancing: starts before it stops, once steady | `zones`: `a_steady_service_starts_one_in_the_poorer_zone_before_it_stops_one_in_the_richer`, `a_service_that_is_not_steady_is_not_rebalanced` |
//! | rebalancing: what is not moved | `zones`: `protected_tasks_are_not_moved`, `nothing_is_moved_when_the_maximum_has_no_room_for_one_more`, `a_move_that_came_to_nothing_is_tried_again`, `a_move_that_never_can_be_is_tried_ever_less_and_balance_is_not_told_while_an_agent_is_away` |
//! | placement that changes | `placement`: `a_change_of_placement_starts_no_deployment_and_holds_for_what_is_started_then`, `an_empty_list_removes_them_and_so_does_a_strategy_that_is_an_empty_object` |
//! | placement | `placement`: `without_a_strategy_tasks_are_spread_over_the_zones`, `strategies_chain`, `distinct_instance_gives_each_task_an_instance_of_its_own`, `placement_follows_the_constraints_of_the_service_and_of_the_task_definition` |
//! | digests | `digests`: `all_tasks_of_a_deployment_run_the_digest_that_its_first_found`, `a_rollback_runs_the_very_images_that_were_good`, `with_version_consistency_disabled_each_task_finds_what_its_tag_is` |
//! | events: texts, the last 100, repeats | `events`: `a_service_says_what_it_started_completed_and_stopped_in_the_words_of_aws`, `the_last_hundred_events_are_kept_newest_first`, `a_repeated_event_is_suppressed_for_6_hours`, `a_cluster_without_instances_is_named_as_the_reason` |
//! | deleting | `ending`: `a_service_that_is_scaled_up_is_deleted_only_by_force`, `a_deleted_service_drains_is_inactive_and_is_forgotten_after_an_hour`, `a_service_scaled_to_nothing_is_deleted_without_force`, `a_service_of_the_name_of_a_deleted_one_begins_anew` |
//! | blue/green: stages, bake time | `blue_green`: `its_stages_follow_one_another_and_nothing_of_blue_is_stopped_before_the_last`, `a_first_deployment_has_no_blue_and_bakes_nothing` |
//! | blue/green: pause hooks | `blue_green`: `a_pause_hook_waits_for_its_answer_and_goes_on`, `a_hook_that_is_answered_with_rollback_returns_to_blue`, `a_hook_whose_time_is_over_counts_as_rollback_unless_it_says_otherwise` |
//! | blue/green: while both run | `blue_green`: `while_both_run_what_ends_of_either_is_replaced_by_its_like`, `a_changed_count_is_that_of_both_while_both_run`, `a_draining_instance_is_left_as_far_as_the_minimum_allows_and_otherwise_afterwards` |
//! | blue/green: rolled back | `blue_green`: `the_circuit_breaker_rolls_green_back`, `stop_service_deployment_rolls_back_in_any_stage`, `without_a_rollback_the_circuit_breaker_leaves_blue_kept_up_and_starts_no_more_of_green`, `a_first_deployment_has_nothing_to_return_to` |
//! | blue/green: an update during it | `blue_green`: `an_update_during_it_begins_anew_and_blue_is_what_was_completed_last`, `an_update_of_one_that_had_reached_clean_up_returns_to_that`, `an_update_during_its_rollback_wins`, `where_several_revisions_run_and_none_was_completed_all_leave_for_green` |
//! | blue/green: turned to ROLLING | `blue_green`: `a_service_that_turns_to_rolling_loses_its_bake_time_and_its_hooks` |
//! | a control plane that dies | `deployments`: `a_control_plane_that_dies_goes_on_where_it_was`; `blue_green`: `a_control_plane_that_dies_goes_on_in_the_stage_where_it_was` |
//! | nothing to do, nothing written | `deployments`: `a_pass_over_what_is_as_it_was_asked_for_writes_nothing` |
//!
//! Not played here: what becomes of the tasks of an instance that is deregistered by force (`operations`), that service deployments are shown for ninety days and the last 500
//! of a service, and what is refused by name (`crates/services/ecs/tests/operations`).

mod asked;
mod blue_green;
mod bounds;
mod breaker;
mod capacity;
mod daemons;
mod deployments;
mod digests;
mod ending;
mod events;
mod health;
mod placement;
mod scale_in;
mod throttle;
mod zones;
