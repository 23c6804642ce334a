//! Scan, histograms, ranks, rows moved, the exchange between devices, the grid barrier.

use tollgate_vgpu::report::Kind::{
    Livelock, Misaligned, OutOfBounds, Race, Scope, UninitialisedRead, WarpRace, WrongMask,
};

use super::edit::{cut, swap};
use super::{Kernel, kernel, mutant};

pub(super) const KERNELS: &[Kernel] = &[
    kernel(
        "block_scan_u32",
        &[
            mutant(
                "no barrier behind the sums of the warps",
                Race,
                &[cut("bar.sync 0;", 1, 3)],
            ),
            mutant(
                "no barrier behind the scan of the sums",
                Race,
                &[cut("bar.sync 0;", 2, 3)],
            ),
            mutant(
                "no barrier before the next round",
                Race,
                &[cut("bar.sync 0;", 3, 3)],
            ),
            mutant(
                "half of the lanes in the mask",
                WrongMask,
                &[swap("mov.u32 %r38, -1;", 1, 1, "mov.u32 %r38, 65535;")],
            ),
            mutant(
                "no bound for the elements",
                OutOfBounds,
                &[swap("%p2, %r14, %r8;", 1, 1, "%p2, %r14, -1;")],
            ),
            mutant(
                "sums stored behind their array",
                OutOfBounds,
                &[swap("[%r10], %r79;", 1, 1, "[%r10+128], %r79;")],
            ),
        ],
    ),
    kernel(
        "histogram_shared",
        &[
            mutant(
                "no barrier behind the zeros",
                Race,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "no barrier before the sums are read",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "counts not set to zero",
                UninitialisedRead,
                &[cut("st.shared.u32 [%r18], %r19;", 1, 1)],
            ),
            mutant(
                "keys without a bound",
                OutOfBounds,
                &[cut("@%p4 bra $L__BB0_7;", 1, 1)],
            ),
            mutant(
                "block scope between blocks",
                Scope,
                &[swap("red.relaxed.gpu", 1, 1, "red.relaxed.cta")],
            ),
            mutant(
                "a sum that is not atomic",
                Race,
                &[swap(
                    "atom.shared.add.u32 %r25, [%r24], 1;",
                    1,
                    1,
                    "ld.shared.u32 %r25, [%r24]; add.u32 %r25, %r25, 1; st.shared.u32 [%r24], %r25;",
                )],
            ),
        ],
    ),
    kernel(
        "histogram_match",
        &[
            mutant(
                "half of the lanes in the mask",
                WrongMask,
                &[swap("%r9, %r23, %r17;", 1, 1, "%r9, %r23, 65535;")],
            ),
            mutant(
                "keys without a bound",
                OutOfBounds,
                &[cut("@%p3 bra $L__BB1_7;", 1, 1)],
            ),
        ],
    ),
    kernel(
        "stable_ranks",
        &[
            mutant(
                "no barrier behind the zeros",
                Race,
                &[cut("bar.sync 0;", 1, 4)],
            ),
            mutant(
                "no barrier behind the counts of the warps",
                Race,
                &[cut("bar.sync 0;", 2, 4)],
            ),
            mutant(
                "no barrier before the counts are cleared",
                Race,
                &[cut("bar.sync 0;", 3, 4)],
            ),
            mutant(
                "no barrier before the next round",
                Race,
                &[cut("bar.sync 0;", 4, 4)],
            ),
            mutant(
                "counts of the last warp not set to zero",
                UninitialisedRead,
                &[swap("%r72, %r4, 1;", 1, 1, "%r72, %r4, 0;")],
            ),
        ],
    ),
    kernel(
        "gather_rows_16b",
        &[
            mutant(
                "the row that is none is read",
                OutOfBounds,
                &[cut("@%p3 bra $L__BB0_6;", 1, 1)],
            ),
            mutant(
                "one row too many",
                OutOfBounds,
                &[swap("setp.lt.u32 %p5,", 1, 1, "setp.le.u32 %p5,")],
            ),
            mutant(
                "pieces of 8 bytes at the destination",
                Misaligned,
                &[swap("%rd21, %rd20, 4;", 1, 1, "%rd21, %rd20, 3;")],
            ),
        ],
    ),
    kernel(
        "scatter_rows_16b",
        &[
            mutant(
                "the row that is none is written",
                OutOfBounds,
                &[swap("%p4, %p2, %p3;", 1, 1, "%p4, %p3, %p3;")],
            ),
            mutant(
                "rows that overlap",
                Race,
                &[swap("%rd6, %rd14, %rd11;", 1, 1, "%rd6, %rd14, 20;")],
            ),
        ],
    ),
    kernel(
        "grid_barrier_stencil",
        &[
            mutant(
                "no block barrier before the arrival",
                Race,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "no block barrier behind the wait",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "an arrival that does not release",
                Race,
                &[swap("atom.add.release.gpu", 1, 1, "atom.add.relaxed.gpu")],
            ),
            mutant(
                "waits that do not acquire",
                Race,
                &[
                    swap("ld.acquire.gpu", 1, 2, "ld.relaxed.gpu"),
                    swap("ld.acquire.gpu", 1, 1, "ld.relaxed.gpu"),
                ],
            ),
            mutant(
                "arrivals of block scope",
                Scope,
                &[swap("atom.add.release.gpu", 1, 1, "atom.add.release.cta")],
            ),
            mutant(
                "a wait for one block instead of all",
                Race,
                &[swap("%r8, %r29, %r3;", 1, 1, "%r8, %r29, 1;")],
            ),
            mutant(
                "a wait for one block too many",
                Livelock,
                &[swap(
                    "mul.lo.s32 %r8, %r29, %r3;",
                    1,
                    1,
                    "mad.lo.s32 %r8, %r29, %r3, 1;",
                )],
            ),
        ],
    ),
    kernel(
        "all_to_all",
        &[
            mutant(
                "no barrier behind the wait for an empty slot",
                WarpRace,
                &[cut("bar.sync 0;", 1, 4)],
            ),
            mutant(
                "no barrier before the slot is full",
                Race,
                &[cut("bar.sync 0;", 2, 4)],
            ),
            mutant(
                "no barrier behind the wait for a full slot",
                WarpRace,
                &[cut("bar.sync 0;", 3, 4)],
            ),
            mutant(
                "no barrier before the slot is empty",
                Race,
                &[cut("bar.sync 0;", 4, 4)],
            ),
            mutant(
                "full without a release",
                Race,
                &[swap("st.release.sys", 1, 2, "st.relaxed.sys")],
            ),
            mutant(
                "empty without a release",
                Race,
                &[swap("st.release.sys", 2, 2, "st.relaxed.sys")],
            ),
            mutant(
                "empty without an acquire",
                Race,
                &[swap("ld.acquire.sys", 1, 2, "ld.relaxed.sys")],
            ),
            mutant(
                "full without an acquire",
                Race,
                &[swap("ld.acquire.sys", 2, 2, "ld.relaxed.sys")],
            ),
            mutant(
                "a release on this device alone",
                Scope,
                &[swap("st.release.sys", 1, 2, "st.release.gpu")],
            ),
            mutant(
                "an acquire on this device alone",
                Scope,
                &[swap("ld.acquire.sys", 2, 2, "ld.acquire.gpu")],
            ),
            mutant(
                "the epoch before is enough",
                Race,
                &[swap("%p12, %r61, -1;", 1, 1, "%p12, %r61, -2;")],
            ),
            mutant(
                "one piece too many",
                OutOfBounds,
                &[swap("setp.lt.u32 %p9,", 1, 1, "setp.le.u32 %p9,")],
            ),
        ],
    ),
];
