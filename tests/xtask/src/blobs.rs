//! The blobs of the intent model that are checked in.

use crate::context::Context;

/// The intent model's checkpoint.
pub(crate) const CHECKPOINT: &str = "tests/fixtures/xlora-intent";
/// The demo's blob, inside the command-line tool.
pub(crate) const DEMO: &str = "hosts/cli/intent.pleach";
/// The firmware's blob: in the layout of Cortex-M with DSP.
#[cfg(feature = "pack")]
const FIRMWARE: &str = "examples/intent/intent-cortex-m.pleach";

/// Packs both again, in q8.
///
/// Through the library: a command-line tool whose own blob is out of date does not build.
#[cfg(feature = "pack")]
pub(crate) fn pack_all(cx: &Context) -> Result<(), String> {
    use pleach_pack::{PackOptions, Silent, Target, pack, write_atomically};
    for (file, target) in [(DEMO, Target::Linux), (FIRMWARE, Target::CortexM)] {
        let checkpoint = cx.root.join(CHECKPOINT);
        let mut options = PackOptions::new(checkpoint.join("base"));
        options.xlora = Some(checkpoint.join("xlora"));
        options.target = target;
        let packed = pack(&options, &mut Silent).map_err(|e| e.to_string())?;
        write_atomically(&cx.root.join(file), &packed.bytes).map_err(|e| e.to_string())?;
        println!("{file}: {} bytes", packed.bytes.len());
    }
    Ok(())
}

/// The same in a build with the feature `pack`: this one does not depend on the packer, so that a test run
/// can say that the packer does not build.
#[cfg(not(feature = "pack"))]
pub(crate) fn pack_all(cx: &Context) -> Result<(), String> {
    let again = [
        "run",
        "--quiet",
        "--package",
        "xtask",
        "--features",
        "pack",
        "--",
        "demo-blob",
    ];
    crate::context::stream(cx.cargo(again))
}
