//! `wgmma` through PTX: products of every kind, and what its checks find.

mod checks;
mod products;

use std::fmt::Write;

use super::super::matrix::tests::{encode, small};
use super::super::testing::{Launch, Outcome, buffer, contents, empty, params};
use crate::layout::descriptor::{Major, MatrixDescriptor};
use crate::layout::elements::Element;
use crate::layout::legality::WgmmaForm;
use crate::layout::mma::Fragment;
use crate::layout::swizzle::Swizzle;
use crate::layout::wgmma::{fragment_a, fragment_d};
use crate::memory::Memory;

/// Bytes of shared memory for A, and for A and B.
const LEFT_BYTES: usize = 8 << 10;
const SHARED_BYTES: usize = 40 << 10;
/// Where it begins.
const BASE: u32 = crate::machine::SHARED_BASE;
const THREADS: usize = 128;

/// A product to try.
#[derive(Clone, Copy, Debug)]
struct Case {
    types: [Element; 3],
    n: u32,
    /// A from registers.
    registers: bool,
    major: [Major; 2],
    swizzle: [Swizzle; 2],
    negate: [bool; 2],
    accumulate: bool,
}

impl Case {
    fn new(types: [Element; 3], n: u32) -> Self {
        Self {
            types,
            n,
            registers: false,
            major: [Major::K; 2],
            swizzle: [Swizzle::B128; 2],
            negate: [false; 2],
            accumulate: true,
        }
    }

    fn form(&self) -> WgmmaForm {
        let [d, a, b] = self.types;
        WgmmaForm::new((64, self.n, 256 / a.bits()), d, a, b, 90, true).expect("a form")
    }

    /// Dense tiles of the layout that the descriptor names.
    fn descriptor(&self, side: usize) -> MatrixDescriptor {
        let swizzle = self.swizzle[side];
        let group = 8 * swizzle.span();
        let (leading, stride) = match (self.major[side], swizzle) {
            (_, Swizzle::None) => (128, 256),
            (Major::K, _) => (16, group),
            (Major::Mn, _) => (2 * group, group),
        };
        MatrixDescriptor {
            start: BASE + if side == 0 { 0 } else { LEFT_BYTES as u32 },
            leading,
            stride,
            base_offset: 0,
            swizzle,
        }
    }

    fn left(&self, row: u32, k: u32) -> i32 {
        small(self.types[1], (row * 5 + k * 3) as usize)
    }

    fn right(&self, k: u32, col: u32) -> i32 {
        small(self.types[2], (k * 11 + col * 4 + 1) as usize)
    }

    /// What is in the accumulator before.
    fn added(&self, row: u32, col: u32) -> i32 {
        (row * 3 + col) as i32 % 50 - 20
    }

    fn want(&self, row: u32, col: u32) -> i32 {
        let (_, _, k) = self.form().shape();
        let sum: i32 = (0..k).map(|k| self.left(row, k) * self.right(k, col)).sum();
        let sign = if self.negate[0] != self.negate[1] {
            -1
        } else {
            1
        };
        let start = if self.accumulate {
            self.added(row, col)
        } else {
            0
        };
        start + sign * sum
    }

