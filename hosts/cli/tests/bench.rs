//! `bench`: its structure and its counts. Never its times: they are the machine's.

mod common;

use common::{intent, pleach};
use serde_json::Value;

fn bench(arguments: &str) -> Value {
    let file = intent();
    let mut all = vec!["bench", &file, "--json"];
    all.extend(arguments.split_whitespace());
    let out = pleach(&all).ok();
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| panic!("no whole number: {v}"))
}

fn positive(v: &Value) -> f64 {
    let n = v.as_f64().unwrap_or_else(|| panic!("no number: {v}"));
    assert!(n > 0.0 && n.is_finite(), "{n}");
    n
}

#[test]
fn every_number_of_threads_has_its_rates() {
    let b = bench("--threads 1,2 --prompt-tokens 8 -n 4 --rounds 3");
    let speeds = b["speeds"].as_array().unwrap();
    let threads: Vec<u64> = speeds.iter().map(|s| number(&s["threads"])).collect();
    assert_eq!(threads, [1, 2]);
    for s in speeds {
        for key in ["prompt_tokens_per_second", "decode_tokens_per_second"] {
            let [low, middle, high] = ["lowest", "median", "highest"].map(|k| positive(&s[key][k]));
            assert!(low <= middle && middle <= high, "{s}");
            assert!(s[key]["spread"].as_f64().unwrap() >= 0.0);
        }
        positive(&s["bandwidth_share"]);
    }
    assert!(speeds[0]["hand_over_ns"].is_null(), "nobody to hand to");
    positive(&speeds[1]["hand_over_ns"]);
    let reads = b["bandwidth"]["reads"].as_array().unwrap();
    let streams: Vec<u64> = reads.iter().map(|s| number(&s["streams"])).collect();
    assert_eq!(streams, [1, 2]);
    reads.iter().for_each(|r| {
        positive(&r["bytes_per_second"]);
    });
    assert!(b["noisy"].is_boolean());
    assert!(!b["kernels"].as_str().unwrap().is_empty());
    assert_eq!(number(&b["rounds"]), 3);
}

/// The counts are those of the text, the same for every number of rounds and threads; by `plan` a naive token's.
#[test]
fn counts_are_exact() {
    let lines = "--speculate off --top-k-lora none --kv f16 --context 64";
    let b = bench(&format!(
        "{lines} --prompt-tokens 8 -n 4 --rounds 1 --chunk 4"
    ));
    let again = bench(&format!(
        "{lines} --prompt-tokens 8 -n 4 --rounds 2 --chunk 4 --threads 2,1"
    ));
    for part in ["prompt", "decode"] {
        assert_eq!(b[part], again[part], "{part}");
    }
    assert_eq!(number(&b["prompt"]["tokens"]), 8);
    // Two chunks and the sweep that ends them.
    assert_eq!(number(&b["prompt"]["sweeps"]), 3);
    assert_eq!(number(&b["prompt"]["columns"]), 16);
    let decode = &b["decode"];
    assert_eq!(number(&decode["tokens"]), 4);
    assert_eq!(number(&decode["sweeps"]), 8);
    assert_eq!(number(&decode["columns"]), 8);
    assert_eq!(positive(&decode["sweeps_per_token"]), 2.0);

    let file = intent();
    let mut all = vec!["plan", &file, "--json"];
    all.extend(lines.split(' '));
    let plan: Value = serde_json::from_str(&pleach(&all).ok()).unwrap();
    let token = &plan["tokens"][0];
    assert_eq!(
        number(&decode["weight_bytes"]),
        4 * number(&token["weight_bytes"]["most"])
    );
    let seen = 2 * (9 + 10 + 11 + 12);
    let per = |key: &str| seen * number(&plan["attention"][key]);
    assert_eq!(number(&decode["kv_bytes"]), per("kv_bytes_per_position"));
    let macs = 4 * number(&token["macs"]["most"]) + per("macs_per_position");
    assert_eq!(number(&decode["macs"]), macs);
    let bytes = number(&decode["weight_bytes"]) + number(&decode["kv_bytes"]);
    assert_eq!(positive(&decode["bytes_per_token"]), bytes as f64 / 4.0);
    assert_eq!(
        number(&b["bandwidth"]["buffer_bytes"]),
        (bytes / 4).next_multiple_of(8)
    );
}

#[test]
fn a_given_prompt_and_the_text() {
    let file = intent();
    let b = bench("--prompt licht -n 2 --rounds 1 --threads 1");
    assert!(number(&b["prompt"]["tokens"]) >= 1);
    let out = pleach(&[
        "bench",
        &file,
        "--prompt",
        "mets la radio",
        "-n",
        "2",
        "--rounds",
        "2",
        "--threads",
        "1",
    ])
    .ok();
    for word in [
        "prompt tok/s",
        "decode tok/s",
        "bandwidth",
        "GB/s with 1",
        "kernels",
        "a token",
        "sweeps",
    ] {
        assert!(out.contains(word), "{word} is not in\n{out}");
    }
    assert!(!out.contains("hand-over"), "by one thread:\n{out}");
    let out = pleach(&["bench", &file, "-n", "1", "--rounds", "1", "--threads", "2"]).ok();
    assert!(
        out.contains("hand-over") && out.contains("ns with 2"),
        "{out}"
    );
}

#[test]
fn what_it_cannot_measure() {
    for (arguments, cause, cure) in [
        ("--threads 1,0", "--threads 1,0: out of range", "1 to 64"),
        ("--threads 2,65", "--threads 2,65: out of range", "1 to 64"),
        ("--threads 1,x", "--threads 1,x: not a whole", "1 to 64"),
        ("-n 0", "-n 0: not a number from 1", "from 1"),
        ("--rounds 0", "--rounds 0: ", "from 1"),
        (
            "--context 32 --prompt-tokens 32",
            "--prompt-tokens 32: ",
            "--context 33",
        ),
        (
            "--context 32 --prompt-tokens 30 -n 3",
            "-n 3: ",
            "--context 33",
        ),
        (
            "--prompt a --prompt-tokens 3",
            "exclude each other",
            "pass one",
        ),
        ("--routing only:it", "--routing only:it: ", "en, de, fr, es"),
    ] {
        let file = intent();
        let mut all = vec!["bench", &file];
        all.extend(arguments.split(' '));
        let ran = pleach(&all);
        let (found, how) = ran.refused(2);
        assert!(
            found.contains(cause) && how.contains(cure),
            "{found}\n{how}"
        );
    }
    // Other commands take one number of threads.
    let file = intent();
    let ran = pleach(&["run", &file, "--prompt", "a", "--threads", "1,2"]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.starts_with("--threads 1,2: ") && cure.contains("pleach bench"),
        "{cause}\n{cure}"
    );
}
