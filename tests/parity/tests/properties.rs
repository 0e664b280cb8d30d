//! Properties that hold for any row of scalings, any activation, any shape of checkpoint.

use parity::adversarial::Folder;
use parity::synth::{Checkpoint, Expert, Kind, MODULES};
use parity::{Guesses, Mode, Setup, Storage, Text, run};
use pleach::kernels::panel;
use pleach::math::{softmax_kept, softmax_scalings};
use pleach::xlora::{XLoraConfig, get_maybe_topk_scalings};
use pleach::{Blob, Error, KvType, Model, Session, Speculate};
use pleach_linux::Arena;
use pleach_pack::{Silent, Target, pack};
use proptest::prelude::*;
use serde_json::json;

/// Values of a classifier: normal ones, equal ones, zeros of both signs, far ones.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -5.0f32..5.0,
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
        1 => (-3i8..3).prop_map(|v| f32::from(v) * 0.25),
        1 => -300.0f32..300.0,
    ]
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(value(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Top-k is a stable sort by descending value, cut after k.
    #[test]
    fn top_k_is_a_sort(row in row(), k in 1u16..45) {
        let config = XLoraConfig { top_k_lora: Some(k), ..XLoraConfig::DEFAULT };
        let mut out = vec![9.0; row.len()];
        let kept = get_maybe_topk_scalings(&row, &config, &mut out).unwrap();
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap());
        order.truncate(k.into());
        let mut expected: Vec<(usize, f32)> = order
            .iter()
            .map(|i| (*i, row[*i]))
            .filter(|(_, v)| *v != 0.0)
            .collect();
        expected.sort_by_key(|(i, _)| *i);
        prop_assert_eq!(kept.iter().collect::<Vec<_>>(), expected);
        for (i, v) in out.iter().enumerate() {
            prop_assert!(order.contains(&i) || v.to_bits() == 0);
        }
    }

    /// The classifier's softmax: sums to 1, keeps the order, agrees with f64; a row's entry is zero exactly
    /// where PEFT's f32 softmax is (below 2^-150), and never subnormal.
    #[test]
    fn softmax_of_the_classifier(row in row(), temperature in 0.05f32..20.0) {
        let mut s = row.clone();
        softmax_scalings(&mut s, temperature);
        let z: Vec<f64> = row.iter().map(|l| f64::from(l / temperature)).collect();
        let max = z.iter().copied().fold(f64::MIN, f64::max);
        let exps: Vec<f64> = z.iter().map(|z| (z - max).exp()).collect();
        let sum: f64 = exps.iter().sum();
        prop_assert!((s.iter().map(|v| f64::from(*v)).sum::<f64>() - 1.0).abs() < 1e-5);
        for (i, v) in s.iter().enumerate() {
            let exact = exps[i] / sum;
            prop_assert!(*v == 0.0 || v.is_normal(), "{v:e}");
            if z[i] - max > -63.0 {
                prop_assert!((f64::from(*v) / exact - 1.0).abs() < 1e-4, "{v:e} {exact:e}");
            } else {
                prop_assert!(*v < 2f32.powi(-90));
            }
            // Away from the edge by more than f32 can blur.
            let edge = 2f64.powi(-150);
            if exact > edge * 1.001 {
                prop_assert!(*v > 0.0);
            }
            if exact < edge * 0.999 {
                prop_assert!(*v == 0.0);
            }
            for (j, w) in s.iter().enumerate() {
                prop_assert!(row[i] <= row[j] || v >= w, "{i} {j}: order");
            }
        }
    }

    /// The softmax over what top-k kept: zeros stay, the rest sums to 1, as in f64.
    #[test]
    fn softmax_of_the_kept(row in row()) {
        let mut s = row.clone();
        softmax_kept(&mut s);
        let max = row.iter().filter(|v| **v != 0.0).fold(f64::MIN, |m, v| m.max(f64::from(*v)));
        let exp = |v: f32| if v == 0.0 { 0.0 } else { (f64::from(v) - max).exp() };
        let sum: f64 = row.iter().map(|v| exp(*v)).sum();
        for (v, r) in s.iter().zip(&row) {
            match exp(*r) {
                _ if *r == 0.0 => prop_assert_eq!(*v, 0.0),
                e if f64::from(*r) - max < -64.0 => prop_assert!(f64::from(*v) <= e / sum),
                e => prop_assert!((f64::from(*v) - e / sum).abs() < 1e-6),
            }
        }
    }

    /// An activation is off by at most half a step of its group's scale.
    #[test]
    fn activations_are_off_by_half_a_step(
        x in prop::collection::vec(prop_oneof![-1e3f32..1e3, -1e-3f32..1e-3, Just(0.0)], 1..300),
        group in prop::sample::select(vec![32usize, 64, 128, 256]),
    ) {
        let groups = x.len().div_ceil(group);
        let mut q = vec![1i8; x.len().next_multiple_of(4)];
        let (mut sx, mut sum) = (vec![9.0; groups], vec![9; groups]);
        prop_assert!(panel::quantise(&x, group, &mut q, &mut sx, &mut sum));
        for (i, v) in x.iter().enumerate() {
            let (error, step) = ((v - f32::from(q[i]) * sx[i / group]).abs(), sx[i / group]);
            prop_assert!(error <= step * 0.501, "{error} of a step of {step}");
        }
        for (g, sum) in sum.iter().enumerate() {
            let of_group = q.iter().skip(g * group).take(group);
            prop_assert_eq!(*sum, of_group.map(|q| i32::from(*q)).sum::<i32>());
        }
    }
}

