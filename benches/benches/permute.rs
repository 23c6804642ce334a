//! Permute: sorting a routing table, moving rows to their experts and back, and the backward
//! passes.
//!
//! Bytes are the compulsory ones, each tensor once. Buffers take turns beyond the last-level cache;
//! where the name ends in `-cached` there is one set, which fits, and RAM is no limit. The peer
//! `memcpy` copies as many rows from one buffer to another on the same threads: no indices, no
//! sums. Behind the tables stands what is known of the kernels for GPUs: see [`gpu`].

#[path = "permute/gpu.rs"]
mod gpu;

use std::rc::Rc;

use half::bf16;
use rayon::prelude::*;
use tollgate::permute::{Permute, PermuteMaps, reference};
use tollgate::{Cpu, Element, RoutingTable, RowView, RowViewMut};
use tollgate_benches::check::{assert_norm, norm_tolerance, sample};
use tollgate_benches::data::{Rotation, last_level_cache_bytes, normals, widen};
use tollgate_benches::harness::{Family, Op, Scale};
use tollgate_benches::shapes::{RowsShape, rows, sort};
use tollgate_benches::work::Work;
use tollgate_testkit::{Data, assert_same};

fn main() {
    let mut family = Family::from_args();
    let (cpu, scale) = (family.cpu(), family.scale());

    let mut op = family.op("permute_sort");
    let shape = sort(scale);
    let a = shape.assignments();
    // Offsets and expert of each assignment in; three maps out.
    let work = Work::traffic(4 * (shape.tokens + a), 12 * a);
    let name = format!("{a}x{}", shape.experts);
    op.bench(&name, "i32", "tollgate", work, || {
        time_sort(&cpu, scale, shape, false)
    });
    let name = format!("{name}-cached");
    op.bench(&name, "i32", "tollgate", work.cached(), || {
        time_sort(&cpu, scale, shape, true)
    });
    op.finish();

    for operation in [
        Operation::Permute,
        Operation::PermuteBackward,
        Operation::Unpermute,
        Operation::UnpermuteBackward,
    ] {
        let mut op = family.op(operation.name());
        for shape in rows(scale) {
            rows_of::<f32>(&mut op, &cpu, scale, operation, shape);
            rows_of::<bf16>(&mut op, &cpu, scale, operation, shape);
        }
        op.finish();
    }
    let counted = family.wants_counters();
    family.finish();
    if counted {
        gpu::tables(scale);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Permute,
    PermuteBackward,
    Unpermute,
    UnpermuteBackward,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Permute => "permute_forward",
            Self::PermuteBackward => "permute_backward",
            Self::Unpermute => "unpermute_forward",
            Self::UnpermuteBackward => "unpermute_backward",
        }
    }

    /// Compulsory bytes; the maps and weights are a few bytes a row.
    fn work(self, shape: RowsShape, element: usize) -> Work {
        let tokens = element * shape.tokens * shape.hidden;
        let rows = element * shape.assignments() * shape.hidden;
        let maps = 4 * shape.assignments();
        match self {
            Self::Permute => Work::traffic(tokens + maps, rows),
            Self::PermuteBackward => Work::traffic(rows + maps, tokens),
            Self::Unpermute => Work::traffic(rows + 2 * maps, tokens),
            Self::UnpermuteBackward => Work::traffic(tokens + rows + 2 * maps, rows + maps),
        }
    }

    fn run<T: Element>(self, cpu: &Cpu, routing: &Routing, set: &mut Set<T>) {
        let Routing { table, maps, shape } = routing;
        let (t, a, h) = (shape.tokens, shape.assignments(), shape.hidden);
        let Set {
            tokens,
            rows,
            tokens_out,
            rows_out,
            dweights,
        } = set;
        let tokens = RowView::new(tokens, t, h).expect("tokens [T, H]");
        let rows = RowView::new(rows, a, h).expect("rows [A, H]");
        let tokens_out = RowViewMut::new(tokens_out, t, h);
        let rows_out = RowViewMut::new(rows_out, a, h);
        match self {
            Self::Permute => cpu.permute(tokens, maps, rows_out.expect("rows [A, H]")),
            Self::PermuteBackward => {
                let out = tokens_out.expect("tokens [T, H]");
                cpu.permute_backward(rows, table, maps, None, out)
            }
            Self::Unpermute => {
                let out = tokens_out.expect("tokens [T, H]");
                cpu.unpermute(rows, table, maps, out)
            }
            Self::UnpermuteBackward => {
                let out = rows_out.expect("rows [A, H]");
                cpu.unpermute_backward(tokens, rows, table, maps, out, dweights)
            }
        }
        .expect("shapes agree");
    }

    /// Panics unless what [`Operation::run`] wrote is right on a sample of tokens.
    fn check<T: Element>(self, routing: &Routing, set: &Set<T>) {
        let Routing { table, maps, shape } = routing;
        let h = shape.hidden;
        let row = |data, r: usize| &<[T]>::as_ref(data)[r * h..(r + 1) * h];
        // Sums of at most k rows, rounded once; dot products of H terms.
        let sums = norm_tolerance(T::DTYPE, 1, shape.k);
        for token in sample(shape.tokens, 16) {
            let mut expected = vec![0.0; h];
            for a in table.assignments_of(token) {
                let r = maps.row_of_assignment[a] as usize;
                let w = f64::from(table.routing_weights[a]);
                let (x, y) = (row(&set.tokens, token), row(&set.rows, r));
                match self {
                    Self::Permute => assert_same("permuted row", row(&set.rows_out, r), x),
                    Self::PermuteBackward | Self::Unpermute => {
                        let w = if self == Self::Unpermute { w } else { 1.0 };
                        for (sum, v) in expected.iter_mut().zip(y) {
                            *sum += w * v.to_f64();
                        }
                    }
                    Self::UnpermuteBackward => {
                        let drow: Vec<f64> = x.iter().map(|v| w * v.to_f64()).collect();
                        let actual = widen(row(&set.rows_out, r));
                        assert_norm("gradient of a row", actual, &drow, sums);
                        let products = || x.iter().zip(y).map(|(a, b)| a.to_f64() * b.to_f64());
                        let magnitude: f64 = products().map(f64::abs).sum();
                        let error = (f64::from(set.dweights[a]) - products().sum::<f64>()).abs();
                        // At most H roundings of at most the sum of magnitudes.
                        let bound = h as f64 / f64::from(1 << 24) * magnitude;
                        assert!(error <= bound, "gradient of weight {a}: off by {error:e}");
                    }
                }
            }
            if matches!(self, Self::PermuteBackward | Self::Unpermute) {
                let what = format!("token {token}");
                assert_norm(&what, widen(row(&set.tokens_out, token)), &expected, sums);
            }
        }
    }
}

