//! What the tests of IAM share: a service over an empty memory store on virtual time.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::future::Future;
use std::sync::Arc;

use gantry_api::iam::{self, Iam, IamError};
use gantry_api::{ApiError, Principal, RequestContext};
use gantry_arn::{AccountId, Arn, Region};
use gantry_env::VirtualEnv;
use gantry_iam::IamService;
use gantry_store::{MemoryStore, Store};

pub const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;
pub const DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;
pub const EXECUTION: &str = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy";

pub struct Desk {
    pub world: VirtualEnv,
    pub store: Arc<dyn Store>,
    pub iam: IamService,
    pub ctx: RequestContext,
}

impl Desk {
    pub fn new() -> Self {
        let world = VirtualEnv::seeded(7);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::with_env(&world.env()));
        Self::over(world, store)
    }

    pub fn over(world: VirtualEnv, store: Arc<dyn Store>) -> Self {
        let account = AccountId::default();
        let ctx = RequestContext {
            account,
            region: Region::default(),
            principal: Principal {
                arn: Arn::global("iam", &account, "root"),
                user_id: account.to_string(),
                access_key_id: "AKIAROOT".into(),
            },
            request_id: "request".into(),
            host: None,
            now: world.now(),
        };
        Self {
            iam: IamService::new(store.clone(), world.env()),
            world,
            store,
            ctx,
        }
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.world.block_on(future).expect("nothing waits forever")
    }

    pub fn role(&self, name: &str) -> iam::Role {
        self.wait(self.iam.create_role(
            &self.ctx,
            iam::CreateRoleRequest {
                role_name: name.into(),
                assume_role_policy_document: TRUST.into(),
                ..Default::default()
            },
        ))
        .unwrap()
        .role
    }

    pub fn policy(&self, name: &str) -> String {
        self.wait(self.iam.create_policy(
            &self.ctx,
            iam::CreatePolicyRequest {
                policy_name: name.into(),
                policy_document: DOCUMENT.into(),
                ..Default::default()
            },
        ))
        .unwrap()
        .policy
        .unwrap()
        .arn
        .unwrap()
    }

    pub fn attach(&self, role: &str, policy: &str) -> Result<(), IamError> {
        self.wait(self.iam.attach_role_policy(
            &self.ctx,
            iam::AttachRolePolicyRequest {
                role_name: role.into(),
                policy_arn: policy.into(),
            },
        ))
    }

    pub fn detach(&self, role: &str, policy: &str) -> Result<(), IamError> {
        self.wait(self.iam.detach_role_policy(
            &self.ctx,
            iam::DetachRolePolicyRequest {
                role_name: role.into(),
                policy_arn: policy.into(),
            },
        ))
    }

    pub fn delete_role(&self, name: &str) -> Result<(), IamError> {
        self.wait(self.iam.delete_role(
            &self.ctx,
            iam::DeleteRoleRequest {
                role_name: name.into(),
            },
        ))
    }
}

/// Code and message, as a caller sees them.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, impl Into<ApiError>>) -> (String, String) {
    let error: ApiError = result.expect_err("must be refused").into();
    (error.code, error.message)
}
