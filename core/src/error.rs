//! The one error type of the core: `Copy`, no owned strings, a number per variant.

use crate::blob::format::SectionKind;
use core::fmt;

/// Which of X-LoRA's two passes a column belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pass {
    /// Pass 1: every site gets the scaling pass value; its hidden states feed the classifier.
    Scaling,
    /// Pass 2: every site gets its effective scalings; its logits are the output.
    Routed,
}

/// Everything that can go wrong in the core. Hosts add the file, the option and the cure.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The bytes end before the record that they announce.
    Truncated {
        /// Bytes that the record needs.
        needed: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The first bytes are not those of a pleach file of this kind.
    Magic,
    /// A format version that this build does not read.
    Version {
        /// The version in the file.
        found: u16,
    },
    /// A slice that must be aligned is not.
    Misaligned {
        /// The alignment that was asked for, in bytes.
        needed: u16,
    },
    /// A CRC-32 differs.
    Crc {
        /// The section; `None` for the header and the section table.
        section: Option<SectionKind>,
        /// The value in the file.
        expected: u32,
        /// The value of the bytes.
        found: u32,
    },
    /// A section's place or size breaks a rule.
    Section {
        /// The section's number in the section table.
        index: u16,
        /// The rule.
        why: &'static str,
    },
    /// A field of the config, the layer table or the X-LoRA options breaks a rule.
    Config {
        /// Field and rule.
        why: &'static str,
    },
    /// A tensor of the base or the classifier breaks a rule.
    Tensor {
        /// The section that holds it.
        section: SectionKind,
        /// Its number in the section's tensor table.
        index: u16,
        /// The rule.
        why: &'static str,
    },
    /// A record of the site table breaks a rule.
    Site {
        /// The site.
        site: u16,
        /// The rule.
        why: &'static str,
    },
    /// An expert breaks a rule.
    Expert {
        /// Its class index.
        class: u16,
        /// The site; `None` for its header.
        site: Option<u16>,
        /// The rule.
        why: &'static str,
    },
    /// The tokenizer section breaks a rule.
    Tokenizer {
        /// The rule.
        why: &'static str,
    },
    /// A weight or scale outside the range in which the arithmetic is the same on every target.
    Value {
        /// The section.
        section: SectionKind,
        /// The tensor's number (for an expert: the site's).
        tensor: u16,
    },
    /// The arena is smaller than [`Model::arena_bytes`](crate::Model::arena_bytes) says.
    ArenaTooSmall {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        found: u64,
    },
    /// An option or argument outside its range.
    Option {
        /// Option and rule.
        why: &'static str,
    },
    /// A call that this session, in its present state, cannot serve.
    Refused {
        /// What and why.
        why: &'static str,
    },
    /// A token that the vocabulary does not have.
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// The number of tokens in the vocabulary.
        vocab: u32,
    },
    /// More tokens than the session's context holds.
    ContextFull {
        /// The context, in tokens.
        context: u32,
    },
    /// A slice whose length does not fit the shapes.
    Shape {
        /// Which argument.
        what: &'static str,
        /// Elements expected.
        expected: u64,
        /// Elements found.
        found: u64,
    },
    /// An activation, scaling or logit that is not finite. The token is not emitted.
    NonFinite {
        /// The pass that met it.
        pass: Pass,
        /// The position, in tokens.
        position: u32,
    },
    /// The bytes of the blob changed after they were parsed.
    Corrupt,
}

impl Error {
    /// A stable number per variant, for C interfaces and logs.
    pub const fn code(&self) -> u16 {
        match self {
            Error::Truncated { .. } => 1,
            Error::Magic => 2,
            Error::Version { .. } => 3,
            Error::Misaligned { .. } => 4,
            Error::Crc { .. } => 5,
            Error::Section { .. } => 6,
            Error::Config { .. } => 7,
            Error::Tensor { .. } => 8,
            Error::Site { .. } => 9,
            Error::Expert { .. } => 10,
            Error::Tokenizer { .. } => 11,
            Error::Value { .. } => 12,
            Error::ArenaTooSmall { .. } => 13,
            Error::Option { .. } => 14,
            Error::Refused { .. } => 15,
            Error::TokenOutOfRange { .. } => 16,
            Error::ContextFull { .. } => 17,
            Error::Shape { .. } => 18,
            Error::NonFinite { .. } => 19,
            Error::Corrupt => 20,
        }
    }

