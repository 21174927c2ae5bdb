//! Keys and sessions from outside: made once, found at once, gone when they should be.

mod desk;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use desk::{Desk, refusal};
use gantry_api::auth::CredentialSource;
use gantry_api::sts::{self, Sts};
use gantry_arn::AccountId;
use gantry_iam::{Credentials, RoleSessionError, RoleSessionRequest, TASK_SESSION};
use gantry_store::{Changes, CommitError, Prefix, Revision, Snapshot, Store, Transaction};

#[test]
fn the_first_start_makes_keys_and_every_later_one_finds_them() {
    let desk = Desk::new();
    let credentials = desk.iam.credentials();
    let keys = desk.wait(credentials.bootstrap(&desk.ctx.account)).unwrap();
    let rows = desk.store.snapshot().len();
    // Another process over the same store, a while later.
    let later = Desk::over(desk.world.clone(), desk.store.clone());
    let again = later
        .wait(later.iam.credentials().bootstrap(&desk.ctx.account))
        .unwrap();
    assert_eq!(again, keys);
    assert_eq!(desk.store.snapshot().len(), rows);

    assert_eq!(keys.root.access_key_id.len(), 20);
    assert!(keys.root.access_key_id.starts_with("AKIA"));
    assert_eq!(keys.root.secret_access_key.len(), 40);
    let root = desk
        .wait(credentials.lookup(&keys.root.access_key_id))
        .unwrap();
    assert_eq!(root.secret, keys.root.secret_access_key);
    assert_eq!(
        root.principal.arn.to_string(),
        "arn:aws:iam::000000000000:root"
    );
    assert_eq!(root.principal.user_id, "000000000000");
    assert_eq!((root.session_token, root.expiration), (None, None));
    let node = desk
        .wait(credentials.lookup(&keys.node.access_key_id))
        .unwrap();
    assert_eq!(
        node.principal.arn.to_string(),
        "arn:aws:sts::000000000000:assumed-role/AWSServiceRoleForGantryNode/local"
    );
    assert!(node.principal.user_id.starts_with("AROA"));
    assert!(desk.wait(credentials.lookup("AKIANOBODY")).is_none());
    // A secret must not be readable in a log.
    assert!(!format!("{keys:?}").contains(&keys.root.secret_access_key));
}

/// Lets a rival start between the read and the commit of whoever commits first.
struct Raced {
    inner: Arc<dyn Store>,
    rival: Mutex<Option<Credentials>>,
}

#[async_trait]
impl Store for Raced {
    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let rival = self.rival.lock().unwrap().take();
        if let Some(rival) = rival {
            rival.bootstrap(&AccountId::default()).await?;
        }
        self.inner.commit(transaction).await
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        self.inner.watch(prefix, after)
    }
}

#[test]
fn two_replicas_that_start_at_once_agree_on_the_keys() {
    let desk = Desk::new();
    let raced = Arc::new(Raced {
        inner: desk.store.clone(),
        rival: Mutex::new(Some(desk.iam.credentials().clone())),
    });
    let slower = Credentials::new(raced, desk.world.env());
    let keys = desk.wait(slower.bootstrap(&desk.ctx.account)).unwrap();
    let rows = desk.store.snapshot().len();
    let credentials = desk.iam.credentials();
    assert_eq!(
        desk.wait(credentials.bootstrap(&desk.ctx.account)).unwrap(),
        keys
    );
    assert_eq!(desk.store.snapshot().len(), rows);
}

#[test]
fn a_session_is_its_role_until_it_expires_or_the_role_is_gone() {
    let desk = Desk::new();
    let credentials = desk.iam.credentials();
    let role = desk.role("task");
    let issue = || desk.wait(credentials.issue_role_session(&role.arn, "0123abcd", TASK_SESSION));
    let session = issue().unwrap();
    assert!(session.access_key_id.starts_with("ASIA"));
    assert_eq!(
        session.arn.to_string(),
        "arn:aws:sts::000000000000:assumed-role/task/0123abcd"
    );
    assert_eq!(
        session.assumed_role_id,
        format!("{}:0123abcd", role.role_id)
    );
    assert_eq!(session.expiration, desk.world.now() + TASK_SESSION);
    let found = desk
        .wait(credentials.lookup(&session.access_key_id))
        .unwrap();
    assert_eq!(found.secret, session.secret_access_key);
    assert_eq!(found.session_token, Some(session.session_token.clone()));
    assert_eq!(found.expiration, Some(session.expiration));

    // A role of the same name is another role.
    desk.delete_role("task").unwrap();
    assert!(
        desk.wait(credentials.lookup(&session.access_key_id))
            .is_none()
    );
    desk.role("task");
    assert!(
        desk.wait(credentials.lookup(&session.access_key_id))
            .is_none()
    );
    assert!(issue().is_ok());
}

