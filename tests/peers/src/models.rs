//! The same weights for both sides: SmolLM2-135M-Instruct, for llama.cpp as Q8_0, for pleach as q8.

use crate::Result;
use crate::llama::Llama;
use crate::machine::target;
use parity::synth::{Checkpoint, Expert, Kind, MODULES};
use parity::{Storage, smol};
use pleach::hash::Fnv1a;
use pleach_linux::ModelFile;
use pleach_pack::{PackOptions, Silent, pack, write_atomically};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// The base that both sides quantise.
///
/// Errors: the variable that says where it lies does not, or nothing lies there.
pub fn checkpoint() -> Result<PathBuf> {
    found(std::env::var_os(smol::BASE).map(PathBuf::from))
}

fn found(path: Option<PathBuf>) -> Result<PathBuf> {
    let cure =
        "cargo xtask peers --install COMMAND fetches SmolLM2-135M-Instruct and sets the variable";
    let name = smol::BASE;
    match path {
        None => Err(format!(
            "the variable {name} is not set, which says where the base model lies\n  {cure}"
        )),
        Some(path) if !path.exists() => Err(format!(
            "{}: there is no such file, and {name} says that the base model lies there\n  {cure}",
            path.display()
        )),
        Some(path) => Ok(path),
    }
}

/// llama.cpp's own Q8_0 of the base, made once for each base and version of llama.cpp.
pub fn q8_0(llama: &Llama) -> Result<PathBuf> {
    let base = checkpoint()?;
    let bytes = fs::read(&base).map_err(|e| format!("{}: {e}", base.display()))?;
    let path = cached("smollm2-q8_0", &[llama.version.as_bytes(), &bytes]).with_extension("gguf");
    if path.exists() {
        return Ok(path);
    }
    let part = path.with_extension("part");
    let status = llama
        .command(&[])
        .arg("quantize")
        .arg(base)
        .arg(&part)
        .status()
        .map_err(|e| format!("peer quantize: {e}"))?;
    if !status.success() {
        return Err(format!("peer quantize: {status}"));
    }
    fs::rename(&part, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// Where what is made of `parts` is kept: another of them gives another place.
fn cached(name: &str, parts: &[&[u8]]) -> PathBuf {
    let mut digest = Fnv1a::new();
    for part in parts {
        digest.bytes(&part.len().to_le_bytes());
        digest.bytes(part);
    }
    target().join(format!("{name}-{:016x}", digest.value()))
}

/// The name of [`base`].
pub const BASE: &str = "smollm2";
/// The name of [`xlora`].
pub const XLORA: &str = "xlora-smol";
/// The name of [`synthetic`].
pub const SYNTHETIC: &str = "synthetic";

/// Where the packed model of a name lies.
pub fn path(name: &str) -> PathBuf {
    target().join(format!("{name}.pleach"))
}

/// The base as `pleach pack` packs it.
pub fn base() -> Result<ModelFile> {
    packed(BASE, &Storage::Q8.options(checkpoint()?, None))
}

/// The base with the four trained experts and their classifier.
pub fn xlora() -> Result<ModelFile> {
    let adapter = smol::folder().join("xlora");
    let options = Storage::Q8.options(checkpoint()?, Some(adapter));
    packed(XLORA, &options)
}

/// SmolLM2's shapes with four experts of rank 16 at every site, top-2; weights at random.
pub fn synthetic() -> Result<ModelFile> {
    let targets: Vec<&'static str> = MODULES.iter().map(|(name, _)| *name).collect();
    let checkpoint = Checkpoint {
        kind: Kind::Llama,
        seed: 1,
        hidden: 576,
        vocab: 49152,
        intermediate: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        layers: 30,
        tied: true,
        experts: vec![Expert { rank: 16, targets }; 4],
        depth: 2,
        options: json!({ "top_k_lora": 2, "layerwise_scalings": true }),
    };
    let shapes = format!("{checkpoint:?}");
    let folder = cached(
        SYNTHETIC,
        &[
            shapes.as_bytes(),
            // What writes them.
            include_bytes!("../../parity/src/synth.rs"),
            include_bytes!("../../parity/src/random.rs"),
        ],
    );
    if !folder.join("xlora/adapter_config.json").exists() {
        eprintln!("making SmolLM2's shapes with random weights");
        checkpoint.write(&folder);
    }
    let options = Storage::Q8.options(folder.join("base"), Some(folder.join("xlora")));
    packed(SYNTHETIC, &options)
}

/// Packs anew each time: the file's layout may have changed since.
fn packed(name: &str, options: &PackOptions) -> Result<ModelFile> {
    let path = path(name);
    fs::create_dir_all(target()).map_err(|e| format!("{}: {e}", path.display()))?;
    let packed = pack(options, &mut Silent).map_err(|e| format!("{}\n  {}", e.cause, e.cure))?;
    write_atomically(&path, &packed.bytes).map_err(|e| format!("{}\n  {}", e.cause, e.cure))?;
    ModelFile::open(&path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_base_says_where_it_should_be_and_how_to_get_it() {
        let unset = found(None).unwrap_err();
        let gone = found(Some("/no/such/base.gguf".into())).unwrap_err();
        for error in [&unset, &gone] {
            let lines: Vec<&str> = error.lines().collect();
            assert!(matches!(lines.as_slice(), [_, cure] if cure.starts_with("  cargo xtask")));
            assert!(error.contains("PLEACH_SMOLLM2"), "{error}");
        }
        assert!(gone.starts_with("/no/such/base.gguf: "), "{gone}");
        let here = machine_file();
        assert_eq!(found(Some(here.clone())), Ok(here));
    }

    #[test]
    fn what_is_made_of_other_bytes_lies_elsewhere() {
        let all = [&[&b"a"[..], b"bc"], &[b"ab", b"c"], &[b"a", b"bd"]];
        let [one, two, three] = all.map(|parts: &[&[u8]; 2]| cached("x", parts));
        assert!(one != two && one != three && two != three);
        assert_eq!(one, cached("x", &[b"a", b"bc"]));
    }

    fn machine_file() -> PathBuf {
        crate::machine::folder().join("Cargo.toml")
    }
}
