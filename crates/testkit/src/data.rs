//! Seeded test data: the same on every machine.

use tollgate_core::{Element, Philox, Stream};

/// A seeded source of test values.
#[derive(Debug, Clone)]
pub struct Data {
    philox: Philox,
    next: u32,
}

impl Data {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            philox: Philox::new(seed),
            next: 0,
        }
    }

    /// The next random word.
    pub fn word(&mut self) -> u32 {
        let block = self.next / 4;
        let words = self.philox.words([block, 0, 0, Stream::Data as u32]);
        self.next += 1;
        words[(self.next as usize - 1) % 4]
    }

    /// A uniform integer in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        Philox::below(self.word(), n as u32) as usize
    }

    /// A uniform number in (-1, 1).
    pub fn uniform(&mut self) -> f64 {
        2.0 * Philox::uniform(self.word()) - 1.0
    }

    /// A standard normal number.
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (self.word(), self.word());
        Philox::normal(a, b)
    }

    /// `n` normal numbers times `scale`, rounded to `T`.
    pub fn normals<T: Element>(&mut self, n: usize, scale: f64) -> Vec<T> {
        (0..n)
            .map(|_| T::from_f32((self.normal() * scale) as f32))
            .collect()
    }

    /// `n` integers in `-limit..=limit` as `T`: sums of products of such values are exact, so that
    /// results can be compared bit by bit.
    pub fn integers<T: Element>(&mut self, n: usize, limit: i32) -> Vec<T> {
        let span = 2 * limit as usize + 1;
        (0..n)
            .map(|_| T::from_f32((self.below(span) as i32 - limit) as f32))
            .collect()
    }
}
