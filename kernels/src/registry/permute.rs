//! The permute kernels.

use super::{Kernel, Module};

/// All modules of the family.
pub const MODULES: &[&Module] = &[&SORT, &COPY, &SUM, &GRADIENTS];

/// `permute/sort.cu`.
pub static SORT: Module = Module {
    name: "permute/sort",
    sm_80: include_str!("../../prebuilt/permute/sort.sm_80.ptx"),
    sm_90a: None,
};

/// `permute/copy.cu`.
pub static COPY: Module = Module {
    name: "permute/copy",
    sm_80: include_str!("../../prebuilt/permute/copy.sm_80.ptx"),
    sm_90a: None,
};

/// `permute/sum.cu`.
pub static SUM: Module = Module {
    name: "permute/sum",
    sm_80: include_str!("../../prebuilt/permute/sum.sm_80.ptx"),
    sm_90a: None,
};

/// `permute/gradients.cu`.
pub static GRADIENTS: Module = Module {
    name: "permute/gradients",
    sm_80: include_str!("../../prebuilt/permute/gradients.sm_80.ptx"),
    sm_90a: None,
};

const fn kernel(module: &'static Module, entry: &'static str, threads: u32) -> Kernel {
    Kernel {
        module,
        entry,
        threads,
        max_dynamic_shared: 0,
    }
}

/// Up to so many experts the sort counts in shared memory: `SHARED_EXPERTS` of the source.
pub const SORT_SHARED_EXPERTS: usize = 2048;
/// Tiles of a block of the sort, one a warp.
pub const SORT_TILES_PER_BLOCK: usize = 4;
/// Experts of a block of [`SORT_SCAN`].
pub const SORT_SCAN_EXPERTS: usize = 32;

/// Assignments of every tile and expert: up to [`SORT_SHARED_EXPERTS`] experts, and beyond.
pub static SORT_COUNT: [Kernel; 2] = [
    kernel(&SORT, "tg_sort_count", 128),
    kernel(&SORT, "tg_sort_count_many", 128),
];

/// Sums over the tiles.
pub static SORT_SCAN: Kernel = kernel(&SORT, "tg_sort_scan", 1024);

/// Offsets and maps: up to [`SORT_SHARED_EXPERTS`] experts, and beyond.
pub static SORT_ROWS: [Kernel; 2] = [
    kernel(&SORT, "tg_sort_rows", 128),
    kernel(&SORT, "tg_sort_rows_many", 128),
];

/// Warps of a block of the kernels that move rows.
pub const ROW_WARPS_PER_BLOCK: usize = 8;

/// Rows to their places, in pieces of 2, 4, 8 and 16 bytes.
pub static COPY_ROWS: [Kernel; 4] = [
    kernel(&COPY, "tg_copy_rows_2b", 256),
    kernel(&COPY, "tg_copy_rows_4b", 256),
    kernel(&COPY, "tg_copy_rows_8b", 256),
    kernel(&COPY, "tg_copy_rows_16b", 256),
];

/// Zeros into rows without a token, in pieces of 2, 4, 8 and 16 bytes.
pub static ZERO_ROWS: [Kernel; 4] = [
    kernel(&COPY, "tg_zero_rows_2b", 256),
    kernel(&COPY, "tg_zero_rows_4b", 256),
    kernel(&COPY, "tg_zero_rows_8b", 256),
    kernel(&COPY, "tg_zero_rows_16b", 256),
];

/// The forms of a kernel that computes on rows.
#[derive(Debug)]
pub struct RowKernels {
    /// Where all rows are aligned to 16 bytes: f32, f16, bf16.
    pub aligned: [Kernel; 3],
    /// Anywhere: f32, f16, bf16.
    pub unaligned: [Kernel; 3],
}

/// Sums of rows, from an addend or 0.
pub static SUM_ROWS: RowKernels = RowKernels {
    aligned: [
        kernel(&SUM, "tg_sum_rows_f32", 256),
        kernel(&SUM, "tg_sum_rows_f16", 256),
        kernel(&SUM, "tg_sum_rows_bf16", 256),
    ],
    unaligned: [
        kernel(&SUM, "tg_sum_rows_f32_unaligned", 256),
        kernel(&SUM, "tg_sum_rows_f16_unaligned", 256),
        kernel(&SUM, "tg_sum_rows_bf16_unaligned", 256),
    ],
};

/// Sums of rows by the routing weights.
pub static WEIGHTED_SUM_ROWS: RowKernels = RowKernels {
    aligned: [
        kernel(&SUM, "tg_weighted_sum_rows_f32", 256),
        kernel(&SUM, "tg_weighted_sum_rows_f16", 256),
        kernel(&SUM, "tg_weighted_sum_rows_bf16", 256),
    ],
    unaligned: [
        kernel(&SUM, "tg_weighted_sum_rows_f32_unaligned", 256),
        kernel(&SUM, "tg_weighted_sum_rows_f16_unaligned", 256),
        kernel(&SUM, "tg_weighted_sum_rows_bf16_unaligned", 256),
    ],
};

/// Tokens of a block of [`ROW_GRADIENTS`] at most.
pub const GRADIENTS_MAX_TOKENS: usize = 8;

/// Gradients of rows and routing weights.
pub static ROW_GRADIENTS: RowKernels = RowKernels {
    aligned: [
        kernel(&GRADIENTS, "tg_row_gradients_f32", 256),
        kernel(&GRADIENTS, "tg_row_gradients_f16", 256),
        kernel(&GRADIENTS, "tg_row_gradients_bf16", 256),
    ],
    unaligned: [
        kernel(&GRADIENTS, "tg_row_gradients_f32_unaligned", 256),
        kernel(&GRADIENTS, "tg_row_gradients_f16_unaligned", 256),
        kernel(&GRADIENTS, "tg_row_gradients_bf16_unaligned", 256),
    ],
};
