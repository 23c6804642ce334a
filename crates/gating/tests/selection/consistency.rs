//! The consistency loss: against the reference in f64, and bit by bit against itself.

use tollgate_core::{Cpu, RowView, RowViewMut};
use tollgate_device::Gpu;
use tollgate_device::testing::devices;
use tollgate_gating::gpu::consistency::{Consistency, run, workspace_bytes};
use tollgate_gating::{Gating, reference};
use tollgate_testkit::{Data, Tolerance, assert_same, compare};

use crate::support::{Fenced, seeded};

struct Problem {
    rows: usize,
    columns: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    padding: Option<Vec<bool>>,
    alpha: f32,
}

#[derive(Debug, Clone)]
struct Outcome {
    loss: f64,
    da: Vec<f32>,
    db: Vec<f32>,
}

fn problem(rows: usize, columns: usize) -> Problem {
    let mut data = Data::new((rows * 7919 + columns) as u64);
    Problem {
        rows,
        columns,
        a: data.normals(rows * columns, 3.0),
        b: data.normals(rows * columns, 3.0),
        padding: Some((0..rows).map(|r| r % 5 == 2).collect()),
        alpha: 5.0,
    }
}

/// Rows of stride V + `gap`, on an address that is `misalign` elements off.
fn on_device(gpu: &Gpu, p: &Problem, gap: usize, misalign: usize) -> Outcome {
    let (stream, (n, v)) = (gpu.default_stream(), (p.rows, p.columns));
    let stride = v + gap;
    let spread = |values: &[f32]| {
        let mut all = vec![f32::NAN; n * stride];
        for r in 0..n {
            all[r * stride..r * stride + v].copy_from_slice(&values[r * v..(r + 1) * v]);
        }
        all
    };
    let a = Fenced::from_slice(gpu, &spread(&p.a), misalign);
    let b = Fenced::from_slice(gpu, &spread(&p.b), misalign);
    let mut da = Fenced::<f32>::new(gpu, n * stride, misalign);
    let mut db = Fenced::<f32>::new(gpu, n * stride, misalign);
    let mut loss = Fenced::<f64>::new(gpu, 1, 0);
    let bytes: Option<Vec<u8>> = p
        .padding
        .as_ref()
        .map(|rows| rows.iter().map(|&p| u8::from(p)).collect());
    let padding = bytes.map(|bytes| Fenced::from_slice(gpu, &bytes, misalign));
    let mut workspace = gpu.alloc::<u8>(workspace_bytes(n).unwrap()).unwrap();
    let consistency = Consistency {
        a: a.get().rows("a", n, v, stride).unwrap(),
        b: b.get().rows("b", n, v, stride).unwrap(),
        padding: padding.as_ref().map(Fenced::get),
        alpha: p.alpha,
        da: da.get_mut().rows("da", n, v, stride).unwrap(),
        db: db.get_mut().rows("db", n, v, stride).unwrap(),
        loss: loss.get_mut(),
    };
    run(gpu, stream, consistency, workspace.slice_mut()).unwrap();
    let gather = |all: Vec<f32>| -> Vec<f32> {
        let gaps = all.iter().enumerate().filter(|(i, _)| i % stride >= v);
        assert!(
            gaps.into_iter().all(|(_, g)| g.to_bits() == u32::MAX),
            "a gap was written"
        );
        (0..n)
            .flat_map(|r| all[r * stride..r * stride + v].to_vec())
            .collect()
    };
    Outcome {
        loss: loss.read(stream)[0],
        da: gather(da.read(stream)),
        db: gather(db.read(stream)),
    }
}

fn expected(p: &Problem) -> (f64, Vec<f64>, Vec<f64>) {
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (a, b) = (wide(&p.a), wide(&p.b));
    let view = |v| RowView::new(v, p.rows, p.columns).unwrap();
    let padding = p.padding.as_deref();
    let c = reference::consistency(view(&a), view(&b), padding, p.alpha.into()).unwrap();
    (c.loss, c.da, c.db)
}

/// Exponentials err by 1.6e-7, their products with the reciprocal by two roundings of f32; a
/// gradient is a sum of two such terms, each at most α/2 (|log ratio| + |KL| + 2) of its
/// probability.
#[track_caller]
fn check(what: &str, p: &Problem, actual: &Outcome) {
    let (loss, da, db) = expected(p);
    assert!(
        actual.loss == loss
            || (actual.loss.is_nan() && loss.is_nan())
            || (actual.loss - loss).abs() <= 2e-6 * loss.abs(),
        "{what}: {} and {loss}",
        actual.loss
    );
    let magnitude = vec![40.0 * f64::from(p.alpha); da.len()];
    let tolerance = Tolerance::relative(6e-7);
    for (actual, expected) in [(&actual.da, &da), (&actual.db, &db)] {
        let values = actual.iter().map(|&v| f64::from(v));
        if let Err(mismatch) = compare(values, expected, &magnitude, tolerance) {
            panic!("{what}: {mismatch}");
        }
    }
}

