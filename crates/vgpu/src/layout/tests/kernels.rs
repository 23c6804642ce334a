//! The arithmetic, against plain loops.

use super::Rng;
use crate::layout::elements::Element;
use crate::layout::kernels::{Size, mma_f16, mma_f32, mma_f64, mma_s32, mma_s32_satfinite};
use crate::layout::legality::MmaForm;
use crate::layout::mma::{Fragment, FragmentTable, MmaTables};

fn sizes() -> impl Iterator<Item = Size> {
    let shapes = [
        (16, 8, 16),
        (8, 8, 4),
        (64, 8, 8),
        (64, 24, 16),
        (64, 40, 32),
        (5, 19, 3),
    ];
    shapes.into_iter().map(Size::from)
}

fn numbers(rng: &mut Rng, n: usize, low: i64, high: i64) -> Vec<i64> {
    (0..n).map(|_| rng.range(low, high)).collect()
}

/// The exact product.
fn plain(size: Size, a: &[i64], b: &[i64], c: &[i64]) -> Vec<i64> {
    let mut d = c.to_vec();
    for i in 0..size.m {
        for j in 0..size.n {
            for x in 0..size.k {
                d[i * size.n + j] += a[i * size.k + x] * b[x * size.n + j];
            }
        }
    }
    d
}

#[test]
fn small_integers_are_exact_in_every_type() {
    let mut rng = Rng(1);
    for size in sizes() {
        let a = numbers(&mut rng, size.m * size.k, -4, 4);
        let b = numbers(&mut rng, size.k * size.n, -4, 4);
        let c = numbers(&mut rng, size.m * size.n, -100, 100);
        let expected = plain(size, &a, &b, &c);
        let f32s = |v: &[i64]| v.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let f64s = |v: &[i64]| v.iter().map(|&x| x as f64).collect::<Vec<_>>();
        let i32s = |v: &[i64]| v.iter().map(|&x| x as i32).collect::<Vec<_>>();

        let mut d = f32s(&c);
        mma_f32(size, &f32s(&a), &f32s(&b), &mut d).unwrap();
        assert_eq!(d, f32s(&expected));
        let mut d = f32s(&c);
        mma_f16(size, &f32s(&a), &f32s(&b), &mut d).unwrap();
        assert_eq!(d, f32s(&expected));
        let mut d = f64s(&c);
        mma_f64(size, &f64s(&a), &f64s(&b), &mut d, f64::mul_add).unwrap();
        assert_eq!(d, f64s(&expected));
        for kernel in [mma_s32, mma_s32_satfinite] {
            let mut d = i32s(&c);
            kernel(size, &i32s(&a), &i32s(&b), &mut d).unwrap();
            assert_eq!(d, i32s(&expected));
        }
    }
}

#[test]
fn floats_follow_the_documented_chain() {
    let mut rng = Rng(2);
    let mut real = |n: usize| -> Vec<f32> {
        let unit = |rng: &mut Rng| rng.range(-(1 << 23), 1 << 23) as f32 / (1 << 23) as f32;
        (0..n).map(|_| unit(&mut rng)).collect()
    };
    for size in sizes() {
        let Size { m, n, k } = size;
        let (a, b, c) = (real(m * k), real(k * n), real(m * n));
        let mut d = c.clone();
        mma_f32(size, &a, &b, &mut d).unwrap();
        let mut halves = c.clone();
        mma_f16(size, &a, &b, &mut halves).unwrap();
        for i in 0..m {
            for j in 0..n {
                let mut s = c[i * n + j];
                for x in 0..k {
                    s = a[i * k + x].mul_add(b[x * n + j], s);
                }
                assert_eq!(d[i * n + j].to_bits(), s.to_bits());
                let half = half::f16::from_f32(s).to_f32();
                assert_eq!(halves[i * n + j].to_bits(), half.to_bits());
            }
        }
    }
}

#[test]
fn nan_is_canonical() {
    let size = Size::from((1, 1, 1));
    let mut d = [f32::NEG_INFINITY];
    mma_f32(size, &[f32::INFINITY], &[1.0], &mut d).unwrap();
    assert_eq!(d[0].to_bits(), 0x7fff_ffff);
}

