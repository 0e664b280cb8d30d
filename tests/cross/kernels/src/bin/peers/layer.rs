use crate::board::count;
use core::hint::black_box;
use embedded_nn::fully_connected::fully_connected_s8;
use embedded_nn::support::{dequantize_s8_to_f32, quantize_f32_to_s8};
use embedded_nn::{Activation, Dims, FcParams, PerTensorQuantParams};
use kernels::Line;
use kernels::data::Random;
use microflow::activation::FusedActivation;
use microflow::buffer::Buffer2D;
use microflow::ops::{FullyConnectedOptions, fully_connected};
use microflow::tensor::Tensor2D;
use nalgebra::ArrayStorage;

/// Of activations, before a layer and behind it. No power of two: from a product with one, LLVM 22 makes a VCVT for the
/// Cortex-M55 that takes a register's number for the exponent.
const SCALE: f32 = 0.05;
const ZERO: i8 = -5;
/// Of 2^31. As an f32 it is exact.
const MULTIPLIER: i32 = 0x5a00_0000;

/// A matrix of `K` inputs and `N` outputs. Columns of weights are contiguous: `embedded-nn` calls them rows.
struct Layer<const K: usize, const N: usize> {
    weights: Tensor2D<i8, K, N, 1>,
    /// Of each column, times the zero point of the inputs.
    sums: [i32; N],
}

#[cfg(not(small))]
static WIDE: (Layer<128, 128>, Layer<256, 256>, Layer<512, 512>) =
    (Layer::new(2), Layer::new(3), Layer::new(4));
static SQUARE: Layer<64, 64> = Layer::new(1);
static DOWN: Layer<64, 8> = Layer::new(5);
static UP: Layer<8, 64> = Layer::new(6);

/// Prints `count NAME SHAPE: ..` for each peer and shape.
pub fn print(line: Line) {
    let mut random = Random::new(11);
    SQUARE.print(&mut random, line);
    #[cfg(not(small))]
    {
        WIDE.0.print(&mut random, line);
        WIDE.1.print(&mut random, line);
        WIDE.2.print(&mut random, line);
    }
    pair(&mut random, line);
}

fn pair(random: &mut Random, line: Line) {
    let x: [i8; 64] = values(random);
    let (mut u, mut y) = ([0; 8], [0; 64]);
    let n = count(|| {
        DOWN.embedded_nn(black_box(&x), &mut u);
        UP.embedded_nn(black_box(&u), black_box(&mut y));
    });
    DOWN.check(&x, &u);
    UP.check(&u, &y);
    kernels::show(line, "embedded-nn-pair", (128, 8), n);

    let x = Buffer2D::from_row_slice(&x);
    let mut found = (Buffer2D::zeros(), Buffer2D::zeros());
    let n = count(|| {
        let u = DOWN.microflow(Tensor2D::new(*black_box(&x), [SCALE], [ZERO]));
        let between = u.buffer;
        found = (between, black_box(UP.microflow(u)).buffer);
    });
    DOWN.check(x.as_slice(), found.0.as_slice());
    UP.check(found.0.as_slice(), found.1.as_slice());
    kernels::show(line, "microflow-pair", (128, 8), n);
}

fn values<const K: usize>(random: &mut Random) -> [i8; K] {
    [(); K].map(|()| random.draw() as i8)
}

impl<const K: usize, const N: usize> Layer<K, N> {
    /// What brings sums of `K` products of 8 bits into 8 bits: its binary logarithm is about half that of `K`.
    const SHIFT: i32 = -(7 + K.ilog2() as i32 / 2);

    /// Weights from a seed.
    const fn new(seed: u32) -> Self {
        let (mut w, mut sums) = ([[0; K]; N], [0; N]);
        let (mut state, mut n) = (seed.wrapping_mul(0x9e37_79b9), 0);
        while n < N {
            let mut k = 0;
            while k < K {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                w[n][k] = (state >> 24) as i8;
                sums[n] += w[n][k] as i32 * ZERO as i32;
                k += 1;
            }
            n += 1;
        }
        let weights = Buffer2D::from_array_storage(ArrayStorage(w));
        Self {
            weights: Tensor2D::new(weights, [1.0], [0]),
            sums,
        }
    }

