//! `session`, `sample`: every call, in every order that the types allow.

use crate::blob::{model, show};
use crate::{any, bytes, floats};
use core::hint::black_box;
use pleach::sample::StopStrings;
use pleach::{
    Budget, Caches, Executor, Guess, Inline, Kernels, KvType, LogitsKind, Model, Progress, Routing,
    Sampling, Session, SessionOptions, Speculate, Work, sample,
};

pub(crate) fn call() {
    black_box(sample::argmax(floats()));
    alone();
    let Some(m) = model() else { return };
    let options = options();
    black_box(m.arena_bytes(&options));
    black_box((m.arena_map(&options), m.largest_context(&options, any())));
    costs(&m, &options);
    let mut arena = pleach::Aligned([0; 64]);
    let arena: &mut [u8] = black_box(&mut arena.0);
    let Some(mut s) = show(Session::new(m, &options, arena)) else {
        return;
    };
    while any() {
        set(&mut s);
        feed(&mut s);
        read(&s);
    }
}

fn costs(m: &Model<'_>, options: &SessionOptions) {
    let pass = m.embedding_cost().plus(m.layers_cost());
    let rest = m.classifier_cost().plus(m.head_cost());
    black_box((pass.plus(rest).for_columns(any()), pass.bytes()));
    black_box((m.expert_cost(any()), m.experts_cost(any())));
    black_box(m.site(any()).map(|s| m.expert_site_cost(any(), &s)));
    black_box((
        m.attention_macs(any()),
        m.attention_bytes(any(), options.kv),
    ));
    black_box(m.kv_bytes_per_token(options));
}

fn sampling() -> Sampling {
    let mut bias = heapless::Vec::new();
    while any() {
        let _ = bias.push((any(), any()));
    }
    Sampling {
        temperature: any(),
        top_k: any(),
        top_p: any(),
        min_p: any(),
        repetition_penalty: any(),
        presence_penalty: any(),
        frequency_penalty: any(),
        penalty_tokens: any(),
        seed: any(),
        bias,
    }
}

/// The sampler and the stop strings without a session.
fn alone() {
    let sampling = sampling();
    let _ = show(sampling.check());
    let mut logits = [0.0; 64];
    let tokens: &[u32] = black_box(&[0; 4]);
    black_box(sampling.draw(black_box(&mut logits[..]), tokens, any()));
    black_box(sample::rng::philox(any(), any()));
    black_box(sample::rng::draw_bits(any(), any()));
    let strings: &[&str] = black_box(&["stop", "string"]);
    if let Some(mut stops) = show(StopStrings::new(strings)) {
        while any() {
            black_box(stops.push(bytes()));
        }
        black_box(stops.finish());
    }
}

fn options() -> SessionOptions {
    SessionOptions {
        context: any(),
        chunk: any(),
        kv: if any() { KvType::F32 } else { KvType::F16 },
        caches: if any() { Caches::One } else { Caches::Two },
        logits: if any() {
            LogitsKind::Last
        } else {
            LogitsKind::Sweep
        },
        log_tokens: any(),
        embedding_rows: any(),
        speculate: match any::<u8>() {
            0 => Speculate::Auto,
            1 => Speculate::Off,
            2 => Speculate::Base,
            _ => Speculate::Held,
        },
    }
}

fn set(s: &mut Session<'_, '_>) {
    let routing = match any::<u8>() {
        0 => Routing::Exact,
        1 => Routing::Every(any()),
        2 => Routing::Lag,
        3 => Routing::Prompt,
        4 => Routing::Static(floats()),
        5 => Routing::Only(any()),
        6 => Routing::Base,
        _ => Routing::AllOnes,
    };
    let _ = show(s.set_routing(routing));
    let _ = show(s.set_topk_lora(any::<bool>().then(any)));
    let _ = show(s.set_scaling_pass_value(any::<bool>().then(any)));
    let _ = show(s.set_global_scaling_weight(any()));
    s.set_guess(Guess {
        sampling: sampling(),
        stop: heapless::Vec::new(),
        limit: any(),
        force: any::<bool>().then(any),
    });
    if any() {
        s.enable_scalings_logging();
    } else {
        s.disable_scalings_logging();
        s.clear_scalings_log();
    }
    let _ = show(s.rewind(any()));
}

/// Splits every piece of work and runs the halves in the other order.
struct Halves;

impl Executor for Halves {
    fn run(&mut self, work: Work<'_>) {
        black_box((work.rows(), work.tile(), work.cost_per_row()));
        let (a, b) = work.split_at(any());
        b.run();
        a.run();
    }
}

fn feed(s: &mut Session<'_, '_>) {
    let tokens: &[u32] = black_box(&[0; 4]);
    let _ = show(s.push(tokens));
    let _ = show(s.push_embeddings(floats()));
    while let Some(Progress::More) = show(s.step(Kernels::portable(), &mut Halves, Budget(any()))) {
    }
    let _ = show(s.run(Kernels::of_build(), &mut Inline));
    black_box(show(s.sample(&sampling())));
}

fn read(s: &Session<'_, '_>) {
    black_box((
        s.len(),
        s.is_empty(),
        s.committed(),
        s.counters(),
        s.model().file_len(),
    ));
    black_box((
        s.logits(),
        s.logits_at(any()),
        s.xlora_config(),
        s.get_global_scaling_weight(),
    ));
    for scalings in [
        s.scalings_at(any()),
        s.effective_at(any()),
        s.get_latest_scalings(),
    ] {
        black_box(scalings);
    }
    let log = s.get_scalings_log();
    black_box((
        log.tokens(),
        log.dropped(),
        log.len(),
        log.is_empty(),
        log.forward(any()),
    ));
    for entry in log.bucket(any()).chain(s.get_bucketed_scalings_log(any())) {
        black_box(entry);
    }
}
