//! The classifier's tensors in an X-LoRA checkpoint.

use super::Matrix;
use super::safetensors::TensorFile;
use super::xlora::Shape;
use crate::error::{PackError, Result};
use std::path::Path;

const PREFIX: &str = "base_model.internal_xlora_classifier.layers.";

/// The classifier of a checkpoint whose shapes were checked.
#[derive(Debug)]
pub(crate) struct Classifier {
    file: TensorFile,
    layers: Vec<Layer>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug)]
struct Layer {
    weight: String,
    bias: String,
    rows: usize,
    cols: usize,
}

impl Classifier {
    /// Finds the tensors. `rows` is what the last layer must have: experts, times sites when layerwise.
    pub(crate) fn open(folder: &Path, shape: Shape, hidden: u32, rows: Rows) -> Result<Self> {
        let path = folder.join("adapter_model.safetensors");
        if !path.is_file() {
            return Err(PackError::refused(
                format!("{}: adapter_model.safetensors is missing", folder.display()),
                "save the checkpoint as safetensors: pickled .bin files are not read",
            ));
        }
        let file = TensorFile::open(&path)?;
        let step = if shape.dropout { 3 } else { 2 };
        let index = |n: u32| n * step;
        let depth = shape.depth;
        let mut layers = Vec::new();
        let mut cols = hidden as usize;
        for n in 0..depth {
            let last = n + 1 == depth;
            let out = if last {
                rows.total()
            } else {
                shape.size as usize
            };
            let name = |part: &str| format!("{PREFIX}{}.{part}", index(n));
            layers.push(Layer {
                weight: name("weight"),
                bias: name("bias"),
                rows: out,
                cols,
            });
            cols = out;
        }
        check_names(&file, &layers, shape)?;
        if let Some(last) = layers.last() {
            check_rows(&file, last, rows)?;
        }
        for l in &layers {
            file.check(&l.weight, l.rows, l.cols)?;
            file.check(&l.bias, 1, l.rows)?;
        }
        let others: Vec<_> = file
            .names()
            .into_iter()
            .filter(|n| !n.starts_with(PREFIX))
            .collect();
        let mut notes = Vec::new();
        if let Some(first) = others.first() {
            notes.push(format!(
                "{}: {} tensors that are not the classifier's are ignored, {first} first",
                path.display(),
                others.len()
            ));
        }
        Ok(Self {
            file,
            layers,
            notes,
        })
    }

    /// Number of Linear layers.
    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of tensors that will be read.
    pub(crate) fn bytes(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| self.file.bytes(&l.weight) + self.file.bytes(&l.bias))
            .sum()
    }

    /// Reads weight and bias of layer `n`.
    pub(crate) fn read(&mut self, n: usize) -> Result<Option<(Matrix, Matrix)>> {
        let Some(l) = self.layers.get(n) else {
            return Ok(None);
        };
        let weight = self.file.read(&l.weight, l.rows, l.cols)?;
        let bias = self.file.read(&l.bias, 1, l.rows)?;
        Ok(Some((weight, bias)))
    }
}

/// Rows of the last layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Experts.
    pub(crate) experts: usize,
    /// Sites, or `None` when one row of scalings serves all.
    pub(crate) sites: Option<usize>,
}

impl Rows {
    fn total(self) -> usize {
        self.experts * self.sites.unwrap_or(1)
    }
}

/// Every tensor must be there, and none that another depth would ask for.
fn check_names(file: &TensorFile, layers: &[Layer], shape: Shape) -> Result<()> {
    let path = file.path().display();
    let wanted: Vec<&String> = layers.iter().flat_map(|l| [&l.weight, &l.bias]).collect();
    let found: Vec<String> = file
        .names()
        .into_iter()
        .filter(|n| n.starts_with(PREFIX))
        .collect();
    let missing = wanted.iter().find(|n| !file.has(n));
    let extra = found.iter().find(|n| !wanted.contains(n));
    match (missing, extra) {
        (None, None) => Ok(()),
        (Some(missing), Some(extra)) if found.len() == wanted.len() => Err(PackError::refused(
            format!(
                "{path}: tensor {missing} is missing, {extra} is there: the names do not fit xlora_dropout_p {} 0",
                if shape.dropout { "above" } else { "of" }
            ),
            "correct xlora_dropout_p in adapter_config.json: with dropout the layers are named 0, 3, 6, without 0, 2, 4",
        )),
        (Some(missing), _) => Err(PackError::refused(
            format!(
                "{path}: tensor {missing} is missing: PEFT 0.20.0 to 0.21.2 lose tensors of the classifier when they save"
            ),
            "save the checkpoint again with PEFT 0.19.1, from the trained model",
        )),
        (None, Some(extra)) => Err(PackError::refused(
            format!(
                "{path}: tensor {extra} has no place in a classifier of xlora_depth {}",
                layers.len()
            ),
            "correct xlora_depth in adapter_config.json",
        )),
    }
}

fn check_rows(file: &TensorFile, last: &Layer, rows: Rows) -> Result<()> {
    let found = file
        .shape(&last.weight)
        .and_then(|s| s.first())
        .copied()
        .unwrap_or(0);
    if found == rows.total() {
        return Ok(());
    }
    let expected = match rows.sites {
        Some(sites) => format!(
            "{} ({} experts x {sites} sites)",
            rows.total(),
            rows.experts
        ),
        None => format!("{} (one per expert)", rows.total()),
    };
    Err(PackError::refused(
        format!(
            "{}: tensor {} has {found} rows, {expected} are expected",
            file.path().display(),
            last.weight
        ),
        "pass the experts that the classifier was trained with, all of them, and check layerwise_scalings",
    ))
}
