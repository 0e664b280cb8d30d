//! The counters, against figures made from the files' own tables and from the packer's report.

use parity::adversarial::Folder;
use parity::subject::Subject;
use parity::synth::{Checkpoint, Expert};
use parity::{Case, File, Guesses, Mode, Setup, Storage, Text, Trace, fixture, run};
use pleach::kernels::layout::{Layout, packed_size};
use pleach::{KvType, Model, Speculate};
use pleach_pack::{PackOptions, Packed, Silent, pack};
use serde_json::json;
use std::path::Path;

fn packed(options: &PackOptions) -> Packed {
    pack(options, &mut Silent).unwrap_or_else(|e| panic!("{}\n  {}", e.cause, e.cure))
}

/// Bytes of the base, of its head, of one embedding row, of the classifier.
struct Bytes {
    /// All that is read whole: without the embedding table, with the head (tied: the same tensor).
    base: u64,
    head: u64,
    embedding_row: u64,
    classifier: u64,
}

fn bytes(packed: &Packed, model: &Model<'_>, tied: bool) -> Bytes {
    let tensors: Vec<u64> = (0..)
        .map_while(|n| model.base_tensor(n))
        .map(|t| t.bytes() as u64)
        .collect();
    let embed = model.base_tensor(0).expect("an embedding table");
    let c = model.config();
    // Tied: tensor 0 is the table and the head. Else the head follows it.
    let head = tensors[usize::from(!tied)];
    let table = if tied { 0 } else { tensors[0] };
    let classifier = |name: &str| name.starts_with("classifier.");
    let report = packed.report.tensors.iter();
    Bytes {
        base: tensors.iter().sum::<u64>() - table,
        head,
        embedding_row: packed_size(
            embed.dtype(),
            Layout::Rows,
            1,
            c.hidden as usize,
            c.group as usize,
        ) as u64,
        classifier: report
            .filter(|t| classifier(&t.name))
            .map(|t| t.bytes)
            .sum(),
    }
}

/// Bytes of A and B of the experts that a position selected. At an embedding site A is read a row.
fn lora_bytes(model: &Model<'_>, effective: &[f32]) -> u64 {
    let experts = model.n_experts();
    let mut sum = 0;
    for (i, s) in effective.iter().enumerate() {
        let site = model.site(i / experts).expect("a site");
        let lora = model.expert(i % experts).and_then(|e| e.lora(&site));
        let Some(lora) = lora.filter(|_| *s != 0.0) else {
            continue;
        };
        sum += lora.b.bytes() as u64;
        sum += match site.module {
            pleach::blob::format::Module::Embed => packed_size(
                lora.a.dtype(),
                Layout::Rows,
                1,
                lora.b.rank(),
                model.config().group as usize,
            ) as u64,
            _ => lora.a.bytes() as u64,
        };
    }
    sum
}

