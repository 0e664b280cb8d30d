//! The classifier's tensors in an X-LoRA checkpoint, as PEFT or the original package names them.

use super::Matrix;
use super::safetensors::TensorFile;
use super::xlora::{Naming, Shape};
use crate::error::{PackError, Result};
use std::path::Path;

const PREFIX: &str = "base_model.internal_xlora_classifier.layers.";

/// The classifier of a checkpoint whose shapes were checked.
#[derive(Debug)]
pub(crate) struct Classifier {
    file: TensorFile,
    layers: Vec<Layer>,
    names: Naming,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug)]
struct Layer {
    weight: String,
    bias: Option<String>,
    rows: usize,
    cols: usize,
}

impl Classifier {
    /// Finds the tensors. `rows` is what the last layer must have: experts, times sites when layerwise.
    pub(crate) fn open(folder: &Path, shape: Shape, hidden: u32, rows: Rows) -> Result<Self> {
        let file = shape.names.file();
        let path = folder.join(file);
        if !path.is_file() {
            return Err(PackError::refused(
                format!("{}: {file} is missing", folder.display()),
                "save the checkpoint as safetensors: pickled .bin and .pt files are not read",
            ));
        }
        let file = TensorFile::open(&path)?;
        let layers = layers(shape, hidden, rows.total());
        check_names(&file, &layers, shape)?;
        if let Some(last) = layers.last() {
            check_rows(&file, last, rows)?;
        }
        for l in &layers {
            file.check(&l.weight, l.rows, l.cols)?;
            if let Some(bias) = &l.bias {
                file.check(bias, 1, l.rows)?;
            }
        }
        let others: Vec<_> = file
            .names()
            .into_iter()
            .filter(|n| !shape.names.owns(n))
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
            names: shape.names,
            notes,
        })
    }

    /// Number of Linear layers.
    pub(crate) fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Whether a ReLU stands between the layers.
    pub(crate) fn relu(&self) -> bool {
        match self.names {
            Naming::Peft { .. } => true,
            Naming::Original { relu, .. } => relu,
        }
    }

    /// Bytes of tensors that will be read.
    pub(crate) fn bytes(&self) -> u64 {
        let bias = |l: &Layer| l.bias.as_deref().map_or(0, |n| self.file.bytes(n));
        self.layers
            .iter()
            .map(|l| self.file.bytes(&l.weight) + bias(l))
            .sum()
    }

    /// Reads weight and bias of layer `n`; zeros where it has no bias.
    pub(crate) fn read(&mut self, n: usize) -> Result<Option<(Matrix, Matrix)>> {
        let Some(l) = self.layers.get(n) else {
            return Ok(None);
        };
        let weight = self.file.read(&l.weight, l.rows, l.cols)?;
        let bias = match &l.bias {
            Some(name) => self.file.read(name, 1, l.rows)?,
            None => Matrix {
                rows: 1,
                cols: l.rows,
                data: vec![0.0; l.rows],
            },
        };
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

impl Naming {
    /// The file that holds the classifier.
    fn file(self) -> &'static str {
        match self {
            Naming::Peft { .. } => "adapter_model.safetensors",
            Naming::Original { .. } => "xlora_classifier.safetensors",
        }
    }

    /// Whether a tensor is the classifier's by its name.
    fn owns(self, name: &str) -> bool {
        match self {
            Naming::Peft { .. } => name.starts_with(PREFIX),
            Naming::Original { .. } => name.starts_with("inner.") || name.starts_with("last."),
        }
    }

    /// The module of layer `n` of `depth`.
    fn module(self, n: u32, depth: u32) -> String {
        match self {
            Naming::Peft { dropout } => format!("{PREFIX}{}", n * if dropout { 3 } else { 2 }),
            Naming::Original { .. } if n + 1 == depth => "last".into(),
            Naming::Original { relu, .. } => format!("inner.{}", n * if relu { 3 } else { 1 }),
        }
    }

    fn bias(self) -> bool {
        !matches!(self, Naming::Original { bias: false, .. })
    }
}

