//! Clock, Entropy and Timers, real and virtual.
