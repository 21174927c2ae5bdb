//! Users, their keys and their sessions: what always holds, whatever is done in whatever order.

mod desk;

use std::time::Duration;

use desk::{Desk, refusal};
use gantry_api::auth::CredentialSource;
use gantry_api::iam::{self, Iam, StatusType};
use gantry_api::sts::{self, Sts};
use gantry_api::{Principal, RequestContext};

fn user(desk: &Desk, name: &str) -> iam::User {
    let input = iam::CreateUserRequest {
        user_name: name.into(),
        ..Default::default()
    };
    desk.wait(desk.iam.create_user(&desk.ctx, input))
        .unwrap()
        .user
        .unwrap()
}

fn key(desk: &Desk, user: &str) -> Result<iam::AccessKey, iam::IamError> {
    let input = iam::CreateAccessKeyRequest {
        user_name: Some(user.into()),
    };
    desk.wait(desk.iam.create_access_key(&desk.ctx, input))
        .map(|output| output.access_key)
}

/// The request of whoever has this key.
fn signed(desk: &Desk, access_key_id: &str) -> Option<RequestContext> {
    let found = desk.wait(desk.iam.credentials().lookup(access_key_id))?;
    Some(RequestContext {
        principal: found.principal,
        now: desk.world.now(),
        ..desk.ctx.clone()
    })
}

#[test]
fn nobody_has_what_cannot_be_made_here_and_one_can_ask() {
    let desk = Desk::new();
    user(&desk, "ann");
    let (iam, ctx) = (&desk.iam, &desk.ctx);
    let named = |name: &str| Some(name.to_owned());
    for (name, found) in [("ann", true), ("ghost", false)] {
        let keys = desk.wait(iam.list_ssh_public_keys(
            ctx,
            iam::ListSSHPublicKeysRequest {
                user_name: named(name),
                ..Default::default()
            },
        ));
        assert_eq!(
            keys.map(|keys| keys.ssh_public_keys.unwrap().is_empty())
                .ok(),
            found.then_some(true)
        );
        let devices = desk.wait(iam.list_mfa_devices(
            ctx,
            iam::ListMFADevicesRequest {
                user_name: named(name),
                ..Default::default()
            },
        ));
        assert_eq!(
            devices.map(|devices| devices.mfa_devices.is_empty()).ok(),
            found.then_some(true)
        );
        let input = iam::DeleteLoginProfileRequest {
            user_name: named(name),
        };
        let (code, message) = refusal(desk.wait(iam.delete_login_profile(ctx, input)));
        assert_eq!(code, "NoSuchEntity");
        assert_eq!(message.starts_with("Login Profile"), found, "{message}");
    }
}

#[test]
fn sessions_last_as_long_as_aws_lets_them() {
    let desk = Desk::new();
    user(&desk, "ann");
    let key = key(&desk, "ann").unwrap();
    let ann = signed(&desk, &key.access_key_id).unwrap();
    let hours = |ctx: &RequestContext, seconds: Option<i32>| {
        let input = sts::GetSessionTokenRequest {
            duration_seconds: seconds,
            ..Default::default()
        };
        let session = desk.wait(desk.iam.get_session_token(ctx, input)).unwrap();
        let expiration = session.credentials.unwrap().expiration;
        expiration.since(desk.world.now()).as_secs() / 3600
    };
    assert_eq!(hours(&ann, None), 12);
    assert_eq!(hours(&ann, Some(129_600)), 36);
    // The root user's are cut to an hour without a word.
    assert_eq!(hours(&desk.ctx, Some(129_600)), 1);
}

