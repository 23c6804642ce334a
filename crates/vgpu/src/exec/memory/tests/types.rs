//! Widths, types, vectors and spaces: what is loaded is what was stored.

use super::{STRUCT, clean};
use crate::exec::testing::{buffer, contents, empty};
use crate::memory::Memory;

/// Bytes with every sign, different in every lane.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 37 + 0x75) as u8).collect()
}

/// What a load of type `ty` from `bytes` leaves in a register of `width` bytes.
fn expected(ty: &str, bytes: &[u8], width: usize) -> u64 {
    let size: usize = ty[1..].parse::<usize>().unwrap() / 8;
    let mut word = [0; 8];
    word[..size].copy_from_slice(&bytes[..size]);
    let value = u64::from_le_bytes(word);
    let spread = 64 - 8 * size as u32;
    let value = if ty.starts_with('s') {
        ((value << spread) as i64 >> spread) as u64
    } else {
        value
    };
    if width == 8 {
        value
    } else {
        value & ((1 << (8 * width)) - 1)
    }
}

#[test]
fn every_type_goes_into_every_register_that_holds_it() {
    let memory = Memory::new(1, true);
    let bytes = pattern(16 * 32);
    let input = buffer(&memory, &bytes);
    for ty in [
        "b8", "u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64",
        "f64",
    ] {
        let size: usize = ty[1..].parse::<usize>().unwrap() / 8;
        for (register, width) in [("%h0", 2), ("%r9", 4), ("%d9", 8)] {
            if width < size {
                continue;
            }
            // Through 64 bits, so that what is above the register's width would show.
            let widen = match width {
                2 => "cvt.u64.u16 %d10, %h0;",
                4 => "cvt.u64.u32 %d10, %r9;",
                _ => "mov.b64 %d10, %d9;",
            };
            let output = empty(&memory, 16 * 32);
            let body = format!(
                "ld.global.{ty} {register}, [%d6+8];\n{widen}\nst.global.u64 [%d7], %d10;\n\
                 st.global.u64 [%d7+8], 0;"
            );
            clean(&memory, &body, &input, &output);
            let got: Vec<u64> = contents(&output);
            for lane in 0..32 {
                let want = expected(ty, &bytes[16 * lane + 8..], width);
                assert_eq!(got[2 * lane], want, "{ty} into {register}, lane {lane}");
            }
        }
    }
}

#[test]
fn stores_take_the_low_part_of_wider_registers() {
    let memory = Memory::new(1, true);
    let bytes = pattern(16 * 32);
    let input = buffer(&memory, &bytes);
    for (ty, size) in [
        ("b8", 1),
        ("s8", 1),
        ("u16", 2),
        ("s32", 4),
        ("f32", 4),
        ("b64", 8),
    ] {
        for (load, register, width) in [("b16", "%h0", 2), ("b32", "%r9", 4), ("b64", "%d9", 8)] {
            if width < size {
                continue;
            }
            let output = buffer(&memory, &[0xee_u8; 16 * 32]);
            let body = format!(
                "ld.global.{load} {register}, [%d6];\nst.global.{ty} [%d7+{size}], {register};"
            );
            clean(&memory, &body, &input, &output);
            let got: Vec<u8> = contents(&output);
            for lane in 0..32 {
                let mut want = [0xee; 16];
                want[size..2 * size].copy_from_slice(&bytes[16 * lane..16 * lane + size]);
                assert_eq!(got[16 * lane..][..16], want, "{ty} from {register}");
            }
        }
    }
}

/// `(vector and type, registers, bytes)` of every vector, and of 128 bits.
const VECTORS: [(&str, &str, usize); 12] = [
    ("v2.u8", "{%h0, %h1}", 2),
    ("v4.b8", "{%h0, %h1, %h2, %h3}", 4),
    ("v2.b16", "{%h0, %h1}", 4),
    ("v4.u16", "{%h0, %h1, %h2, %h3}", 8),
    ("v2.b32", "{%r10, %r11}", 8),
    ("v2.f32", "{%f0, %f1}", 8),
    ("v4.u32", "{%r10, %r11, %r12, %r13}", 16),
    ("v4.f32", "{%f0, %f1, %f2, %f3}", 16),
    ("v2.b64", "{%d10, %d11}", 16),
    ("v2.f64", "{%e0, %e1}", 16),
    ("b128", "%q0", 16),
    ("v4.s8", "{%r10, %r11, %r12, %r13}", 4),
];

