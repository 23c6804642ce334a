//! Random data, and buffers that take turns.

use std::hint::black_box;

use tollgate::Element;
use tollgate_testkit::Data;

use crate::harness::Scale;

/// Random numbers are drawn for so many elements and then repeated: a prime, so that repetition
/// falls on other columns in every row. Arithmetic units see random bits either way, and gigabytes
/// of weights do not take minutes to draw.
const PERIOD: usize = 1_048_573;

/// `elems` normal numbers with standard deviation `scale`.
pub fn normals<T: Element>(elems: usize, scale: f64, seed: u64) -> Vec<T> {
    let drawn: Vec<T> = Data::new(seed).normals(elems.min(PERIOD), scale);
    let mut all = Vec::with_capacity(elems);
    while all.len() < elems {
        let more = drawn.len().min(elems - all.len());
        all.extend_from_slice(&drawn[..more]);
    }
    all
}

/// Exact copies in f64, for the reference.
pub fn widen<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// Bytes of the last-level cache; 32 MiB where the system does not say.
pub fn last_level_cache_bytes() -> usize {
    let caches = (0..5).filter_map(|index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        cache_bytes(&std::fs::read_to_string(path).ok()?)
    });
    caches.max().unwrap_or(32 << 20)
}

/// `32768K` or `32M`, as Linux writes the size of a cache.
fn cache_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, shift) = match text.strip_suffix('K') {
        Some(digits) => (digits, 10),
        None => (text.strip_suffix('M')?, 20),
    };
    Some(digits.parse::<usize>().ok()? << shift)
}

/// Sets of buffers that take turns, so that what one iteration left in the caches is gone when its
/// set comes round again.
#[derive(Debug)]
pub struct Rotation<S> {
    sets: Vec<S>,
    next: usize,
}

impl<S> Rotation<S> {
    /// As many sets of `set_bytes` as exceed the last-level cache four times, at least two. Nothing
    /// is timed at the smoke scale: two sets do.
    pub fn cold(scale: Scale, set_bytes: usize, make: impl FnMut(usize) -> S) -> Self {
        let sets = match scale {
            Scale::Smoke => 2,
            _ => (4 * last_level_cache_bytes()).div_ceil(set_bytes.max(1)),
        };
        Self::of(sets.max(2), make)
    }

    /// `sets` sets; `make` gets their number, for a seed.
    pub fn of(sets: usize, make: impl FnMut(usize) -> S) -> Self {
        Self {
            sets: (0..sets.max(1)).map(make).collect(),
            next: 0,
        }
    }

    /// The set whose turn it is.
    pub fn turn(&mut self) -> &mut S {
        let set = self.next;
        self.next = (set + 1) % self.sets.len();
        &mut self.sets[set]
    }

    /// Runs once, lets `check` judge the result, and returns what is to be timed: `run` on the set
    /// whose turn it is.
    pub fn checked(mut self, mut run: impl FnMut(&mut S), check: impl FnOnce(&S)) -> impl FnMut() {
        let set = self.turn();
        run(set);
        check(set);
        // What a run wrote is taken to be looked at.
        move || run(black_box(self.turn()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_take_turns() {
        let mut rotation = Rotation::of(3, |i| i);
        let turns: Vec<usize> = (0..7).map(|_| *rotation.turn()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
        let large = Rotation::cold(Scale::Default, usize::MAX, |_| ());
        assert_eq!(large.sets.len(), 2);
        let smoke = Rotation::cold(Scale::Smoke, 1, |_| ());
        assert_eq!(smoke.sets.len(), 2);
        let small = Rotation::cold(Scale::Default, 1 << 20, |_| ());
        assert!(small.sets.len() << 20 >= 4 * last_level_cache_bytes());
    }

    #[test]
    fn cache_sizes_are_read() {
        assert_eq!(cache_bytes("32768K\n"), Some(32 << 20));
        assert_eq!(cache_bytes("96M"), Some(96 << 20));
        assert_eq!(cache_bytes("many"), None);
    }

    #[test]
    fn normals_repeat_after_the_period() {
        let values: Vec<f32> = normals(PERIOD + 2, 0.5, 1);
        assert_eq!(values.len(), PERIOD + 2);
        assert_eq!(values[..2], values[PERIOD..]);
        assert_ne!(values[..2], normals::<f32>(2, 0.5, 2)[..]);
        let n = PERIOD as f64;
        let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        assert!((variance - 0.25).abs() < 0.01, "{variance}");
    }
}
