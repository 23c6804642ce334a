//! Grouped GEMM: forward, dgrad and wgrad of the experts' up and down maps.
//!
//! The peer `gemm-crate` computes one dense product of the same size on the same threads: one
//! matrix for all rows, no groups. Operands exceed the last-level cache by themselves (the stacked
//! weights), so nothing takes turns.
//!
//! Behind the tables stands what the virtual GPU counts of the kernels: how many of the instructions
//! multiply, what is moved, bank conflicts. These numbers do not depend on the machine.

use std::sync::Arc;

use half::bf16;
use tollgate::device::{Gpu, LaunchCounters, StatusBlock, VirtualOptions};
use tollgate::gemm::gpu::{DeviceStacked, Launcher};
use tollgate::gemm::{GroupedGemm, Stacked};
use tollgate::{Cpu, Element, RowView, RowViewMut};
use tollgate_benches::check::sample;
use tollgate_benches::data::{Rotation, normals};
use tollgate_benches::harness::{Family, Op, Scale};
use tollgate_benches::shapes::{LayerShape, layers};
use tollgate_benches::work::Work;
use tollgate_testkit::{Data, Tolerance, compare};

fn main() {
    let mut family = Family::from_args();
    let cpu = family.cpu();
    let scale = family.scale();
    // One token is a product of a matrix with eight vectors: the layer's benchmark has it.
    let layers: Vec<_> = layers(scale).into_iter().filter(|l| l.tokens > 1).collect();
    for operation in [Operation::Forward, Operation::Dgrad, Operation::Wgrad] {
        let mut op = family.op(operation.name());
        for layer in &layers {
            for problem in Problem::of(layer) {
                let problem = Arc::new(problem);
                ours::<f32>(&mut op, &cpu, operation, &problem);
                dense(&mut op, &cpu, operation, &problem);
                ours::<bf16>(&mut op, &cpu, operation, &problem);
            }
        }
        op.finish();
    }
    let counted = family.wants_counters();
    family.finish();
    if counted {
        counters(scale);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Forward,
    Dgrad,
    Wgrad,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "grouped_gemm_forward",
            Self::Dgrad => "grouped_gemm_dgrad",
            Self::Wgrad => "grouped_gemm_wgrad",
        }
    }
}

/// One linear map of a layer's experts: `[M, K] · [E, N, K]ᵀ = [M, N]`.
struct Problem {
    name: String,
    offsets: Vec<i32>,
    n: usize,
    k: usize,
}

impl Problem {
    /// The up and the down map, each token on k random experts.
    fn of(layer: &LayerShape) -> [Self; 2] {
        let shape = &layer.experts;
        let mut data = Data::new(11);
        let mut counts = vec![0; shape.experts];
        for _ in 0..layer.tokens {
            let mut chosen: Vec<usize> = Vec::with_capacity(layer.k);
            while chosen.len() < layer.k {
                let expert = data.below(shape.experts);
                if !chosen.contains(&expert) {
                    chosen.push(expert);
                    counts[expert] += 1;
                }
            }
        }
        let mut offsets = vec![0];
        for count in counts {
            offsets.push(offsets[offsets.len() - 1] + count);
        }
        let map = |which, n, k| Self {
            name: format!("{}-{which}-top{}", layer.name, layer.k),
            offsets: offsets.clone(),
            n,
            k,
        };
        [
            map("up", shape.up_rows(), shape.hidden),
            map("down", shape.hidden, shape.intermediate),
        ]
    }

    fn experts(&self) -> usize {
        self.offsets.len() - 1
    }

    fn rows(&self) -> usize {
        self.offsets[self.experts()] as usize
    }

    fn group(&self, e: usize) -> std::ops::Range<usize> {
        self.offsets[e] as usize..self.offsets[e + 1] as usize
    }

    fn group_of(&self, row: usize) -> usize {
        self.offsets.partition_point(|&o| o as usize <= row) - 1
    }

