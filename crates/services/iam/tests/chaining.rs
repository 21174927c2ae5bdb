//! Sessions that begin sessions: how long they are, and what goes on with them.

mod desk;

use std::time::Duration;

use desk::{Desk, refusal};
use gantry_api::RequestContext;
use gantry_api::auth::CredentialSource;
use gantry_api::iam::{self, Iam};
use gantry_api::sts::{self, Sts};

/// The account, so that one session of a role may begin another's.
const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]}]}"#;

fn role(desk: &Desk, name: &str, longest_s: i32) -> String {
    let made = desk.iam.create_role(
        &desk.ctx,
        iam::CreateRoleRequest {
            role_name: name.into(),
            assume_role_policy_document: TRUST.into(),
            max_session_duration: Some(longest_s),
            ..Default::default()
        },
    );
    desk.wait(made).unwrap().role.arn
}

fn assume(
    desk: &Desk,
    ctx: &RequestContext,
    role_arn: &str,
    edit: impl FnOnce(&mut sts::AssumeRoleRequest),
) -> Result<sts::AssumeRoleResponse, sts::StsError> {
    let mut input = sts::AssumeRoleRequest {
        role_arn: role_arn.into(),
        role_session_name: "me".into(),
        ..Default::default()
    };
    edit(&mut input);
    desk.wait(desk.iam.assume_role(ctx, input))
}

/// Who the holder of these credentials is.
fn caller(desk: &Desk, answer: &sts::AssumeRoleResponse) -> RequestContext {
    let key = &answer.credentials.as_ref().unwrap().access_key_id;
    let found = desk.wait(desk.iam.credentials().lookup(key)).unwrap();
    RequestContext {
        principal: found.principal,
        now: desk.world.now(),
        ..desk.ctx.clone()
    }
}

fn tag(key: &str, value: &str) -> sts::Tag {
    sts::Tag {
        key: key.into(),
        value: value.into(),
    }
}

#[test]
fn a_chained_session_is_an_hour_at_most_whatever_the_role_allows() {
    let desk = Desk::new();
    let long = role(&desk, "long", 43200);
    let first = assume(&desk, &desk.ctx, &long, |input| {
        input.duration_seconds = Some(43200)
    });
    let first = first.unwrap();
    let expiration = first.credentials.as_ref().unwrap().expiration;
    assert_eq!(expiration, desk.world.now() + Duration::from_secs(43200));
    let over = assume(&desk, &desk.ctx, &long, |input| {
        input.duration_seconds = Some(43201)
    });
    assert_eq!(refusal(over).0, "ValidationError");

    let chained = caller(&desk, &first);
    for (asked, good) in [
        (None, true),
        (Some(3600), true),
        (Some(900), true),
        (Some(3601), false),
    ] {
        let second = assume(&desk, &chained, &long, |input| {
            input.duration_seconds = asked
        });
        match good {
            true => {
                let asked = Duration::from_secs(asked.unwrap_or(3600).try_into().unwrap());
                let expiration = second.unwrap().credentials.unwrap().expiration;
                assert_eq!(expiration, desk.world.now() + asked);
            }
            false => assert_eq!(
                refusal(second).1,
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed \
                 by role chaining"
            ),
        }
    }
}

#[test]
fn transitive_tags_and_the_source_identity_go_on_and_cannot_be_changed() {
    let desk = Desk::new();
    let role = role(&desk, "ops", 3600);
    let first = assume(&desk, &desk.ctx, &role, |input| {
        input.tags = Some(vec![tag("Team", "blue"), tag("Mine", "1")]);
        input.transitive_tag_keys = Some(vec!["Team".into()]);
        input.source_identity = Some("ann".into());
    });
    let first = first.unwrap();
    assert_eq!(first.source_identity.as_deref(), Some("ann"));
    let chained = caller(&desk, &first);

    let taken = assume(&desk, &chained, &role, |input| {
        input.tags = Some(vec![tag("team", "red")]);
    });
    assert!(
        refusal(taken)
            .1
            .starts_with("One of the specified transitive tag keys")
    );
    let changed = assume(&desk, &chained, &role, |input| {
        input.source_identity = Some("bob".into());
    });
    assert_eq!(refusal(changed).0, "AccessDenied");
    // What was not transitive may be given anew, to the second session and from there to the third.
    let second = assume(&desk, &chained, &role, |input| {
        input.tags = Some(vec![tag("Mine", "2")]);
    });
    let second = second.unwrap();
    assert_eq!(second.source_identity.as_deref(), Some("ann"));
    let third = caller(&desk, &second);
    let taken = assume(&desk, &third, &role, |input| {
        input.tags = Some(vec![tag("Team", "x")])
    });
    assert_eq!(refusal(taken).0, "ValidationError");
    let free = assume(&desk, &third, &role, |input| {
        input.tags = Some(vec![tag("Mine", "3")])
    });
    assert_eq!(free.unwrap().source_identity.as_deref(), Some("ann"));
}

#[test]
fn tags_have_limits_those_that_come_with_the_caller_included() {
    let desk = Desk::new();
    let role = role(&desk, "ops", 3600);
    let many = |count: usize| {
        (0..count)
            .map(|n| tag(&format!("k{n}"), "v"))
            .collect::<Vec<_>>()
    };
    let given =
        |tags: Vec<sts::Tag>| assume(&desk, &desk.ctx, &role, |input| input.tags = Some(tags));
    given(many(50)).unwrap();
    assert_eq!(
        refusal(given(many(51))).1,
        "A session can have at most 50 tags."
    );
    assert!(
        refusal(given(vec![tag("a", "1"), tag("A", "2")]))
            .1
            .starts_with("Duplicate tag keys")
    );
    assert!(
        refusal(given(vec![tag("AWS:x", "1")]))
            .1
            .contains("reserved")
    );
    assert!(
        refusal(given(vec![tag(&"k".repeat(129), "1")]))
            .1
            .contains("128")
    );
    assert!(
        refusal(given(vec![tag("k", &"v".repeat(257))]))
            .1
            .contains("256")
    );
    let unknown = assume(&desk, &desk.ctx, &role, |input| {
        input.transitive_tag_keys = Some(vec!["Team".into()]);
    });
    assert!(refusal(unknown).1.contains("Team"));

    let first = assume(&desk, &desk.ctx, &role, |input| {
        input.tags = Some(many(30));
        input.transitive_tag_keys = Some((0..30).map(|n| format!("k{n}")).collect());
    });
    let chained = caller(&desk, &first.unwrap());
    let more = |count: usize| {
        let tags = (0..count).map(|n| tag(&format!("more{n}"), "v")).collect();
        assume(&desk, &chained, &role, |input| input.tags = Some(tags))
    };
    more(20).unwrap();
    assert_eq!(refusal(more(21)).0, "ValidationError");
}

#[test]
fn what_nobody_here_can_act_on_is_refused_by_name() {
    let desk = Desk::new();
    let role = role(&desk, "ops", 3600);
    for (name, edit) in [
        (
            "SerialNumber",
            (|input| input.serial_number = Some("123456789".into()))
                as fn(&mut sts::AssumeRoleRequest),
        ),
        ("TokenCode", |input| {
            input.token_code = Some("123456".into())
        }),
        ("MinimumSessionTokenSize", |input| {
            input.minimum_session_token_size = Some(100)
        }),
    ] {
        let (code, message) = refusal(assume(&desk, &desk.ctx, &role, edit));
        assert_eq!(code, "NotImplemented");
        assert!(message.contains(name), "{message}");
    }
}