#[test]
fn a_new_user_of_an_old_name_gets_nothing_of_the_old_one() {
    let desk = Desk::new();
    let old = user(&desk, "ann");
    let first = key(&desk, "ann").unwrap();
    let ann = signed(&desk, &first.access_key_id).unwrap();
    let session = desk
        .wait(
            desk.iam
                .get_session_token(&ann, sts::GetSessionTokenRequest::default()),
        )
        .unwrap()
        .credentials
        .unwrap();
    assert!(signed(&desk, &session.access_key_id).is_some());
    desk.wait(desk.iam.delete_access_key(
        &desk.ctx,
        iam::DeleteAccessKeyRequest {
            user_name: Some("ann".into()),
            access_key_id: first.access_key_id.clone(),
        },
    ))
    .unwrap();
    let gone = iam::DeleteUserRequest {
        user_name: "ann".into(),
    };
    desk.wait(desk.iam.delete_user(&desk.ctx, gone)).unwrap();
    let new = user(&desk, "ann");
    assert_ne!(old.user_id, new.user_id);
    assert!(signed(&desk, &first.access_key_id).is_none());
    assert!(signed(&desk, &session.access_key_id).is_none());
    // Whoever signed just before its user was deleted gets no session of the new one.
    let refused = desk.wait(desk.iam.get_session_token(&ann, Default::default()));
    assert_eq!(refusal(refused).0, "InvalidClientTokenId");
}

#[test]
fn the_last_use_is_recorded_once_in_a_quarter_of_an_hour() {
    let desk = Desk::new();
    user(&desk, "ann");
    let id = key(&desk, "ann").unwrap().access_key_id;
    let credentials = desk.iam.credentials();
    let last = || {
        let input = iam::GetAccessKeyLastUsedRequest {
            access_key_id: id.clone(),
        };
        desk.wait(desk.iam.get_access_key_last_used(&desk.ctx, input))
            .unwrap()
            .access_key_last_used
            .unwrap()
    };
    assert_eq!((last().last_used_date, last().region), (None, "N/A".into()));
    let first = desk.world.now();
    desk.wait(credentials.used(&id, "ecs", "eu-west-1"));
    assert_eq!(last().last_used_date, Some(first));
    desk.world.advance(Duration::from_secs(14 * 60));
    desk.wait(credentials.used(&id, "sts", "us-east-1"));
    assert_eq!(
        (last().last_used_date, last().service_name),
        (Some(first), "ecs".into())
    );
    desk.world.advance(Duration::from_secs(60));
    desk.wait(credentials.used(&id, "sts", "us-east-1"));
    assert_eq!(last().last_used_date, Some(desk.world.now()));
    // Keys of nobody, and of the root user, leave no row.
    let rows = desk.store.snapshot().len();
    desk.wait(credentials.used("AKIANOBODY", "sts", "us-east-1"));
    assert_eq!(desk.store.snapshot().len(), rows);
}

#[test]
fn only_users_and_the_root_user_are_meant_without_a_name() {
    let desk = Desk::new();
    let role = Principal {
        arn: "arn:aws:sts::000000000000:assumed-role/r/me"
            .parse()
            .unwrap(),
        user_id: "AROA:me".into(),
        access_key_id: "ASIAROLE".into(),
    };
    let ctx = RequestContext {
        principal: role,
        ..desk.ctx.clone()
    };
    let refused = desk.wait(desk.iam.get_user(&ctx, Default::default()));
    assert_eq!(
        refusal(refused),
        (
            "ValidationError".into(),
            "Must specify userName when calling with non-User credentials".into()
        )
    );
    let root = desk.wait(desk.iam.create_access_key(&desk.ctx, Default::default()));
    assert_eq!(refusal(root).0, "NotImplemented");
}

