//! On the real kernel, in a namespace of its own for each test: the machine's network is never touched,
//! and the kernel removes everything when a test ends or is killed.

mod crash;
mod endpoints;
mod packets;
mod ports;
mod scene;
mod sharing;
