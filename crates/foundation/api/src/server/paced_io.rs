//! A socket with patience: it gives up on a peer that sends a request too slowly, reads an answer
//! too slowly, or leaves a connection unused too long.
//!
//! One timer a connection, armed when a read finds nothing and looked at again only when it
//! fires; a request costs no timer. While a request is in work the body's own timeouts rule,
//! and an upgraded connection is its route's business, except that it must be read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use gantry_env::{Env, Sleep};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::Limits;

/// What the service tells the socket about the connection's requests.
#[derive(Default)]
pub(super) struct Pace {
    in_work: AtomicUsize,
    /// How many requests ever began: tells a slow head from one that was served meanwhile.
    begun: AtomicUsize,
    /// When the last request ended, in milliseconds of the monotonic clock.
    idle_since_ms: AtomicU64,
    upgraded: AtomicBool,
}

impl Pace {
    pub(super) fn begin(self: &Arc<Self>, env: &Env) -> InWork {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        InWork {
            pace: self.clone(),
            env: env.clone(),
        }
    }

    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }
}

/// One request in work; dropped once its answer is handed over.
pub(super) struct InWork {
    pace: Arc<Pace>,
    env: Env,
}

impl Drop for InWork {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.env.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.pace.idle_since_ms.store(now_ms, Ordering::Relaxed);
        self.pace.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct PacedIo<S> {
    inner: S,
    env: Env,
    pace: Arc<Pace>,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    opened: Duration,
    /// When the first byte of the request that is being read came.
    head_since: Option<Duration>,
    begun_before_head: usize,
    /// HTTP/2 peers send frames between requests, so there a byte is only a sign of life.
    multiplexed: Option<bool>,
    last_read: Duration,
    read_timer: Option<(Duration, Sleep)>,
    write_timer: Option<Sleep>,
}

impl<S> PacedIo<S> {
    pub(super) fn new(inner: S, env: Env, pace: Arc<Pace>, limits: &Limits) -> Self {
        let opened = env.monotonic();
        Self {
            inner,
            env,
            pace,
            header_read_timeout: limits.header_read_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_progress_timeout,
            opened,
            // The first request has to come as promptly as one that has begun.
            head_since: Some(opened),
            begun_before_head: 0,
            multiplexed: None,
            last_read: opened,
            read_timer: None,
            write_timer: None,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        let multiplexed = *self
            .multiplexed
            .get_or_insert_with(|| bytes.starts_with(b"PRI"));
        self.last_read = self.env.monotonic();
        let begun = self.pace.begun.load(Ordering::Relaxed);
        if multiplexed || self.pace.in_work.load(Ordering::Relaxed) > 0 {
            self.head_since = None;
        } else if self.head_since.is_none() || begun != self.begun_before_head {
            self.head_since = Some(self.last_read);
            self.begun_before_head = begun;
        }
    }

    /// When the peer's silence has lasted too long; `None` while nothing is expected of it.
    fn read_deadline(&mut self) -> Option<Duration> {
        if self.pace.in_work.load(Ordering::Relaxed) > 0 {
            self.head_since = None;
            return None;
        }
        if self.pace.begun.load(Ordering::Relaxed) != self.begun_before_head {
            self.head_since = None;
        }
        if let Some(since) = self.head_since {
            return Some(since.saturating_add(self.header_read_timeout));
        }
        let idle_since = Duration::from_millis(self.pace.idle_since_ms.load(Ordering::Relaxed));
        let since = if self.multiplexed == Some(true) {
            idle_since.max(self.last_read)
        } else {
            idle_since
        };
        Some(since.max(self.opened).saturating_add(self.idle_timeout))
    }

    /// Ready when the connection is to be given up.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.pace.upgraded.load(Ordering::Relaxed) {
            self.read_timer = None;
            return Poll::Pending;
        }
        loop {
            let now = self.env.monotonic();
            let deadline = self.read_deadline();
            // Whatever is in work may end without another read, so a look is always due.
            let look_at = deadline.unwrap_or_else(|| now.saturating_add(self.idle_timeout));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            match &mut self.read_timer {
                Some((armed_for, timer)) if *armed_for <= look_at => {
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.read_timer = None;
                }
                slot => {
                    let timer = self.env.timers.sleep_until_monotonic(look_at);
                    *slot = Some((look_at, timer));
                }
            }
        }
    }

    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer = None;
            return result;
        }
        let (env, timeout) = (&self.env, self.write_timeout);
        let timer = self.write_timer.get_or_insert_with(|| env.sleep(timeout));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(context, buffer) {
            Poll::Ready(result) => {
                let read = buffer.filled().get(before..).unwrap_or_default();
                if !read.is_empty() {
                    this.note_read(read);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.poll_silence(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.watch_write(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.watch_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(context);
        this.watch_write(context, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_shutdown(context);
        this.watch_write(context, result)
    }
}
