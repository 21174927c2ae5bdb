//! The registry through both of its wires, on rows in memory and blobs in a temporary directory.

mod api;
mod collection;
mod distribution;
mod fixture;
mod layers;
mod lifecycle;
mod pushes;
mod settings;
mod uploads;