#[test]
fn vectors_pass_through_every_space() {
    let memory = Memory::new(1, true);
    let bytes = pattern(16 * 32);
    let input = buffer(&memory, &bytes);
    for (ty, registers, size) in VECTORS {
        // A run of neighbours, a stride, and lanes in reverse.
        for address in ["%r0", "%r20", "%r21"] {
            let output = buffer(&memory, &[0xee_u8; 16 * 32]);
            let shift = size.trailing_zeros();
            let body = format!(
                "mul.lo.u32 %r20, %r0, 3;
                 and.b32 %r20, %r20, 31;
                 sub.u32 %r21, 31, %r0;
                 shl.b32 %r22, {address}, {shift};
                 cvt.u64.u32 %d20, %r22;
                 add.u64 %d21, %d0, %d20;
                 add.u64 %d22, %d1, %d20;
                 mov.u32 %r23, sv;
                 add.u32 %r23, %r23, %r22;
                 ld.global.{ty} {registers}, [%d21];
                 st.shared.{ty} [%r23], {registers};
                 ld.shared.{ty} {registers}, [%r23];
                 st.local.{ty} [lv+16], {registers};
                 ld.local.{ty} {registers}, [lv+16];
                 st.global.{ty} [%d22], {registers};"
            );
            clean(&memory, &body, &input, &output);
            let got: Vec<u8> = contents(&output);
            assert_eq!(got[..size * 32], bytes[..size * 32], "{ty} by {address}");
            assert!(got[size * 32..].iter().all(|&byte| byte == 0xee), "{ty}");
        }
    }
}

#[test]
fn guarded_lanes_neither_load_nor_store() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &(0..32).collect::<Vec<u32>>());
    for condition in [
        "lt.u32 %p1, %r0, 5",
        "ge.u32 %p1, %r0, 29",
        "eq.u32 %p1, %r9, 0",
    ] {
        let output = buffer(&memory, &[7_u32; 32]);
        let body = format!(
            "and.b32 %r9, %r0, 3;
             setp.{condition};
             mov.u32 %r10, 100;
             @%p1 ld.global.u32 %r10, [%d3];
             @%p1 st.global.u32 [%d4], %r10;"
        );
        clean(&memory, &body, &input, &output);
        let on = |lane: u32| match &condition[..2] {
            "lt" => lane < 5,
            "ge" => lane >= 29,
            _ => lane.is_multiple_of(4),
        };
        let want: Vec<u32> = (0..32)
            .map(|lane| if on(lane) { lane } else { 7 })
            .collect();
        assert_eq!(contents::<u32>(&output), want, "{condition}");
    }
}

#[test]
fn lanes_that_store_to_one_place_leave_the_last_one() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    let output = buffer(&memory, &[0_u32; 32]);
    // Relaxed: weak ones would race.
    clean(
        &memory,
        "st.relaxed.gpu.global.u32 [%d1], %r0;",
        &input,
        &output,
    );
    assert_eq!(contents::<u32>(&output)[0], 31);
}

#[test]
fn parameters_are_read_by_name_by_address_and_generically() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    let output = empty(&memory, 16 * 32);
    let body = "ld.param.v2.u32 {%r10, %r11}, [p2];
        mov.b64 %d10, p2;
        ld.param.s32 %d11, [%d10+8];
        cvta.param.u64 %d12, %d10;
        ld.u32 %r12, [%d12+12];
        ld.param.u8 %h0, [p2+11];
        add.u32 %r10, %r10, %r11;
        shr.u64 %d13, %d11, 32;
        cvt.u32.u64 %r13, %d13;
        cvt.u32.u16 %r14, %h0;
        st.global.v4.u32 [%d7], {%r10, %r13, %r12, %r14};";
    clean(&memory, body, &input, &output);
    let want = [STRUCT[0] + STRUCT[1], u32::MAX, STRUCT[3], 0x83];
    for lane in contents::<u32>(&output).chunks(4) {
        assert_eq!(lane, want);
    }
}