    /// What shared memory holds.
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; SHARED_BYTES];
        let (m, n, k) = self.form().shape();
        for (side, extent) in [m, n].into_iter().enumerate() {
            let element = self.types[1 + side];
            let descriptor = self.descriptor(side);
            for mn in 0..extent {
                for k in 0..k {
                    let value = match side {
                        0 => self.left(mn, k),
                        _ => self.right(k, mn),
                    };
                    let at = descriptor.address(self.major[side], element, mn, k) - BASE;
                    let bytes = element.bits() as usize / 8;
                    let bits = encode(element, value).to_le_bytes();
                    image[at as usize..][..bytes].copy_from_slice(&bits[..bytes]);
                }
            }
        }
        image
    }

    fn text(&self) -> String {
        let form = self.form();
        let (_, n, k) = form.shape();
        let [d, a, b] = self.types;
        let ty = if d == Element::F32 { "f32" } else { "b32" };
        let count = fragment_d(form).registers();
        let list = |name: &str, count: u32| {
            let names: Vec<String> = (0..count).map(|i| format!("%{name}{i}")).collect();
            format!("{{{}}}", names.join(", "))
        };
        let mut text = format!(
            ".version 8.4\n.target sm_90a\n.address_size 64\n\
             .visible .entry k(.param .u64 image, .param .u64 acc, .param .u64 left, \
             .param .u64 out, .param .u64 da, .param .u64 db)\n{{\n\
             .shared .align 1024 .b8 tile[{SHARED_BYTES}];\n\
             .reg .b64 %rd<12>;\n.reg .b32 %t, %s, %i, %v<4>, %a<4>;\n.reg .pred %p, %q;\n\
             .reg .{ty} %d<{count}>;\n\
             ld.param.u64 %rd1, [image];\nld.param.u64 %rd2, [acc];\nld.param.u64 %rd3, [left];\n\
             ld.param.u64 %rd4, [out];\nld.param.u64 %rd5, [da];\nld.param.u64 %rd6, [db];\n\
             mov.u32 %t, %tid.x;\nmul.wide.u32 %rd7, %t, 16;\nadd.s64 %rd1, %rd1, %rd7;\n\
             mov.u32 %s, tile;\nmad.lo.u32 %s, %t, 16, %s;\nmov.u32 %i, 0;\n\
             FILL:\nld.global.v4.u32 {{%v0, %v1, %v2, %v3}}, [%rd1];\n\
             st.shared.v4.u32 [%s], {{%v0, %v1, %v2, %v3}};\n\
             add.s64 %rd1, %rd1, 2048;\nadd.u32 %s, %s, 2048;\nadd.u32 %i, %i, 2048;\n\
             setp.lt.u32 %p, %i, {SHARED_BYTES};\n@%p bra FILL;\n\
             fence.proxy.async.shared::cta;\nbar.sync 0;\n\
             mul.wide.u32 %rd7, %t, 4;\nadd.s64 %rd2, %rd2, %rd7;\nadd.s64 %rd3, %rd3, %rd7;\n\
             add.s64 %rd4, %rd4, %rd7;\n"
        );
        for register in 0..count {
            let at = register * 512;
            writeln!(text, "ld.global.{ty} %d{register}, [%rd2+{at}];").unwrap();
        }
        if self.registers {
            for register in 0..4 {
                writeln!(
                    text,
                    "ld.global.b32 %a{register}, [%rd3+{}];",
                    register * 512
                )
                .unwrap();
            }
        }
        writeln!(
            text,
            "setp.ne.u32 %q, %t, {};",
            if self.accumulate { 999 } else { 0 }
        )
        .unwrap();
        if !self.accumulate {
            text.push_str("setp.ne.u32 %q, %t, %t;\n");
        }
        let left = if self.registers {
            list("a", 4)
        } else {
            "%rd5".to_owned()
        };
        let mut switches = String::new();
        if d != Element::S32 {
            for negate in self.negate {
                switches.push_str(if negate { ", -1" } else { ", 1" });
            }
            if a.bits() == 16 {
                for major in &self.major[usize::from(self.registers)..] {
                    switches.push_str(if *major == Major::Mn { ", 1" } else { ", 0" });
                }
            }
        }
        writeln!(
            text,
            "wgmma.fence.sync.aligned;\n\
             wgmma.mma_async.sync.aligned.m64n{n}k{k}{d}{a}{b} {}, {left}, %rd6, %q{switches};\n\
             wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;",
            list("d", count)
        )
        .unwrap();
        for register in 0..count {
            let at = register * 512;
            writeln!(text, "st.global.{ty} [%rd4+{at}], %d{register};").unwrap();
        }
        text.push_str("ret;\n}\n");
        text
    }

    /// Registers of the whole warpgroup: 128 threads of each.
    fn spread(&self, fragment: &Fragment, at: impl Fn(u32, u32) -> i32) -> Vec<u32> {
        let mut values = Vec::new();
        for register in 0..fragment.registers() {
            for lane in 0..THREADS as u32 {
                let mut bits = 0;
                for sub in 0..fragment.subs() {
                    let (row, col) = fragment.place(lane, register, sub).expect("an element");
                    let value = encode(fragment.element(), at(row, col)) as u32;
                    bits |= value << (sub * fragment.element().bits() % 32);
                }
                values.push(bits);
            }
        }
        values
    }

    /// Runs a variant of [`Self::text`]; also returns the registers of D.
    fn run(&self, text: &str, change: impl FnOnce(&mut Launch<'_>)) -> (Outcome, Vec<u32>) {
        let memory = Memory::new(1, true);
        let form = self.form();
        let image = buffer(&memory, &self.image());
        let acc = buffer(
            &memory,
            &self.spread(&fragment_d(form), |row, col| self.added(row, col)),
        );
        let left = buffer(
            &memory,
            &self.spread(&fragment_a(form), |row, k| self.left(row, k)),
        );
        let out = empty(&memory, acc.bytes());
        let mut launch = Launch {
            threads: [THREADS as u32, 1, 1],
            ..Launch::new(&memory)
        };
        change(&mut launch);
        let [da, db] = [0, 1].map(|side| self.descriptor(side).encode());
        let at = [image.base(), acc.base(), left.base(), out.base(), da, db];
        let outcome = launch.run(text, "k", &params(&at));
        (outcome, contents(&out))
    }

    fn check(&self) {
        let (outcome, got) = self.run(&self.text(), |_| {});
        assert!(
            outcome.fault.is_none() && outcome.reports.is_empty(),
            "{self:?}: {outcome:?}"
        );
        let want = self.spread(&fragment_d(self.form()), |row, col| self.want(row, col));
        assert!(got == want, "{self:?}");
        let (m, n, k) = self.form().shape();
        assert_eq!(outcome.counters.tensor_flops, u64::from(2 * m * n * k));
    }
}
