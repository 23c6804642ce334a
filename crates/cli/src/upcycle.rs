//! Experts made of one dense FFN (sparse upcycling), bit for bit as `data/README.md` says.

use rayon::prelude::*;
use tollgate::{DType, Element, Philox};

use crate::args::{InputArgs, Upcycle};
use crate::error::{Failure, Result};
use crate::load::zeros;

/// A matrix and the type it was stored in: noise is rounded to that type.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Row-major.
    pub values: Vec<f32>,
    /// The type in the file.
    pub stored: DType,
}

/// A dense FFN `y = W_down · act(W_up x + b_up) + b_down`, and who owns its neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// H.
    pub hidden: usize,
    /// I.
    pub intermediate: usize,
    /// `[I, H]`.
    pub up: Matrix,
    /// `[I]`.
    pub up_bias: Option<Vec<f32>>,
    /// `[H, I]`.
    pub down: Matrix,
    /// `[H]`.
    pub down_bias: Option<Vec<f32>>,
    /// `[I]` expert of each neuron; needed for the partition.
    pub owner: Option<Vec<i32>>,
}

/// The experts' parameters in the run's type.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<T> {
    /// How they were made, for the report.
    pub form: String,
    /// I of each expert.
    pub intermediate: usize,
    /// `[E, I, H]`.
    pub up: Vec<T>,
    /// `[E, I]`.
    pub up_bias: Option<Vec<T>>,
    /// `[E, H, I]`.
    pub down: Vec<T>,
    /// `[E, H]`.
    pub down_bias: Option<Vec<T>>,
}

/// Makes `experts` experts; `file` is what errors name.
///
/// # Errors
/// A σ that is negative or not finite, noise or a type that makes a weight infinite, a partition
/// whose parts differ in size, more memory than there is.
pub fn experts<T: Element>(
    dense: &Dense,
    how: Upcycle,
    experts: usize,
    args: &InputArgs,
    file: &str,
) -> Result<Made<T>> {
    let made = match how {
        Upcycle::Copy => replicate(dense, experts, None, file),
        Upcycle::Noise => {
            let sigma = args.sigma();
            if !(sigma >= 0.0 && sigma.is_finite()) {
                return Err(Failure::Usage(format!(
                    "--sigma is {sigma}, must be a finite number of at least 0"
                )));
            }
            replicate(dense, experts, Some((sigma, args.upcycle_seed())), file)
        }
        Upcycle::Partition => partition(dense, experts, file),
    }?;
    let all = [
        Some(&made.up),
        Some(&made.down),
        made.up_bias.as_ref(),
        made.down_bias.as_ref(),
    ];
    let infinite = |values: &Vec<T>| values.par_iter().any(|v| !v.to_f32().is_finite());
    if all.into_iter().flatten().any(infinite) {
        return Err(Failure::file(
            file,
            format!(
                "upcycling ({}) makes weights beyond the range of {}",
                made.form,
                T::DTYPE
            ),
            "use a smaller --sigma, or --dtype bf16 or f32",
        ));
    }
    Ok(made)
}

/// Every expert is the whole FFN, with noise of (σ, seed) if wanted.
fn replicate<T: Element>(
    dense: &Dense,
    experts: usize,
    noise: Option<(f64, u32)>,
    file: &str,
) -> Result<Made<T>> {
    let stack = |tensor: u32, matrix: &Matrix| {
        let len = matrix.values.len();
        let mut stack = zeros_for::<T>(experts, len, file)?;
        match noise {
            Some((sigma, seed)) => add_noise(matrix, sigma, seed, tensor, &mut stack),
            None if len == 0 => {}
            None => stack
                .par_chunks_mut(len)
                .for_each(|expert| T::narrow(&matrix.values, expert)),
        }
        Ok::<_, Failure>(stack)
    };
    let repeated = |bias: &Vec<f32>| {
        let mut one = vec![T::default(); bias.len()];
        T::narrow(bias, &mut one);
        one.repeat(experts)
    };
    Ok(Made {
        form: match noise {
            None => "copies of a dense FFN".to_owned(),
            Some((sigma, seed)) => {
                format!("copies of a dense FFN with noise (sigma {sigma}, seed {seed})")
            }
        },
        intermediate: dense.intermediate,
        up: stack(0, &dense.up)?,
        up_bias: dense.up_bias.as_ref().map(repeated),
        down: stack(1, &dense.down)?,
        down_bias: dense.down_bias.as_ref().map(repeated),
    })
}

/// Elements of one unit of work; a multiple of the four words of a draw.
const BLOCK: usize = 1 << 12;

