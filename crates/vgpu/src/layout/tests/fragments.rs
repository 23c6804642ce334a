//! Fragments against the tables of PTX ISA 9.7.14.5 and 9.7.15.5.1.1, written out one by one.

use crate::layout::elements::Element;
use crate::layout::legality::{MmaForm, WgmmaForm};
use crate::layout::mma::{Fragment, MmaTables};
use crate::layout::wgmma;

/// Row and column of the `i`-th element of a lane, from its `g = lane >> 2` and `t = lane % 4`.
type Table = fn(g: u32, t: u32, i: u32) -> (u32, u32);

/// The tables for A and B of each shape and width of element, in the ISA's words.
fn multiplicands(shape: (u32, u32, u32), bits: u32) -> Option<(Table, Table)> {
    let tables: (Table, Table) = match (shape, bits) {
        // 9.7.14.5.2
        ((8, 8, 4), 64) => (|g, t, _| (g, t), |g, t, _| (t, g)),
        // 9.7.14.5.3
        ((8, 8, 16), 8) => (|g, t, i| (g, t * 4 + i), |g, t, i| (t * 4 + i, g)),
        // 9.7.14.5.4
        ((8, 8, 32), 4) => (|g, t, i| (g, t * 8 + i), |g, t, i| (t * 8 + i, g)),
        // 9.7.14.5.6
        ((16, 8, 4), 32 | 64) => (
            |g, t, i| (if i == 0 { g } else { g + 8 }, t),
            |g, t, _| (t, g),
        ),
        // 9.7.14.5.7, .f16 and .bf16
        ((16, 8, 8), 16) => (
            |g, t, i| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1)),
            |g, t, i| (t * 2 + i, g),
        ),
        // 9.7.14.5.7, .tf32 and .f64
        ((16, 8, 8), 32 | 64) => (
            |g, t, i| {
                let row = if i == 0 || i == 2 { g } else { g + 8 };
                (row, if i < 2 { t } else { t + 4 })
            },
            |g, t, i| (if i == 0 { t } else { t + 4 }, g),
        ),
        // 9.7.14.5.8, .f16 and .bf16
        ((16, 8, 16), 16) => (
            |g, t, i| {
                let row = if i < 2 || (4..6).contains(&i) {
                    g
                } else {
                    g + 8
                };
                (row, t * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
            },
            |g, t, i| (t * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, g),
        ),
        // 9.7.14.5.8, .f64
        ((16, 8, 16), 64) => (
            |g, t, i| match i % 2 {
                0 => (g, i * 2 + t),
                _ => (g + 8, i * 2 - 2 + t),
            },
            |g, t, i| (t + i * 4, g),
        ),
        // 9.7.14.5.9
        ((16, 8, 16), 8) => (
            |g, t, i| (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3)),
            |g, t, i| (t * 4 + i, g),
        ),
        // 9.7.14.5.10, .s4 and .u4
        ((16, 8, 32), 4) => (
            |g, t, i| (if i < 8 { g } else { g + 8 }, t * 8 + (i & 7)),
            |g, t, i| (t * 8 + (i & 7), g),
        ),
        // 9.7.14.5.10, .s8, .u8, .e4m3 and .e5m2
        ((16, 8, 32), 8) => (
            |g, t, i| {
                let row = if i < 4 || (8..12).contains(&i) {
                    g
                } else {
                    g + 8
                };
                (row, t * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
            },
            |g, t, i| (t * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, g),
        ),
        // 9.7.14.5.11
        ((16, 8, 64), 4) => (
            |g, t, i| {
                let row = if i < 8 || (16..24).contains(&i) {
                    g
                } else {
                    g + 8
                };
                (row, t * 8 + (i & 7) + if i < 16 { 0 } else { 32 })
            },
            |g, t, i| (t * 8 + (i & 7) + if i < 8 { 0 } else { 32 }, g),
        ),
        _ => return None,
    };
    Some(tables)
}

