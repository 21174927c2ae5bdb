//! The example that measures shims is its own shim, so it is linked as Gantry is (docs/decisions/0002): otherwise each shim would
//! own a copy of its relocated pages, and what is measured would be the linker's.

fn main() {
    println!("cargo:rustc-link-arg-examples=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
}
