//! The held-back sentences that are sent.

use crate::context::Context;

pub(crate) const EVAL: &str = "tests/fixtures/xlora-intent/eval.jsonl";

/// A held-back sentence and its call.
#[derive(Clone)]
pub(crate) struct Sentence {
    pub(crate) sentence: String,
    pub(crate) call: String,
}

/// All of them.
pub(crate) fn held_back(cx: &Context) -> Result<Vec<Sentence>, String> {
    let path = cx.root.join(EVAL);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let parse = |l: &str| {
        let v: serde_json::Value = serde_json::from_str(l).ok()?;
        let field = |k| Some(v.get(k)?.as_str()?.to_owned());
        Some(Sentence {
            sentence: field("sentence")?,
            call: field("intent")?,
        })
    };
    text.lines()
        .map(|l| parse(l).ok_or(format!("{EVAL}: not a sentence: {l}")))
        .collect()
}

/// `count` of them without repetition: the first steps of a Fisher-Yates shuffle on SplitMix64.
pub(crate) fn pick(all: &[Sentence], count: usize, mut seed: u64) -> Vec<Sentence> {
    let mut rest = all.to_vec();
    let mut picked = vec![];
    while picked.len() < count && !rest.is_empty() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let at = ((z ^ (z >> 31)) % rest.len() as u64) as usize;
        picked.push(rest.swap_remove(at));
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_depends_on_the_seed_alone() {
        let all: Vec<Sentence> = (0..50)
            .map(|i| Sentence {
                sentence: i.to_string(),
                call: String::new(),
            })
            .collect();
        let names = |seed| {
            pick(&all, 20, seed)
                .into_iter()
                .map(|s| s.sentence)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(4), names(4));
        assert_ne!(names(4), names(5));
        let mut sorted = names(4);
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 20);
        assert_eq!(pick(&all, 99, 1).len(), 50);
    }
}