/// The tables for C and D, which depend on M alone.
fn accumulator(m: u32) -> Table {
    match m {
        8 => |g, t, i| (g, t * 2 + (i & 1)),
        _ => |g, t, i| (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1)),
    }
}

fn assert_same(fragment: &Fragment, what: &str, table: Table) {
    for lane in 0..32 {
        for register in 0..fragment.registers() {
            for sub in 0..fragment.subs() {
                let i = register * fragment.subs() + sub;
                assert_eq!(
                    fragment.place(lane, register, sub),
                    Some(table(lane >> 2, lane % 4, i)),
                    "{what}: lane {lane}, element {i}"
                );
            }
        }
    }
}

#[test]
fn mma_fragments_equal_the_tables_of_the_isa() {
    let forms = MmaForm::all(90);
    for form in &forms {
        let (a, b) = multiplicands(form.shape(), form.a().bits())
            .unwrap_or_else(|| panic!("{form:?} has no table here"));
        let tables = MmaTables::new(*form);
        assert_same(&tables.a.fragment, &format!("A of {form:?}"), a);
        assert_same(&tables.b.fragment, &format!("B of {form:?}"), b);
        let c = accumulator(form.shape().0);
        assert_same(&tables.c.fragment, &format!("C of {form:?}"), c);
        assert_same(&tables.d.fragment, &format!("D of {form:?}"), c);
    }
    // f16: 2 shapes × 2 accumulators; bf16 2; tf32 2; f64 4; fp8: 4 pairs × 2 shapes × 2; s8 and
    // u8: 4 pairs × 3 shapes; s4 and u4 the same.
    assert_eq!(forms.len(), 4 + 2 + 2 + 4 + 16 + 12 + 12);
}

#[test]
fn registers_are_as_many_as_the_isa_says() {
    use Element::{Bf16, E4m3, F16, F32, F64, S4, S8, S32, Tf32};
    // Shape, types of D and A; registers of A, B and D.
    for (shape, d, a, expected) in [
        ((16, 8, 8), F16, F16, [2, 1, 2]),
        ((16, 8, 16), F16, F16, [4, 2, 2]),
        ((16, 8, 16), F32, Bf16, [4, 2, 4]),
        ((16, 8, 4), F32, Tf32, [2, 1, 4]),
        ((16, 8, 8), F32, Tf32, [4, 2, 4]),
        ((8, 8, 4), F64, F64, [1, 1, 2]),
        ((16, 8, 16), F64, F64, [8, 4, 4]),
        ((8, 8, 16), S32, S8, [1, 1, 2]),
        ((16, 8, 32), S32, S8, [4, 2, 4]),
        ((16, 8, 64), S32, S4, [4, 2, 4]),
        ((16, 8, 32), F32, E4m3, [4, 2, 4]),
        ((16, 8, 16), F16, E4m3, [2, 1, 2]),
    ] {
        let tables = MmaTables::new(MmaForm::new(shape, d, a, a, d, 90).unwrap());
        let counts = [&tables.a, &tables.b, &tables.d].map(|t| t.fragment.registers());
        assert_eq!(counts, expected, "{shape:?} {a}");
    }
}

fn assert_bijective(fragment: Fragment) {
    let (rows, cols) = fragment.size();
    let n = (rows * cols) as usize;
    let table = fragment.table();
    assert_eq!(table.element_of_slot.len(), n, "{fragment:?}");
    let mut owned = vec![0; n];
    for (slot, &element) in table.element_of_slot.iter().enumerate() {
        owned[element as usize] += 1;
        assert_eq!(table.slot_of_element[element as usize] as usize, slot);
        let (sub, rest) = (slot as u32 % fragment.subs(), slot as u32 / fragment.subs());
        let (lane, register) = (rest % fragment.lanes(), rest / fragment.lanes());
        let (row, col) = fragment.place(lane, register, sub).unwrap();
        assert_eq!(u32::from(element), row * cols + col);
    }
    assert!(owned.iter().all(|&count| count == 1), "{fragment:?}");
}

