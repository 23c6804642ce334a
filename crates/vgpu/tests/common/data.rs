//! Random data, and comparisons that tell where results differ.

use std::fmt::Debug;

use bytemuck::Pod;
use half::bf16;

use super::Failure;

/// Numbers that look random and depend on the seed alone (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as usize) as i32
    }

    /// Whether something that happens once in `n` times happens.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `n` values of a function.
    pub fn list<T>(&mut self, n: usize, mut value: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..n).map(|_| value(self)).collect()
    }

    /// `n` words.
    pub fn words(&mut self, n: usize) -> Vec<u32> {
        self.list(n, |random| random.next() as u32)
    }

    /// `n` numbers from -1 to 1.
    pub fn units(&mut self, n: usize) -> Vec<f32> {
        self.list(n, Self::unit)
    }

    /// `n` factors of a product: integers from -4 to 4, of which sums of 2^20 terms are exact, or any
    /// numbers.
    pub fn factors(&mut self, n: usize, integers: bool) -> Vec<bf16> {
        self.list(n, |random| {
            bf16::from_f32(match integers {
                true => random.between(-4, 4) as f32,
                false => random.unit(),
            })
        })
    }

    /// The numbers below `n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut list: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            list.swap(i, self.below(i + 1));
        }
        list
    }
}

/// Results must be these, bit for bit.
pub fn same<T: Pod + Debug>(what: &str, got: &[T], want: &[T]) -> Result<(), Failure> {
    if got.len() != want.len() {
        return Err(Failure::Wrong(format!(
            "{what}: {} elements, wanted {}",
            got.len(),
            want.len()
        )));
    }
    let differs = |(got, want): &(&T, &T)| bytemuck::bytes_of(*got) != bytemuck::bytes_of(*want);
    let wrong = got.iter().zip(want).filter(differs).count();
    match got.iter().zip(want).position(|pair| differs(&pair)) {
        None => Ok(()),
        Some(i) => Err(Failure::Wrong(format!(
            "{what}[{i}] is {:?}, wanted {:?}; {wrong} of {} differ",
            got[i],
            want[i],
            want.len()
        ))),
    }
}

/// Results must be no further from these than `tolerance` of their index. A NaN is wrong.
pub fn close(
    what: &str,
    got: impl IntoIterator<Item = f64>,
    want: &[f64],
    tolerance: impl Fn(usize) -> f64,
) -> Result<(), Failure> {
    let mut count = 0;
    for (i, got) in got.into_iter().enumerate() {
        count += 1;
        let Some(&want) = want.get(i) else { break };
        let error = (got - want).abs();
        if error.is_nan() || error > tolerance(i) {
            return Err(Failure::Wrong(format!(
                "{what}[{i}] is {got}, wanted {want}; off by {error:e}, at most {:e}",
                tolerance(i)
            )));
        }
    }
    if count == want.len() {
        return Ok(());
    }
    Err(Failure::Wrong(format!(
        "{what}: {count} elements, wanted {}",
        want.len()
    )))
}
