//! Parameter structs of the permute kernels.

use super::{Abi, DevicePtr, Struct, abi_struct};

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[
    SortParams::STRUCT,
    CopyRowsParams::STRUCT,
    ZeroRowsParams::STRUCT,
    SumRowsParams::STRUCT,
    RowGradientsParams::STRUCT,
];

abi_struct! {
    /// Parameters of `tg_sort_count`, `tg_sort_scan` and `tg_sort_rows`: from a routing table to
    /// its maps. T tokens, E experts, A assignments, R rows; A and R are bounds here.
    pub struct SortParams {
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]`.
        pub expert_indices: DevicePtr = "const int32_t*",
        /// `[E+1]` of the table: compared with what is counted.
        pub table_expert_offsets: DevicePtr = "const int32_t*",
        /// `[A]`, written.
        pub row_of_assignment: DevicePtr = "int32_t*",
        /// `[R]`, written.
        pub assignment_of_row: DevicePtr = "int32_t*",
        /// `[R]`, written.
        pub token_of_row: DevicePtr = "int32_t*",
        /// `[E+1]`, written.
        pub expert_offsets: DevicePtr = "int32_t*",
        /// `[num_tiles, E]` of the workspace: assignments of every tile and expert, then those of
        /// the tiles before.
        pub counts: DevicePtr = "uint32_t*",
        /// `[E]` of the workspace.
        pub totals: DevicePtr = "uint32_t*",
        /// Raised for bad offsets and indices.
        pub status: DevicePtr = "StatusBlock*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// E.
        pub num_experts: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// The bound of R.
        pub max_rows: u32 = "uint32_t",
        /// A multiple of 32.
        pub tokens_per_tile: u32 = "uint32_t",
        /// `ceil(T / tokens_per_tile)`.
        pub num_tiles: u32 = "uint32_t",
        /// An expert's rows start at a multiple of this.
        pub row_alignment: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_copy_rows_*`: the tokens' rows to their places. In pieces of 2, 4, 8 or 16
    /// bytes, as the entry says.
    pub struct CopyRowsParams {
        /// `[T, H]`.
        pub x: DevicePtr = "const void*",
        /// `[R, H]`, written.
        pub rows: DevicePtr = "void*",
        /// Bytes from row to row of x.
        pub x_stride: u64 = "uint64_t",
        /// Bytes from row to row of the rows.
        pub rows_stride: u64 = "uint64_t",
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]`.
        pub row_of_assignment: DevicePtr = "const int32_t*",
        /// Raised for bad offsets and map entries.
        pub status: DevicePtr = "StatusBlock*",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// The bound of R.
        pub max_rows: u32 = "uint32_t",
        /// Lines of 32 pieces that a warp copies of its token.
        pub lines_per_warp: u32 = "uint32_t",
        /// Pieces of a row.
        pub pieces: u64 = "uint64_t",
    }

    /// Parameters of `tg_zero_rows_*`: zeros into the rows that belong to no token.
    pub struct ZeroRowsParams {
        /// `[R, H]`, written.
        pub rows: DevicePtr = "void*",
        /// Bytes from row to row.
        pub rows_stride: u64 = "uint64_t",
        /// `[R]`, negative where a row belongs to no token.
        pub token_of_row: DevicePtr = "const int32_t*",
        /// Where the rows of the experts end: only those before are looked at. Null: all are.
        pub rows_end: DevicePtr = "const int32_t*",
        /// Pieces of a row.
        pub pieces: u64 = "uint64_t",
        /// The bound of R.
        pub max_rows: u32 = "uint32_t",
        /// Lines of 32 pieces that a warp writes of a row.
        pub lines_per_warp: u32 = "uint32_t",
    }

    /// Parameters of `tg_sum_rows_*` and `tg_weighted_sum_rows_*`: a token's rows added up.
    pub struct SumRowsParams {
        /// `[R, H]`.
        pub rows: DevicePtr = "const void*",
        /// `[T, H]`, written.
        pub y: DevicePtr = "void*",
        /// `[T, H]` f32 that the sums start from; null: from 0.
        pub addend: DevicePtr = "const float*",
        /// Elements from row to row of the rows.
        pub rows_stride: u64 = "uint64_t",
        /// Elements from row to row of y.
        pub y_stride: u64 = "uint64_t",
        /// Elements from row to row of the addend.
        pub addend_stride: u64 = "uint64_t",
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]`.
        pub row_of_assignment: DevicePtr = "const int32_t*",
        /// `[A]` what the rows are multiplied with, in the weighted kernels.
        pub weights: DevicePtr = "const float*",
        /// Raised for bad offsets and map entries.
        pub status: DevicePtr = "StatusBlock*",
        /// H.
        pub hidden: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// The bound of R.
        pub max_rows: u32 = "uint32_t",
        /// Lines that a warp sums of its token.
        pub lines_per_warp: u32 = "uint32_t",
    }

    /// Parameters of `tg_row_gradients_*`: the backward of the weighted sum.
    pub struct RowGradientsParams {
        /// `[T, H]`.
        pub dy: DevicePtr = "const void*",
        /// `[R, H]`.
        pub rows: DevicePtr = "const void*",
        /// `[R, H]`, written.
        pub drows: DevicePtr = "void*",
        /// `[A]`, written.
        pub dweights: DevicePtr = "float*",
        /// Elements from row to row of dy.
        pub dy_stride: u64 = "uint64_t",
        /// Elements from row to row of the rows.
        pub rows_stride: u64 = "uint64_t",
        /// Elements from row to row of drows.
        pub drows_stride: u64 = "uint64_t",
        /// `[T+1]`.
        pub token_offsets: DevicePtr = "const int32_t*",
        /// `[A]`.
        pub row_of_assignment: DevicePtr = "const int32_t*",
        /// `[A]`.
        pub weights: DevicePtr = "const float*",
        /// Raised for bad offsets and map entries.
        pub status: DevicePtr = "StatusBlock*",
        /// H.
        pub hidden: u64 = "uint64_t",
        /// T.
        pub num_tokens: u32 = "uint32_t",
        /// The bound of A.
        pub max_assignments: u32 = "uint32_t",
        /// The bound of R.
        pub max_rows: u32 = "uint32_t",
        /// Tokens of a block, 1 to 8.
        pub tokens_per_block: u32 = "uint32_t",
    }
}
