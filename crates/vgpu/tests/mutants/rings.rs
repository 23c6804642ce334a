//! Rings in shared memory by `cp.async`, mbarriers and named barriers.

use tollgate_vgpu::report::Kind::{
    BarrierObject, Deadlock, DivergentBarrier, Livelock, OutOfBounds, Race, WrongMask,
};

use super::edit::{before, cut, swap};
use super::{Kernel, kernel, mutant};

pub(super) const KERNELS: &[Kernel] = &[
    kernel(
        "vector_add_groups",
        &[
            mutant(
                "no wait for the group",
                Race,
                &[cut("cp.async.wait_group 1;", 1, 1)],
            ),
            mutant(
                "a wait for the group before",
                Race,
                &[swap(
                    "cp.async.wait_group 1;",
                    1,
                    1,
                    "cp.async.wait_group 2;",
                )],
            ),
            mutant(
                "groups that are not committed",
                Race,
                &[cut("cp.async.commit_group;", 2, 2)],
            ),
            mutant(
                "no bound for the elements",
                OutOfBounds,
                &[
                    swap("%r29, %r28, 0, %p8;", 1, 1, "%r29, %r28, %r28, %p8;"),
                    swap("%r26, 4, 0, %p8;", 1, 1, "%r26, 4, 4, %p8;"),
                ],
            ),
        ],
    ),
    kernel(
        "vector_add_mbarrier",
        &[
            mutant(
                "one arrival less is enough",
                Race,
                &[swap("mov.u32 %r25, 128;", 1, 1, "mov.u32 %r25, 127;")],
            ),
            mutant(
                "one arrival more than there are",
                Livelock,
                &[swap("mov.u32 %r25, 128;", 1, 1, "mov.u32 %r25, 129;")],
            ),
            mutant(
                "an arrival that does not wait for the copies",
                Race,
                &[swap(
                    "cp.async.mbarrier.arrive.noinc.shared.b64 [%r44];",
                    1,
                    1,
                    "mbarrier.arrive.shared.b64 _, [%r44];",
                )],
            ),
            mutant(
                "an arrival that counts itself twice",
                Livelock,
                &[swap("arrive.noinc.shared", 1, 1, "arrive.shared")],
            ),
            mutant(
                "no wait for a full slot",
                Race,
                &[cut("@%p8 bra $L__BB1_13;", 1, 1)],
            ),
            mutant(
                "no wait for an empty slot",
                Race,
                &[cut("@%p5 bra $L__BB1_9;", 1, 1)],
            ),
            mutant(
                "the parity of the first phase for all",
                Race,
                &[swap("%r13, %r57, 1;", 1, 1, "%r13, %r57, 0;")],
            ),
            mutant(
                "a slot freed before it is read",
                Race,
                &[
                    cut("mbarrier.arrive.shared.b64 _, [%r73];", 1, 1),
                    before(
                        "mad.lo.s32 %r66,",
                        1,
                        1,
                        "shl.b32 %r74, %r12, 3; mov.u32 %r75, _ZZ19vector_add_mbarrierE5empty; \
                         add.s32 %r73, %r75, %r74; mbarrier.arrive.shared.b64 _, [%r73];",
                    ),
                ],
            ),
            mutant(
                "no barrier behind the initialisation",
                BarrierObject,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "no barrier before the end of the mbarriers",
                BarrierObject,
                &[cut("bar.sync 0;", 2, 2)],
            ),
        ],
    ),
    kernel(
        "named_barrier_sums",
        &[
            mutant(
                "half of the threads expected",
                DivergentBarrier,
                &[swap("mov.u32 %r119, 128;", 1, 1, "mov.u32 %r119, 64;")],
            ),
            mutant(
                "the first slot is never full",
                Deadlock,
                &[cut("bar.arrive %r112, %r113;", 1, 1)],
            ),
            mutant(
                "no wait for the second slot",
                Race,
                &[cut("bar.sync %r69, %r64;", 1, 1)],
            ),
            mutant(
                "a slot full before it is written",
                Race,
                &[
                    cut("bar.arrive %r112, %r113;", 1, 1),
                    before(
                        "st.shared.u32 [%r34], %r116;",
                        1,
                        1,
                        "mov.u32 %r112, 1; mov.u32 %r113, 128; bar.arrive %r112, %r113;",
                    ),
                ],
            ),
            mutant(
                "a slot freed before it is read",
                Race,
                &[
                    cut("bar.arrive %r67, %r64;", 1, 1),
                    before(
                        "ld.shared.u32 %r65, [%r8];",
                        1,
                        1,
                        "mov.u32 %r67, 3; bar.arrive %r67, %r64;",
                    ),
                ],
            ),
            mutant(
                "no barrier between the last two sums",
                Race,
                &[cut("bar.sync %r105, %r106;", 1, 1)],
            ),
            mutant(
                "half of the lanes in the mask",
                WrongMask,
                &[swap("mov.u32 %r98, -1;", 1, 1, "mov.u32 %r98, 65535;")],
            ),
        ],
    ),
];