/// A table of k different experts a token, and its maps.
struct Routing {
    shape: RowsShape,
    table: RoutingTable,
    maps: PermuteMaps,
}

impl Routing {
    fn new(cpu: &Cpu, shape: RowsShape, seed: u64) -> Self {
        let table = table(shape, seed);
        let mut maps = PermuteMaps::default();
        cpu.sort(&table, &mut maps).expect("the table is valid");
        Self { shape, table, maps }
    }
}

fn table(shape: RowsShape, seed: u64) -> RoutingTable {
    let mut data = Data::new(seed);
    let rows: Vec<_> = (0..shape.tokens)
        .map(|_| {
            let mut row: Vec<(i32, f32)> = Vec::with_capacity(shape.k);
            while row.len() < shape.k {
                let expert = data.below(shape.experts) as i32;
                if row.iter().all(|&(other, _)| other != expert) {
                    row.push((expert, data.uniform() as f32));
                }
            }
            row
        })
        .collect();
    RoutingTable::from_rows(shape.experts, &rows).expect("legal by construction")
}

/// One set of matrices; those that an operation does not touch stay empty pages.
struct Set<T> {
    tokens: Vec<T>,
    rows: Vec<T>,
    tokens_out: Vec<T>,
    rows_out: Vec<T>,
    dweights: Vec<f32>,
}