    /// The cause without its numbers, for messages that must be constant (a compile error of
    /// [`include_blob!`](crate::include_blob)).
    pub const fn why(&self) -> &'static str {
        match self {
            Error::Truncated { .. } => "the blob is truncated",
            Error::Magic => "not a pleach blob",
            Error::Version { .. } => "a format version that this build does not read",
            Error::Misaligned { .. } => "the bytes are not aligned",
            Error::Crc { .. } => "a CRC-32 differs",
            Error::Section { why, .. }
            | Error::Config { why }
            | Error::Tensor { why, .. }
            | Error::Site { why, .. }
            | Error::Expert { why, .. }
            | Error::Tokenizer { why }
            | Error::Option { why }
            | Error::Refused { why } => why,
            Error::Value { .. } => "a weight or scale is outside the allowed range",
            Error::ArenaTooSmall { .. } => "the arena is too small",
            Error::TokenOutOfRange { .. } => "a token is outside the vocabulary",
            Error::ContextFull { .. } => "the context is full",
            Error::Shape { what, .. } => what,
            Error::NonFinite { .. } => "a value is not finite",
            Error::Corrupt => "the blob changed after it was parsed",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Truncated { needed, found } => {
                write!(f, "truncated: {needed} bytes needed, {found} found")
            }
            Error::Magic => write!(f, "not a pleach file (its first bytes differ)"),
            Error::Version { found } => {
                write!(
                    f,
                    "format version {found}; this build reads version {}",
                    crate::blob::format::VERSION
                )
            }
            Error::Misaligned { needed } => write!(f, "bytes not aligned to {needed}"),
            Error::Crc {
                section,
                expected,
                found,
            } => match section {
                Some(s) => write!(
                    f,
                    "section {}: CRC-32 is {found:08x}, the file says {expected:08x}",
                    s.name()
                ),
                None => write!(
                    f,
                    "header: CRC-32 is {found:08x}, the file says {expected:08x}"
                ),
            },
            Error::Section { index, why } => write!(f, "section {index}: {why}"),
            Error::Config { why } => write!(f, "config: {why}"),
            Error::Tensor {
                section,
                index,
                why,
            } => write!(f, "{} tensor {index}: {why}", section.name()),
            Error::Site { site, why } => write!(f, "site {site}: {why}"),
            Error::Expert {
                class,
                site: Some(s),
                why,
            } => write!(f, "expert {class}, site {s}: {why}"),
            Error::Expert {
                class,
                site: None,
                why,
            } => write!(f, "expert {class}: {why}"),
            Error::Tokenizer { why } => write!(f, "tokenizer: {why}"),
            Error::Value { section, tensor } => write!(
                f,
                "{} tensor {tensor}: a weight or scale is neither 0 nor within 2^-24..65504",
                section.name()
            ),
            Error::ArenaTooSmall { needed, found } => {
                write!(f, "arena of {found} bytes, {needed} needed")
            }
            Error::Option { why } | Error::Refused { why } => f.write_str(why),
            Error::TokenOutOfRange { token, vocab } => {
                write!(f, "token {token} is outside the vocabulary of {vocab}")
            }
            Error::ContextFull { context } => write!(f, "the context of {context} tokens is full"),
            Error::Shape {
                what,
                expected,
                found,
            } => write!(f, "{what}: {expected} elements expected, {found} found"),
            Error::NonFinite { pass, position } => {
                let pass = match pass {
                    Pass::Scaling => "scaling",
                    Pass::Routed => "routed",
                };
                write!(
                    f,
                    "a value is not finite at position {position} of the {pass} pass"
                )
            }
            Error::Corrupt => f.write_str("the blob's bytes changed after they were parsed"),
        }
    }
}

impl core::error::Error for Error {}
