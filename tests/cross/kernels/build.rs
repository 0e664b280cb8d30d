//! The board of a target: its linker script, its size, and the picoseconds of a tick of its SysTick, which are
//! thousandths of an instruction under QEMU's `-icount shift=0`.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(small)");
    let target = std::env::var("TARGET").expect("cargo sets it");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let (board, script, tick) = match target.as_str() {
        "thumbv6m-none-eabi" => ("microbit", "link.x", 62_500),
        "thumbv7m-none-eabi" => ("mps2-an385", "link.x", 40_000),
        "thumbv7em-none-eabihf" => ("mps2-an386", "link.x", 40_000),
        "thumbv8m.main-none-eabihf" => ("mps3-an547", "link.x", 31_250),
        t if t.starts_with("riscv32") => ("virt", "memory.x", 1000),
        _ => return,
    };
    if board == "microbit" {
        println!("cargo:rustc-cfg=small");
    }
    println!("cargo:rustc-env=TICK={tick}");
    println!("cargo:rustc-link-search={root}/boards/{board}");
    println!("cargo:rerun-if-changed={root}/boards/{board}/memory.x");
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-T{script}");
}
