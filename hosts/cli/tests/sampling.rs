//! Sampling options, stop strings and `--show-experts` of `pleach run`.

mod common;

use common::{Ran, command, intent, pleach, text};
use safetensors::SafeTensors;

const PROMPT: &str = "mets la radio\n";

fn run(arguments: &[&str]) -> Ran {
    let file = intent();
    let fixed = ["run", &file, "--prompt", PROMPT];
    pleach(&[&fixed[..], arguments].concat())
}

#[test]
fn a_seed_is_a_text() {
    let warm = |seed: &str, more: &[&str]| {
        let options = ["--temperature", "1.2", "--seed", seed, "-n", "24"];
        run(&[&options[..], more].concat()).ok()
    };
    let texts: Vec<String> = ["1", "2", "3", "4"].iter().map(|s| warm(s, &[])).collect();
    assert!(texts.iter().any(|t| *t != texts[0]), "{texts:?}");
    // Neither threads nor guesses nor chunks are part of the answer.
    for more in [
        &["--threads", "1"][..],
        &["--threads", "3", "--chunk", "2"],
        &["--speculate", "off"],
        &["--speculate", "base"],
        &["--speculate", "held"],
    ] {
        assert_eq!(warm("2", more), texts[1], "{more:?}");
    }
}

#[test]
fn one_candidate_is_the_greedy_one() {
    let greedy = run(&[]).ok();
    for options in [&["--top-k", "1"][..], &["--top-p", "0"], &["--min-p", "1"]] {
        let one = [&["--temperature", "2", "--seed", "5"][..], options].concat();
        assert_eq!(run(&one).ok(), greedy, "{options:?}");
    }
    assert_eq!(run(&["--temperature", "0"]).ok(), greedy);
}

#[test]
fn a_stop_string_is_not_shown() {
    let whole = run(&[]).ok();
    let (before, _) = whole.split_once("name").expect("an argument of the call");
    assert_eq!(run(&["--stop", "name"]).ok(), before);
    assert_eq!(
        run(&["--stop", "radio", "--stop", "me="]).ok(),
        format!("{before}na")
    );
    assert_eq!(run(&["--stop", "never comes"]).ok(), whole);
    let lines = run(&["--stop", "name", "--show-experts"]).ok();
    assert!(!lines.contains("name"), "{lines}");
}

#[test]
fn a_bias_forbids_and_forces() {
    // 419 is "mediapause", the first token of the greedy answer; a line of --show-experts tells.
    let first = run(&["-n", "1", "--show-experts"]).ok();
    let token = first.split('\t').next().unwrap();
    let other = run(&[
        "-n",
        "1",
        "--show-experts",
        "--logit-bias",
        &format!("{token}=-inf"),
    ])
    .ok();
    assert_ne!(other.split('\t').next(), Some(token));
    let forced = run(&["-n", "3", "--show-experts", "--logit-bias", "419=1000"]).ok();
    assert_eq!(
        forced.lines().filter(|l| l.starts_with("419\t")).count(),
        3,
        "{forced}"
    );
    // A penalty ends the repetition that the bias forces.
    let options = ["-n", "3", "--show-experts", "--logit-bias", "419=1000"];
    let options = [&options[..], &["--presence-penalty", "2000"]].concat();
    let varied = run(&options).ok();
    assert_eq!(
        varied.lines().filter(|l| l.starts_with("419\t")).count(),
        1,
        "{varied}"
    );
}

#[test]
fn a_line_per_token_with_the_scalings_that_trace_writes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("trace.safetensors");
    let file = intent();
    let lines = run(&["--show-experts", "--speculate", "off"]).ok();
    let lines: Vec<Vec<&str>> = lines.lines().map(|l| l.split('\t').collect()).collect();
    let shown: String = lines
        .iter()
        .map(|l| serde_json::from_str::<String>(l[1]).unwrap())
        .collect();
    assert_eq!(shown, run(&[]).ok());

    // The tokens of the prompt: BOS and the sentence, as the demo's fixture has them.
    let expected = common::fixtures().join("xlora-intent/expected.json");
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(expected).unwrap()).unwrap();
    let case = &expected["cases"][0];
    let ids: Vec<String> = case["prompt"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.to_string())
        .collect();
    let prompt = format!("{}\n", case["sentence"].as_str().unwrap());
    let traced = pleach(&[
        "trace",
        &file,
        "--tokens",
        &ids.join(","),
        "--generate",
        "8",
        "--stop-at-eos",
        "-o",
        text(&out),
    ]);
    assert_eq!(traced.code, 0, "{traced:?}");
    let bytes = std::fs::read(&out).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let effective = all.tensor("effective").unwrap();
    let [_, sites, experts] = effective.shape()[..] else {
        panic!("three dimensions");
    };
    let values: Vec<f32> = effective
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let shown = pleach(&[
        "run",
        &file,
        "--prompt",
        &prompt,
        "-n",
        "8",
        "--show-experts",
    ])
    .ok();
    let inspected = pleach(&["inspect", &file, "--json"]).ok();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let ranks: Vec<Vec<u64>> = inspected["experts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| serde_json::from_value(e["ranks"].clone()).unwrap())
        .collect();
    let mut checked = 0;
    for (n, line) in shown.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        // Token n was chosen by the logits of the position before it.
        let position = ids.len() - 1 + n;
        let row = &values[position * sites * experts..][..sites * experts];
        for (expert, shown) in fields[3].split(' ').enumerate() {
            // Only sites that the expert changes.
            let of_expert = row.iter().skip(expert).step_by(experts);
            let at_sites = of_expert.zip(&ranks[expert]).filter(|(_, rank)| **rank > 0);
            let at_sites: Vec<f64> = at_sites.map(|(v, _)| f64::from(v.abs())).collect();
            let mean = at_sites.iter().sum::<f64>() / at_sites.len() as f64;
            let (_, shown) = shown.split_once('=').unwrap();
            let shown: f64 = shown.parse().unwrap();
            // Three decimals are shown.
            assert!((shown - mean).abs() <= 0.0005 + 1e-9, "{line}: {mean}");
            checked += 1;
        }
    }
    assert!(checked >= 8);
}

