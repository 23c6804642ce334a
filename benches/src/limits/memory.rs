//! Memory bandwidth, on arrays far beyond the last-level cache.
#![allow(unsafe_code)]

use std::hint::black_box;

use rayon::prelude::*;
use tollgate::Cpu;
use tollgate::core::math::vectorized;

use crate::data::last_level_cache_bytes;

/// Two arrays of 64-bit words, their pages touched.
pub(super) struct Arrays<'a> {
    cpu: &'a Cpu,
    from: Vec<u64>,
    to: Vec<u64>,
}

impl<'a> Arrays<'a> {
    /// Arrays of eight times the last-level cache each, at least 256 MiB.
    pub(super) fn new(cpu: &'a Cpu) -> Self {
        let bytes = (8 * last_level_cache_bytes()).max(256 << 20);
        Self::of(cpu, bytes / 8)
    }

    fn of(cpu: &'a Cpu, words: usize) -> Self {
        // Values that differ, so that no page is shared with another.
        let from = (0..words as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            cpu,
            from: from.collect(),
            to: (0..words as u64).collect(),
        }
    }

    /// One part for every thread, or one part only for one thread.
    fn part_words(&self, all: bool) -> usize {
        let parts = if all { self.cpu.threads() } else { 1 };
        self.from.len().div_ceil(parts).max(1)
    }

    /// Reads one array; returns the bytes.
    pub(super) fn read(&self, all: bool) -> f64 {
        let part = self.part_words(all);
        let parts = self.from.par_chunks(part).with_max_len(1);
        let sum = if all {
            self.cpu
                .install(|| parts.map(sum).reduce(|| 0, u64::wrapping_add))
        } else {
            sum(&self.from)
        };
        black_box(sum);
        size_of_val(self.from.as_slice()) as f64
    }

    /// Copies by the C library; returns the bytes read and written.
    pub(super) fn memcpy(&mut self, all: bool) -> f64 {
        self.copy(all, |from, to| to.copy_from_slice(from))
    }

    /// Copies by stores that bypass the caches, where the machine has them; returns the bytes read
    /// and written.
    pub(super) fn stream_copy(&mut self, all: bool) -> f64 {
        self.copy(all, stream)
    }

    fn copy(&mut self, all: bool, copy: impl Fn(&[u64], &mut [u64]) + Sync) -> f64 {
        let part = self.part_words(all);
        let (from, to) = (&self.from, &mut self.to);
        if all {
            self.cpu.install(|| {
                let pairs = from.par_chunks(part).zip(to.par_chunks_mut(part));
                pairs.with_max_len(1).for_each(|(from, to)| copy(from, to));
            });
        } else {
            copy(from, to);
        }
        black_box(&mut self.to);
        2.0 * size_of_val(self.from.as_slice()) as f64
    }
}

/// The sum of all words: one load and one addition each. Two places are read in turn, which keeps
/// more requests under way than one does.
fn sum(words: &[u64]) -> u64 {
    vectorized(
        #[inline(always)]
        || {
            // Vectors of partial sums, so that loads do not wait for additions.
            const LANES: usize = 32;
            let half = words.len() / 2 / LANES * LANES;
            let (first, rest) = words.split_at(half);
            let (second, rest) = rest.split_at(half);
            let (mut sums, mut more) = ([0u64; LANES], [0u64; LANES]);
            let chunks = first.chunks_exact(LANES).zip(second.chunks_exact(LANES));
            for (first, second) in chunks {
                for i in 0..LANES {
                    sums[i] = sums[i].wrapping_add(first[i]);
                    more[i] = more[i].wrapping_add(second[i]);
                }
            }
            let parts = sums.iter().chain(&more).chain(rest);
            parts.fold(0u64, |sum, word| sum.wrapping_add(*word))
        },
    )
}

/// `to.copy_from_slice(from)` by streaming stores.
#[cfg(target_arch = "x86_64")]
fn stream(from: &[u64], to: &mut [u64]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    assert_eq!(from.len(), to.len());
    // Whole cache lines in the middle of the destination; the ends by plain copies.
    const LINE: usize = 8;
    let head = to.as_ptr().align_offset(64).min(to.len());
    let lines = (to.len() - head) / LINE;
    let tail = head + lines * LINE;
    to[..head].copy_from_slice(&from[..head]);
    to[tail..].copy_from_slice(&from[tail..]);
    let source = &from[head..tail];
    let target = &mut to[head..tail];
    for (source, target) in source.chunks_exact(LINE).zip(target.chunks_exact_mut(LINE)) {
        let (source, target) = (source.as_ptr(), target.as_mut_ptr());
        for i in 0..4 {
            // SAFETY: both chunks hold 64 bytes, of which this touches the i-th 16; the target is
            // aligned to 64 because `head` was chosen so. SSE2 is part of x86-64.
            unsafe {
                let quarter = _mm_loadu_si128(source.cast::<__m128i>().add(i));
                _mm_stream_si128(target.cast::<__m128i>().add(i), quarter);
            }
        }
    }
    // Streaming stores are not ordered with what follows on other threads.
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() };
}

/// No streaming stores are known for this architecture.
#[cfg(not(target_arch = "x86_64"))]
fn stream(from: &[u64], to: &mut [u64]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_copy_every_word_at_any_alignment() {
        for len in [0, 1, 7, 8, 9, 63, 64, 1000] {
            for start in 0..8 {
                let from: Vec<u64> = (1..=len as u64).collect();
                let mut to = vec![0; len + 16];
                stream(&from, &mut to[start..start + len]);
                assert_eq!(
                    &to[start..start + len],
                    from,
                    "{len} words from word {start}"
                );
                assert!(
                    to[..start]
                        .iter()
                        .chain(&to[start + len..])
                        .all(|&w| w == 0)
                );
            }
        }
    }

    #[test]
    fn bytes_are_counted_and_copied_once_whatever_the_threads() {
        let cpu = Cpu::new(3).unwrap();
        for words in [1, 10, 4097] {
            for all in [false, true] {
                let mut arrays = Arrays::of(&cpu, words);
                assert_eq!(arrays.read(all), 8.0 * words as f64);
                assert_eq!(arrays.memcpy(all), 16.0 * words as f64);
                assert_eq!(arrays.to, arrays.from);
                arrays.to.fill(0);
                assert_eq!(arrays.stream_copy(all), 16.0 * words as f64);
                assert_eq!(arrays.to, arrays.from);
            }
        }
    }

    #[test]
    fn the_sum_takes_every_word() {
        for len in [0, 1, 63, 64, 65, 129, 200] {
            let words: Vec<u64> = (0..len).collect();
            assert_eq!(sum(&words), (0..len).sum::<u64>());
        }
    }
}
