//! SmolLM2 with its experts cut to a few layers: a real model that an emulator runs in a minute.

use crate::smol;
use pleach_pack::PackOptions;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes the first `layers` layers of base, experts and classifier into `dir`; options that pack them.
///
/// Panics if the base is not the GGUF of `smol`, or a file cannot be written.
pub fn smol_to(dir: &Path, layers: u32) -> PackOptions {
    let write = |path: &str, bytes: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("room");
    };
    let base = fs::read(smol::base()).expect("the base");
    write("base.gguf", &gguf(&base, layers));
    for name in smol::EXPERTS {
        let folder = smol::folder().join("experts").join(name);
        let read = |file: &str| fs::read(folder.join(file)).expect("an expert");
        let cut = tensors(&read("adapter_model.safetensors"), |name, rows| {
            let (_, rest) = name.split_once(".layers.").expect("a layer's tensor");
            let (layer, _) = rest.split_once('.').expect("a layer's number");
            (layer.parse::<u32>().expect("a number") < layers).then_some(rows)
        });
        write(&format!("experts/{name}/adapter_model.safetensors"), &cut);
        let config = read("adapter_config.json");
        write(&format!("experts/{name}/adapter_config.json"), &config);
    }
    let folder = smol::folder().join("xlora");
    let read = |file: &str| fs::read(folder.join(file)).expect("the classifier");
    // The last layer has a row for each expert of each site; there are seven sites in a layer.
    let outputs = layers as usize * 7 * smol::EXPERTS.len();
    let cut = tensors(&read("adapter_model.safetensors"), |_, rows| {
        Some(if rows > outputs { outputs } else { rows })
    });
    write("xlora/adapter_model.safetensors", &cut);
    write("xlora/adapter_config.json", &read("adapter_config.json"));
    let mut options = PackOptions::new(dir.join("base.gguf"));
    options.xlora = Some(dir.join("xlora"));
    options
}

/// A safetensors file with the first rows of some tensors: `keep` is given name and rows.
fn tensors(file: &[u8], keep: impl Fn(&str, usize) -> Option<usize>) -> Vec<u8> {
    let file = SafeTensors::deserialize(file).expect("a safetensors file");
    let mut kept = BTreeMap::new();
    for (name, tensor) in file.tensors() {
        let (rows, mut shape) = (tensor.shape()[0], tensor.shape().to_vec());
        let Some(wanted) = keep(&name, rows) else {
            continue;
        };
        shape[0] = wanted;
        let data = tensor.data();
        let data = &data[..data.len() / rows * wanted];
        let view = TensorView::new(tensor.dtype(), shape, data).expect("the same shape");
        kept.insert(name, view);
    }
    safetensors::serialize(kept, None).expect("tensors")
}

/// Reads the fields of a GGUF file (version 3), one after another.
struct Fields<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, n: usize) -> &'a [u8] {
        self.at += n;
        &self.file[self.at - n..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect("4 bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect("8 bytes"))
    }

    fn text(&mut self) -> &'a str {
        let n = self.u64() as usize;
        std::str::from_utf8(self.bytes(n)).expect("UTF-8")
    }

    /// Steps over a value of the metadata.
    fn skip(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            10..=12 => self.at += 8,
            8 => {
                self.text();
            }
            9 => {
                let (kind, n) = (self.u32(), self.u64());
                (0..n).for_each(|_| self.skip(kind));
            }
            other => panic!("kind {other} of metadata"),
        }
    }
}

/// What a GGUF file says of one of its tensors.
struct Info<'a> {
    name: &'a str,
    /// All between the name and the offset: dimensions and type.
    shape: &'a [u8],
    data: &'a [u8],
}

/// Alignment of tensor data, unless the metadata say otherwise.
const ALIGN: usize = 32;

fn gguf(file: &[u8], layers: u32) -> Vec<u8> {
    let mut f = Fields { file, at: 0 };
    assert_eq!((f.bytes(4), f.u32()), (&b"GGUF"[..], 3));
    let (tensors, values) = (f.u64(), f.u64());
    let mut metadata = Vec::new();
    for _ in 0..values {
        let start = f.at;
        let (name, kind) = (f.text(), f.u32());
        let value = f.at;
        f.skip(kind);
        assert_ne!(name, "general.alignment");
        metadata.extend_from_slice(&file[start..f.at]);
        if name == "llama.block_count" {
            let at = metadata.len() - (f.at - value);
            metadata[at..].copy_from_slice(&layers.to_le_bytes());
        }
    }
    let mut heads = Vec::new();
    for _ in 0..tensors {
        let name = f.text();
        let start = f.at;
        let dimensions = f.u32() as usize;
        f.bytes(8 * dimensions + 4);
        heads.push((name, &file[start..f.at], f.u64() as usize));
    }
    let data = &file[f.at.next_multiple_of(ALIGN)..];
    let mut offsets: Vec<usize> = heads.iter().map(|h| h.2).collect();
    offsets.push(data.len());
    offsets.sort_unstable();
    let kept = heads.iter().filter(|(name, ..)| {
        let layer = name.strip_prefix("blk.").and_then(|n| n.split_once('.'));
        layer.is_none_or(|(n, _)| n.parse::<u32>().expect("a number") < layers)
    });
    let kept: Vec<Info<'_>> = kept
        .map(|&(name, shape, offset)| {
            let end = offsets[offsets.partition_point(|o| *o <= offset)];
            Info {
                name,
                shape,
                data: &data[offset..end],
            }
        })
        .collect();

    let mut out = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
    out.extend((kept.len() as u64).to_le_bytes());
    out.extend(values.to_le_bytes());
    out.extend(metadata);
    let mut offset = 0;
    for info in &kept {
        out.extend((info.name.len() as u64).to_le_bytes());
        out.extend(info.name.as_bytes());
        out.extend(info.shape);
        out.extend((offset as u64).to_le_bytes());
        offset = (offset + info.data.len()).next_multiple_of(ALIGN);
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    for info in &kept {
        out.extend(info.data);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }
    out
}
