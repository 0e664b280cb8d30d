//! What a family's layers ask of the options.

mod common;

use common::{fixtures, pleach, text};

/// Inside its window a Mistral is any other model; the default context ends there, and no option goes beyond.
#[test]
fn a_window_bounds_the_context() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mistral.pleach");
    let base = fixtures().join("families/case-mistral/base");
    let packed = pleach(&["pack", "--base", text(&base), "-o", text(&file)]);
    assert_eq!(packed.code, 0, "{packed:?}");
    let trace = |tokens: usize, options: &[&str]| {
        let list = vec!["7"; tokens].join(",");
        let arguments = ["trace", text(&file), "--tokens", &list, "--hash"];
        pleach(&[&arguments, options].concat())
    };
    for (tokens, options) in [
        (48, &[][..]),
        (48, &["--context", "48"]),
        (3, &["--context", "3"]),
    ] {
        assert!(trace(tokens, options).ok().starts_with("hash "));
    }
    let e = trace(3, &["--context", "49"]);
    let (cause, cure) = e.refused(2);
    assert_eq!(
        cause,
        "--context 49: the base's attention window is 48 tokens"
    );
    assert_eq!(
        cure,
        "use --context 48 or less: sliding windows are not computed"
    );
    let e = trace(49, &[]);
    let (cause, _) = e.refused(2);
    assert!(cause.contains("49") && cause.contains("48"), "{cause}");
}

/// What the layer table says, for people and for scripts.
#[test]
fn inspect_names_what_layers_have() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = |family: &str| {
        let file = folder.path().join(format!("{family}.pleach"));
        let base = fixtures().join(format!("families/case-{family}/base"));
        let packed = pleach(&["pack", "--base", text(&base), "-o", text(&file)]);
        assert_eq!(packed.code, 0, "{packed:?}");
        let json = pleach(&["inspect", text(&file), "--json"]).ok();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let words = pleach(&["inspect", text(&file)]).ok();
        let words: Vec<&str> = words.split_whitespace().collect();
        (json["config"].clone(), words.join(" "))
    };
    let (json, words) = inspect("smollm3");
    assert_eq!(json["no_rope_layers"], serde_json::json!([1, 3]));
    assert!(
        words.contains("no rotary embedding in layers 1, 3"),
        "{words}"
    );
    let (json, words) = inspect("qwen3");
    assert_eq!(
        (&json["qk_norm"], &json["window"]),
        (&true.into(), &().into())
    );
    assert!(words.contains("heads of q and k are normed"), "{words}");
    let (json, words) = inspect("mistral");
    assert_eq!(
        (&json["qk_norm"], &json["window"]),
        (&false.into(), &48.into())
    );
    assert!(words.contains("within a window of 48"), "{words}");
}
