//! Append-only segments over an object store: log events, history, metrics.
