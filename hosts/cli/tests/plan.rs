//! `plan`: its figures add up, and the engine's own counters agree with them.

mod common;

use common::{intent, pleach};
use pleach::{
    Caches, Counters, Guess, Inline, Kernels, KvType, LogitsKind, Model, Routing, Session,
    SessionOptions, Speculate,
};
use pleach_linux::{Arena, ModelFile};
use serde_json::Value;
use std::path::Path;

fn plan(arguments: &[&str]) -> Value {
    let file = intent();
    let mut all = vec!["plan", &file, "--json"];
    all.extend(arguments);
    let ran = pleach(&all);
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| panic!("no whole number: {v}"))
}

fn sum(list: &Value, key: &str) -> u64 {
    let all = list.as_array().unwrap();
    all.iter().map(|v| number(&v[key])).sum()
}

#[test]
fn bytes_of_sections_sum_to_the_file() {
    let p = plan(&[]);
    let file = std::fs::metadata(intent()).unwrap().len();
    assert_eq!(number(&p["bytes"]), file);
    assert_eq!(
        sum(&p["sections"], "bytes") + number(&p["table_bytes"]),
        file
    );
    let names: Vec<&str> = p["experts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["en", "de", "fr", "es"]);
    let of_experts = p["sections"].as_array().unwrap().iter();
    let of_experts: u64 = of_experts
        .filter(|s| s["kind"] == "expert")
        .map(|s| number(&s["bytes"]))
        .sum();
    assert_eq!(sum(&p["experts"], "bytes"), of_experts);
}

/// The options of each row of arguments, as the engine takes them.
fn options(context: u32, chunk: u32, kv: KvType, caches: Caches, s: Speculate) -> SessionOptions {
    SessionOptions {
        context,
        chunk,
        kv,
        caches,
        logits: LogitsKind::Last,
        log_tokens: 0,
        embedding_rows: 0,
        speculate: s,
    }
}

#[test]
fn parts_of_the_arena_tile_it() {
    let bytes = std::fs::read(intent()).unwrap();
    let file = ModelFile::open(Path::new(&intent())).unwrap();
    let model = Model::parse(file.blob().unwrap()).unwrap();
    assert_eq!(model.file_len(), bytes.len());
    let firmware = options(64, 1, KvType::F16, Caches::Two, Speculate::Off);
    let one = options(100, 8, KvType::F32, Caches::One, Speculate::Off);
    let linux = options(128, 32, KvType::F32, Caches::Two, Speculate::Auto);
    for (arguments, options) in [
        ("--context 64 --chunk 1 --kv f16 --speculate off", firmware),
        ("--context 100 --chunk 8 --routing base", one),
        ("", linux),
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let p = plan(&arguments);
        let arena = &p["arena"];
        let all = number(&arena["bytes"]);
        assert_eq!(all, model.arena_bytes(&options) as u64, "{arguments:?}");
        assert_eq!(sum(&arena["parts"], "bytes"), all);
        let mut at = 0;
        for part in arena["parts"].as_array().unwrap() {
            assert_eq!(number(&part["offset"]), at, "{part}");
            assert!(at.is_multiple_of(16));
            at += number(&part["bytes"]);
        }
        let caches = match options.caches {
            Caches::One => 1,
            Caches::Two => 2,
        };
        let c = model.config();
        let token = 2 * caches * c.layers * c.kv_heads * c.head_dim;
        let token = u64::from(token) * options.kv.bytes() as u64;
        assert_eq!(number(&arena["kv_bytes_per_token"]), token);
        // A session takes exactly that.
        let mut memory = Arena::new(all as usize).unwrap();
        let memory = memory.bytes();
        assert!(Session::new(model, &options, &mut memory[..all as usize]).is_ok());
        assert!(Session::new(model, &options, &mut memory[..all as usize - 16]).is_err());
    }
}

#[test]
fn ram_gives_the_largest_context() {
    let firmware = [
        "--chunk",
        "1",
        "--kv",
        "f16",
        "--speculate",
        "off",
        "--context",
    ];
    let with = |context: u64| {
        let context = context.to_string();
        let p = plan(&[&firmware[..], &[&context]].concat());
        number(&p["arena"]["bytes"])
    };
    for (ram, bytes) in [("96K", 96 << 10), ("1M", 1 << 20), ("65536", 1 << 16)] {
        let p = plan(&[&firmware[..], &["64", "--ram", ram]].concat());
        let ram = &p["ram"];
        assert_eq!(number(&ram["bytes"]), bytes);
        let context = number(&ram["largest_context"]);
        assert_eq!(with(context), number(&ram["arena_bytes"]));
        assert!(with(context) <= bytes && with(context + 1) > bytes);
    }
    let p = plan(&["--ram", "1K"]);
    assert!(p["ram"]["largest_context"].is_null());
    assert!(number(&p["ram"]["arena_bytes_of_one_token"]) > 1024);
}

/// One kind of token: how the session makes one, and where its columns are: positions from the token's own on.
struct Kind {
    name: &'static str,
    arguments: &'static str,
    routing: Routing<'static>,
    speculate: Speculate,
    /// Whether the guess is what is pushed.
    right: bool,
    /// Which positions cost this.
    at: fn(u64) -> bool,
    columns: &'static [u64],
}

const ANY: fn(u64) -> bool = |_| true;

impl Kind {
    const fn of(
        name: &'static str,
        arguments: &'static str,
        routing: Routing<'static>,
        columns: &'static [u64],
    ) -> Self {
        Self {
            name,
            arguments,
            routing,
            speculate: Speculate::Off,
            right: true,
            at: ANY,
            columns,
        }
    }
}

const KINDS: [Kind; 14] = [
    Kind::of("naive", "--speculate off", Routing::Exact, &[0, 0]),
    Kind {
        speculate: Speculate::Base,
        ..Kind::of("base_right", "--speculate base", Routing::Exact, &[0, 1])
    },
    Kind {
        speculate: Speculate::Base,
        right: false,
        ..Kind::of("base_wrong", "--speculate base", Routing::Exact, &[0, 0, 1])
    },
    Kind {
        speculate: Speculate::Held,
        ..Kind::of("held_right", "--speculate held", Routing::Exact, &[0, 1, 1])
    },
    Kind {
        speculate: Speculate::Held,
        right: false,
        ..Kind::of(
            "held_wrong",
            "--speculate held",
            Routing::Exact,
            &[0, 0, 0, 1, 1],
        )
    },
    Kind {
        at: |p| p % 4 == 0,
        ..Kind::of("scaled", "--routing every:4", Routing::Every(4), &[0, 0])
    },
    Kind {
        at: |p| p % 4 != 0,
        ..Kind::of("between", "--routing every:4", Routing::Every(4), &[0, 0])
    },
    Kind::of("each", "--routing lag", Routing::Lag, &[0, 0]),
    Kind::of("each", "--routing prompt", Routing::Prompt, &[0]),
    Kind::of(
        "each",
        "--routing static:0,0.5,0,-1",
        Routing::Static(&[0.0, 0.5, 0.0, -1.0]),
        &[0],
    ),
    Kind::of("each", "--routing only:de", Routing::Only(1), &[0]),
    Kind::of("each", "--routing all-ones", Routing::AllOnes, &[0]),
    Kind::of("each", "--routing base", Routing::Base, &[0]),
    Kind::of(
        "naive",
        "--speculate off --global-scaling-weight 0",
        Routing::Exact,
        &[0, 0],
    ),
];

/// The counters that each token after a prompt of 8 adds, with its position.
fn tokens(model: Model<'_>, kind: &Kind, setup: &Setup) -> Vec<(u64, Counters)> {
    let caches = match kind.routing {
        Routing::Exact | Routing::Every(_) | Routing::Lag => Caches::Two,
        _ => Caches::One,
    };
    let options = options(64, 8, KvType::F16, caches, kind.speculate);
    let mut arena = Arena::new(model.arena_bytes(&options)).unwrap();
    let mut session = Session::new(model, &options, arena.bytes()).unwrap();
    session.set_global_scaling_weight(setup.global).unwrap();
    session.set_topk_lora(setup.top_k).unwrap();
    if let Some(value) = setup.pass_value {
        session.set_scaling_pass_value(Some(value)).unwrap();
    }
    session.set_routing(kind.routing).unwrap();
    session.set_guess(Guess {
        force: Some(7),
        ..Guess::default()
    });
    let run = |session: &mut Session<'_, '_>, tokens: &[u32]| {
        session.push(tokens).unwrap();
        session.run(Kernels::detect(), &mut Inline).unwrap();
        session.counters()
    };
    let mut before = run(&mut session, &[5, 6, 7, 8, 9, 10, 11, 12]);
    (8..24)
        .map(|position| {
            let after = run(&mut session, &[if kind.right { 7 } else { 9 }]);
            let difference = Counters {
                sweeps: after.sweeps - before.sweeps,
                columns: after.columns - before.columns,
                weight_bytes: after.weight_bytes - before.weight_bytes,
                kv_bytes: after.kv_bytes - before.kv_bytes,
                macs: after.macs - before.macs,
                ..Counters::default()
            };
            before = after;
            (position, difference)
        })
        .collect()
}

/// What differs from the model file.
struct Setup {
    arguments: &'static str,
    top_k: Option<u16>,
    pass_value: Option<f32>,
    global: f32,
}

#[test]
fn a_token_costs_what_the_plan_says() {
    let file = ModelFile::open(Path::new(&intent())).unwrap();
    let model = Model::parse(file.blob().unwrap()).unwrap();
    let setups = [
        ("", Some(2), None),
        ("--top-k-lora none", None, None),
        (
            "--top-k-lora none --scaling-pass-value 0.25",
            None,
            Some(0.25),
        ),
    ];
    for (arguments, top_k, pass_value) in setups {
        for kind in &KINDS {
            let global = if kind.arguments.contains("global") {
                0.0
            } else {
                1.0
            };
            let setup = Setup {
                arguments,
                top_k,
                pass_value,
                global,
            };
            agrees(model, kind, &setup);
        }
    }
}

fn agrees(model: Model<'_>, kind: &Kind, setup: &Setup) {
    let lines = format!("--kv f16 {} {}", kind.arguments, setup.arguments);
    let arguments: Vec<&str> = lines.split_whitespace().collect();
    let p = plan(&arguments);
    let listed = p["tokens"].as_array().unwrap().iter();
    let said = listed
        .filter(|t| t["name"] == kind.name)
        .collect::<Vec<_>>();
    let [said] = said[..] else {
        panic!("{lines}: no single {}: {}", kind.name, p["tokens"]);
    };
    let per = |key: &str| number(&p["attention"][key]);
    let within = |range: &Value, found: u64, what: &str| {
        let (least, most) = (number(&range["least"]), number(&range["most"]));
        assert!(
            (least..=most).contains(&found),
            "{lines}, {what}: {found} not in {range}"
        );
        let chosen = setup.top_k.is_some() && model.n_experts() > 2;
        assert!(least == most || chosen, "{lines}, {what}: {range}");
    };
    for (position, found) in tokens(model, kind, setup) {
        if !(kind.at)(position) {
            continue;
        }
        let seen: u64 = kind.columns.iter().map(|c| position + c + 1).sum();
        assert_eq!(
            number(&said["sweeps"]),
            found.sweeps,
            "{lines} at {position}"
        );
        assert_eq!(
            number(&said["columns"]),
            found.columns,
            "{lines} at {position}"
        );
        assert_eq!(
            seen * per("kv_bytes_per_position"),
            found.kv_bytes,
            "{lines} at {position}"
        );
        within(&said["weight_bytes"], found.weight_bytes, "bytes");
        let macs = found.macs - seen * per("macs_per_position");
        within(&said["macs"], macs, "multiply-accumulates");
    }
}

#[test]
fn the_text_has_every_figure() {
    let out = pleach(&["plan", &intent(), "--ram", "2M"]).ok();
    for word in [
        "sections",
        "expert 1, de",
        "session",
        "RAM",
        "offset",
        "kv: keys and values",
        "speculation",
        "held: ",
        "--ram",
        "2 of 4",
        "classifier",
        "held guess, right",
        "attention",
    ] {
        assert!(out.contains(word), "{word} is not in\n{out}");
    }
    let p = plan(&["--ram", "2M"]);
    let context = number(&p["ram"]["largest_context"]).to_string();
    assert!(out.contains(&format!("context of {context}")), "{out}");
}

#[test]
fn what_it_cannot_plan() {
    for (arguments, cause, cure) in [
        ("--ram 1X", "--ram 1X: not a number of bytes", "64K"),
        ("--context 0", "--context 0: ", "1 to 131072"),
        ("--routing only:it", "--routing only:it: ", "en, de, fr, es"),
        (
            "--speculate held --routing lag",
            "--speculate held: ",
            "leave it out",
        ),
    ] {
        let file = intent();
        let mut all = vec!["plan", &file];
        all.extend(arguments.split(' '));
        let ran = pleach(&all);
        let (found, how) = ran.refused(2);
        assert!(
            found.contains(cause) && how.contains(cure),
            "{found}\n{how}"
        );
    }
    let ran = pleach(&["plan", &intent(), "--threads", "2"]);
    assert_eq!(ran.err, "note: --threads has no effect on a plan\n");
}
