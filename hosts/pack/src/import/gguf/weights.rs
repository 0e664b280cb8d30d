//! The tensors of a GGUF base under Hugging Face's names, rows in Hugging Face's order.

use super::config::ROPE_FREQS;
use super::file::Gguf;
use super::names;
use super::{tokenizer, types};
use crate::error::{PackError, Result};
use crate::import::Matrix;
use crate::import::weights::{Source, check_values};
use crate::quant::Q8;
use pleach::kernels::layout::Dtype;
use std::collections::{BTreeMap, BTreeSet};

/// How much of a tensor is read at once, unless a head of it is longer.
const PIECE: usize = 1 << 20;
/// Numbers of a block of Q8_0 and Q4_0.
const BLOCK: usize = 32;

/// The tensors of a file.
#[derive(Debug)]
pub(crate) struct Weights {
    file: Gguf,
    permuted: Option<usize>,
}

impl Weights {
    pub(super) fn new(file: Gguf, permuted: Option<usize>) -> Self {
        Self { file, permuted }
    }

    /// The tokenizer section, or else why there is none.
    pub(crate) fn tokenizer(&self) -> Result<std::result::Result<Vec<u8>, String>> {
        tokenizer::section(&self.file.metadata)
    }

    /// The chat template, if there is one that can be kept, and otherwise perhaps a note.
    pub(crate) fn template(&self) -> Result<(Option<String>, Option<String>)> {
        tokenizer::template(&self.file.metadata)
    }

    fn name(&self, tensor: &str) -> Result<String> {
        names::to_gguf(tensor).ok_or_else(|| {
            PackError::refused(
                format!(
                    "{}: tensor {tensor} has no name in GGUF",
                    self.file.path().display()
                ),
                "pass the base as a Hugging Face folder",
            )
        })
    }

    /// Hands out the bytes of a tensor, whole rows at a time, in Hugging Face's order.
    fn rows(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let info = self.file.check(name, rows, cols)?;
        let permuted = self.permuted.filter(|_| names::is_permuted(name));
        let Some(dim) = permuted else {
            let block = info.kind.bytes;
            return self.file.pieces(name, (PIECE / block).max(1) * block, take);
        };
        // The rows of a bias are its numbers: as many as of the weight.
        let count = if rows == 1 { cols } else { rows };
        let row = info.bytes as usize / count;
        let mut head = Vec::with_capacity(dim * row);
        self.file.pieces(name, dim * row, |piece| {
            head.clear();
            names::unpermute(piece, row, dim, &mut head);
            take(&head);
        })
    }
}

impl Source for Weights {
    fn check(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<u64> {
        let name = self.name(tensor)?;
        let info = self.file.check(&name, rows, cols)?;
        if rows == 1 && info.kind.values > 1 {
            return Err(PackError::refused(
                format!(
                    "{}: tensor {name} is a vector stored as {}",
                    self.file.path().display(),
                    info.kind.name
                ),
                "use a file whose vectors are F32, as llama.cpp writes them",
            ));
        }
        Ok(info.bytes)
    }

    fn read(&mut self, tensor: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let name = self.name(tensor)?;
        let decode = self.file.check(&name, rows, cols)?.kind.decode;
        let mut data = Vec::with_capacity(rows * cols);
        self.rows(&name, rows, cols, |bytes| decode(bytes, &mut data))?;
        check_values(self.file.path(), &name, cols, data.iter().copied())?;
        Ok(Matrix { rows, cols, data })
    }

    fn read_q8(
        &mut self,
        tensor: &str,
        rows: usize,
        cols: usize,
        group: usize,
    ) -> Result<Option<Q8>> {
        let name = self.name(tensor)?;
        let number = self.file.check(&name, rows, cols)?.kind.number;
        let take: fn(&[u8], &mut Vec<i8>, &mut Vec<u16>) = match number {
            types::Q8_0 => q8_0,
            types::Q4_0 => q4_0,
            _ => return Ok(None),
        };
        if group != BLOCK {
            return Ok(None);
        }
        let mut q = Vec::with_capacity(rows * cols);
        let mut scales = Vec::with_capacity(rows * cols / BLOCK);
        self.rows(&name, rows, cols, |bytes| take(bytes, &mut q, &mut scales))?;
        let exact = Q8::of_blocks(q, scales, BLOCK);
        check_values(self.file.path(), &name, cols, exact.values())?;
        Ok(Some(exact))
    }

    fn unused(&self, used: &[String]) -> Vec<String> {
        let used: BTreeSet<_> = used.iter().filter_map(|n| names::to_gguf(n)).collect();
        let unused = |n: &&str| *n != ROPE_FREQS && !used.contains(*n);
        let names = self.file.names().filter(unused);
        names.map(String::from).collect()
    }

    fn notes(&self, dtype: Dtype, group: usize) -> Vec<String> {
        let all = self.file.names().filter_map(|n| self.file.tensor(n));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        all.for_each(|i| *counts.entry(i.kind.name).or_default() += 1);
        let list: Vec<_> = counts.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let exact = counts.contains_key("Q8_0") || counts.contains_key("Q4_0");
        let quantised = counts.keys().any(|k| k.starts_with('Q'));
        let what = match dtype {
            Dtype::Q8 if exact && group == BLOCK => "; Q8_0 and Q4_0 are taken as they are",
            Dtype::Q8 if exact => {
                "; all are quantised again: with --group 32 Q8_0 and Q4_0 are taken as they are"
            }
            Dtype::Q8 if quantised => "; all are quantised again",
            _ if quantised => "; the quantised ones are rounded to f16",
            _ => "",
        };
        let path = self.file.path().display();
        vec![format!("{path}: tensors: {}{what}", list.join(", "))]
    }
}

/// Scales and values of Q8_0 as they are.
fn q8_0(bytes: &[u8], q: &mut Vec<i8>, scales: &mut Vec<u16>) {
    for [d0, d1, values @ ..] in bytes.as_chunks::<34>().0 {
        scales.push(u16::from_le_bytes([*d0, *d1]));
        q.extend(values.iter().map(|v| *v as i8));
    }
}

/// Scales of Q4_0 as they are, values -8 to 7.
fn q4_0(bytes: &[u8], q: &mut Vec<i8>, scales: &mut Vec<u16>) {
    for [d0, d1, values @ ..] in bytes.as_chunks::<18>().0 {
        scales.push(u16::from_le_bytes([*d0, *d1]));
        q.extend(values.iter().map(|v| (v & 15) as i8 - 8));
        q.extend(values.iter().map(|v| (v >> 4) as i8 - 8));
    }
}
