//! Rows in blocks of a fixed size, on the pool or inline.
//!
//! What a block computes depends on its rows only, and what blocks sum is added in their order: no
//! bit depends on the number of threads.

use rayon::prelude::*;
use tollgate_core::Cpu;

/// Rows of one unit of work.
pub(super) const BLOCK_ROWS: usize = 256;

/// Below this many elements, entering the thread pool costs more than it saves.
const INLINE_ELEMS: usize = 1 << 14;

/// Where the units of work of one call run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Team {
    parallel: bool,
}

impl Team {
    /// Enters the pool once for a whole call that touches `elems` elements, or stays on this
    /// thread where that is faster.
    pub(super) fn enter<R: Send>(
        cpu: &Cpu,
        elems: usize,
        work: impl FnOnce(Self) -> R + Send,
    ) -> R {
        if elems < INLINE_ELEMS || cpu.threads() == 1 {
            work(Self { parallel: false })
        } else {
            cpu.install(|| work(Self { parallel: true }))
        }
    }

    /// Runs `work` on every task; `scratch` makes what tasks that follow each other on a thread
    /// share.
    pub(super) fn run<T: Send, S>(
        self,
        tasks: impl IntoParallelIterator<Item = T> + IntoIterator<Item = T>,
        scratch: impl Fn() -> S + Sync + Send,
        work: impl Fn(&mut S, T) + Sync + Send,
    ) {
        if self.parallel {
            tasks.into_par_iter().for_each_init(scratch, work);
        } else {
            let mut scratch = scratch();
            tasks.into_iter().for_each(|task| work(&mut scratch, task));
        }
    }

    /// Copies `from` into `to`, which have the same length.
    pub(super) fn copy<T: Copy + Send + Sync>(self, from: &[T], to: &mut [T]) {
        const PIECE: usize = 1 << 15;
        let pieces: Vec<_> = to.chunks_mut(PIECE).zip(from.chunks(PIECE)).collect();
        self.run(pieces, || (), |(), (to, from)| to.copy_from_slice(from));
    }
}

/// Sets the length, keeping what is there: buffers that are overwritten anyway are not cleared, and
/// allocate only when they grow.
pub(super) fn fit<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
    buffer.resize(len, T::default());
}

/// Cuts a `[rows, columns]` buffer into the parts of its blocks. Unlike `chunks_mut` this gives
/// every block a part, an empty one where there are no columns.
pub(super) struct Parts<'a, T> {
    rest: &'a mut [T],
    columns: usize,
}

impl<'a, T> Parts<'a, T> {
    pub(super) fn new(buffer: &'a mut [T], columns: usize) -> Self {
        Self {
            rest: buffer,
            columns,
        }
    }

    /// The part of the next `rows` rows.
    pub(super) fn take(&mut self, rows: usize) -> &'a mut [T] {
        let (part, rest) = std::mem::take(&mut self.rest).split_at_mut(rows * self.columns);
        self.rest = rest;
        part
    }
}
