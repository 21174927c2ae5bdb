//! Every rule of services, played: the whole control plane, simulated agents, virtual time. Each test is named
//! after the rule (of `docs/services.md`) that it shows; the laws of the world hold in all of them.

mod asked;
mod bounds;
mod breaker;
mod capacity;
mod deployments;
mod ending;
mod events;
mod health;
mod scale_in;
mod throttle;