    /// Operations, and bytes with each tensor once; weight gradients are f32 of all experts, of
    /// the weights those that have rows are read.
    fn work<T: Element>(&self, operation: Operation, experts: usize) -> Work {
        let (m, n, k, t) = (self.rows(), self.n, self.k, size_of::<T>());
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        let (read, written) = match operation {
            Operation::Forward => (t * (m * k + experts * n * k), t * m * n),
            Operation::Dgrad => (t * (m * n + experts * n * k), t * m * k),
            Operation::Wgrad => (t * m * (n + k), 4 * experts * n * k),
        };
        Work::products(T::DTYPE, flops, read, written)
    }
}

/// Operands and results; what an operation does not use stays empty.
struct Set<T> {
    /// `[M, K]`, or `[M, N]` for dgrad.
    a: Vec<T>,
    /// `[E, N, K]`; `[M, K]` for wgrad.
    b: Vec<T>,
    /// `[M, N]`, or `[M, K]` for dgrad.
    d: Vec<T>,
    /// `[E, N, K]` for wgrad.
    w: Vec<f32>,
}

impl<T: Element> Set<T> {
    fn new(operation: Operation, problem: &Problem, experts: usize) -> Self {
        let (m, n, k) = (problem.rows(), problem.n, problem.k);
        let (a, b, d, w) = match operation {
            Operation::Forward => (m * k, experts * n * k, m * n, 0),
            Operation::Dgrad => (m * n, experts * n * k, m * k, 0),
            Operation::Wgrad => (m * n, m * k, 0, experts * n * k),
        };
        Self {
            a: normals(a, 1.0, 1),
            b: normals(b, 1.0, 2),
            d: vec![T::NAN; d],
            w: vec![f32::NAN; w],
        }
    }
}

fn ours<T: Element>(op: &mut Op<'_>, cpu: &Cpu, operation: Operation, problem: &Arc<Problem>) {
    let work = problem.work::<T>(operation, problem.experts());
    op.bench(&problem.name, T::DTYPE.name(), "tollgate", work, || {
        let set = |_| Set::<T>::new(operation, problem, problem.experts());
        let (cpu, problem, checked) = (cpu.clone(), Arc::clone(problem), Arc::clone(problem));
        Rotation::of(1, set).checked(
            move |set| multiply(&cpu, operation, &problem, set),
            move |set| check(operation, &checked, set),
        )
    });
}

fn multiply<T: Element>(cpu: &Cpu, operation: Operation, problem: &Problem, set: &mut Set<T>) {
    let Problem { offsets, n, k, .. } = problem;
    let (m, n, k) = (problem.rows(), *n, *k);
    let Set { a, b, d, w } = set;
    let stacked = Stacked {
        data: &b[..],
        experts: problem.experts(),
        n,
        k,
    };
    let (read, written) = match operation {
        Operation::Forward => (k, n),
        Operation::Dgrad => (n, k),
        Operation::Wgrad => (n, 0),
    };
    let a = RowView::new(a, m, read).expect("a");
    match operation {
        Operation::Forward => {
            let d = RowViewMut::new(d, m, written).expect("d");
            cpu.m_grouped(a, stacked, None, offsets, d)
        }
        Operation::Dgrad => {
            let d = RowViewMut::new(d, m, written).expect("d");
            cpu.m_grouped_transposed(a, stacked, offsets, d)
        }
        Operation::Wgrad => {
            let x = RowView::new(b, m, k).expect("x");
            cpu.k_grouped(a, x, offsets, false, w)
        }
    }
    .expect("shapes agree");
}