/// Random changes of a few users, groups, roles and one policy: after each, the policy counts those
/// that hold it, a user has two keys at most, and exactly the active keys of users that exist sign.
#[test]
fn counts_and_keys_agree_after_every_change() {
    let desk = Desk::new();
    let policy = desk.policy("own");
    let names = ["a", "b", "c"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut keys: Vec<(String, String, bool)> = Vec::new();
    for step in 0..600 {
        let name = names[draw(names.len())].to_owned();
        let other = names[draw(names.len())].to_owned();
        let (i, ctx) = (&desk.iam, &desk.ctx);
        match draw(13) {
            0 => drop(desk.wait(i.create_user(
                ctx,
                iam::CreateUserRequest {
                    user_name: name,
                    ..Default::default()
                },
            ))),
            1 => {
                let input = iam::DeleteUserRequest { user_name: name };
                drop(desk.wait(i.delete_user(ctx, input)));
            }
            2 => {
                let input = iam::UpdateUserRequest {
                    user_name: name.clone(),
                    new_user_name: Some(other.clone()),
                    ..Default::default()
                };
                if desk.wait(i.update_user(ctx, input)).is_ok() {
                    for key in keys.iter_mut().filter(|key| key.0 == name) {
                        key.0.clone_from(&other);
                    }
                }
            }
            3 => drop(desk.wait(i.create_group(
                ctx,
                iam::CreateGroupRequest {
                    group_name: name,
                    path: None,
                },
            ))),
            4 => {
                let input = iam::DeleteGroupRequest { group_name: name };
                drop(desk.wait(i.delete_group(ctx, input)));
            }
            5 => drop(desk.wait(i.add_user_to_group(
                ctx,
                iam::AddUserToGroupRequest {
                    group_name: name,
                    user_name: other,
                },
            ))),
            6 => drop(desk.wait(i.remove_user_from_group(
                ctx,
                iam::RemoveUserFromGroupRequest {
                    group_name: name,
                    user_name: other,
                },
            ))),
            7 => {
                let policy_arn = policy.clone();
                drop(desk.wait(i.attach_user_policy(
                    ctx,
                    iam::AttachUserPolicyRequest {
                        user_name: name,
                        policy_arn,
                    },
                )));
            }
            8 => {
                let policy_arn = policy.clone();
                drop(desk.wait(i.detach_user_policy(
                    ctx,
                    iam::DetachUserPolicyRequest {
                        user_name: name,
                        policy_arn,
                    },
                )));
            }
            9 => {
                let policy_arn = policy.clone();
                let attach = iam::AttachGroupPolicyRequest {
                    group_name: name.clone(),
                    policy_arn: policy_arn.clone(),
                };
                let detach = iam::DetachGroupPolicyRequest {
                    group_name: name,
                    policy_arn,
                };
                match draw(2) {
                    0 => drop(desk.wait(i.attach_group_policy(ctx, attach))),
                    _ => drop(desk.wait(i.detach_group_policy(ctx, detach))),
                }
            }
            10 => {
                let held = keys.iter().filter(|key| key.0 == name).count();
                match key(&desk, &name) {
                    Ok(made) => {
                        assert!(held < 2, "a third key was made at step {step}");
                        keys.push((name, made.access_key_id, true));
                    }
                    Err(error) => {
                        let code = refusal(Err::<(), _>(error)).0;
                        let full = code == "LimitExceeded";
                        assert_eq!(full, held == 2, "{code} at step {step}");
                    }
                }
            }
            11 if !keys.is_empty() => {
                let at = draw(keys.len());
                let (user, id, active) = &mut keys[at];
                *active = !*active;
                let input = iam::UpdateAccessKeyRequest {
                    user_name: Some(user.clone()),
                    access_key_id: id.clone(),
                    status: match active {
                        true => StatusType::Active,
                        false => StatusType::Inactive,
                    },
                };
                desk.wait(i.update_access_key(ctx, input)).unwrap();
            }
            12 if !keys.is_empty() => {
                let (user, id, _) = keys.swap_remove(draw(keys.len()));
                let input = iam::DeleteAccessKeyRequest {
                    user_name: Some(user),
                    access_key_id: id.clone(),
                };
                desk.wait(i.delete_access_key(ctx, input)).unwrap();
                assert!(signed(&desk, &id).is_none(), "a deleted key signs");
            }
            _ => {}
        }
        let holders = desk
            .wait(i.list_entities_for_policy(
                ctx,
                iam::ListEntitiesForPolicyRequest {
                    policy_arn: policy.clone(),
                    ..Default::default()
                },
            ))
            .unwrap();
        let counted = desk
            .wait(i.get_policy(
                ctx,
                iam::GetPolicyRequest {
                    policy_arn: policy.clone(),
                },
            ))
            .unwrap()
            .policy
            .unwrap();
        let held = holders.policy_users.unwrap().len() + holders.policy_groups.unwrap().len();
        assert_eq!(
            counted.attachment_count,
            i32::try_from(held).ok(),
            "step {step}"
        );
        for (user, id, active) in &keys {
            let caller = signed(&desk, id).map(|ctx| ctx.principal.arn.to_string());
            let own = active.then(|| format!("arn:aws:iam::000000000000:user/{user}"));
            assert_eq!(caller, own, "step {step}");
        }
    }
}