fn expert() -> impl Strategy<Value = Expert> {
    (1usize..20, 1u8..128).prop_map(|(rank, mask)| Expert {
        rank,
        targets: MODULES
            .iter()
            .enumerate()
            .filter(|(n, _)| mask >> n & 1 == 1)
            .map(|(_, (m, _))| *m)
            .collect(),
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Llama),
        Just(Kind::Qwen3),
        (0u32..4).prop_map(|rotated| Kind::SmolLm3 { rotated }),
    ]
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let sizes = (
        2usize..45,
        3usize..50,
        1usize..70,
        1usize..4,
        1usize..4,
        1usize..9,
        1usize..3,
    );
    let rest = (
        any::<u64>(),
        any::<bool>(),
        prop::collection::vec(expert(), 1..5),
        1usize..4,
        any::<bool>(),
        0usize..5,
        any::<bool>(),
        kind(),
    );
    (sizes, rest).prop_map(|(sizes, rest)| {
        let (hidden, vocab, intermediate, kv_heads, sharing, half, layers) = sizes;
        let (seed, tied, experts, depth, layerwise, top_k, topk_softmax, kind) = rest;
        let k = top_k.min(experts.len());
        Checkpoint {
            kind,
            seed: seed >> 20,
            hidden,
            vocab,
            intermediate,
            heads: kv_heads * sharing,
            kv_heads,
            head_dim: 2 * half,
            layers,
            tied,
            experts,
            depth,
            options: json!({
                "layerwise_scalings": layerwise,
                "enable_softmax_topk": topk_softmax,
                "top_k_lora": if k == 0 { json!(null) } else { json!(k) },
            }),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// What was written is what the blob says, twice packed is the same bytes, and both layouts and a
    /// speculating, pipelined session give the naive answer.
    #[test]
    fn any_checkpoint_round_trips(
        checkpoint in checkpoint(),
        group in prop::sample::select(vec![32u32, 64, 128, 256]),
        q8 in any::<bool>(),
    ) {
        let folder = Folder::new("round-trip");
        checkpoint.write(&folder.0);
        let storage = if q8 { Storage::Q8 } else { Storage::F16 }.group(group);
        let mut traces = Vec::new();
        for target in Target::ALL {
            let options = storage
                .target(target)
                .options(folder.0.join("base"), Some(folder.0.join("xlora")));
            let packed = |()| pack(&options, &mut Silent).map_err(|e| TestCaseError::fail(e.cause));
            let (first, second) = (packed(())?, packed(())?);
            prop_assert_eq!(&first.bytes, &second.bytes);
            let file = parity::File::new(&first.bytes);
            let model = Blob::new(file.bytes()).and_then(Model::parse);
            let model = model.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(model.verify(), Ok(()));
            agrees(&checkpoint, group, &model)?;
            exact_arena(model)?;
            let prompt: Vec<u32> = (0..9).map(|i| i * 5 % checkpoint.vocab as u32).collect();
            let setup = Setup::exact(KvType::F32);
            for mode in [
                Mode::NAIVE,
                Mode::whole(4).speculating(Speculate::Held, Guesses::Natural).budget(77),
            ] {
                let trace = run(model, &mode, &setup, &Text::new(&prompt, 4));
                traces.push(trace.map_err(|e| TestCaseError::fail(e.to_string()))?);
            }
        }
        let experts = checkpoint.experts.len();
        for other in &traces[1..] {
            prop_assert_eq!(traces[0].difference(other, experts), None);
        }
    }
}

/// The blob's own account of the checkpoint.
fn agrees(checkpoint: &Checkpoint, group: u32, model: &Model<'_>) -> Result<(), TestCaseError> {
    let c = model.config();
    let sizes = [
        c.hidden,
        c.vocab,
        c.intermediate,
        c.heads,
        c.kv_heads,
        c.head_dim,
        c.layers,
    ];
    let written = [
        checkpoint.hidden,
        checkpoint.vocab,
        checkpoint.intermediate,
        checkpoint.heads,
        checkpoint.kv_heads,
        checkpoint.head_dim,
        checkpoint.layers,
    ];
    prop_assert_eq!(sizes.map(|v| v as usize), written);
    prop_assert_eq!((c.group, c.tied), (group, checkpoint.tied));
    let names: Vec<&str> = (0..model.n_sites())
        .filter_map(|n| model.site_name(n))
        .collect();
    prop_assert_eq!(names, checkpoint.sites());
    prop_assert_eq!(model.n_experts(), checkpoint.experts.len());
    for (class, written) in checkpoint.experts.iter().enumerate() {
        let expert = model.expert(class).expect("an expert");
        for n in 0..model.n_sites() {
            let module = model.site_name(n).and_then(|s| s.rsplit('.').next());
            let targeted = written.targets.contains(&module.expect("a name"));
            prop_assert_eq!(expert.rank(n), if targeted { written.rank } else { 0 });
            prop_assert_eq!(expert.scale(n), targeted.then_some(2.0));
        }
    }
    Ok(())
}

/// `arena_bytes` is enough to the byte, and no more.
fn exact_arena(model: Model<'_>) -> Result<(), TestCaseError> {
    let options = pleach::SessionOptions::DEFAULT;
    let needed = model.arena_bytes(&options);
    let mut arena = Arena::new(needed).expect("memory");
    prop_assert!(Session::new(model, &options, &mut arena.bytes()[..needed]).is_ok());
    let less = Session::new(model, &options, &mut arena.bytes()[..needed - 1]).err();
    let refused = matches!(less, Some(Error::ArenaTooSmall { .. }));
    prop_assert!(refused);
    Ok(())
}
