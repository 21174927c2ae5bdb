//! Events from outside: put, read page by page, merged, expired.

#[path = "../desk/mod.rs"]
mod desk;
mod merged;
mod pages;
mod put;
mod retention;

/// Runs one case of a property.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
