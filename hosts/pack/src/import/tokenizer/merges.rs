//! Merges by rank.

use super::source::{Merges, Source};
use super::write::{Vocabulary, refuse};
use crate::error::Result;
use std::cmp::Ordering;
use std::collections::HashMap;

/// A pair of tokens and what it becomes.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) merged: u32,
}

/// Longest token where merges are made from scores: the work grows with the square. Llama 2's is 48 bytes long.
pub(super) const LONGEST: usize = 512;

/// The merges, the one of lowest rank first, each pair once.
pub(super) fn ranked(source: &Source, vocabulary: &Vocabulary<'_>) -> Result<Vec<Merge>> {
    match &source.merges {
        Merges::Listed(list) => listed(source, vocabulary, list),
        Merges::Scores(scores) if scores.len() != source.tokens.len() => {
            Err(refuse(source, "not a score for each token"))
        }
        Merges::Scores(scores) if scores.iter().any(|s| !s.is_finite()) => {
            Err(refuse(source, "a score that is not finite"))
        }
        Merges::Scores(_) if source.tokens.iter().any(|t| t.spelling.len() > LONGEST) => {
            let what = format!("a token longer than {LONGEST} bytes, and no merges");
            Err(refuse(source, what))
        }
        Merges::Scores(scores) => Ok(of_scores(source, vocabulary, scores)),
    }
}

fn listed(
    source: &Source,
    vocabulary: &Vocabulary<'_>,
    list: &[(String, String)],
) -> Result<Vec<Merge>> {
    let mut places = HashMap::new();
    let mut merges: Vec<Option<Merge>> = Vec::with_capacity(list.len());
    for (place, (l, r)) in list.iter().enumerate() {
        let find = |spelling: &str| {
            vocabulary.get(spelling).ok_or_else(|| {
                let what = format!("merges[{place}] is not of the vocabulary");
                refuse(source, format!("{what}: no token {spelling:?}"))
            })
        };
        let merge = Merge {
            left: find(l)?,
            right: find(r)?,
            merged: find(&format!("{l}{r}"))?,
        };
        // Of a pair that is listed twice the last place counts, as in `tokenizers`.
        if let Some(before) = places.insert((merge.left, merge.right), place)
            && let Some(slot) = merges.get_mut(before)
        {
            *slot = None;
        }
        merges.push(Some(merge));
    }
    Ok(merges.into_iter().flatten().collect())
}

/// Every way to cut a token into two tokens; the order is that of [`Merges::Scores`], by stable sorts as in
/// transformers 4.57, `integrations/ggml.py`, `GGUFTokenizerSkeleton`.
fn of_scores(source: &Source, vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Vec<Merge> {
    let score = |id: u32| scores.get(id as usize).copied().unwrap_or(0.0);
    let falling = |a: f32, b: f32| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    let mut merges = Vec::new();
    for token in &source.tokens {
        let spelling = token.spelling.as_str();
        let Some(merged) = vocabulary.get(spelling) else {
            continue;
        };
        let cuts = spelling.char_indices().skip(1);
        let parts = cuts.filter_map(|(at, _)| {
            let (l, r) = spelling.split_at_checked(at)?;
            Some((vocabulary.get(l)?, vocabulary.get(r)?))
        });
        let mut parts: Vec<(u32, u32)> = parts.collect();
        parts.sort_by(|a, b| falling(score(a.0), score(b.0)).then(falling(score(a.1), score(b.1))));
        merges.extend(parts.into_iter().map(|(left, right)| Merge {
            left,
            right,
            merged,
        }));
    }
    merges.sort_by(|a, b| falling(score(a.merged), score(b.merged)));
    merges
}
