//! The thread pool as an executor: the same bits at any size, by any number of threads, in any order.

use pleach::blob::{BPanel, Lora, Tensor};
use pleach::xlora::{Context, Scalings, XLoraConfig, XLoraLayer, XLoraLinearLayer};
use pleach::{Executor, Inline, Kernels};
use pleach_linux::{Arena, ClaimOrder, MAX_THREADS, ThreadPool};

/// A layer with one expert of rank 5.
struct Layer {
    rows: usize,
    cols: usize,
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    x: Vec<f32>,
}

impl Layer {
    const TOKENS: usize = 9;

    fn new(rows: usize, cols: usize) -> Self {
        let values = |n: usize, salt: usize| -> Vec<f32> {
            let value = |i: usize| ((i + salt) * 7919 % 1009) as f32 / 512.0 - 1.0;
            (0..n).map(value).collect()
        };
        Self {
            rows,
            cols,
            w: values(rows * cols, 1),
            a: values(5 * cols, 2),
            b: values(rows * 5, 3),
            x: values(Self::TOKENS * cols, 4),
        }
    }

    fn forward(&self, executor: &mut dyn Executor) -> Vec<u32> {
        let expert = Lora {
            a: Tensor::from_rows(&self.a, 5, self.cols).unwrap(),
            b: BPanel::from_rows(&self.b, self.rows, 5).unwrap(),
            scale: 2.0,
        };
        let experts = [Some(expert)];
        let weight = Tensor::from_rows(&self.w, self.rows, self.cols).unwrap();
        let layer = XLoraLinearLayer::new(0, weight, None, &experts).unwrap();
        let mut scratch = Arena::new(layer.scratch_bytes(Self::TOKENS)).unwrap();
        let mut cx = Context {
            kernels: Kernels::detect(),
            executor,
            scratch: scratch.bytes(),
        };
        let scalings = [0.5; Layer::TOKENS];
        let scalings = Scalings::new(&scalings, [Self::TOKENS, 1, 1]).unwrap();
        let mut y = vec![f32::NAN; Self::TOKENS * self.rows];
        let config = XLoraConfig::DEFAULT;
        layer
            .forward(&self.x, Some(scalings), &config, &mut y, &mut cx)
            .unwrap();
        y.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn any_size_by_any_number_of_threads_in_any_order() {
    let sizes = [1, 3, 15, 16, 17, 31, 48, 100, 333, 1000];
    let layers: Vec<Layer> = sizes.iter().map(|rows| Layer::new(*rows, 33)).collect();
    let expected: Vec<_> = layers.iter().map(|l| l.forward(&mut Inline)).collect();
    for threads in 1..=8 {
        for order in [ClaimOrder::InOrder, ClaimOrder::Shuffled(threads as u64)] {
            let mut pool = ThreadPool::new(threads).claim(order).inline_below(0);
            for _ in 0..20 {
                for (layer, expected) in layers.iter().zip(&expected) {
                    assert_eq!(layer.forward(&mut pool), *expected, "{pool:?}");
                }
            }
        }
    }
}

#[test]
fn a_thousand_pools_of_short_works() {
    let layer = Layer::new(40, 8);
    let expected = layer.forward(&mut Inline);
    for n in 0..1000 {
        let mut pool = ThreadPool::new(1 + n % 4).inline_below(0);
        assert_eq!(layer.forward(&mut pool), expected);
    }
}

/// More threads than a machine has, and more than a pool takes.
#[test]
fn far_too_many_threads_come_to_an_end() {
    let layer = Layer::new(2000, 20);
    let expected = layer.forward(&mut Inline);
    for threads in [32, 1024] {
        let mut pool = ThreadPool::new(threads).inline_below(0);
        assert_eq!(pool.threads(), threads.min(MAX_THREADS));
        for _ in 0..50 {
            assert_eq!(layer.forward(&mut pool), expected);
        }
    }
}

#[test]
fn a_pool_may_go_to_another_thread() {
    let layer = Layer::new(100, 8);
    let expected = layer.forward(&mut Inline);
    let mut pool = ThreadPool::new(3).inline_below(0);
    assert_eq!(layer.forward(&mut pool), expected);
    let moved = std::thread::spawn(move || {
        let bits = layer.forward(&mut pool);
        (bits, pool.threads())
    });
    assert_eq!(moved.join().unwrap(), (expected, 3));
}