#[test]
fn sessions_are_issued_together_or_not_at_all() {
    let desk = Desk::new();
    let credentials = desk.iam.credentials();
    let task = desk.role("task").arn;
    let request = |role_arn: &str| RoleSessionRequest {
        role_arn: role_arn.into(),
        session_name: "abc".into(),
        duration: TASK_SESSION,
    };
    let missing = "arn:aws:iam::000000000000:role/ghost";
    let before = desk.store.snapshot().len();
    assert_eq!(
        desk.wait(credentials.issue_role_sessions(&[request(&task), request(missing)])),
        Err(RoleSessionError::NoSuchRole(missing.into()))
    );
    assert_eq!(desk.store.snapshot().len(), before);
    let both = desk
        .wait(credentials.issue_role_sessions(&[request(&task), request(&task)]))
        .unwrap();
    assert_ne!(both[0].access_key_id, both[1].access_key_id);
    assert_eq!(
        desk.wait(credentials.issue_role_session("task", "abc", TASK_SESSION)),
        Err(RoleSessionError::NotARole("task".into()))
    );
    // The path is part of the name of a role.
    assert!(!credentials.role_exists("arn:aws:iam::000000000000:role/x/task"));
    assert!(credentials.role_exists(&task));
}

#[test]
fn ended_sessions_do_not_pile_up() {
    let desk = Desk::new();
    let credentials = desk.iam.credentials();
    let role = desk.role("task").arn;
    for _ in 0..2000 {
        desk.wait(credentials.issue_role_session(&role, "abc", Duration::from_secs(900)))
            .unwrap();
        desk.world.advance(Duration::from_secs(60));
    }
    // 15 are alive at any moment; the rest is what a sweep has not met yet.
    let rows = desk.store.snapshot().len();
    assert!(rows < 150, "{rows} rows after 2000 sessions");
}

#[test]
fn the_caller_learns_who_it_is_and_may_become_a_role() {
    let desk = Desk::new();
    let me = desk
        .wait(
            desk.iam
                .get_caller_identity(&desk.ctx, sts::GetCallerIdentityRequest::default()),
        )
        .unwrap();
    assert_eq!(me.arn.as_deref(), Some("arn:aws:iam::000000000000:root"));
    assert_eq!(
        (me.user_id.as_deref(), me.account.as_deref()),
        (Some("000000000000"), Some("000000000000"))
    );

    let role = desk.role("ops").arn;
    let assume = |role_arn: &str, duration: Option<i32>| {
        desk.wait(desk.iam.assume_role(
            &desk.ctx,
            sts::AssumeRoleRequest {
                role_arn: role_arn.into(),
                role_session_name: "me".into(),
                duration_seconds: duration,
                ..Default::default()
            },
        ))
    };
    let assumed = assume(&role, None).unwrap();
    let key = assumed.credentials.unwrap();
    assert_eq!(key.expiration, desk.world.now() + Duration::from_secs(3600));
    let found = desk
        .wait(desk.iam.credentials().lookup(&key.access_key_id))
        .unwrap();
    assert_eq!(
        found.principal.arn.to_string(),
        assumed.assumed_role_user.unwrap().arn
    );
    assert_eq!(refusal(assume(&role, Some(7200))).0, "ValidationError");
    assert_eq!(
        refusal(assume("arn:aws:iam::000000000000:role/ghost", None)),
        (
            "AccessDenied".into(),
            "User: arn:aws:iam::000000000000:root is not authorized to perform: sts:AssumeRole on \
             resource: arn:aws:iam::000000000000:role/ghost"
                .into()
        )
    );
    let narrowed = desk.wait(desk.iam.assume_role(
        &desk.ctx,
        sts::AssumeRoleRequest {
            role_arn: role,
            role_session_name: "me".into(),
            policy: Some("{}".into()),
            ..Default::default()
        },
    ));
    assert_eq!(refusal(narrowed).0, "MalformedPolicyDocument");
}