impl<T: Element> Set<T> {
    fn new(operation: Operation, shape: RowsShape, seed: u64) -> Self {
        use Operation::{Permute, PermuteBackward, Unpermute, UnpermuteBackward};
        let (t, a) = (
            shape.tokens * shape.hidden,
            shape.assignments() * shape.hidden,
        );
        let reads_tokens = matches!(operation, Permute | UnpermuteBackward);
        let reads_rows = matches!(operation, PermuteBackward | Unpermute | UnpermuteBackward);
        let filled = |read: bool, elems, seed| match read {
            true => normals(elems, 1.0, seed),
            false => vec![T::default(); elems],
        };
        Self {
            tokens: filled(reads_tokens, t, seed),
            rows: filled(reads_rows, a, seed + 1),
            tokens_out: vec![T::default(); t],
            rows_out: vec![T::default(); a],
            dweights: vec![0.0; shape.assignments()],
        }
    }
}

fn rows_of<T: Element>(
    op: &mut Op<'_>,
    cpu: &Cpu,
    scale: Scale,
    operation: Operation,
    shape: RowsShape,
) {
    let dtype = T::DTYPE.name();
    let name = shape.name();
    let work = operation.work(shape, size_of::<T>());
    op.bench(&name, dtype, "tollgate", work, || {
        time_rows::<T>(cpu, scale, operation, shape, false)
    });
    let row_bytes = size_of::<T>() * shape.hidden;
    // Up to three matrices, all of them within the cache with some room.
    if 2 * row_bytes * (shape.tokens + shape.assignments()) <= 2 * last_level_cache_bytes() {
        let name = format!("{name}-cached");
        op.bench(&name, dtype, "tollgate", work.cached(), || {
            time_rows::<T>(cpu, scale, operation, shape, true)
        });
    }
    if operation == Operation::Permute {
        let bytes = row_bytes * shape.assignments();
        op.bench(&name, dtype, "memcpy", Work::traffic(bytes, bytes), || {
            time_memcpy(cpu, scale, bytes)
        });
    }
}

fn time_rows<T: Element>(
    cpu: &Cpu,
    scale: Scale,
    operation: Operation,
    shape: RowsShape,
    cached: bool,
) -> impl FnMut() + use<T> {
    let cpu = cpu.clone();
    let routing = Routing::new(&cpu, shape, 1);
    let bytes = size_of::<T>() * shape.hidden * (shape.tokens + shape.assignments());
    let make = |set| Set::<T>::new(operation, shape, 10 * set as u64);
    let sets = match cached {
        true => Rotation::of(1, make),
        false => Rotation::cold(scale, bytes, make),
    };
    let routing = Rc::new(routing);
    let checked = Rc::clone(&routing);
    sets.checked(
        move |set| operation.run(&cpu, &routing, set),
        move |set| operation.check(&checked, set),
    )
}

fn time_memcpy(cpu: &Cpu, scale: Scale, bytes: usize) -> impl FnMut() + use<> {
    let cpu = cpu.clone();
    let sets = Rotation::cold(scale, 2 * bytes, |set| {
        (vec![1 + (set % 255) as u8; bytes], vec![0u8; bytes])
    });
    let run = move |(from, to): &mut (Vec<u8>, Vec<u8>)| {
        let part = from.len().div_ceil(cpu.threads()).max(1);
        cpu.install(|| {
            let pairs = from.par_chunks(part).zip(to.par_chunks_mut(part));
            pairs
                .with_max_len(1)
                .for_each(|(from, to)| to.copy_from_slice(from));
        });
    };
    sets.checked(run, move |(from, to)| assert_eq!(from, to, "memcpy"))
}

fn time_sort(cpu: &Cpu, scale: Scale, shape: RowsShape, cached: bool) -> impl FnMut() + use<> {
    // Drawing a table takes longer than copying it: sets are equal and lie apart.
    let first = table(shape, 3);
    let make = |_| (first.clone(), PermuteMaps::default());
    let sets = match cached {
        true => Rotation::of(1, make),
        false => Rotation::cold(scale, 16 * shape.assignments(), make),
    };
    let cpu = cpu.clone();
    sets.checked(
        move |(table, maps)| cpu.sort(table, maps).expect("the table is valid"),
        move |(table, maps)| {
            assert_eq!(*maps, reference::sort(table).expect("the table is valid"));
        },
    )
}
