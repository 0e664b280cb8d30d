//! Reads the checkpoints that were packed, with the safetensors crate.

use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// The tensors of a file.
pub struct Source(Vec<u8>);

impl Source {
    pub fn open(path: impl AsRef<Path>) -> Self {
        Self(std::fs::read(path).expect("safetensors file"))
    }

    /// A tensor's shape and values.
    pub fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        let t = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = t.data();
        let values = match t.dtype() {
            Dtype::F16 => data
                .chunks(2)
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::BF16 => data
                .chunks(2)
                .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::F32 => data
                .chunks(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            other => panic!("{name}: {other:?}"),
        };
        (t.shape().to_vec(), values)
    }

    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        file.names().into_iter().map(String::from).collect()
    }
}

/// Writes a safetensors file of f32, f16 or bf16 tensors.
pub fn save(path: &Path, dtype: Dtype, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, v)| match dtype {
            Dtype::F16 => v
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
            Dtype::BF16 => v
                .iter()
                .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                .collect(),
            _ => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), data)| {
        let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), data).expect("view");
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).expect("write");
}