#[test]
fn integers_wrap_or_saturate() {
    let size = Size::from((1, 1, 2));
    // The sum passes the maximum and comes back: only the end counts.
    for (a, b, c, wrapped, limited) in [
        ([127, 127], [127, 127], i32::MAX, i32::MIN + 32257, i32::MAX),
        (
            [-128, -128],
            [127, 127],
            i32::MIN,
            i32::MAX - 32511,
            i32::MIN,
        ),
        ([127, -127], [127, 127], i32::MAX, i32::MAX, i32::MAX),
    ] {
        let mut d = [c];
        mma_s32(size, &a, &b, &mut d).unwrap();
        assert_eq!(d, [wrapped]);
        let mut d = [c];
        mma_s32_satfinite(size, &a, &b, &mut d).unwrap();
        assert_eq!(d, [limited]);
    }
}

/// Packs a row-major matrix into registers as a kernel's lanes would hold it, `[register][lane]`.
fn pack(fragment: &Fragment, values: &[i64]) -> Vec<[u32; 32]> {
    let (_, cols) = fragment.size();
    let bits = fragment.element().bits();
    let mut registers = vec![[0; 32]; fragment.registers() as usize];
    for (register, lanes) in registers.iter_mut().enumerate() {
        for (lane, word) in lanes.iter_mut().enumerate() {
            for sub in 0..fragment.subs() {
                let place = fragment.place(lane as u32, register as u32, sub);
                let (row, col) = place.unwrap();
                let value = values[(row * cols + col) as usize] as u32;
                let mask = if bits == 32 {
                    u32::MAX
                } else {
                    (1 << bits) - 1
                };
                *word |= (value & mask) << (bits * sub);
            }
        }
    }
    registers
}

/// Unpacks with the tables, as an interpreter does.
fn unpack(table: &FragmentTable, registers: &[[u32; 32]]) -> Vec<i32> {
    let element = table.fragment.element();
    let subs = table.fragment.subs();
    let mut dense = vec![0; table.element_of_slot.len()];
    for (slot, &to) in table.element_of_slot.iter().enumerate() {
        let (word, sub) = (slot as u32 / subs, slot as u32 % subs);
        let bits = registers[word as usize / 32][word as usize % 32];
        dense[to as usize] = element.integer(element.extract(bits, sub));
    }
    dense
}

#[test]
fn integer_mma_from_registers_to_registers() {
    let mut rng = Rng(4);
    let integers = |form: &MmaForm| form.a().is_small_int();
    for form in MmaForm::all(90).into_iter().filter(integers) {
        let tables = MmaTables::new(form);
        let size = Size::from(form.shape());
        let mut values = |element: Element, n| {
            let half = 1i64 << (element.bits() - 1);
            match element {
                Element::S8 | Element::S4 => numbers(&mut rng, n, -half, half - 1),
                Element::U8 | Element::U4 => numbers(&mut rng, n, 0, 2 * half - 1),
                _ => numbers(&mut rng, n, -1_000_000, 1_000_000),
            }
        };
        let a = values(form.a(), size.m * size.k);
        let b = values(form.b(), size.k * size.n);
        let c = values(form.c(), size.m * size.n);
        let read = |table: &FragmentTable, m: &[i64]| unpack(table, &pack(&table.fragment, m));
        let mut d = read(&tables.c, &c);
        mma_s32(size, &read(&tables.a, &a), &read(&tables.b, &b), &mut d).unwrap();
        let d: Vec<i64> = d.into_iter().map(i64::from).collect();
        assert_eq!(d, plain(size, &a, &b, &c), "{form:?}");
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let size = Size::from((2, 2, 2));
    let error = mma_f32(size, &[0.0; 4], &[0.0; 3], &mut [0.0; 4]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "operand B has 3 elements, its matrix needs 4"
    );
    assert!(mma_f32(size, &[0.0; 3], &[0.0; 4], &mut [0.0; 4]).is_err());
    assert!(mma_s32(size, &[0; 4], &[0; 4], &mut [0; 5]).is_err());
    // Matrices without elements are legal, if of no use.
    for shape in [(0, 8, 4), (8, 0, 4), (0, 0, 0)] {
        let size = Size::from(shape);
        let (a, b) = (vec![1.0; size.m * size.k], vec![1.0; size.k * size.n]);
        assert_eq!(mma_f32(size, &a, &b, &mut []), Ok(()));
    }
    let mut unchanged = [3.0; 64];
    mma_f32(Size::from((8, 8, 0)), &[], &[], &mut unchanged).unwrap();
    assert_eq!(unchanged, [3.0; 64]);
}
