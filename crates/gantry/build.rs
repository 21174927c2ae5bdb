//! Links the executable at a fixed address: a shim is this executable run again, and without
//! relocations to write it shares its pages with every other (docs/decisions/0002).

fn main() {
    println!("cargo:rustc-link-arg-bins=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
}
