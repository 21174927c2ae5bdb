//! Every bound of the server, with its default. Tests and configuration may change them.
//!
//! A connection costs little while it is idle, and no peer can make it cost more than these
//! numbers say: neither by sending much, nor by sending slowly, nor by not reading answers.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Request line and headers together; beyond it HTTP/1 answers 431.
    pub header_bytes: usize,
    /// An awsJson body. AWS's services take about a mebibyte, so a caller that sends more has a
    /// mistake that is better named than buffered.
    pub json_body_bytes: usize,
    /// A Query body: IAM's policies are the largest thing in one.
    pub query_body_bytes: usize,
    /// `PutLogEvents` is 1 MiB of text, which JSON may write six times as long, in ten thousand
    /// events.
    pub logs_body_bytes: usize,
    /// `UploadLayerPart` is 20 MiB of blob in base64.
    pub ecr_body_bytes: usize,
    /// Bodies being buffered at one moment, over all connections.
    pub buffered_bytes: usize,
    /// How much of a refused body is read and thrown away, so that the client gets to read the
    /// answer instead of a reset connection.
    pub discarded_bytes: usize,
    /// From the first byte of a request, or of a connection, to the end of its headers.
    pub header_read_timeout: Duration,
    /// The longest silence inside a body.
    pub body_progress_timeout: Duration,
    /// The longest time a whole API body may take. Registry blobs have no such bound.
    pub body_timeout: Duration,
    /// The longest time a peer may leave our answer unread.
    pub write_progress_timeout: Duration,
    /// Between requests. Longer than the pool of any SDK keeps a connection without use, short
    /// enough to be rid of the dead.
    pub idle_timeout: Duration,
    pub connections: usize,
    /// Requests in work, API and registry together.
    pub requests: usize,
    pub http2_streams: u32,
    /// One WebSocket message of the agent protocol.
    pub websocket_message_bytes: usize,
    /// How long requests in work may go on once a shutdown was asked for.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * KIB,
            json_body_bytes: 2 * MIB,
            query_body_bytes: MIB,
            logs_body_bytes: 8 * MIB,
            ecr_body_bytes: 28 * MIB,
            buffered_bytes: 128 * MIB,
            discarded_bytes: 32 * MIB,
            header_read_timeout: Duration::from_secs(10),
            body_progress_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(60),
            write_progress_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connections: 4096,
            requests: 1024,
            http2_streams: 128,
            websocket_message_bytes: 4 * MIB,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The bound of an API body, by the service of its signature and by whether it is a form.
    pub(super) fn body_bytes(&self, signing_name: Option<&str>, form: bool) -> usize {
        match signing_name {
            Some("logs") => self.logs_body_bytes,
            Some("ecr") => self.ecr_body_bytes,
            _ if form => self.query_body_bytes,
            _ => self.json_body_bytes,
        }
    }
}
