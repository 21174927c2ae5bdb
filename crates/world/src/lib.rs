//! A whole cluster in one thread, on virtual time, with faults.