#[test]
fn every_element_is_held_exactly_once() {
    for form in MmaForm::all(90) {
        let tables = MmaTables::new(form);
        for table in [tables.a, tables.b, tables.c, tables.d] {
            assert_bijective(table.fragment);
        }
    }
    for form in wgmma_forms() {
        assert_bijective(wgmma::fragment_a(form));
        assert_bijective(wgmma::fragment_d(form));
    }
}

#[test]
fn places_end_with_the_fragment() {
    let form = MmaForm::new(
        (16, 8, 16),
        Element::F32,
        Element::F16,
        Element::F16,
        Element::F32,
        80,
    );
    let a = MmaTables::new(form.unwrap()).a.fragment;
    assert_eq!(a.place(31, 3, 1), Some((15, 15)));
    for (lane, register, sub) in [
        (32, 0, 0),
        (0, 4, 0),
        (0, 0, 2),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        assert_eq!(a.place(lane, register, sub), None);
    }
}

fn wgmma_forms() -> Vec<WgmmaForm> {
    let mut forms = Vec::new();
    for a in Element::ALL {
        for d in Element::ALL {
            for n in 1..=256 {
                forms.extend(WgmmaForm::new((64, n, 256 / a.bits()), d, a, a, 90, true));
            }
        }
    }
    forms
}

#[test]
fn wgmma_fragments_equal_the_figures_of_the_isa() {
    for form in wgmma_forms() {
        let d = wgmma::fragment_d(form);
        let a = wgmma::fragment_a(form);
        let (_, n, _) = form.shape();
        let per_register = if form.d() == Element::F16 { 2 } else { 1 };
        assert_eq!(d.registers(), n / 2 / per_register, "{form:?}");
        assert_eq!(a.registers(), 4, "{form:?}");
        for lane in 0..128 {
            let (w, g, t) = (lane / 32, lane % 32 / 4, lane % 4);
            // Figures 149, 151, 153: pairs of columns, the second pair 8 rows below, then the next
            // 8 columns.
            for i in 0..n / 2 {
                let row = 16 * w + g + if i % 4 >= 2 { 8 } else { 0 };
                let col = 8 * (i / 4) + 2 * t + (i & 1);
                let place = d.place(lane, i / per_register, i % per_register);
                assert_eq!(place, Some((row, col)), "{form:?} lane {lane} d{i}");
            }
            // Figures 148, 150, 152: each warp holds 16 rows as in mma.m16n8 with the same K.
            let (_, _, k) = form.shape();
            let table = multiplicands((16, 8, k), form.a().bits()).unwrap().0;
            for i in 0..4 * a.subs() {
                let (row, col) = table(g, t, i);
                let place = a.place(lane, i / a.subs(), i % a.subs());
                assert_eq!(
                    place,
                    Some((16 * w + row, col)),
                    "{form:?} lane {lane} a{i}"
                );
            }
        }
    }
}

#[test]
fn elements_come_out_of_registers_low_end_first() {
    assert_eq!(Element::F16.extract(0xbeef_1234, 0), 0x1234);
    assert_eq!(Element::F16.extract(0xbeef_1234, 1), 0xbeef);
    assert_eq!(Element::S8.extract(0x8040_2010, 3), 0x80);
    assert_eq!(Element::S4.extract(0x8765_4321, 7), 8);
    assert_eq!(Element::Tf32.extract(0x8765_4321, 0), 0x8765_4321);
    for bits in 0..256 {
        assert_eq!(
            Element::S8.integer(bits),
            bits as i32 - if bits < 128 { 0 } else { 256 }
        );
        assert_eq!(Element::U8.integer(bits), bits as i32);
    }
    for bits in 0..16 {
        assert_eq!(
            Element::S4.integer(bits),
            bits as i32 - if bits < 8 { 0 } else { 16 }
        );
        assert_eq!(Element::U4.integer(bits), bits as i32);
    }
    for element in Element::ALL {
        assert_eq!(Element::from_name(element.name()), Some(element));
    }
}