#[test]
fn colours_where_there_are_any() {
    let coloured = |set: &[(&str, &str)], arguments: &[&str]| {
        let file = intent();
        let mut c = command();
        set.iter().for_each(|(k, v)| _ = c.env(k, v));
        let output = c
            .args(["run", &file, "--prompt", PROMPT, "--show-experts"])
            .args(arguments)
            .output()
            .unwrap();
        Ran::of(output)
    };
    let forced = coloured(&[("CLICOLOR_FORCE", "1")], &[]);
    assert_eq!(forced.code, 0);
    assert!(forced.out.contains("\x1b[38;5;"), "{forced:?}");
    assert_eq!(console::strip_ansi_codes(&forced.out), run(&[]).ok());
    assert!(forced.err.starts_with("experts: "), "{forced:?}");
    let plain = coloured(&[("NO_COLOR", "1")], &[]);
    assert!(
        !plain.out.contains('\x1b') && plain.out.contains('\t'),
        "{plain:?}"
    );
}

#[test]
fn routings_without_scalings_say_so() {
    for (routing, why, strongest) in [
        ("base", "no expert takes part", "-"),
        ("all-ones", "the same scalings", "-"),
        ("only:de", "the same scalings", "de"),
        ("static:0,0,2,1", "the same scalings", "fr"),
    ] {
        let ran = run(&["--show-experts", "--routing", routing, "-n", "3"]);
        assert_eq!(ran.code, 0);
        assert!(ran.err.contains(why), "{routing}: {}", ran.err);
        for line in ran.out.lines() {
            assert_eq!(
                line.split('\t').nth(2),
                Some(strongest),
                "{routing}: {line}"
            );
        }
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for (options, note) in [
        (
            &["--top-k", "5"][..],
            "--top-k has no effect without --temperature",
        ),
        (&["--seed", "5"], "--seed has no effect"),
        (&["--penalty-tokens", "5"], "--penalty-tokens has no effect"),
    ] {
        let ran = run(&[options, &["-n", "1"]].concat());
        assert_eq!(ran.code, 0);
        assert!(ran.err.contains(note), "{}", ran.err);
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    for (option, value, cause, cure) in [
        ("--temperature", "-1", "out of range", "0.7"),
        ("--temperature", "warm", "not a number", "0.7"),
        ("--temperature", "nan", "out of range", "0.7"),
        ("--top-k", "-1", "not a whole number", "from 0"),
        ("--top-p", "1.5", "out of range", "0 to 1"),
        ("--min-p", "-0.5", "out of range", "0 to 1"),
        ("--repetition-penalty", "0", "out of range", "above 0"),
        ("--presence-penalty", "1e9", "out of range", "65504"),
        ("--frequency-penalty", "x", "not a number", "0.5"),
        ("--penalty-tokens", "5000", "out of range", "4096"),
        ("--seed", "-3", "not a whole number", "18446744073709551615"),
        ("--logit-bias", "5", "no value", "TOKEN_ID=VALUE"),
        ("--logit-bias", "5=inf", "out of range", "-inf"),
        ("--logit-bias", "512=1", "no such token", "0 to 511"),
        ("--stop", "", "", "leave --stop out"),
    ] {
        let ran = run(&[option, value]);
        let (found, advice) = ran.refused(2);
        assert!(
            found.starts_with(option) && found.contains(cause),
            "{found}"
        );
        assert!(advice.contains(cure), "{found}\n{advice}");
    }
    let nine = ["--stop", "x"].repeat(9);
    let ran = run(&nine);
    assert!(ran.refused(2).1.contains("at most 8"));
    let long = "x".repeat(65);
    let ran = run(&["--stop", &long]);
    assert!(ran.refused(2).0.contains("65 bytes"));
    let many: Vec<String> = (0..17)
        .flat_map(|n| ["--logit-bias".to_owned(), format!("{n}=1")])
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ran = run(&many);
    assert!(ran.refused(2).1.contains("at most 16"));
}
