//! What one token needs in one pass, and one read of the weights over a batch of them.

use crate::error::Pass;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which scalings a column gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gates {
    /// The base: no expert takes part.
    Off,
    /// The same value for every expert at every site, as in the scaling pass; the global weight applies.
    Uniform { value: f32 },
    /// The effective scalings of a row: of the ring, or the held one.
    Row { row: u16, global: bool },
}

/// One token in one pass: a fixed-size record in the arena. Every mode is a list of these.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Column {
    /// The token, or the slot of an embedding row.
    pub(crate) input: u32,
    pub(crate) pos: u32,
    flags: u16,
    gate_kind: u16,
    /// f32 bits, or a row.
    gate: u32,
    /// The row that its scalings go to.
    pub(crate) route_row: u16,
    /// Its index in the sweep, which [`narrow`](crate::session::narrow) changes.
    pub(crate) place: u16,
}

impl Column {
    /// Belongs to the routed pass.
    const ROUTED: u16 = 1;
    /// Its logits are wanted.
    pub(crate) const HEAD: u16 = 2;
    /// Its hidden state goes to the classifier.
    pub(crate) const ROUTE: u16 = 4;
    /// It stands for a guessed token: nothing of it is committed.
    pub(crate) const GUESS: u16 = 8;
    /// A guess that met a value that is not finite: dropped.
    pub(crate) const DEAD: u16 = 16;
    /// Its input is an embedding row.
    pub(crate) const EMBEDDING: u16 = 32;
    /// Another token follows it in the text, and nobody reads its outputs: it leaves only keys and values.
    pub(crate) const INNER: u16 = 64;

    pub(crate) fn new(pass: Pass, input: u32, pos: u32, gates: Gates) -> Self {
        let (gate_kind, gate) = match gates {
            Gates::Off => (0, 0),
            Gates::Uniform { value } => (1, value.to_bits()),
            Gates::Row { row, global } => (2 + global as u16, row as u32),
        };
        Self {
            input,
            pos,
            flags: match pass {
                Pass::Scaling => 0,
                Pass::Routed => Self::ROUTED,
            },
            gate_kind,
            gate,
            route_row: 0,
            place: 0,
        }
    }

    pub(crate) fn with(mut self, flag: u16, on: bool) -> Self {
        if on {
            self.flags |= flag;
        }
        self
    }

    pub(crate) fn routed_to(mut self, row: Option<u16>) -> Self {
        if let Some(row) = row {
            self.flags |= Self::ROUTE;
            self.route_row = row;
        }
        self
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Drops a guess; from here on its values do not matter.
    pub(crate) fn kill(&mut self) {
        self.flags |= Self::DEAD;
        self.flags &= !(Self::ROUTE | Self::HEAD);
        self.gate_kind = 0;
    }

    pub(crate) fn pass(&self) -> Pass {
        if self.has(Self::ROUTED) {
            Pass::Routed
        } else {
            Pass::Scaling
        }
    }

    pub(crate) fn position(&self) -> usize {
        self.pos as usize
    }

    pub(crate) fn gates(&self) -> Gates {
        match self.gate_kind {
            1 => Gates::Uniform {
                value: f32::from_bits(self.gate),
            },
            2 | 3 => Gates::Row {
                row: self.gate as u16,
                global: self.gate_kind == 3,
            },
            _ => Gates::Off,
        }
    }
}

/// One read of the weights over a batch of columns; it can be suspended between any two units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sweep {
    /// Columns in it; 0 when there is no sweep under way.
    pub(crate) columns: u16,
    /// Columns that are still computed, the first ones.
    pub(crate) active: u16,
    /// Columns that the present operation picks (classifier, head).
    pub(crate) picked: u16,
    /// The operation.
    pub(crate) pc: u32,
    /// Units of the operation that are done.
    pub(crate) unit: u32,
    /// Experts selected for the present group of matrices.
    pub(crate) chosen: u32,
    /// Rows of their r-vectors.
    pub(crate) lora_rows: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_survive_the_record() {
        for gates in [
            Gates::Off,
            Gates::Uniform { value: -0.25 },
            Gates::Row {
                row: 3,
                global: true,
            },
            Gates::Row {
                row: 0,
                global: false,
            },
        ] {
            for pass in [Pass::Scaling, Pass::Routed] {
                let c = Column::new(pass, 5, 9, gates).with(Column::HEAD, true);
                assert_eq!(
                    (c.gates(), c.pass(), c.has(Column::HEAD)),
                    (gates, pass, true)
                );
            }
        }
    }
}
