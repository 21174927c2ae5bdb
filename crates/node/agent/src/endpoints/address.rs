//! Where a container finds its endpoints, and what a path asks for.
//!
//! What always holds: an address cannot be guessed, because 128 random bits are in it. It also says when
//! its container was made, so an agent that finds the container again knows that too.
//! What it leaves to others: which addresses there are.

use std::fmt;

use gantry_env::Timestamp;

/// Where containers with a network namespace of their own reach everything.
pub const TASK_ADDRESS: &str = "http://169.254.170.2";

/// Where they reach the control plane that their agent joined.
pub const CONTROL_PLANE: &str = "http://169.254.170.2:4566";

pub const METADATA_V4: &str = "ECS_CONTAINER_METADATA_URI_V4";
pub const METADATA_V3: &str = "ECS_CONTAINER_METADATA_URI";
pub const AGENT: &str = "ECS_AGENT_URI";
pub const CREDENTIALS_RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
pub const CREDENTIALS_FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";

pub const SDK_ENDPOINT: &str = "AWS_ENDPOINT_URL";
/// SDKs would put a word of the service before an endpoint's name, and an address has no names below it.
pub const SDK_HOST_PREFIX: &str = "AWS_DISABLE_HOST_PREFIX_INJECTION";

const CREDENTIALS_PATH: &str = "/v2/credentials/";

/// What stands for a container in its addresses: 32 hexadecimal digits, a dash, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointId {
    text: String,
    created_at: Timestamp,
}

impl EndpointId {
    pub fn new(random: [u8; 16], created_at: Timestamp) -> EndpointId {
        let random = u128::from_be_bytes(random);
        EndpointId {
            text: format!("{random:032x}-{}", created_at.as_millis()),
            created_at,
        }
    }

    pub fn parse(text: &str) -> Option<EndpointId> {
        let (random, created_at) = text.split_once('-')?;
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if random.len() != 32 || !random.bytes().all(is_hex) {
            return None;
        }
        Some(EndpointId {
            text: text.to_owned(),
            created_at: Timestamp::from_millis(created_at.parse().ok()?),
        })
    }

    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// By which door a task comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// 169.254.170.2, by its own address.
    Link,
    /// A port on the host's loopback address, because its network is the host's.
    Loopback,
}

/// What a container's environment says of its endpoints.
pub fn variables(
    door: Door,
    loopback_port: u16,
    id: &EndpointId,
    credentials_id: Option<&str>,
) -> Vec<(&'static str, String)> {
    let base = match door {
        Door::Link => TASK_ADDRESS.to_owned(),
        Door::Loopback => format!("http://127.0.0.1:{loopback_port}"),
    };
    let mut variables = vec![
        (METADATA_V4, format!("{base}/v4/{id}")),
        (METADATA_V3, format!("{base}/v3/{id}")),
        (AGENT, format!("{base}/api/{id}")),
    ];
    if let Some(credentials) = credentials_id {
        let path = format!("{CREDENTIALS_PATH}{credentials}");
        variables.push(match door {
            Door::Link => (CREDENTIALS_RELATIVE, path),
            // SDKs prefix a relative address with 169.254.170.2, and take a whole one on loopback.
            Door::Loopback => (CREDENTIALS_FULL, format!("{base}{path}")),
        });
    }
    variables
}

/// What a container's environment tells AWS SDKs of the control plane at `joined`, unless the definition or the image says
/// something about it. One that needs TLS is not told of: its authority is not in the container.
pub fn sdk_variables(
    door: Door,
    joined: &str,
    is_set: impl Fn(&str) -> bool,
) -> Vec<(&'static str, String)> {
    if is_set(SDK_ENDPOINT) || !is_plain(joined) {
        return Vec::new();
    }
    let endpoint = match door {
        Door::Link => {
            let path = joined.splitn(4, '/').nth(3).unwrap_or_default();
            format!("{CONTROL_PLANE}/{path}")
        }
        Door::Loopback => joined.to_owned(),
    };
    let mut variables = vec![(SDK_ENDPOINT, endpoint.trim_end_matches('/').to_owned())];
    if !is_set(SDK_HOST_PREFIX) {
        variables.push((SDK_HOST_PREFIX, "true".to_owned()));
    }
    variables
}

/// Whether an endpoint speaks HTTP without TLS.
pub fn is_plain(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

/// What an earlier agent wrote into a container's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: EndpointId,
    pub door: Door,
    pub credentials_id: Option<String>,
}

