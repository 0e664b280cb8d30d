//! Text to tokens and back, by the tokenizer in a model file.

use pleach::Model;
use pleach::tokenizer::{Decoder, EncodeOptions, SpecialTokens, Tokenizer};

fn tokenizer<'b>(model: &Model<'b>) -> Tokenizer<'b> {
    model.tokenizer().expect("a tokenizer in the file")
}

/// The tokens of a text, special ones included; no template.
pub fn encode(model: &Model<'_>, text: &str) -> Vec<u32> {
    let tokenizer = tokenizer(model);
    let mut scratch = vec![0; Tokenizer::scratch_len(text.len() + 1)];
    let mut out = vec![0; text.len() + 1];
    let n = tokenizer
        .encode(text, EncodeOptions::DEFAULT, &mut scratch, &mut out)
        .expect("room for every byte");
    out.truncate(n);
    out
}

/// The same after the token that begins a text.
pub fn encode_from_start(model: &Model<'_>, text: &str) -> Vec<u32> {
    let bos = tokenizer(model).bos().unwrap_or(model.config().bos);
    [vec![bos], encode(model, text)].concat()
}

/// A short text that follows from the size of the vocabulary, shorter where that takes long. Sums over all modes of a model
/// file are of this text and what is generated after it.
pub fn of_vocabulary(model: &Model<'_>) -> Vec<u32> {
    let vocab = model.config().vocab as usize;
    let len = if is_large(model) { 9 } else { 11 };
    (0..len).map(|i| ((i * 13 + 5) % vocab) as u32).collect()
}

/// Whether the vocabulary is that of a real model.
pub fn is_large(model: &Model<'_>) -> bool {
    model.config().vocab >= 10_000
}

/// The text of tokens, without special ones.
pub fn decode(model: &Model<'_>, tokens: &[u32]) -> String {
    let mut decoder = Decoder::new(tokenizer(model), SpecialTokens::Skip);
    let mut text = String::new();
    for &token in tokens {
        text.extend(decoder.push(token));
    }
    text.extend(decoder.finish());
    text
}