/// The layers of a shape, whose last has `out` rows.
fn layers(shape: Shape, hidden: u32, out: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut cols = hidden as usize;
    for n in 0..shape.depth {
        let rows = match n + 1 == shape.depth {
            true => out,
            false => shape.size as usize,
        };
        let module = shape.names.module(n, shape.depth);
        layers.push(Layer {
            weight: format!("{module}.weight"),
            bias: shape.names.bias().then(|| format!("{module}.bias")),
            rows,
            cols,
        });
        cols = rows;
    }
    layers
}

/// The names of its tensors.
fn names(layers: &[Layer]) -> Vec<&String> {
    layers
        .iter()
        .flat_map(|l| std::iter::once(&l.weight).chain(&l.bias))
        .collect()
}

/// Every tensor must be there, and none that another configuration would ask for.
fn check_names(file: &TensorFile, layers: &[Layer], shape: Shape) -> Result<()> {
    let path = file.path().display();
    let wanted = names(layers);
    let found: Vec<String> = file
        .names()
        .into_iter()
        .filter(|n| shape.names.owns(n))
        .collect();
    let missing = wanted.iter().find(|n| !file.has(n));
    let extra = found.iter().find(|n| !wanted.contains(n));
    if missing.is_none() && extra.is_none() {
        return Ok(());
    }
    if let Naming::Original { relu, bias } = shape.names
        && let Some((cause, cure)) = other_flag(&found, shape, relu, bias)
    {
        return Err(PackError::refused(format!("{path}: {cause}"), cure));
    }
    let depth = layers.len();
    Err(match (missing, extra, shape.names) {
        (Some(missing), Some(extra), Naming::Peft { dropout }) if found.len() == wanted.len() => {
            PackError::refused(
                format!(
                    "{path}: tensor {missing} is missing, {extra} is there: the names do not fit xlora_dropout_p {} 0",
                    if dropout { "above" } else { "of" }
                ),
                "correct xlora_dropout_p in adapter_config.json: with dropout the layers are named 0, 3, 6, without 0, 2, 4",
            )
        }
        (Some(missing), _, Naming::Peft { .. }) => PackError::refused(
            format!(
                "{path}: tensor {missing} is missing: PEFT 0.20.0 to 0.21.2 lose tensors of the classifier when they save"
            ),
            "save the checkpoint again with PEFT 0.19.1, from the trained model",
        ),
        (Some(missing), _, _) => PackError::refused(
            format!("{path}: tensor {missing} is missing from a classifier of xlora_depth {depth}"),
            "correct xlora_depth in xlora_config.json, or save the checkpoint again, complete",
        ),
        (None, extra, names) => PackError::refused(
            format!(
                "{path}: tensor {} has no place in a classifier of xlora_depth {depth}",
                extra.map_or("", |n| n)
            ),
            format!("correct xlora_depth in {}", names.config()),
        ),
    })
}

impl Naming {
    fn config(self) -> &'static str {
        match self {
            Naming::Peft { .. } => "adapter_config.json",
            Naming::Original { .. } => "xlora_config.json",
        }
    }
}

/// Whether the tensors are those of the same depth with another flag: the configuration lies, and what it says
/// about activations cannot be trusted either.
fn other_flag(
    found: &[String],
    shape: Shape,
    relu: bool,
    bias: bool,
) -> Option<(String, &'static str)> {
    let fits = |relu, bias| {
        let names_of = Naming::Original { relu, bias };
        let layers = layers(
            Shape {
                names: names_of,
                ..shape
            },
            1,
            1,
        );
        let wanted = names(&layers);
        wanted.len() == found.len() && wanted.into_iter().all(|n| found.contains(n))
    };
    let relu_cure = "correct enable_relu_and_dropout in xlora_config.json: with it the layers are inner.0, inner.3, .., without it inner.0, inner.1, ..";
    if fits(relu, !bias) {
        let (what, cure) = match bias {
            true => (
                "use_bias is true, stated or by default, but no layer has a bias: early versions of the package had none, and one row of scalings for a whole text, not one per token",
                "train the classifier with a version that scales each token, or with PEFT; set use_bias to false only if it was trained with that",
            ),
            false => (
                "use_bias is false, but the layers have biases",
                "set use_bias in xlora_config.json to what the classifier was trained with",
            ),
        };
        Some((what.into(), cure))
    } else if fits(!relu, bias) || fits(!relu, !bias) {
        let what = format!("the names of the layers do not fit enable_relu_and_dropout = {relu}");
        Some((what, relu_cure))
    } else {
        None
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
