//! Products on the tensor cores.

use tollgate_vgpu::report::Kind::{
    AsyncHazard, BarrierObject, Descriptor, Misaligned, OutOfBounds, OverArrival, ProxyFence, Race,
    TransactionCount, UseAfterFree,
};

use super::edit::{cut, swap};
use super::{Kernel, kernel, mutant};

pub(super) const KERNELS: &[Kernel] = &[
    kernel(
        "gemm_grouped_nt_sm80",
        &[
            mutant(
                "a wait for the step before",
                Race,
                &[swap(
                    "cp.async.wait_group 1;",
                    1,
                    1,
                    "cp.async.wait_group 2;",
                )],
            ),
            mutant(
                "no barrier behind the wait",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "no barrier before the next tile",
                Race,
                &[cut("bar.sync 0;", 1, 2)],
            ),
            mutant(
                "steps that are not committed",
                Race,
                &[cut("cp.async.commit_group;", 2, 2)],
            ),
            mutant(
                "a fragment shifted by 8 bytes",
                Misaligned,
                &[swap("[%r484];", 1, 1, "[%r484+8];")],
            ),
            mutant(
                "rows of A without a bound",
                OutOfBounds,
                &[swap("%p1, %p21, %p20;", 1, 1, "%p1, %p20, %p20;")],
            ),
        ],
    ),
    kernel(
        "wgmma_relu_registers_sm90a",
        &[
            mutant(
                "registers written before without a fence",
                AsyncHazard,
                &[cut("wgmma.fence.sync.aligned;", 1, 1)],
            ),
            mutant(
                "a wait for the group before",
                AsyncHazard,
                &[swap(
                    "wgmma.wait_group.sync.aligned 0;",
                    1,
                    1,
                    "wgmma.wait_group.sync.aligned 1;",
                )],
            ),
            mutant(
                "products that are not committed",
                AsyncHazard,
                &[cut("wgmma.commit_group", 1, 1)],
            ),
            mutant(
                "no barrier before the next step",
                Race,
                &[cut("bar.sync 0;", 2, 2)],
            ),
            mutant(
                "no wait for the boxes",
                Race,
                &[cut("@%p4 bra $L__BB0_7;", 1, 1)],
            ),
            mutant(
                "B behind its place",
                Descriptor,
                &[swap("%r143, %r27, 8192;", 1, 1, "%r143, %r27, 16384;")],
            ),
            mutant(
                "the bytes of one box expected",
                TransactionCount,
                &[swap("mov.u32 %r41, 24576;", 1, 1, "mov.u32 %r41, 16384;")],
            ),
        ],
    ),
    kernel(
        "gemm_nt_sm90a",
        &[
            mutant(
                "an initialisation that copies do not see",
                ProxyFence,
                &[cut("fence.mbarrier_init.release.cluster;", 1, 1)],
            ),
            mutant(
                "a tile that the copy out does not see",
                ProxyFence,
                &[cut("fence.proxy.async.shared::cta;", 1, 1)],
            ),
            mutant(
                "no barrier before the copy out",
                Race,
                &[cut("bar.sync %r184, %r185;", 2, 2)],
            ),
            mutant(
                "no barrier before the tile is written again",
                Race,
                &[cut("bar.sync %r184, %r185;", 1, 2)],
            ),
            mutant(
                "no wait for the copy out before",
                Race,
                &[cut("cp.async.bulk.wait_group.read 0;", 1, 1)],
            ),
            mutant(
                "a slot freed before it is read",
                Race,
                &[swap(
                    "wgmma.wait_group.sync.aligned 1;",
                    1,
                    1,
                    "wgmma.wait_group.sync.aligned 2;",
                )],
            ),
            mutant(
                "accumulators read before the last product",
                AsyncHazard,
                &[swap(
                    "wgmma.wait_group.sync.aligned 0;",
                    1,
                    1,
                    "wgmma.wait_group.sync.aligned 1;",
                )],
            ),
            mutant(
                "accumulators of the tile before without a fence",
                AsyncHazard,
                &[cut("wgmma.fence.sync.aligned;", 1, 1)],
            ),
            mutant(
                "half of the bytes expected",
                TransactionCount,
                &[swap("mov.u32 %r260, 32768;", 1, 1, "mov.u32 %r260, 16384;")],
            ),
            mutant(
                "no wait for a full slot",
                Race,
                &[cut("@%p5 bra $L__BB0_8;", 1, 1)],
            ),
            mutant(
                "a warp that arrives for nine",
                OverArrival,
                &[swap("_, [%r92];", 1, 1, "_, [%r92], 9;")],
            ),
            mutant(
                "half of the warps free a slot",
                Race,
                &[swap("mov.u32 %r59, 8;", 1, 1, "mov.u32 %r59, 4;")],
            ),
            mutant(
                "the end before the last copy out",
                AsyncHazard,
                &[cut("cp.async.bulk.wait_group 0;", 1, 1)],
            ),
            mutant(
                "a fragment shifted by 8 bytes",
                Misaligned,
                &[swap("[%r116],", 1, 1, "[%r116+8],")],
            ),
        ],
    ),
    kernel(
        "gemm_nt_cluster2_sm90a",
        &[
            mutant(
                "no cluster barrier behind the initialisation",
                BarrierObject,
                &[
                    cut("barrier.cluster.arrive", 1, 2),
                    swap("barrier.cluster.wait.acquire.aligned;", 1, 2, "bar.sync 0;"),
                ],
            ),
            mutant(
                "slots freed by this block alone",
                Race,
                &[swap("mov.u32 %r63, 16;", 1, 1, "mov.u32 %r63, 8;")],
            ),
            mutant(
                "a block that ends before the other arrives",
                UseAfterFree,
                &[
                    cut("barrier.cluster.arrive", 2, 2),
                    cut("barrier.cluster.wait", 2, 2),
                ],
            ),
            mutant(
                "an arrival that does not release",
                Race,
                &[swap(
                    "arrive.release.cluster.shared",
                    1,
                    2,
                    "arrive.relaxed.cluster.shared",
                )],
            ),
            mutant(
                "a block that the cluster does not have",
                Descriptor,
                &[swap("mov.u16 %rs1, 3;", 1, 1, "mov.u16 %rs1, 7;")],
            ),
        ],
    ),
];