/// Panics unless a sample of elements is right: every sum is recomputed in f64 and held to the
/// rounding of its terms.
fn check<T: Element>(operation: Operation, problem: &Problem, set: &Set<T>) {
    let (m, n, k) = (problem.rows(), problem.n, problem.k);
    let (mut actual, mut expected, mut magnitude) = (Vec::new(), Vec::new(), Vec::new());
    let mut sum = |value: f64, terms: &mut dyn Iterator<Item = (T, T)>| {
        let (mut exact, mut size) = (0.0, 0.0);
        for (a, b) in terms {
            let product = a.to_f64() * b.to_f64();
            exact += product;
            size += product.abs();
        }
        actual.push(value);
        expected.push(exact);
        magnitude.push(size);
    };
    let tolerance = match operation {
        Operation::Forward => {
            for row in sample(m, 8) {
                let e = problem.group_of(row);
                for col in sample(n, 100) {
                    let a = &set.a[row * k..(row + 1) * k];
                    let b = &set.b[(e * n + col) * k..][..k];
                    let value = set.d[row * n + col].to_f64();
                    sum(value, &mut a.iter().copied().zip(b.iter().copied()));
                }
            }
            Tolerance::dot(k, T::DTYPE)
        }
        Operation::Dgrad => {
            for row in sample(m, 8) {
                let e = problem.group_of(row);
                for col in sample(k, 100) {
                    let a = &set.a[row * n..(row + 1) * n];
                    let b = (0..n).map(|j| set.b[(e * n + j) * k + col]);
                    sum(set.d[row * k + col].to_f64(), &mut a.iter().copied().zip(b));
                }
            }
            Tolerance::dot(n, T::DTYPE)
        }
        Operation::Wgrad => {
            let mut largest = 0;
            for e in sample(problem.experts(), 3) {
                let rows = problem.group(e);
                largest = largest.max(rows.len());
                for row in sample(n, 8) {
                    for col in sample(k, 50) {
                        let terms = rows.clone();
                        let mut terms = terms.map(|r| (set.a[r * n + row], set.b[r * k + col]));
                        let value = f64::from(set.w[(e * n + row) * k + col]);
                        sum(value, &mut terms);
                    }
                }
            }
            Tolerance::dot(largest, tollgate::DType::F32)
        }
    };
    let found = compare(actual, &expected, &magnitude, tolerance);
    assert!(
        found.is_ok(),
        "{} {}: {}",
        operation.name(),
        problem.name,
        found.unwrap_err()
    );
}

/// The peer: the same number of rows and columns with one matrix.
fn dense(op: &mut Op<'_>, cpu: &Cpu, operation: Operation, problem: &Arc<Problem>) {
    let work = problem.work::<f32>(operation, 1);
    op.bench(&problem.name, "f32", "gemm-crate", work, || {
        let dense = Problem {
            name: format!("{} dense", problem.name),
            offsets: vec![0, problem.rows() as i32],
            n: problem.n,
            k: problem.k,
        };
        let (cpu, dense) = (cpu.clone(), Arc::new(dense));
        let checked = Arc::clone(&dense);
        Rotation::of(1, |_| Set::<f32>::new(operation, &dense, 1)).checked(
            move |set| cpu.install(|| multiply_dense(cpu.threads(), operation, &dense, set)),
            move |set| check(operation, &checked, set),
        )
    });
}

fn multiply_dense(threads: usize, operation: Operation, problem: &Problem, set: &mut Set<f32>) {
    let (m, n, k) = (problem.rows(), problem.n, problem.k);
    // D [rows, cols] = L [rows, depth] · R [depth, cols], each with its column and row stride.
    let (rows, cols, depth) = match operation {
        Operation::Forward => (m, n, k),
        Operation::Dgrad => (m, k, n),
        Operation::Wgrad => (n, k, m),
    };
    let (left, right) = match operation {
        Operation::Forward => ((1, k), (k, 1)),
        Operation::Dgrad => ((1, n), (1, k)),
        Operation::Wgrad => ((n, 1), (1, k)),
    };
    let out = match operation {
        Operation::Wgrad => &mut set.w,
        _ => &mut set.d,
    };
    assert!(out.len() == rows * cols && set.a.len() == rows * depth);
    assert!(set.b.len() == depth * cols);
    // SAFETY: the assertions say that the three matrices hold what their sizes and strides reach;
    // `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            out.as_mut_ptr(),
            1,
            cols as isize,
            false,
            set.a.as_ptr(),
            left.0 as isize,
            left.1 as isize,
            set.b.as_ptr(),
            right.0 as isize,
            right.1 as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(threads),
        );
    }
}

