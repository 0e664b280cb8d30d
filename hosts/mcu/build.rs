//! Publishes the boards' folder to the build script of the firmware (see `boards/README.md`).

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:boards={root}/boards");
    println!("cargo:rerun-if-changed=build.rs");
}