/// The trace of `prompt` token by token, and what each token after the first n cost.
fn weight_bytes(model: Model<'_>, prompt: &[u32], tokens: usize) -> (Trace, u64) {
    let setup = Setup::exact(KvType::F32);
    let go = |n: usize| {
        run(model, &Mode::NAIVE, &setup, &Text::new(&prompt[..n], 0))
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let (before, all) = (go(prompt.len() - tokens), go(prompt.len()));
    let cost = all.counters.weight_bytes - before.counters.weight_bytes;
    (all, cost)
}

fn naive_decoding(name: &str, options: &PackOptions, tied: bool, prompt: &[u32]) {
    let packed = packed(options);
    let file = File::new(&packed.bytes);
    let model = file.model();
    assert_eq!(model.config().tied, tied, "{name}");
    assert_eq!(model.xlora_config().scaling_pass_value, 0.0, "{name}");
    let b = bytes(&packed, &model, tied);
    for tokens in [1, 5] {
        let (trace, cost) = weight_bytes(model, prompt, tokens);
        let lora: u64 = (prompt.len() - tokens..prompt.len())
            .map(|p| lora_bytes(&model, trace.effective_at(p)))
            .sum();
        let each = (b.base - b.head) + b.base + b.classifier + 2 * b.embedding_row;
        assert_eq!(cost, tokens as u64 * each + lora, "{name}, {tokens} tokens");
        println!("{name}: {tokens} tokens read {cost} bytes, of which LoRA {lora}");
    }
}

#[test]
fn naive_decoding_reads_exactly_what_the_tables_say() {
    let intent = Subject::intent();
    let folder = fixture::root().join("xlora-intent");
    for storage in [Storage::F16, Storage::Q8, Storage::Q8.group(128)] {
        let options = storage.options(folder.join("base"), Some(folder.join("xlora")));
        let name = format!("intent {}", storage.bits_name());
        naive_decoding(&name, &options, true, &intent.prompt);
        for (name, tied) in [
            ("case-qwen2", false),
            ("case-qwen2-embedding", false),
            ("case-layerwise-top2", true),
            ("case-embedding-site", true),
        ] {
            let case = Case::open(name);
            let options = storage.options(case.base(), Some(case.folder.clone()));
            let prompt = case.tokens("prompt");
            naive_decoding(
                &format!("{name} {}", storage.bits_name()),
                &options,
                tied,
                &prompt,
            );
        }
    }
}

/// Multiply-accumulates of one column in one pass, by the shapes alone: embedding, matrices, attention.
fn pass_macs(model: &Model<'_>, position: usize) -> u64 {
    let c = model.config();
    let (hidden, q, kv) = (c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let matrices = hidden * (q + 2 * kv) + q * hidden + 3 * hidden * c.intermediate;
    let attention = 2 * (position as u64 + 1) * u64::from(q);
    u64::from(hidden) + u64::from(c.layers) * (u64::from(matrices) + attention)
}

/// Those of the experts that a position selected.
fn lora_macs(model: &Model<'_>, effective: &[f32]) -> u64 {
    let experts = model.n_experts();
    let selected = effective.iter().enumerate().filter(|(_, s)| **s != 0.0);
    selected
        .map(|(i, _)| {
            let site = model.site(i / experts).expect("a site");
            let rank = model.expert(i % experts).map_or(0, |e| e.rank(site.number));
            let inputs = match site.module {
                // A row of A is looked up, and gated: one product.
                pleach::blob::format::Module::Embed => 1,
                _ => site.inputs,
            };
            (rank * (inputs + site.outputs)) as u64
        })
        .sum()
}

/// What `Model` says beforehand of a token, of each routing's passes: the counters of a naive decode token are
/// exactly that.
#[test]
fn a_token_costs_what_the_model_says_beforehand() {
    for subject in [Subject::intent()].into_iter().chain(Subject::cases()) {
        for (storage, kv) in [(Storage::Q8, KvType::F16), (Storage::F16, KvType::F32)] {
            let file = subject.file(storage);
            let model = file.model();
            if model.xlora_config().scaling_pass_value != 0.0 {
                continue;
            }
            let go = |n: usize| {
                let text = Text::new(&subject.prompt[..n], 0);
                run(model, &Mode::NAIVE, &Setup::exact(kv), &text).expect("finite")
            };
            let n = subject.prompt.len();
            let (before, trace) = (go(n - 1), go(n));
            let (was, is) = (before.counters, trace.counters);
            let effective = trace.effective_at(n - 1);
            let position = n as u32 - 1;
            let name = &subject.name;

            let pass = model.embedding_cost().plus(model.layers_cost());
            let rest = model.classifier_cost().plus(model.head_cost());
            let mut experts = pleach::session::Cost::NONE;
            for (i, s) in effective.iter().enumerate() {
                if *s != 0.0 {
                    let site = model.site(i / model.n_experts()).expect("a site");
                    experts = experts.plus(model.expert_site_cost(i % model.n_experts(), &site));
                }
            }
            let weights = 2 * pass.bytes() + rest.bytes() + experts.bytes();
            assert_eq!(is.weight_bytes - was.weight_bytes, weights, "{name}");
            let attention = model.attention_macs(position);
            let macs = 2 * (pass.macs + attention) + rest.macs + experts.macs;
            assert_eq!(is.macs - was.macs, macs, "{name}");
            assert_eq!(
                is.kv_bytes - was.kv_bytes,
                2 * model.attention_bytes(position, kv),
                "{name}"
            );

            // The same from the shapes.
            let c = model.config();
            let head = u64::from(c.vocab) * u64::from(c.hidden);
            assert_eq!(model.head_cost().macs, head, "{name}");
            assert_eq!(pass.macs + attention, pass_macs(&model, n - 1), "{name}");
            assert_eq!(experts.macs, lora_macs(&model, effective), "{name}");
            let heads = u64::from(c.layers * c.kv_heads * c.head_dim) * kv.bytes() as u64;
            assert_eq!(
                model.attention_bytes(position, kv),
                2 * n as u64 * heads,
                "{name}"
            );

            let k = model
                .xlora_config()
                .top_k_lora
                .map_or(usize::MAX, usize::from);
            let range = model.experts_cost(k);
            let all = model.experts_cost(usize::MAX);
            assert_eq!(all.least, all.most, "{name}");
            assert!(experts.macs <= range.most.macs && range.most.macs <= all.most.macs);
            assert!(experts.bytes() <= range.most.bytes(), "{name}");
            // A layerwise model selects exactly k at each site.
            if model.options().layerwise_scalings && k != usize::MAX {
                assert!(experts.macs >= range.least.macs, "{name}");
                assert!(experts.bytes() >= range.least.bytes(), "{name}");
            }
        }
    }
}

/// Which experts a site selects decides the cost: here they differ in rank and in where they are.
#[test]
fn the_cheapest_and_the_dearest_choice() {
    let folder = Folder::new("choices");
    let of = |rank, targets: &[&'static str]| Expert {
        rank,
        targets: targets.to_vec(),
    };
    let checkpoint = Checkpoint {
        layers: 1,
        experts: vec![
            of(2, &["q_proj", "down_proj"]),
            of(4, &["q_proj"]),
            of(8, &["down_proj"]),
        ],
        options: json!({ "top_k_lora": 2, "layerwise_scalings": true }),
        ..Checkpoint::SMALL
    };
    checkpoint.write(&folder.0);
    let options = Storage::F16.options(folder.0.join("base"), Some(folder.0.join("xlora")));
    let file = File::pack(&options);
    let model = file.model();
    let (q, down) = (
        model.site(0).expect("q_proj"),
        model.site(1).expect("down_proj"),
    );
    let wide = |s: pleach::Site| (s.inputs + s.outputs) as u64;
    let range = model.experts_cost(2);
    // q_proj: ranks 2, 4, 0; down_proj: 2, 0, 8. The two cheapest and the two dearest of each.
    assert_eq!(range.least.macs, 2 * wide(q) + 2 * wide(down));
    assert_eq!(range.most.macs, 6 * wide(q) + 10 * wide(down));
    assert_eq!(model.experts_cost(0), pleach::session::CostRange::default());
    let each: u64 = (0..3).map(|c| model.expert_cost(c).macs).sum();
    assert_eq!(model.experts_cost(3).most.macs, each);
    assert_eq!(each, 6 * wide(q) + 10 * wide(down));
}

#[test]
fn a_sweep_counts_weights_once_whatever_its_columns() {
    let case = Case::open("case-layerwise-top2");
    let (packed, prompt) = (
        packed(&Storage::Q8.options(case.base(), Some(case.folder.clone()))),
        case.tokens("prompt"),
    );
    let file = File::new(&packed.bytes);
    let b = bytes(&packed, &file.model(), true);
    let n = prompt.len() as u64;
    let trace = run(
        file.model(),
        &Mode::whole(32),
        &Setup::exact(KvType::F32),
        &Text::new(&prompt, 0),
    )
    .expect("finite");
    let mut selected: Vec<f32> = trace.effective_at(0).to_vec();
    for p in 1..trace.len() {
        for (all, s) in selected.iter_mut().zip(trace.effective_at(p)) {
            *all = if *s != 0.0 { 1.0 } else { *all };
        }
    }
    let expected = 2 * b.base - b.head
        + b.classifier
        + 2 * n * b.embedding_row
        + lora_bytes(&file.model(), &selected);
    assert_eq!(trace.counters.weight_bytes, expected);
    assert_eq!(trace.counters.columns, 2 * n);
}

#[test]
fn a_prompt_of_n_chunks_takes_n_plus_one_sweeps() {
    let intent = Subject::intent();
    let file = intent.file(Storage::F16);
    for (len, chunk) in [
        (1, 1),
        (5, 1),
        (37, 7),
        (35, 7),
        (37, 32),
        (32, 32),
        (3, 32),
    ] {
        let text = Text::new(&intent.prompt[..len], 0);
        let trace = run(
            file.model(),
            &Mode::whole(chunk),
            &Setup::exact(KvType::F32),
            &text,
        )
        .expect("finite");
        let n = (len as u64).div_ceil(u64::from(chunk));
        assert_eq!(
            trace.counters.sweeps,
            n + 1,
            "{len} tokens in chunks of {chunk}"
        );
    }
}

#[test]
fn speculative_sweeps_are_one_and_the_wrong_guesses() {
    for subject in [Subject::intent()].into_iter().chain(Subject::cases()) {
        let file = subject.file(Storage::F16);
        for speculate in [Speculate::Base, Speculate::Held] {
            for guesses in [Guesses::Natural, Guesses::Wrong] {
                let mode = Mode::whole(8).speculating(speculate, guesses);
                let cost = |generate| {
                    let text = Text {
                        wrong: file.model().config().vocab - 1,
                        ..Text::new(&subject.prompt[..16], generate)
                    };
                    let trace = run(file.model(), &mode, &Setup::exact(KvType::F32), &text);
                    trace.expect("finite")
                };
                let (prefill, all) = (cost(1), cost(20));
                let name = format!("{} {}", subject.name, mode.name());
                assert_eq!(prefill.counters.sweeps, 2 + 1, "{name}");
                // A guess of the prompt's last sweep is met by the first token that is pushed.
                let (sweeps, pushed) = (all.counters.sweeps - 3, 19);
                let wrong = all.counters.guesses - all.counters.hits;
                assert_eq!(
                    all.counters.guesses, pushed,
                    "{name}: a guess for each token"
                );
                assert_eq!(sweeps, pushed + wrong, "{name}");
                if guesses == Guesses::Wrong {
                    let came = all.generated[..19].iter();
                    let came = came
                        .filter(|t| **t == file.model().config().vocab - 1)
                        .count();
                    assert_eq!(all.counters.hits, came as u64, "{name}");
                }
                println!("{name}: {sweeps} sweeps for {pushed} tokens, {wrong} wrong guesses");
            }
        }
    }
}

/// `experts` experts of rank 8, a classifier with top-2.
fn synthetic(folder: &Path, experts: usize) -> PackOptions {
    let targets = vec!["q_proj", "v_proj", "up_proj", "down_proj"];
    let checkpoint = Checkpoint {
        layers: 4,
        experts: vec![Expert { rank: 8, targets }; experts],
        options: json!({ "top_k_lora": 2, "layerwise_scalings": true }),
        ..Checkpoint::SMALL
    };
    checkpoint.write(folder);
    Storage::Q8.options(folder.join("base"), Some(folder.join("xlora")))
}

/// What a token costs beside the classifier does not depend on how many experts there are.
#[test]
fn unselected_experts_cost_nothing() {
    let mut costs = Vec::new();
    for experts in [4, 16, 64] {
        let folder = Folder::new(&format!("experts-{experts}"));
        let file = File::pack(&synthetic(&folder.0, experts));
        let model = file.model();
        assert_eq!((model.n_experts(), model.n_sites()), (experts, 16));
        let prompt: Vec<u32> = (0..24).map(|i| i * 11 % 61).collect();
        let text = Text::new(&prompt, 0);
        let trace = run(model, &Mode::NAIVE, &Setup::exact(KvType::F32), &text).expect("finite");
        for row in trace.effective.chunks(experts) {
            assert_eq!(row.iter().filter(|s| **s != 0.0).count(), 2);
        }
        let c = trace.counters;
        println!(
            "{experts:>2} experts, per token: {} bytes and {} MACs, beside the classifier's {} and {}",
            (c.weight_bytes - c.classifier_bytes) / 24,
            (c.macs - c.classifier_macs) / 24,
            c.classifier_bytes / 24,
            c.classifier_macs / 24
        );
        assert_eq!(
            c.classifier_macs,
            24 * (Checkpoint::SMALL.hidden * 16 * experts) as u64
        );
        costs.push((
            c.weight_bytes - c.classifier_bytes,
            c.macs - c.classifier_macs,
            c.kv_bytes,
            c.sweeps,
        ));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
}