/// Prints what the virtual GPU counts of each product: two whole tiles of rows and one ragged.
fn counters(scale: Scale) {
    let size = if scale == Scale::Smoke { 64 } else { 512 };
    let problem = Problem {
        name: format!("300x{}x{size}", size / 2),
        offsets: vec![0, 128, 256, 300],
        n: size / 2,
        k: size,
    };
    println!(
        "Virtual GPU, {} (M x N x K, 3 experts): counted, the same on every machine\n\
         {:<22} {:<5} {:>9} {:>10} {:>11} {:>10} {:>7} {:>9}",
        problem.name,
        "operation",
        "dtype",
        "multiply",
        "read KiB",
        "written KiB",
        "B/access",
        "banks",
        "GFLOP/s"
    );
    count::<f32>(&problem);
    count::<bf16>(&problem);
    println!("GFLOP/s are the simulation's own and depend on the machine.\n");
}

/// The three products of a type.
fn count<T: Element>(problem: &Problem) {
    let options = VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    };
    let gpu = Gpu::virtual_gpu(&options).expect("a virtual GPU");
    for operation in [Operation::Forward, Operation::Dgrad, Operation::Wgrad] {
        let started = std::time::Instant::now();
        let c = launch::<T>(&gpu, problem, operation).expect("shapes agree");
        let seconds = started.elapsed().as_secs_f64();
        let multiplications = (problem.rows() * problem.n * problem.k) as f64;
        println!(
            "{:<22} {:<5} {:>8.1}% {:>10} {:>11} {:>10.0} {:>7} {:>9.2}",
            operation.name(),
            T::DTYPE.name(),
            100.0 * multiplications / c.thread_instructions as f64,
            c.read_bytes / 1024,
            c.written_bytes / 1024,
            c.requested_bytes as f64 / c.global_instructions as f64,
            c.bank_conflicts,
            2e-9 * multiplications / seconds,
        );
    }
}

/// Launches one product and says what it did.
fn launch<T: Element>(
    gpu: &Gpu,
    problem: &Problem,
    operation: Operation,
) -> tollgate::Result<LaunchCounters> {
    let stream = gpu.default_stream();
    let (m, n, k) = (problem.rows(), problem.n, problem.k);
    let set = Set::<T>::new(operation, problem, problem.experts());
    let (read, written) = match operation {
        Operation::Forward => (k, n),
        Operation::Dgrad => (n, k),
        Operation::Wgrad => (n, 0),
    };
    let (a, b) = (gpu.upload(stream, &set.a)?, gpu.upload(stream, &set.b)?);
    let (mut d, mut w) = (gpu.alloc::<T>(m * written)?, gpu.alloc::<f32>(set.w.len())?);
    let offsets = gpu.upload(stream, &problem.offsets)?;
    let mut status = gpu.upload(stream, &[StatusBlock::CLEAR])?;
    let mut to = Launcher::new(gpu, stream, status.slice_mut())?;
    let a = a.slice().rows("a", m, read, read)?;
    let stacked = DeviceStacked {
        data: b.slice(),
        experts: problem.experts(),
        n,
        k,
    };
    let out = d.slice_mut().rows("d", m, written, written)?;
    match operation {
        Operation::Forward => to.m_grouped(a, stacked, None, offsets.slice(), out)?,
        Operation::Dgrad => to.m_grouped_transposed(a, stacked, offsets.slice(), out)?,
        Operation::Wgrad => {
            let x = b.slice().rows("x", m, k, k)?;
            to.k_grouped(a, x, offsets.slice(), false, w.slice_mut())?;
        }
    }
    stream.synchronize()?;
    let launches = gpu.take_launches();
    Ok(launches.first().map(|l| l.counters).unwrap_or_default())
}
