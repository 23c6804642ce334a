//! Poisoned buffers between canaries: a write outside, or an element never written, is found.

use tollgate_core::Element;

const CANARY_ELEMS: usize = 64;

/// A NaN-filled vector: whatever an operation fails to write stays NaN.
pub fn poison<T: Element>(elems: usize) -> Vec<T> {
    vec![T::NAN; elems]
}

/// A poisoned buffer with canaries on both sides, starting at any element offset so that unaligned
/// views are exercised.
#[derive(Debug, Clone)]
pub struct Guarded<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Element> Guarded<T> {
    /// `elems` poisoned elements; `misalign` (0..8) shifts the start by that many elements.
    pub fn new(elems: usize, misalign: usize) -> Self {
        let start = CANARY_ELEMS + misalign;
        let memory = (0..start + elems + CANARY_ELEMS)
            .map(|i| {
                if (start..start + elems).contains(&i) {
                    T::NAN
                } else {
                    Self::canary(i)
                }
            })
            .collect();
        Self {
            memory,
            start,
            len: elems,
        }
    }

    /// A guarded copy of `values`.
    pub fn from_slice(values: &[T], misalign: usize) -> Self {
        let mut guarded = Self::new(values.len(), misalign);
        guarded.as_mut_slice().copy_from_slice(values);
        guarded
    }

    fn canary(i: usize) -> T {
        T::from_f32(((i * 37) % 101) as f32 - 50.0)
    }

    /// The buffer.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// The buffer, read-only.
    pub fn as_slice(&self) -> &[T] {
        &self.memory[self.start..self.start + self.len]
    }

    /// Panics, naming `what` and the distance, if a canary was overwritten.
    #[track_caller]
    pub fn assert_canaries(&self, what: &str) {
        for (i, &value) in self.memory.iter().enumerate() {
            if (self.start..self.start + self.len).contains(&i) {
                continue;
            }
            assert!(
                value == Self::canary(i),
                "{what}: canary at element {} of a buffer of {} was overwritten with {value:?}",
                i as i64 - self.start as i64,
                self.len,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_outside_is_found() {
        let mut g = Guarded::<f32>::new(5, 3);
        assert!(g.as_slice().iter().all(|v| v.is_nan()));
        g.as_mut_slice().fill(1.0);
        g.assert_canaries("inside");
        let end = g.start + g.len;
        g.memory[end] = 123.0;
        let caught = std::panic::catch_unwind(|| g.assert_canaries("outside"));
        assert!(caught.is_err());
    }
}