#[test]
fn loss_and_gradients_are_those_of_the_reference() {
    for (name, gpu) in devices() {
        for (n, v) in [
            (0, 5),
            (3, 0),
            (1, 1),
            (7, 4),
            (9, 33),
            (40, 128),
            (10, 700),
            (3, 1501),
            // Too long to wait in shared memory.
            (2, 6200),
        ] {
            let mut p = problem(n, v);
            let what = format!("{name}: {n} × {v}");
            let first = on_device(gpu, &p, 0, 0);
            check(&what, &p, &first);
            // Alignment decides how, not what is summed.
            for (gap, misalign) in [(3, 1), (4, 0)] {
                let other = on_device(gpu, &p, gap, misalign);
                assert_eq!(other.loss.to_bits(), first.loss.to_bits(), "{what}");
                assert_same(&what, &other.da, &first.da);
                assert_same(&what, &other.db, &first.db);
            }
            p.padding = None;
            check(&what, &p, &on_device(gpu, &p, 0, 0));
            p.alpha = 0.0;
            p.a.fill(f32::NAN);
            let none = on_device(gpu, &p, 0, 0);
            assert_eq!(none.loss, 0.0, "{what}");
            assert!(none.da.iter().chain(&none.db).all(|&d| d == 0.0), "{what}");
        }
    }
}

#[test]
fn masks_faults_and_large_logits_are_as_documented() {
    let inf = f32::INFINITY;
    for (name, gpu) in devices() {
        for v in [6, 1030] {
            type Change = fn(&mut Problem);
            let changes: [(&str, Change); 6] = [
                ("masked on both sides", |p| {
                    for i in (0..p.a.len()).step_by(3) {
                        (p.a[i], p.b[i]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
                    }
                }),
                ("a fully masked row", |p| {
                    p.a[..p.columns].fill(f32::NEG_INFINITY);
                    p.b[..p.columns].fill(f32::NEG_INFINITY);
                }),
                ("masked on one side", |p| {
                    p.a[p.columns + 1] = f32::NEG_INFINITY
                }),
                ("NaN", |p| p.b[1] = f32::NAN),
                ("+∞", |p| p.a[1] = f32::INFINITY),
                ("huge", |p| {
                    p.a.iter_mut().for_each(|a| *a = a.signum() * 3e38);
                    p.b.clone_from(&p.a);
                }),
            ];
            for (change_name, change) in changes {
                let mut p = problem(4, v);
                change(&mut p);
                let what = format!("{name}: {change_name}, {v} columns");
                let outcome = on_device(gpu, &p, 0, 0);
                check(&what, &p, &outcome);
                if change_name == "masked on one side" {
                    assert_eq!(outcome.loss, f64::from(inf), "{what}");
                }
            }
        }
    }
}

#[test]
fn host_form_and_cpu_agree() {
    let cpu = Cpu::new(1).unwrap();
    for (name, gpu) in devices() {
        let p = problem(12, 50);
        let run = |device: &dyn Fn(RowViewMut<'_, f32>, RowViewMut<'_, f32>) -> f64| {
            let (mut da, mut db) = (vec![0f32; 600], vec![0f32; 600]);
            let loss = device(
                RowViewMut::new(&mut da, 12, 50).unwrap(),
                RowViewMut::new(&mut db, 12, 50).unwrap(),
            );
            Outcome { loss, da, db }
        };
        let view = |v| RowView::new(v, 12, 50).unwrap();
        let padding = p.padding.as_deref();
        let of_gpu = run(&|da, db| {
            gpu.consistency(view(&p.a), view(&p.b), padding, p.alpha, da, db)
                .unwrap()
        });
        let of_cpu = run(&|da, db| {
            cpu.consistency(view(&p.a), view(&p.b), padding, p.alpha, da, db)
                .unwrap()
        });
        check(name, &p, &of_gpu);
        // Both take f32 exponentials of the same bits; what differs is the order of f64 sums.
        assert!(
            (of_gpu.loss - of_cpu.loss).abs() <= 1e-6 * of_cpu.loss,
            "{name}"
        );
        let error = gpu
            .consistency(
                view(&p.a),
                view(&p.b),
                None,
                f32::NAN,
                RowViewMut::new(&mut vec![0f32; 600], 12, 50).unwrap(),
                RowViewMut::new(&mut vec![0f32; 600], 12, 50).unwrap(),
            )
            .unwrap_err();
        assert!(
            error.to_string().contains("consistency α is NaN"),
            "{error}"
        );
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let (short, long) = (problem(9, 5), problem(2, 1100));
    for (p, seeds) in [(short, 50), (long, 50)] {
        let mut first: Option<Outcome> = None;
        for seed in 0..seeds {
            let outcome = on_device(&seeded(seed), &p, 0, 0);
            let first = first.get_or_insert_with(|| outcome.clone());
            assert_eq!(outcome.loss.to_bits(), first.loss.to_bits());
            assert_same("da", &outcome.da, &first.da);
            assert_same("db", &outcome.db, &first.db);
        }
    }
}