#[test]
fn calls_pass_structs_by_value() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &(0..32).collect::<Vec<u32>>());
    let output = empty(&memory, 4 * 32);
    let text = super::kernel(
        "ld.global.u32 %r10, [%d3];
         {
         .param .align 8 .b8 a[16];
         .param .b32 b;
         .param .b32 result;
         st.param.v2.b32 [a], {%r10, 5};
         st.param.b64 [a+8], %d2;
         st.param.b32 [b], %r0;
         call.uni (result), combine, (a, b);
         ld.param.b32 %r11, [result];
         }
         st.global.u32 [%d4], %r11;",
    );
    let function = ".func (.param .b32 out) combine(.param .align 8 .b8 x[16], .param .b32 y)
{
.reg .b32 %r<8>;
.reg .b64 %d<4>;
ld.param.v2.u32 {%r0, %r1}, [x];
mov.b64 %d0, x;
ld.param.u64 %d1, [%d0+8];
cvta.param.u64 %d2, %d0;
ld.u32 %r5, [%d2+4];
cvt.u32.u64 %r2, %d1;
ld.param.u32 %r3, [y];
mad.lo.u32 %r4, %r0, %r1, %r2;
add.u32 %r4, %r4, %r3;
add.u32 %r4, %r4, %r5;
st.param.b32 [out], %r4;
ret;
}
.visible .entry";
    let text = text.replacen(".visible .entry", function, 1);
    let (reports, _) = crate::exec::testing::run(
        &text,
        "k",
        1,
        32,
        &super::arguments(&input, &output),
        &memory,
        crate::machine::Checks::default(),
    );
    assert_eq!(reports, []);
    let want: Vec<u32> = (0..32).map(|lane| lane * 5 + 4 * lane + lane + 5).collect();
    assert_eq!(contents::<u32>(&output), want);
}

#[test]
fn constants_and_module_variables_are_found() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    let output = empty(&memory, 16 * 32);
    let body = "and.b32 %r9, %r0, 3;
        mul.wide.u32 %d10, %r9, 4;
        mov.u64 %d11, cv;
        add.u64 %d11, %d11, %d10;
        ld.const.u32 %r10, [%d11];
        ld.const.u32 %r11, [cv+4];
        ld.global.u32 %r12, [gv+8];
        cvta.const.u64 %d12, %d11;
        ld.u32 %r13, [%d12];
        st.global.v4.u32 [%d7], {%r10, %r11, %r12, %r13};";
    clean(&memory, body, &input, &output);
    for (lane, got) in contents::<u32>(&output).chunks(4).enumerate() {
        let own = 10 * (lane as u32 % 4 + 1);
        assert_eq!(got, [own, 20, 3, own]);
    }
}

#[test]
fn hints_change_nothing() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &(0..32).collect::<Vec<u32>>());
    for (load, store) in [
        ("ld.global.ca.u32 %r9, [%d3]", "st.global.wb.u32 [%d4], %r9"),
        ("ld.global.cg.u32 %r9, [%d3]", "st.global.cg.u32 [%d4], %r9"),
        ("ld.global.cs.u32 %r9, [%d3]", "st.global.cs.u32 [%d4], %r9"),
        ("ld.global.lu.u32 %r9, [%d3]", "st.global.wt.u32 [%d4], %r9"),
        (
            "ld.global.cv.u32 %r9, [%d3]",
            "st.weak.global.u32 [%d4], %r9",
        ),
        (
            "ld.global.nc.u32 %r9, [%d3]",
            "st.global.L1::no_allocate.u32 [%d4], %r9",
        ),
        (
            "ld.weak.global.ca.nc.L2::128B.u32 %r9, [%d3]",
            "st.volatile.global.u32 [%d4], %r9",
        ),
        (
            "ld.global.nc.L1::no_allocate.L2::cache_hint.L2::256B.u32 %r9, [%d3], %d10",
            "st.global.L1::evict_last.L2::cache_hint.u32 [%d4], %r9, %d10",
        ),
        (
            "ldu.global.u32 %r9, [%d3]",
            "st.relaxed.gpu.global.u32 [%d4], %r9",
        ),
        (
            "ld.volatile.global.u32 %r9, [%d3]",
            "st.release.sys.global.u32 [%d4], %r9",
        ),
        (
            "ld.relaxed.cta.global.u32 %r9, [%d3]",
            "st.mmio.relaxed.sys.global.u32 [%d4], %r9",
        ),
        (
            "ld.acquire.cluster.global.u32 %r9, [%d3]",
            "st.u32 [%d4], %r9",
        ),
        (
            "ld.mmio.relaxed.sys.global.u32 %r9, [%d3]",
            "st.release.gpu.u32 [%d4], %r9",
        ),
    ] {
        let output = empty(&memory, 128);
        let body = format!(
            "createpolicy.fractional.L2::evict_last.b64 %d10, 0f3f800000;
             prefetch.global.L2 [%d3];
             prefetch.L1 [%d3];
             prefetchu.L1 [%d3];
             prefetch.global.L2::evict_last [%d0+4096];
             applypriority.global.L2::evict_normal [%d0], 128;
             createpolicy.range.global.L2::evict_first.L2::evict_unchanged.b64 %d11, [%d0], 64, 128;
             createpolicy.cvt.L2.b64 %d12, %d11;
             {load};
             {store};"
        );
        clean(&memory, &body, &input, &output);
        assert_eq!(
            contents::<u32>(&output),
            (0..32).collect::<Vec<u32>>(),
            "{load} {store}"
        );
    }
}
