//! Values of `CUdevice_attribute`.

use std::ffi::c_int;

use tollgate_vgpu::machine::{Arch, SHARED_PER_BLOCK, THREADS_PER_BLOCK};

/// Blocks of a grid along each dimension at most.
pub(super) const GRID: [c_int; 3] = [0x7fff_ffff, 65_535, 65_535];
/// kHz: virtual time counts one warp instruction a nanosecond.
const CLOCK: c_int = 1_000_000;
/// Bytes of L2 that programs are told of; no cache is modelled.
const L2: c_int = 50 << 20;

/// The value of attribute `which` of `device`; `None` for a number that is none.
///
/// What is not modelled is answered with 0, which for these attributes means that it is absent.
pub(super) fn attribute(which: u32, device: u32, arch: &Arch) -> Option<c_int> {
    let clusters = c_int::from(arch.cluster_blocks > 0);
    Some(match which {
        1..=3 => THREADS_PER_BLOCK as c_int,
        4 => 64,
        5..=7 => GRID[which as usize - 5],
        // Shared memory, constant memory.
        8 => SHARED_PER_BLOCK as c_int,
        9 => 65_536,
        // Warp, pitch, registers.
        10 => 32,
        11 => 0x7fff_ffff,
        12 | 82 => arch.registers_per_sm as c_int,
        13 | 36 => CLOCK,
        // Alignment of textures, surfaces and pitch.
        14 | 30 => 512,
        51 => 32,
        // Overlap of copies and kernels.
        15 => 1,
        16 => arch.multiprocessors as c_int,
        // Mapped host memory; concurrent kernels; unified addresses; stream priorities.
        19 | 31 | 41 | 78 => 1,
        33 => device as c_int + 1,
        // Width of the memory bus in bits, copy engines.
        37 => 5_120,
        38 => L2,
        39 => arch.threads_per_sm as c_int,
        40 => 2,
        75 => arch.capability.0 as c_int,
        76 => arch.capability.1 as c_int,
        // Caches of global and local memory.
        79 | 80 => 1,
        81 => arch.shared_per_sm as c_int,
        // Managed memory, as plain memory of the host that kernels use.
        83 => 1,
        // Ratio of single to double precision.
        87 => 2,
        // Host pointers of registered memory, wait and write values in streams, cooperative launch.
        91..=95 | 99 | 101 | 122 | 123 => 1,
        97 => arch.shared_per_block_optin as c_int,
        106 => arch.blocks_per_sm as c_int,
        111 => arch.shared_reserved as c_int,
        // Read-only registration, memory pools.
        113 | 115 => 1,
        120 => clusters,
        // Domains of memory synchronisation; tensor maps; NUMA nodes.
        126 => 1,
        127 => clusters,
        131 | 134 => -1,
        17..=148 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_architecture() {
        let of = |which, arch| attribute(which, 1, arch);
        assert_eq!(of(75, &Arch::SM_80), Some(8));
        assert_eq!(of(97, &Arch::SM_90A), Some(227 * 1024));
        assert_eq!(of(16, &Arch::SM_90A), Some(132));
        assert_eq!(
            (of(120, &Arch::SM_80), of(120, &Arch::SM_90A)),
            (Some(0), Some(1))
        );
        assert_eq!(of(33, &Arch::SM_80), Some(2));
        assert_eq!((of(0, &Arch::SM_80), of(200, &Arch::SM_80)), (None, None));
    }
}
