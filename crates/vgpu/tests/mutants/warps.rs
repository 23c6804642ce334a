//! Work inside warps, tiles, rows to fp8, and what a compiler makes of plain code.

use tollgate_vgpu::report::Kind::{
    Misaligned, OutOfBounds, Race, UninitialisedRead, UninitialisedRegister, WarpRace, WrongMask,
};

use super::edit::{cut, swap};
use super::{Kernel, kernel, mutant};

pub(super) const KERNELS: &[Kernel] = &[
    kernel(
        "warp_exchange",
        &[
            mutant(
                "no warp barrier behind the first words",
                WarpRace,
                &[cut("bar.warp.sync -1;", 1, 4)],
            ),
            mutant(
                "no warp barrier before they are replaced",
                WarpRace,
                &[cut("bar.warp.sync -1;", 2, 4)],
            ),
            mutant(
                "no warp barrier behind the second words",
                WarpRace,
                &[cut("bar.warp.sync -1;", 3, 4)],
            ),
            mutant(
                "a warp barrier of one lane less",
                WrongMask,
                &[swap("bar.warp.sync -1;", 2, 4, "bar.warp.sync 0x7fffffff;")],
            ),
        ],
    ),
    kernel(
        "warp_divergent",
        &[
            mutant(
                "a mask that names lanes of the other branch",
                WrongMask,
                &[swap("1431655765", 1, 1, "-1")],
            ),
            mutant(
                "a mask that leaves out lane 0",
                WrongMask,
                &[swap("1431655765", 1, 1, "1431655764")],
            ),
        ],
    ),
    kernel(
        "warp_votes",
        &[
            mutant(
                "half of the lanes in the mask",
                WrongMask,
                &[swap("%r10, %p2, %r8;", 1, 1, "%r10, %p2, 65535;")],
            ),
            mutant(
                "no bound for the warps",
                OutOfBounds,
                &[cut("@%p1 bra $L__BB0_2;", 1, 1)],
            ),
        ],
    ),
    kernel(
        "softmax_topk_e128",
        &[
            mutant(
                "one lane less in the mask",
                WrongMask,
                &[swap("mov.u32 %r39, -1;", 1, 1, "mov.u32 %r39, 0x7fffffff;")],
            ),
            mutant(
                "no bound for the last experts",
                OutOfBounds,
                &[
                    cut("@%p14 bra $L__BB0_7;", 1, 1),
                    cut("@%p15 bra $L__BB0_9;", 1, 1),
                    cut("@%p16 bra $L__BB0_11;", 1, 1),
                ],
            ),
        ],
    ),
    kernel(
        "transpose_f32",
        &[
            mutant("no barrier", Race, &[cut("bar.sync 0;", 1, 1)]),
            mutant(
                "rows of two lengths in the tile",
                UninitialisedRead,
                &[swap("%r21, %r28, 132,", 1, 1, "%r21, %r28, 128,")],
            ),
            mutant(
                "a tile shifted by two bytes",
                Misaligned,
                &[swap("[%r23], %f1;", 1, 1, "[%r23+2], %f1;")],
            ),
            mutant(
                "either bound is enough",
                OutOfBounds,
                &[swap(
                    "or.pred %p9, %p8, %p7;",
                    1,
                    1,
                    "and.pred %p9, %p8, %p7;",
                )],
            ),
        ],
    ),
    kernel(
        "quantize_e4m3_f32",
        &[
            mutant(
                "no barrier behind the maxima",
                Race,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "no barrier before the next row",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "half of the lanes in the mask",
                WrongMask,
                &[swap("mov.u32 %r32, -1;", 1, 1, "mov.u32 %r32, 65535;")],
            ),
            mutant(
                "pairs from the odd element on",
                Misaligned,
                &[swap(
                    "{%f16, %f17}, [%rd15];",
                    1,
                    1,
                    "{%f16, %f17}, [%rd15+4];",
                )],
            ),
        ],
    ),
    kernel(
        "local_sort",
        &[
            mutant(
                "the word is not put in its place",
                UninitialisedRead,
                &[cut("st.local.u32 [%rd22], %r3;", 1, 1)],
            ),
            mutant(
                "a counter without a start",
                UninitialisedRegister,
                &[cut("mov.u32 %r23, 0;", 1, 1)],
            ),
            mutant(
                "words behind the local array",
                OutOfBounds,
                &[swap("%r19, [%rd24];", 1, 1, "%r19, [%rd24+64];")],
            ),
        ],
    ),
];
