//! The tensor types of GGUF: number, name, block.

use super::decode;

/// How the numbers of a tensor are stored: blocks of `values` numbers in `bytes` bytes.
#[derive(Debug)]
pub(crate) struct Type {
    /// Its number in the file.
    pub(crate) number: u32,
    /// What GGUF calls it.
    pub(crate) name: &'static str,
    /// Numbers of a block.
    pub(crate) values: usize,
    /// Bytes of a block.
    pub(crate) bytes: usize,
    /// From whole blocks to f32, appended.
    pub(crate) decode: fn(&[u8], &mut Vec<f32>),
}

const fn of(
    number: u32,
    name: &'static str,
    values: usize,
    bytes: usize,
    decode: fn(&[u8], &mut Vec<f32>),
) -> Type {
    Type {
        number,
        name,
        values,
        bytes,
        decode,
    }
}

/// What is read.
pub(crate) static TYPES: [Type; 11] = [
    of(0, "F32", 1, 4, decode::f32),
    of(1, "F16", 1, 2, decode::f16),
    of(2, "Q4_0", 32, 18, decode::q4_0),
    of(3, "Q4_1", 32, 20, decode::q4_1),
    of(6, "Q5_0", 32, 22, decode::q5_0),
    of(7, "Q5_1", 32, 24, decode::q5_1),
    of(Q8_0, "Q8_0", 32, 34, decode::q8_0),
    of(12, "Q4_K", 256, 144, decode::q4_k),
    of(13, "Q5_K", 256, 176, decode::q5_k),
    of(14, "Q6_K", 256, 210, decode::q6_k),
    of(30, "BF16", 1, 2, decode::bf16),
];

/// The number of Q4_0.
pub(crate) const Q4_0: u32 = 2;
/// The number of Q8_0.
pub(crate) const Q8_0: u32 = 8;

/// The types that exist and are not read, for messages.
const OTHERS: [(u32, &str); 23] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl Type {
    /// The type with this number, if it is read.
    pub(crate) fn of(number: u32) -> Option<&'static Type> {
        TYPES.iter().find(|t| t.number == number)
    }

    /// What a number that is not read is called.
    pub(crate) fn other(number: u32) -> String {
        match OTHERS.iter().find(|(n, _)| *n == number) {
            Some((_, name)) => (*name).into(),
            None => format!("type {number}, which is not known"),
        }
    }

    /// The types that are read, as a list.
    pub(crate) fn list() -> String {
        let names: Vec<_> = TYPES.iter().map(|t| t.name).collect();
        names.join(", ")
    }
}