/// `w' = round(w + a · n)`: n from Philox, key (seed, 0), counter (i / 4, expert, tensor, 0), and
/// a = float32(σ · rms(w) · √12 · 2^-24), multiply and add in f32, not fused.
fn add_noise<T: Element>(matrix: &Matrix, sigma: f64, seed: u32, tensor: u32, stack: &mut [T]) {
    let (weights, len) = (&matrix.values, matrix.values.len());
    if len == 0 {
        return;
    }
    let step = amplitude(weights, sigma);
    let philox = Philox::new(seed.into());
    stack
        .par_chunks_mut(len)
        .enumerate()
        .for_each(|(expert, out)| {
            out.par_chunks_mut(BLOCK)
                .enumerate()
                .for_each(|(block, out)| {
                    let first = block * BLOCK;
                    for (group, four) in out.chunks_mut(4).enumerate() {
                        let i = first + 4 * group;
                        let words = philox.words([(i / 4) as u32, expert as u32, tensor, 0]);
                        for (j, (o, word)) in four.iter_mut().zip(words).enumerate() {
                            let noisy = weights[i + j] + step * noise_integer(word) as f32;
                            *o = T::from_f32(round_to(matrix.stored, noisy));
                        }
                    }
                });
        });
}

/// The integer in [-2^23, 2^23) of a random word: exact in f32.
fn noise_integer(word: u32) -> i32 {
    (word >> 8) as i32 - (1 << 23)
}

/// a: the step between two noise integers.
fn amplitude(weights: &[f32], sigma: f64) -> f32 {
    let squares: f64 = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
    let rms = (squares / weights.len() as f64).sqrt();
    (sigma * rms * 12f64.sqrt() * 2f64.powi(-24)) as f32
}

/// Rounded to the type a matrix is stored in.
fn round_to(stored: DType, value: f32) -> f32 {
    match stored {
        DType::F32 => value,
        DType::F16 => Element::to_f32(<half::f16 as Element>::from_f32(value)),
        DType::Bf16 => Element::to_f32(<half::bf16 as Element>::from_f32(value)),
    }
}

/// Expert e keeps the neurons that it owns, ascending, and 1/E of the output bias.
fn partition<T: Element>(dense: &Dense, experts: usize, file: &str) -> Result<Made<T>> {
    let (h, i) = (dense.hidden, dense.intermediate);
    let owner = dense.owner.as_deref().unwrap_or(&[]);
    let mut neurons = vec![Vec::new(); experts];
    for (neuron, &expert) in owner.iter().enumerate() {
        neurons[expert as usize].push(neuron);
    }
    let own = i / experts.max(1);
    if let Some((expert, list)) = neurons
        .iter()
        .enumerate()
        .find(|(_, n)| n.len() * experts != i)
    {
        return Err(Failure::file(
            file,
            format!(
                "'neuron_expert' gives expert {expert} {} of {i} neurons, must give each of \
                 {experts} experts the same number",
                list.len()
            ),
            "balance it, or use --upcycle copy or noise",
        ));
    }
    let mut up = zeros_for::<T>(experts, own * h, file)?;
    let mut down = zeros_for::<T>(experts, h * own, file)?;
    let mut up_bias = dense.up_bias.as_ref().map(|_| Vec::with_capacity(i));
    for (r, &n) in neurons.iter().flatten().enumerate() {
        T::narrow(
            &dense.up.values[n * h..(n + 1) * h],
            &mut up[r * h..(r + 1) * h],
        );
        let (expert, column) = (r / own, r % own);
        for c in 0..h {
            down[(expert * h + c) * own + column] = T::from_f32(dense.down.values[c * i + n]);
        }
        if let (Some(to), Some(from)) = (&mut up_bias, &dense.up_bias) {
            to.push(T::from_f32(from[n]));
        }
    }
    let share = |bias: &Vec<f32>| {
        let one: Vec<T> = bias
            .iter()
            .map(|&b| T::from_f32(b / experts as f32))
            .collect();
        one.repeat(experts)
    };
    Ok(Made {
        form: "partition of a dense FFN's neurons".to_owned(),
        intermediate: own,
        up,
        up_bias,
        down,
        down_bias: dense.down_bias.as_ref().map(share),
    })
}

/// Zeros for the matrices of all experts.
fn zeros_for<T: Element>(experts: usize, len: usize, file: &str) -> Result<Vec<T>> {
    let elems = experts.checked_mul(len);
    elems.and_then(zeros).ok_or_else(|| {
        Failure::file(
            file,
            format!(
                "upcycling to {experts} experts of {len} weights needs more memory than there is"
            ),
            "use fewer experts or a larger machine",
        )
    })
}
