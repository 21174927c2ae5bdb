//! One long-lived boto3 that a test asks in JSON: quick enough to act between two states of a task.
//!
//! What always holds: an answer that did not come is told apart from a refusal, because what did not answer may
//! have been done. Nothing is repeated here but `persist`, which says so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::installation::{Installation, eventually};

const BRIDGE: &str = r#"
import boto3, botocore, json, sys
from botocore.config import Config
quick = Config(retries=dict(max_attempts=0), connect_timeout=5, read_timeout=60)
clients = {}
for line in sys.stdin:
    ask = json.loads(line)
    try:
        service = ask["service"]
        if service not in clients: clients[service] = boto3.client(service, config=quick)
        answer = getattr(clients[service], ask["call"])(**ask["with"])
        answer.pop("ResponseMetadata", None)
        said = dict(ok=answer)
    except botocore.exceptions.ClientError as error:
        said = dict(refused=str(error), status=error.response["ResponseMetadata"]["HTTPStatusCode"])
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        said = dict(gone=str(error))
    print(json.dumps(said, default=lambda time: time.timestamp()), flush=True)
"#;

/// Why there is no answer.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "what was said stands in the messages of failed tests"
)]
pub enum NoAnswer {
    /// The service said no, with this status.
    Refused { status: u64, text: String },
    /// Nobody answered.
    Gone(String),
}

/// Ends with its owner, since its input ends.
pub struct Boto {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Boto {
    pub fn of(gantry: &Installation) -> Boto {
        let mut child = gantry
            .command("python3")
            .args(["-c", BRIDGE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Boto {
            child,
            input,
            output,
        }
    }

    /// One call, sent once.
    pub fn once(&mut self, service: &str, call: &str, with: &Value) -> Result<Value, NoAnswer> {
        let ask = json!({"service": service, "call": call, "with": with});
        writeln!(self.input, "{ask}").expect("boto3 listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("boto3 answers");
        let mut said: Value = serde_json::from_str(&line).expect("JSON from boto3");
        if let Some(text) = said["gone"].as_str() {
            return Err(NoAnswer::Gone(text.to_owned()));
        }
        if let Some(text) = said["refused"].as_str() {
            return Err(NoAnswer::Refused {
                status: said["status"].as_u64().unwrap_or_default(),
                text: text.to_owned(),
            });
        }
        Ok(said["ok"].take())
    }

    /// One call that must be answered and granted.
    pub fn ask(&mut self, service: &str, call: &str, with: &Value) -> Value {
        match self.once(service, call, with) {
            Ok(answer) => answer,
            Err(error) => panic!("{service} {call} {with}: {error:?}"),
        }
    }

    /// Asks until there is an answer. Only for what may be done twice: with a token, or harmless.
    pub fn persist(&mut self, service: &str, call: &str, with: &Value) -> Value {
        eventually(Duration::from_secs(60), call, || {
            match self.once(service, call, with) {
                Ok(answer) => Ok(answer),
                Err(NoAnswer::Refused { status, text }) if status < 500 => {
                    panic!("{service} {call} {with}: {text}")
                }
                Err(error) => Err(format!("{error:?}")),
            }
        })
    }

    /// One task, as the API tells it.
    pub fn task(&mut self, arn: &str) -> Value {
        let answer = self.persist("ecs", "describe_tasks", &json!({"tasks": [arn]}));
        assert!(
            answer["failures"].as_array().is_none_or(Vec::is_empty),
            "a task is forgotten: {answer}"
        );
        answer["tasks"][0].clone()
    }

    /// Waits until a task has this status.
    pub fn until(&mut self, arn: &str, status: &str) -> Value {
        eventually(Duration::from_secs(60), status, || {
            let task = self.task(arn);
            match task["lastStatus"] == status {
                true => Ok(task),
                false => Err(task.to_string()),
            }
        })
    }

    /// Runs one task that must find its place; gives back its ARN.
    pub fn run(&mut self, family: &str) -> String {
        let answer = self.ask("ecs", "run_task", &json!({"taskDefinition": family}));
        arn_of(&answer)
    }

    /// The lines of one stream, in order.
    pub fn lines(&mut self, group: &str, stream: &str) -> Vec<String> {
        self.events(group, stream)
            .iter()
            .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// The events of one stream, in order; none if there is no such stream.
    pub fn events(&mut self, group: &str, stream: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut with =
            json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
        loop {
            let mut page = match self.once("logs", "get_log_events", &with) {
                Ok(page) => page,
                Err(NoAnswer::Refused { text, .. })
                    if text.contains("ResourceNotFoundException") =>
                {
                    return events;
                }
                Err(error) => panic!("{stream}: {error:?}"),
            };
            let next = page["nextForwardToken"].take();
            if let Value::Array(more) = page["events"].take() {
                events.extend(more);
            }
            if with["nextToken"] == next {
                return events;
            }
            with["nextToken"] = next;
        }
    }
}

/// The ARN of the one task that RunTask answered with.
pub fn arn_of(answer: &Value) -> String {
    answer["tasks"][0]["taskArn"]
        .as_str()
        .unwrap_or_else(|| panic!("no task: {answer}"))
        .to_owned()
}

/// The last part of an ARN.
pub fn id_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// `awslogs` in blocking mode into this group.
pub fn awslogs(group: &str) -> Value {
    json!({"logDriver": "awslogs", "options": {"awslogs-group": group, "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "p", "awslogs-create-group": "true", "mode": "blocking"}})
}

impl Drop for Boto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
