//! `tokenizer`.

use crate::{any, bytes};
use core::hint::black_box;
use pleach::tokenizer::{
    AddedTokens, Class, Decoder, EncodeOptions, Normalizer, PreTokenizer, SpecialTokens, Template,
    Tokenizer, nfc,
};

pub(crate) fn call() {
    black_box((
        PreTokenizer::from_number(any()),
        Normalizer::from_number(any()),
        Class::of(any()),
    ));
    black_box(nfc(bytes(), black_box(&mut [0; 32])).is_ok());
    if let Ok(t) = Tokenizer::parse(bytes()) {
        with(&t);
    }
}

pub(crate) fn with(t: &Tokenizer<'_>) {
    let (mut scratch, mut tokens) = ([0; Tokenizer::scratch_len(16)], [0; 32]);
    let (scratch, tokens) = (black_box(&mut scratch[..]), black_box(&mut tokens[..]));
    let options = EncodeOptions {
        added: match any::<u8>() {
            0 => AddedTokens::All,
            1 => AddedTokens::Ordinary,
            _ => AddedTokens::None,
        },
        template: if any() {
            Template::Apply
        } else {
            Template::Omit
        },
    };
    if let Ok(text) = core::str::from_utf8(bytes()) {
        black_box(
            (
                t.encode(text, options, scratch, tokens),
                t.added_token(text),
            )
                .0
                .is_ok(),
        );
    }
    black_box(t.encode_bytes(bytes(), options, scratch, tokens).is_ok());
    let guarded = [any(), any()];
    let guarded = black_box(&guarded[..]);
    black_box(
        t.encode_guarded(bytes(), options, guarded, scratch, tokens)
            .is_ok(),
    );
    t.added_tokens().for_each(|added| _ = black_box(added));
    black_box((
        t.vocab(),
        t.pre_tokenizer(),
        t.normalizer(),
        t.scratch_for(any()),
        t.tokens_for(any()),
        t.bos(),
        t.eos(),
        t.token_bytes(any()),
        t.is_special(any()),
    ));
    let special = if any() {
        SpecialTokens::Keep
    } else {
        SpecialTokens::Skip
    };
    let mut decoder = Decoder::new(*t, special);
    for c in decoder.push(any()).chain(decoder.finish()) {
        black_box(c);
    }
}
