//! Many container instances, and what measuring with them needs: written as rows, because it is not
//! their registration that is measured.

use std::sync::Arc;

use gantry_api::ecs;
use gantry_api::{Principal, RequestContext};
use gantry_arn::{AccountId, Arn, ClusterName, ContainerInstanceId, Region};
use gantry_ecs::tables::{
    AcsSessionRow, AllocationRow, ContainerInstanceRow, ContainerInstanceStatus,
    container_instance_name,
};
use gantry_env::Env;
use gantry_store::{Store, Transaction};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Of each instance.
pub const CPU: i32 = 4096;
pub const MEMORY: i32 = 8192;

pub fn context(env: &Env) -> RequestContext {
    let account = AccountId::default();
    RequestContext {
        principal: Principal {
            arn: Arn::global("iam", &account, "root"),
            user_id: account.to_string(),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        },
        account,
        region: Region::default(),
        request_id: "load".to_owned(),
        host: None,
        now: env.now(),
    }
}

/// Processor time of this process, in user and kernel mode.
pub fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may contain anything, come the fields from the third one on.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        // Linux counts hundredths of a second here on every architecture.
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => Err("/proc/self/stat says nothing of processor time".into()),
    }
}

/// A revision of a family with one container of this size.
pub fn definition(family: &str, cpu: i32, memory: i32) -> ecs::RegisterTaskDefinitionRequest {
    ecs::RegisterTaskDefinitionRequest {
        family: family.to_owned(),
        container_definitions: vec![ecs::ContainerDefinition {
            name: Some("web".to_owned()),
            image: Some("busybox".to_owned()),
            cpu: Some(cpu),
            memory: Some(memory),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Instances in three zones of the cluster `default`, whose agents are connected.
pub async fn join(store: &Arc<dyn Store>, env: &Env, instances: u64) -> Result<(), Failure> {
    let context = context(env);
    let mut transaction = Transaction::new();
    for n in 0..instances {
        let id = ContainerInstanceId::from_random(env.entropy.bytes16());
        let cluster = ClusterName::default();
        let name = container_instance_name(&cluster, &id);
        let row = ContainerInstanceRow {
            id,
            cluster,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            ec2_instance_id: format!("i-{n:017x}"),
            registered_at: env.now(),
            deregistered_at: None,
            version: 1,
            registered_resources: vec![resource("CPU", CPU), resource("MEMORY", MEMORY)],
            version_info: None,
            node: None,
            attributes: attributes(n),
            platform_devices: Vec::new(),
            tags: Vec::new(),
        };
        let session = AcsSessionRow {
            session: 1,
            connected: true,
            ..AcsSessionRow::default()
        };
        let (account, region) = (&context.account, &context.region);
        transaction
            .write::<ContainerInstanceRow>(account, region, &name, &row)
            .write::<AllocationRow>(account, region, &name, &AllocationRow::default())
            .write::<AcsSessionRow>(account, region, &name, &session);
        if transaction.len() > gantry_store::MAX_OPERATIONS - 3 {
            store.commit(std::mem::take(&mut transaction)).await?;
        }
    }
    store.commit(transaction).await?;
    Ok(())
}

/// Counts the shares that the rows hold, and that no instance holds more than it has.
pub fn shares(store: &Arc<dyn Store>) -> Result<usize, Failure> {
    let mut shares = 0;
    for row in store.snapshot().list_everywhere::<AllocationRow>() {
        let (cpu, memory) = row.tasks.values().fold((0, 0), |(cpu, memory), share| {
            (cpu + share.cpu, memory + share.memory)
        });
        if cpu > i64::from(CPU) || memory > i64::from(MEMORY) {
            return Err(format!("{} holds more than it has", row.name()).into());
        }
        shares += row.tasks.len();
    }
    Ok(shares)
}

/// About as many as an agent brings.
pub fn attributes(n: u64) -> Vec<ecs::Attribute> {
    let attribute = |name: &str, value: Option<String>| ecs::Attribute {
        name: name.to_owned(),
        value,
        ..ecs::Attribute::default()
    };
    let zone = ["a", "b", "c"][(n % 3) as usize];
    let mut attributes = vec![
        attribute("ecs.availability-zone", Some(format!("us-east-1{zone}"))),
        attribute("ecs.cpu-architecture", Some("x86_64".to_owned())),
        attribute("ecs.os-type", Some("linux".to_owned())),
    ];
    let apis = (17..=44).map(|api| {
        let name = format!("com.amazonaws.ecs.capability.docker-remote-api.1.{api}");
        attribute(&name, None)
    });
    attributes.extend(apis);
    attributes
}

fn resource(name: &str, amount: i32) -> ecs::Resource {
    ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: Some(amount),
        ..ecs::Resource::default()
    }
}
