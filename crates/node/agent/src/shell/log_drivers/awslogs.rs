//! The awslogs driver: CloudWatch Logs, nothing lost and nothing twice.
//!
//! What always holds: a batch says where in the spool it begins and ends, so the service knows a
//! repeat when it sees one; it begins where the last acknowledged one ended.

use std::time::Duration;

use gantry_api::client::{Client, ClientError, backoff};
use gantry_api::logs;
use gantry_env::Env;
use tracing::{debug, warn};

use super::lines::Batch;
use crate::core::plan::AwsLogsPlan;

const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often the making of a stream is tried before the task fails.
const PREPARE_ATTEMPTS: u32 = 8;

/// Makes the stream, and the group where that is asked for. The error is the task's reason.
pub async fn prepare(client: &Client, plan: &AwsLogsPlan, env: &Env) -> Result<(), String> {
    if plan.create_group {
        let made = repeat(env, || {
            client.call::<logs::CreateLogGroup>(logs::CreateLogGroupRequest {
                log_group_name: plan.group.clone(),
                ..logs::CreateLogGroupRequest::default()
            })
        })
        .await;
        unless_there(made)
            .map_err(|error| reason("failed to create Cloudwatch log group", &error, plan))?;
    }
    let made = repeat(env, || {
        client.call::<logs::CreateLogStream>(logs::CreateLogStreamRequest {
            log_group_name: plan.group.clone(),
            log_stream_name: plan.stream.clone(),
        })
    })
    .await;
    unless_there(made)
        .map_err(|error| reason("failed to create Cloudwatch log stream", &error, plan))
}

fn reason(what: &str, error: &ClientError, plan: &AwsLogsPlan) -> String {
    format!(
        "ResourceInitializationError: failed to initialize logging driver: {what}: {error} (log group '{}', log stream '{}')",
        plan.group, plan.stream
    )
}

fn unless_there<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code == "ResourceAlreadyExistsException" => Ok(()),
        Err(error) => Err(error),
    }
}

async fn repeat<T, F>(env: &Env, mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut attempt = 0;
    loop {
        match call().await {
            Err(error) if error.retryable && attempt + 1 < PREPARE_ATTEMPTS => {
                let wait = backoff(attempt, RETRY.0, RETRY.1, env.entropy.u64());
                attempt += 1;
                env.sleep(wait).await;
            }
            result => return result,
        }
    }
}

/// A log stream that batches are put into.
pub(super) struct Stream<C> {
    client: C,
    plan: AwsLogsPlan,
    spool: String,
}

impl<C: Fn() -> Result<Client, ClientError>> Stream<C> {
    pub fn new(client: C, plan: AwsLogsPlan, spool: String) -> Self {
        Self {
            client,
            plan,
            spool,
        }
    }

    /// Sends one batch until the service has it, or says that it never will.
    pub async fn deliver(&self, mut batch: Batch, env: &Env) {
        let Self {
            client,
            plan,
            spool,
        } = self;
        let mut attempt = 0;
        while !batch.lines.is_empty() {
            let event = |line: &super::lines::Line| logs::InputLogEvent {
                message: line.message.clone(),
                timestamp: line.at_ms,
            };
            let request = logs::PutLogEventsRequest {
                log_group_name: plan.group.clone(),
                log_stream_name: plan.stream.clone(),
                sequence_token: Some(format!("gantry:{spool}:{}-{}", batch.start, batch.end)),
                log_events: batch.lines.iter().map(event).collect(),
                ..logs::PutLogEventsRequest::default()
            };
            let result = match client() {
                Ok(client) => client.call::<logs::PutLogEvents>(request).await.map(|_| ()),
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => return,
                Err(error) => error,
            };
            match error.code.as_str() {
                // The service holds a part of it and says how far.
                "InvalidSequenceTokenException" => match held_to(&error.message, spool) {
                    Some(held_to) if held_to > batch.start => batch.skip_to(held_to),
                    _ => {
                        warn!(%error, lines = batch.lines.len(), "log lines are given up");
                        return;
                    }
                },
                "ResourceNotFoundException"
                | "InvalidParameterException"
                | "ValidationException" => {
                    warn!(%error, stream = plan.stream, lines = batch.lines.len(), "log lines are given up");
                    return;
                }
                _ => {
                    let wait = backoff(attempt, RETRY.0, RETRY.1, env.entropy.u64());
                    attempt = attempt.saturating_add(1);
                    debug!(%error, ?wait, "log lines wait");
                    env.sleep(wait).await;
                }
            }
        }
    }
}

/// The end of `gantry:SPOOL:END` in the service's words.
fn held_to(message: &str, spool: &str) -> Option<u64> {
    let (_, rest) = message.rsplit_once(&format!("gantry:{spool}:"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::held_to;

    #[test]
    fn the_service_says_how_far_it_holds() {
        let message = "The next expected sequenceToken is: gantry:0a1b:120";
        assert_eq!(held_to(message, "0a1b"), Some(120));
        assert_eq!(held_to(message, "ffff"), None);
    }
}
