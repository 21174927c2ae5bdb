//! Counters and histograms of the server, and the registry that other crates add theirs to.
//!
//! Labels come from models, never from what a stranger sent, so a scan of made-up operations
//! adds no time series.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: from an answer out of memory to one that waited for a disk.
const DURATION_BUCKETS_S: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    operation: &'static str,
    protocol: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    service: &'static str,
    operation: &'static str,
}

/// Everything that `/_gantry/metrics` shows.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    pub(super) connections: Gauge,
    pub(super) websockets: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// What a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) service: &'static str,
    pub(super) operation: &'static str,
    pub(super) protocol: &'static str,
}

impl Counted {
    pub(super) const UNKNOWN: Self = Self {
        service: "unknown",
        operation: "unknown",
        protocol: "http",
    };
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("gantry");
        let requests = Family::<RequestLabels, Counter>::default();
        let new_histogram: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS_S);
        let durations = Family::new_with_constructor(new_histogram);
        let (connections, websockets) = (Gauge::default(), Gauge::default());
        registry.register("requests", "Requests answered", requests.clone());
        registry.register(
            "request_duration_seconds",
            "From headers to answer",
            durations.clone(),
        );
        registry.register(
            "connections",
            "Open client connections",
            connections.clone(),
        );
        registry.register("websockets", "Open agent WebSockets", websockets.clone());
        Self {
            registry: Mutex::new(registry),
            requests,
            durations,
            connections,
            websockets,
        }
    }

    /// Adds metrics of another crate; names get the prefix `gantry_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.lock());
    }

    /// OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String fails only if a collector says so; what was written still counts.
        if let Err(error) = encode(&mut text, &self.lock()) {
            tracing::error!(%error, "a metric could not be written");
        }
        text
    }

    pub(super) fn count(&self, what: Counted, status: u16, took: Duration) {
        let Counted {
            service,
            operation,
            protocol,
        } = what;
        self.requests
            .get_or_create(&RequestLabels {
                service,
                operation,
                protocol,
                status,
            })
            .inc();
        self.durations
            .get_or_create(&DurationLabels { service, operation })
            .observe(took.as_secs_f64());
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
