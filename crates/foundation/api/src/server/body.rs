//! Bodies, in and out.
//!
//! A [`RequestBody`] never waits for ever: silence longer than the progress timeout, or a whole
//! body slower than its deadline, ends it with an error. A [`ResponseBody`] is bytes that are
//! there, or a stream that is produced as the client reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use gantry_env::{Env, Sleep};
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// What can go wrong while a body is read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// The client stopped sending, or sent too slowly.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection broke, or the body's framing is wrong.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            BodyError::TimedOut => io::ErrorKind::TimedOut,
            BodyError::Broken(_) => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// A body as it arrives: of a request here, of an answer in the client.
pub struct RequestBody {
    inner: Incoming,
    env: Env,
    progress_timeout: Duration,
    /// On the monotonic clock, for a body that must be whole by then.
    deadline: Option<Duration>,
    /// Runs only while the client is silent.
    silence: Option<Sleep>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, env: Env, progress_timeout: Duration) -> Self {
        Self {
            inner,
            env,
            progress_timeout,
            deadline: None,
            silence: None,
        }
    }

    pub(super) fn whole_within(mut self, timeout: Duration) -> Self {
        self.deadline = Some(self.env.monotonic().saturating_add(timeout));
        self
    }

    /// The exact length, where the client has said it.
    pub fn length(&self) -> Option<u64> {
        self.inner.size_hint().exact()
    }

    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            match std::future::poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await? {
                Ok(frame) => {
                    // Trailers carry nothing that anything here reads.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The whole body, refused as soon as it is known to be larger than `limit`.
    pub async fn whole(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(BodyError::TooLarge { limit });
        }
        let mut whole = BytesMut::new();
        let mut first: Option<Bytes> = None;
        while let Some(chunk) = self.chunk().await {
            let chunk = chunk?;
            let so_far = whole.len() + first.as_ref().map_or(0, Bytes::len);
            if so_far + chunk.len() > limit {
                return Err(BodyError::TooLarge { limit });
            }
            // Nearly every API body is one piece, which is handed on without a copy.
            match first.take() {
                None if whole.is_empty() => first = Some(chunk),
                None => whole.extend_from_slice(&chunk),
                Some(earlier) => {
                    whole.reserve(earlier.len() + chunk.len());
                    whole.extend_from_slice(&earlier);
                    whole.extend_from_slice(&chunk);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }

    /// Reads on and throws away, so that a client in the middle of sending can finish and read
    /// the answer. Gives up after `limit` bytes: the connection is closed then.
    pub(super) async fn discard(&mut self, limit: usize) {
        if self.length().is_some_and(|length| length > limit as u64) {
            return;
        }
        let mut seen = 0usize;
        while let Some(Ok(chunk)) = self.chunk().await {
            seen = seen.saturating_add(chunk.len());
            if seen > limit {
                return;
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let (env, deadline, progress) = (&this.env, this.deadline, this.progress_timeout);
        let silence = this.silence.get_or_insert_with(|| {
            let left = deadline.map_or(progress, |at| at.saturating_sub(env.monotonic()));
            env.sleep(left.min(progress))
        });
        ready!(silence.as_mut().poll(context));
        this.silence = None;
        Poll::Ready(Some(Err(BodyError::TimedOut)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// As a stream of pieces, for what takes one.
impl Stream for RequestBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.as_mut().poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of an answer.
pub struct ResponseBody {
    content: Content,
    /// Held until the last byte is handed over: what counts the request as in work.
    pub(super) until_sent: Option<Box<dyn Send>>,
}

enum Content {
    Whole(Bytes),
    Streamed {
        stream: ByteStream,
        left: Option<u64>,
    },
}

impl ResponseBody {
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Whole(bytes.into()),
            until_sent: None,
        }
    }

    /// A stream of unknown length.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self {
            content: Content::Streamed {
                stream: Box::pin(stream),
                left: None,
            },
            until_sent: None,
        }
    }

    /// A stream of exactly `length` bytes, which becomes the Content-Length. One that ends early
    /// or goes on breaks the connection off, so a client never takes a part for the whole.
    pub fn stream_sized(
        length: u64,
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self {
            content: Content::Streamed {
                stream: Box::pin(stream),
                left: Some(length),
            },
            until_sent: None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Whole(bytes) if bytes.is_empty() => {
                this.until_sent = None;
                Poll::Ready(None)
            }
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.until_sent = None;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Streamed { stream, left } => {
                let next = ready!(stream.as_mut().poll_next(context));
                let frame = match (next, left) {
                    (Some(Ok(bytes)), Some(left)) => match left.checked_sub(bytes.len() as u64) {
                        Some(rest) => {
                            *left = rest;
                            Some(Ok(Frame::data(bytes)))
                        }
                        None => Some(Err(io::Error::other("the answer is longer than announced"))),
                    },
                    (Some(Ok(bytes)), None) => Some(Ok(Frame::data(bytes))),
                    (None, Some(left)) if *left > 0 => Some(Err(io::Error::other(
                        "the answer is shorter than announced",
                    ))),
                    (None, _) => None,
                    (Some(Err(error)), _) => Some(Err(error)),
                };
                if frame.is_none() {
                    this.until_sent = None;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Streamed { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed {
                left: Some(left), ..
            } => SizeHint::with_exact(*left),
            Content::Streamed { left: None, .. } => SizeHint::default(),
        }
    }
}
