//! The tensors of a base under Hugging Face's names: [`Source`], and safetensors in one file or in shards.

use super::Matrix;
use super::json::Json;
use super::safetensors::TensorFile;
pub(crate) use super::safetensors::check_values;
use crate::error::{PackError, Result};
use crate::quant::Q8;
use pleach::kernels::layout::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where a base's tensors come from, one at a time.
pub(crate) trait Source: std::fmt::Debug {
    /// Checks that a tensor is there with shape `[rows][cols]`, a vector when `rows` is 1; returns its bytes.
    fn check(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<u64>;

    /// Reads such a tensor.
    fn read(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<Matrix>;

    /// Reads such a tensor as it is, if it is stored in int8 or less with one f16 scale per `group`.
    fn read_q8(&mut self, _: &str, _: usize, _: usize, _: usize) -> Result<Option<Q8>> {
        Ok(None)
    }

    /// Tensors that are not among `used`, sorted.
    fn unused(&self, used: &[String]) -> Vec<String>;

    /// Things the user should know when weights are stored as `dtype` in groups of `group`.
    fn notes(&self, _dtype: Dtype, _group: usize) -> Vec<String> {
        Vec::new()
    }
}

/// Safetensors in a folder.
#[derive(Debug)]
pub(crate) struct Weights {
    folder: PathBuf,
    files: BTreeMap<String, TensorFile>,
    /// Tensor to file; `None` for a single file.
    map: Option<BTreeMap<String, String>>,
}

impl Weights {
    /// Opens every file of the base and checks its header.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let mut weights = Self {
            folder: folder.into(),
            files: BTreeMap::new(),
            map: None,
        };
        if folder.join(SINGLE).is_file() {
            weights
                .files
                .insert(SINGLE.into(), TensorFile::open(&folder.join(SINGLE))?);
            return Ok(weights);
        }
        if !folder.join(INDEX).is_file() {
            return Err(PackError::refused(
                format!(
                    "{}: neither {SINGLE} nor {INDEX} is there",
                    folder.display()
                ),
                "save the base as safetensors: pickled .bin files are not read",
            ));
        }
        let index = Json::read_table(&folder.join(INDEX))?;
        index.required("weight_map")?;
        let mut map = BTreeMap::new();
        for (tensor, file) in index.object("weight_map")?.into_iter().flatten() {
            let file = file.as_str().unwrap_or_default();
            if file.is_empty() || file.contains(['/', '\\', ':']) || file == ".." {
                return Err(index.refuse(
                    format!(
                        "weight_map names {file:?} for {tensor}, which is no file of this folder"
                    ),
                    "save the base again",
                ));
            }
            if !weights.files.contains_key(file) {
                weights
                    .files
                    .insert(file.into(), TensorFile::open(&folder.join(file))?);
            }
            map.insert(tensor.clone(), file.into());
        }
        weights.map = Some(map);
        Ok(weights)
    }

    fn file_name(&self, tensor: &str) -> Result<String> {
        match &self.map {
            None => Ok(SINGLE.into()),
            Some(map) => map.get(tensor).cloned().ok_or_else(|| {
                PackError::refused(
                    format!(
                        "{}: tensor {tensor} is missing",
                        self.folder.join(INDEX).display()
                    ),
                    "save the base again, complete",
                )
            }),
        }
    }

    fn file_of(&mut self, tensor: &str) -> Result<&mut TensorFile> {
        let name = self.file_name(tensor)?;
        let path = self.folder.join(&name);
        self.files
            .get_mut(&name)
            .ok_or_else(|| PackError::io("read", &path, std::io::ErrorKind::NotFound.into()))
    }
}

impl Source for Weights {
    fn check(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<u64> {
        let file = self.file_of(tensor)?;
        file.check(tensor, rows, cols)?;
        Ok(file.bytes(tensor))
    }

    fn read(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.file_of(tensor)?.read(tensor, rows, cols)
    }

    fn unused(&self, used: &[String]) -> Vec<String> {
        let used: std::collections::BTreeSet<_> = used.iter().collect();
        let mut names: Vec<_> = self.files.values().flat_map(TensorFile::names).collect();
        names.retain(|n| !used.contains(n));
        names.sort_unstable();
        names
    }
}
