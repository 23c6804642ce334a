//! Clusters, bulk copies, tensor copies and dependent launches.

use tollgate_vgpu::report::Kind::{
    AsyncHazard, BarrierObject, Deadlock, Misaligned, OutOfBounds, ProxyFence, Race,
    TransactionCount,
};

use super::edit::{cut, swap};
use super::{Kernel, kernel, mutant};

pub(super) const KERNELS: &[Kernel] = &[
    kernel(
        "cluster_sum_dsmem",
        &[
            mutant(
                "no block barrier behind the sums of the warps",
                Race,
                &[cut("bar.sync 0;", 1, 1)],
            ),
            mutant(
                "no cluster barrier before the parts are read",
                Race,
                &[
                    cut("barrier.cluster.arrive", 1, 2),
                    cut("barrier.cluster.wait", 1, 2),
                ],
            ),
            mutant(
                "no cluster barrier before the next row",
                Race,
                &[
                    cut("barrier.cluster.arrive", 2, 2),
                    cut("barrier.cluster.wait", 2, 2),
                ],
            ),
            mutant(
                "a cluster barrier that does not release",
                Race,
                &[swap(
                    "cluster.arrive.release",
                    1,
                    2,
                    "cluster.arrive.relaxed",
                )],
            ),
            mutant(
                "a block behind the last of the cluster",
                OutOfBounds,
                &[swap("mov.u32 %r51, 3;", 1, 1, "mov.u32 %r51, 4;")],
            ),
        ],
    ),
    kernel(
        "cluster_sum_remote_arrive",
        &[
            mutant(
                "an arrival that does not release",
                Race,
                &[swap(
                    "arrive.release.cluster.shared",
                    1,
                    1,
                    "arrive.relaxed.cluster.shared",
                )],
            ),
            mutant(
                "a wait that does not acquire",
                Race,
                &[swap(
                    "parity.acquire.cluster",
                    1,
                    1,
                    "parity.relaxed.cluster",
                )],
            ),
            mutant(
                "one arrival less is enough",
                Race,
                &[swap("mov.u32 %r17, 4;", 1, 1, "mov.u32 %r17, 3;")],
            ),
            mutant(
                "one arrival more than there are",
                Deadlock,
                &[swap("mov.u32 %r17, 4;", 1, 1, "mov.u32 %r17, 5;")],
            ),
            mutant(
                "no cluster barrier behind the initialisation",
                BarrierObject,
                &[
                    cut("barrier.cluster.arrive", 1, 2),
                    cut("barrier.cluster.wait", 1, 2),
                ],
            ),
        ],
    ),
    kernel(
        "cluster_sum_st_async",
        &[
            mutant(
                "the bytes of three blocks expected",
                TransactionCount,
                &[swap("mov.u32 %r43, 16;", 1, 1, "mov.u32 %r43, 12;")],
            ),
            mutant(
                "the bytes of five blocks expected",
                TransactionCount,
                &[swap("mov.u32 %r43, 16;", 1, 1, "mov.u32 %r43, 20;")],
            ),
            mutant(
                "no cluster barrier before the next row",
                Race,
                &[
                    cut("barrier.cluster.arrive", 2, 2),
                    cut("barrier.cluster.wait", 2, 2),
                ],
            ),
            mutant(
                "no wait for the parts",
                Race,
                &[cut("@%p17 bra $L__BB2_13;", 1, 1)],
            ),
        ],
    ),
    kernel(
        "bulk_copy",
        &[
            mutant(
                "an initialisation that copies do not see",
                ProxyFence,
                &[cut("fence.proxy.async.shared::cta;", 1, 2)],
            ),
            mutant(
                "words that the copy out does not see",
                ProxyFence,
                &[cut("fence.proxy.async.shared::cta;", 2, 2)],
            ),
            mutant(
                "no wait before a slot is filled again",
                Race,
                &[cut("cp.async.bulk.wait_group.read 0;", 1, 1)],
            ),
            mutant(
                "copies out that are not committed",
                Race,
                &[cut("cp.async.bulk.commit_group;", 1, 1)],
            ),
            mutant(
                "no barrier behind the initialisation",
                BarrierObject,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "no barrier before the copy out",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "no wait for the bytes",
                Race,
                &[cut("@%p9 bra $L__BB0_9;", 1, 1)],
            ),
            mutant(
                "the parity of the first phase for all",
                Race,
                &[cut("xor.b32 %r74, %r74, %r75;", 1, 1)],
            ),
            mutant(
                "16 bytes less expected",
                TransactionCount,
                &[swap(
                    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r34], %r33;",
                    1,
                    1,
                    "add.s32 %r16, %r33, -16; \
                     mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r34], %r16;",
                )],
            ),
            mutant(
                "16 bytes more expected",
                TransactionCount,
                &[swap(
                    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r34], %r33;",
                    1,
                    1,
                    "add.s32 %r16, %r33, 16; \
                     mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r34], %r16;",
                )],
            ),
            mutant(
                "a copy of 8 bytes",
                Misaligned,
                &[swap("%r33, %r37, 4;", 1, 1, "%r33, %r37, 3;")],
            ),
            mutant(
                "whole slots behind the end",
                OutOfBounds,
                &[swap("min.u32 %r37, %r36, 128;", 1, 1, "mov.u32 %r37, 128;")],
            ),
            mutant(
                "the end before the last copy out",
                AsyncHazard,
                &[cut("cp.async.bulk.wait_group 0;", 1, 1)],
            ),
        ],
    ),
    kernel(
        "tma_copy_3d",
        &[
            mutant(
                "words that the copy out does not see",
                ProxyFence,
                &[cut("fence.proxy.async.shared::cta;", 2, 2)],
            ),
            mutant(
                "no barrier before the copy out",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "no wait for the box",
                Race,
                &[cut("@%p3 bra $L__BB2_5;", 1, 1)],
            ),
            mutant(
                "16 bytes less expected",
                TransactionCount,
                &[swap(
                    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r9], %r10;",
                    1,
                    1,
                    "add.s32 %r10, %r10, -16; \
                     mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r9], %r10;",
                )],
            ),
            mutant(
                "a box that is not aligned to 128 bytes",
                Misaligned,
                &[swap(
                    "mov.u32 %r11, tile;",
                    1,
                    1,
                    "mov.u32 %r11, tile; add.s32 %r11, %r11, -16;",
                )],
            ),
            mutant(
                "the end before the copy out",
                AsyncHazard,
                &[cut("cp.async.bulk.wait_group 0;", 1, 1)],
            ),
        ],
    ),
    kernel(
        "tma_reduce_add_2d",
        &[mutant(
            "no wait for the box",
            Race,
            &[cut("@%p3 bra $L__BB5_4;", 1, 1)],
        )],
    ),
    Kernel {
        case: "dependent_first",
        entry: "dependent_second",
        mutants: &[
            mutant(
                "no wait for the first grid",
                Race,
                &[cut("griddepcontrol.wait;", 1, 1)],
            ),
            mutant(
                "elements behind the end",
                OutOfBounds,
                &[swap("not.b32 %r10, %r1;", 1, 1, "mov.b32 %r10, %r1;")],
            ),
        ],
    },
];