impl Found {
    pub fn of(environment: &[(String, String)]) -> Option<Found> {
        let value = |name: &str| {
            let found = environment.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        let (base, id) = value(METADATA_V4)?.rsplit_once("/v4/")?;
        let credentials = value(CREDENTIALS_RELATIVE).or_else(|| value(CREDENTIALS_FULL));
        let credentials = credentials.and_then(|uri| uri.rsplit_once(CREDENTIALS_PATH));
        Some(Found {
            id: EndpointId::parse(id)?,
            door: if base == TASK_ADDRESS {
                Door::Link
            } else {
                Door::Loopback
            },
            credentials_id: credentials.map(|(_, id)| id.to_owned()),
        })
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3,
    V4,
}

/// Which document of a container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    Container,
    Task,
    TaskWithTags,
    Stats,
    TaskStats,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    Credentials {
        id: &'a str,
    },
    Metadata {
        id: &'a str,
        version: Version,
        document: Document,
    },
    /// Below `$ECS_AGENT_URI`.
    Agent {
        id: &'a str,
        api: &'a str,
    },
}

impl Asked<'_> {
    pub fn of(path: &str) -> Option<Asked<'_>> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let (root, rest) = path.split_once('/')?;
        let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
        let version = match root {
            "v2" => {
                let is_one = id == "credentials" && !below.is_empty() && !below.contains('/');
                return is_one.then_some(Asked::Credentials { id: below });
            }
            "api" => return Some(Asked::Agent { id, api: below }),
            "v3" => Version::V3,
            "v4" => Version::V4,
            _ => return None,
        };
        let document = match below {
            "" => Document::Container,
            "task" => Document::Task,
            "taskWithTags" => Document::TaskWithTags,
            "stats" => Document::Stats,
            "task/stats" => Document::TaskStats,
            _ => return None,
        };
        Some(Asked::Metadata {
            id,
            version,
            document,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> EndpointId {
        EndpointId::new([7; 16], Timestamp::from_millis(1_700_000_000_123))
    }

    #[test]
    fn sdks_are_told_of_the_control_plane_unless_somebody_said_something() {
        let nothing = |_: &str| false;
        let told = |door, joined, is_set: &dyn Fn(&str) -> bool| -> Vec<String> {
            let variables = sdk_variables(door, joined, is_set);
            variables
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let prefix = "AWS_DISABLE_HOST_PREFIX_INJECTION=true";
        assert_eq!(
            told(Door::Link, "http://127.0.0.1:1234", &nothing),
            ["AWS_ENDPOINT_URL=http://169.254.170.2:4566", prefix]
        );
        assert_eq!(
            told(Door::Loopback, "http://127.0.0.1:1234", &nothing),
            ["AWS_ENDPOINT_URL=http://127.0.0.1:1234", prefix]
        );
        let below = told(Door::Link, "http://plane.lan:80/a/b/", &nothing);
        assert_eq!(below[0], "AWS_ENDPOINT_URL=http://169.254.170.2:4566/a/b");
        let set = |name: &str| name == SDK_ENDPOINT;
        assert!(told(Door::Link, "http://127.0.0.1:1234", &set).is_empty());
        assert!(told(Door::Loopback, "https://plane.example", &nothing).is_empty());
        let prefix_set = |name: &str| name == SDK_HOST_PREFIX;
        let only_endpoint = told(Door::Link, "http://127.0.0.1:1234", &prefix_set);
        assert_eq!(
            only_endpoint,
            ["AWS_ENDPOINT_URL=http://169.254.170.2:4566"]
        );
    }

    #[test]
    fn an_address_says_when_its_container_was_made() {
        let id = id();
        assert_eq!(EndpointId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.created_at().as_millis(), 1_700_000_000_123);
        for wrong in ["", "-1", "07", "0707-1", &format!("{}-x", "0".repeat(32))] {
            assert_eq!(EndpointId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_one_agent_writes_the_next_one_reads() {
        for (door, credentials_id) in [
            (Door::Link, None),
            (Door::Link, Some("c1")),
            (Door::Loopback, Some("c2")),
        ] {
            let environment: Vec<(String, String)> = variables(door, 40_000, &id(), credentials_id)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let found = Found::of(&environment).unwrap();
            assert_eq!((found.id, found.door), (id(), door));
            assert_eq!(found.credentials_id.as_deref(), credentials_id);
        }
        assert_eq!(Found::of(&[]), None);
    }

    #[test]
    fn paths_are_those_that_are_documented_and_no_others() {
        let metadata = |version, document| {
            Some(Asked::Metadata {
                id: "I",
                version,
                document,
            })
        };
        for (path, asked) in [
            ("/v4/I", metadata(Version::V4, Document::Container)),
            ("/v4/I/", metadata(Version::V4, Document::Container)),
            ("/v4/I/task", metadata(Version::V4, Document::Task)),
            (
                "/v3/I/taskWithTags",
                metadata(Version::V3, Document::TaskWithTags),
            ),
            ("/v3/I/stats", metadata(Version::V3, Document::Stats)),
            (
                "/v4/I/task/stats",
                metadata(Version::V4, Document::TaskStats),
            ),
            ("/v2/credentials/I", Some(Asked::Credentials { id: "I" })),
            (
                "/api/I/task-protection/v1/state",
                Some(Asked::Agent {
                    id: "I",
                    api: "task-protection/v1/state",
                }),
            ),
            ("/v2/credentials", None),
            ("/v2/credentials/I/x", None),
            ("/v2/metadata", None),
            ("/v4", None),
            ("/v4/I/other", None),
            ("/", None),
            ("", None),
            ("v4/I", None),
        ] {
            assert_eq!(Asked::of(path), asked, "{path}");
        }
    }
}
