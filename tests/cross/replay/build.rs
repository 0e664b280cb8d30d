//! Picks the board and the linker scripts.

fn main() {
    let boards = std::env::var("DEP_PLEACH_MCU_BOARDS").expect("pleach-mcu publishes it");
    println!("cargo:rustc-link-search={boards}/mps2-an386-4m");
    println!("cargo:rerun-if-changed={boards}/mps2-an386-4m/memory.x");
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}
