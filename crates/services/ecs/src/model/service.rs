//! What holds of services, as pure functions: nothing here reads a row, a clock or chance.
//!
//! A service has one *spec* (what its user wants), and *deployments*: the PRIMARY one, which brings
//! the tasks of the revision that was asked for last, and those before it, which are ACTIVE until the
//! last of their tasks has gone. Each task is a *replica* in a *slot*: whoever replaces it takes its
//! slot, so that a replica's history stays together.
//!
//! The order of thought, each in a file of its own:
//! - [`replica`]: one task as its service sees it: is it up, healthy, about to be replaced?
//! - [`stages`]: how far a blue/green deployment is; [`hooks`]: where it asks whether to go on.
//! - [`sides`]: which deployments stay, and what each sees of the others: the choice that a strategy is.
//! - [`rolling`]: from the replicas of a side and the bounds to what is started and what is stopped.
//! - [`daemon`]: the same for one task on each container instance.
//! - [`zones`]: which move brings the tasks nearer to a balance over availability zones.
//! - [`scale_in`]: which ones go first.
//! - [`failures`]: the circuit breaker's threshold, and how long starts are put off.
//! - [`events`]: what the service says, in AWS's words.
//! - [`request`]: whether a CreateService or UpdateService can be done at all; [`strategy`]: its strategy.
//! - [`scheduling`]: what the scheduling strategy rules out, and who is rebalanced.
//! - [`view`]: the service as users see it, counted from its tasks.

pub mod daemon;
pub mod events;
pub mod failures;
pub mod hooks;
pub mod replica;
pub mod request;
pub mod rolling;
pub mod scale_in;
pub mod scheduling;
pub mod sides;
pub mod stages;
pub mod strategy;
pub mod view;
pub mod zones;
