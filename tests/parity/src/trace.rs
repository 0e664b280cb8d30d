//! What a run leaves behind, position by position, and where two runs differ.

use pleach::hash::Fnv1a;

/// Scalings, effective scalings and logits of every committed position, and the tokens that followed.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Values of one position's scalings: sites times experts.
    pub width: usize,
    /// `[position][site][expert]` before top-k; empty where no scaling pass ran.
    pub scalings: Vec<f32>,
    /// `[position][site][expert]`: what the gates used; empty without experts.
    pub effective: Vec<f32>,
    /// Vocabulary.
    pub vocab: usize,
    /// `[position][vocab]`.
    pub logits: Vec<f32>,
    /// The tokens that a greedy caller draws, one for each generated position.
    pub generated: Vec<u32>,
    /// What the session counted.
    pub counters: pleach::Counters,
}

impl Trace {
    /// Positions.
    pub fn len(&self) -> usize {
        self.logits.len() / self.vocab.max(1)
    }

    /// Whether nothing was run.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The scalings of a position; empty if there are none.
    pub fn scalings_at(&self, position: usize) -> &[f32] {
        part(&self.scalings, position, self.width)
    }

    /// The effective scalings of a position; empty if there are none.
    pub fn effective_at(&self, position: usize) -> &[f32] {
        part(&self.effective, position, self.width)
    }

    /// The logits of a position.
    pub fn logits_at(&self, position: usize) -> &[f32] {
        part(&self.logits, position, self.vocab)
    }

    /// FNV-1a over, position by position, scalings then logits: what `pleach trace --hash` prints.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv1a::new();
        for p in 0..self.len() {
            hash.floats(self.scalings_at(p));
            hash.floats(self.logits_at(p));
        }
        hash.value()
    }

    /// The first place where the bits of `other` differ, in words; `None` if all are the same.
    pub fn difference(&self, other: &Trace, experts: usize) -> Option<String> {
        if (self.len(), self.scalings.len(), self.effective.len())
            != (other.len(), other.scalings.len(), other.effective.len())
        {
            return Some(format!(
                "{} positions, {} scalings, {} effective against {}, {}, {}",
                self.len(),
                self.scalings.len(),
                self.effective.len(),
                other.len(),
                other.scalings.len(),
                other.effective.len()
            ));
        }
        for p in 0..self.len() {
            for (what, a, b) in [
                ("scaling", self.scalings_at(p), other.scalings_at(p)),
                ("effective", self.effective_at(p), other.effective_at(p)),
            ] {
                if let Some((i, a, b)) = first(a, b) {
                    let (site, expert) = (i / experts.max(1), i % experts.max(1));
                    return Some(format!(
                        "position {p}, site {site}, expert {expert}: {what} {a:e} ({:08x}) against {b:e} ({:08x})",
                        a.to_bits(),
                        b.to_bits()
                    ));
                }
            }
            if let Some((i, a, b)) = first(self.logits_at(p), other.logits_at(p)) {
                return Some(format!(
                    "position {p}, logit {i}: {a:e} ({:08x}) against {b:e} ({:08x})",
                    a.to_bits(),
                    b.to_bits()
                ));
            }
        }
        (self.generated != other.generated)
            .then(|| format!("tokens {:?} against {:?}", self.generated, other.generated))
    }
}

fn part(all: &[f32], index: usize, width: usize) -> &[f32] {
    all.get(index * width..(index + 1) * width).unwrap_or(&[])
}

fn first(a: &[f32], b: &[f32]) -> Option<(usize, f32, f32)> {
    let pairs = a.iter().zip(b).enumerate();
    let mut differing = pairs.filter(|(_, (a, b))| a.to_bits() != b.to_bits());
    differing.next().map(|(i, (a, b))| (i, *a, *b))
}
