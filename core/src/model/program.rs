//! `op(pc)`: the forward pass, read from top to bottom. Nothing is stored.

use crate::blob::format::Module;

/// Matrices that read the same input, in the order of their outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// q_proj, k_proj, v_proj.
    Qkv,
    /// o_proj, added to the residual stream.
    Output,
    /// gate_proj, up_proj.
    GateUp,
    /// down_proj, added to the residual stream.
    Down,
}

impl Group {
    /// Its modules.
    pub(crate) const fn modules(self) -> &'static [Module] {
        match self {
            Group::Qkv => &[Module::Q, Module::K, Module::V],
            Group::Output => &[Module::O],
            Group::GateUp => &[Module::Gate, Module::Up],
            Group::Down => &[Module::Down],
        }
    }
}

/// One operation of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Token or embedding row → residual stream.
    Embed,
    /// Residual stream → normed input, before attention or before the MLP.
    Norm { layer: u16, mlp: bool },
    /// The r-vectors of the experts that some column selected.
    LoraA { layer: u16, group: Group },
    /// The matrices' rows, with bias and deltas.
    Linear { layer: u16, group: Group },
    /// Norm of the heads of q and k, then their rotary embedding: what of it the layer has.
    Qk { layer: u16 },
    /// k and v → the cache of each column's pass.
    Store { layer: u16 },
    /// q and k → scores.
    Score { layer: u16 },
    /// Scores → weights.
    Softmax,
    /// Weights and v → attention output.
    Mix { layer: u16 },
    /// Attention output → input of o_proj.
    Gather,
    /// SwiGLU: gate and up → input of down_proj.
    Act,
    /// Residual stream → hidden states of the last norm.
    FinalNorm,
    /// A layer of the classifier, for the columns that route.
    Classify { layer: u16 },
    /// Classifier outputs → scalings and effective scalings.
    Route,
    /// Logits of the columns that ask for them.
    Head,
    /// The sweep is done.
    End,
}

const PER_LAYER: u32 = 17;

/// The operation at `pc` of a model with `layers` blocks and a classifier of `depth` layers.
pub(crate) const fn op(layers: u32, depth: u32, pc: u32) -> Op {
    let Some(pc) = pc.checked_sub(1) else {
        return Op::Embed;
    };
    if pc / PER_LAYER < layers {
        let layer = (pc / PER_LAYER) as u16;
        return match pc % PER_LAYER {
            0 => Op::Norm { layer, mlp: false },
            1 => Op::LoraA {
                layer,
                group: Group::Qkv,
            },
            2 => Op::Linear {
                layer,
                group: Group::Qkv,
            },
            3 => Op::Qk { layer },
            4 => Op::Store { layer },
            5 => Op::Score { layer },
            6 => Op::Softmax,
            7 => Op::Mix { layer },
            8 => Op::Gather,
            9 => Op::LoraA {
                layer,
                group: Group::Output,
            },
            10 => Op::Linear {
                layer,
                group: Group::Output,
            },
            11 => Op::Norm { layer, mlp: true },
            12 => Op::LoraA {
                layer,
                group: Group::GateUp,
            },
            13 => Op::Linear {
                layer,
                group: Group::GateUp,
            },
            14 => Op::Act,
            15 => Op::LoraA {
                layer,
                group: Group::Down,
            },
            _ => Op::Linear {
                layer,
                group: Group::Down,
            },
        };
    }
    let after = pc - layers * PER_LAYER;
    if after == 0 {
        Op::FinalNorm
    } else if after <= depth {
        Op::Classify {
            layer: (after - 1) as u16,
        }
    } else {
        match after - depth {
            1 => Op::Route,
            2 => Op::Head,
            _ => Op::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_with_a_classifier_of_two() {
        let list: std::vec::Vec<Op> = (0..)
            .map(|pc| op(2, 2, pc))
            .take_while(|o| *o != Op::End)
            .collect();
        assert_eq!(list.len(), 1 + 2 * 17 + 1 + 2 + 1 + 1);
        assert_eq!(list[0], Op::Embed);
        assert_eq!(
            list[18],
            Op::Norm {
                layer: 1,
                mlp: false
            }
        );
        assert_eq!(
            list[34],
            Op::Linear {
                layer: 1,
                group: Group::Down
            }
        );
        assert_eq!(
            list[35..],
            [
                Op::FinalNorm,
                Op::Classify { layer: 0 },
                Op::Classify { layer: 1 },
                Op::Route,
                Op::Head
            ]
        );
        assert_eq!(op(2, 2, u32::MAX), Op::End);
        assert_eq!(op(1, 0, 19), Op::Route);
    }
}