    fn print(&'static self, random: &mut Random, line: Line) {
        let show = |name, n| kernels::show(line, name, (N, K), n);
        let x: [i8; K] = values(random);
        let floats = x.map(|q| dequantize_s8_to_f32(q, SCALE, ZERO.into()));
        let mut y = [0; N];
        let n = count(|| self.embedded_nn(black_box(&x), black_box(&mut y)));
        self.check(&x, &y);
        show("embedded-nn", n);

        let mut out = [0.0; N];
        let n = count(|| {
            let x = black_box(&floats).map(|v| quantize_f32_to_s8(v, SCALE, ZERO.into()));
            let mut y = [0; N];
            self.embedded_nn(&x, &mut y);
            out = y.map(|q| dequantize_s8_to_f32(q, SCALE, ZERO.into()));
            black_box(&mut out);
        });
        self.check_floats(&x, &out);
        show("embedded-nn-float", n);

        let buffer = Buffer2D::<i8, 1, K>::from_row_slice(&x);
        let mut found = Buffer2D::zeros();
        let n = count(|| {
            let x = Tensor2D::new(*black_box(&buffer), [SCALE], [ZERO]);
            found = black_box(self.microflow(x)).buffer;
        });
        self.check(&x, found.as_slice());
        show("microflow", n);

        let floats = Buffer2D::<f32, 1, K>::from_row_slice(&floats);
        let mut found = Buffer2D::zeros();
        let n = count(|| {
            let x = Tensor2D::quantize(*black_box(&floats), [SCALE], [ZERO]);
            found = black_box(self.microflow(x).dequantize());
        });
        self.check_floats(&x, found.as_slice());
        show("microflow-float", n);
    }

    fn embedded_nn(&self, x: &[i8; K], y: &mut [i8; N]) {
        let params = FcParams {
            input_offset: -i32::from(ZERO),
            filter_offset: 0,
            output_offset: ZERO.into(),
            activation: Activation::int8_unconstrained(),
        };
        let (k, n) = (K as i32, N as i32);
        let done = fully_connected_s8(
            &params,
            &PerTensorQuantParams::new(MULTIPLIER, Self::SHIFT),
            &Dims::new(1, 1, 1, k),
            x,
            &Dims::new(k, 1, 1, n),
            black_box(&self.weights).buffer.as_slice(),
            None,
            &Dims::new(1, 1, 1, n),
            y,
        );
        assert!(done.is_ok(), "a valid shape");
    }

    fn microflow(&self, x: Tensor2D<i8, 1, K, 1>) -> Tensor2D<i8, 1, N, 1> {
        let scale = MULTIPLIER as f32 / (1u64 << (31 - Self::SHIFT)) as f32;
        fully_connected(
            x,
            black_box(&self.weights),
            [SCALE],
            [ZERO],
            FullyConnectedOptions {
                fused_activation: FusedActivation::None,
            },
            (
                // Its operator always has biases.
                Buffer2D::zeros(),
                scale,
                Buffer2D::from_row_slice(black_box(&self.sums)),
                0,
            ),
        )
    }

    /// Each output is the scaled sum over integers, give or take one.
    fn check(&self, x: &[i8], y: &[i8]) {
        let (mut inside, weights) = (0, self.weights.buffer.as_slice());
        for (w, &y) in weights.chunks_exact(K).zip(y) {
            let products = w
                .iter()
                .zip(x)
                .map(|(&w, &x)| i64::from(w) * (i64::from(x) - i64::from(ZERO)));
            let scaled = products.sum::<i64>() * i64::from(MULTIPLIER);
            let rounded = (scaled + (1 << (30 - Self::SHIFT))) >> (31 - Self::SHIFT);
            let expected = (rounded + i64::from(ZERO)).clamp(-128, 127);
            assert!((i64::from(y) - expected).abs() <= 1, "{y} for {expected}");
            inside += usize::from(expected.abs() < 127);
        }
        assert!(y.len() == N && inside * 2 > N, "few outputs within range");
    }

    fn check_floats(&self, x: &[i8], out: &[f32]) {
        let mut y = [0; N];
        for (y, v) in y.iter_mut().zip(out) {
            *y = ((v / SCALE + f32::from(ZERO) + 128.5) as i32 - 128) as i8;
        }
        self.check(x, &y);
    }
}
