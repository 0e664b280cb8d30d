//! The model as a program: which operation comes when, as a pure function of the config.

pub(crate) mod program;
