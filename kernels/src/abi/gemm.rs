//! Parameter structs of the gemm kernels.
//!
//! Group e is rows `offsets[e]..offsets[e+1]` of the ragged operands. `rows` is only a bound: rows
//! at or behind `offsets[experts]` are neither read nor written. Strides count elements. A field
//! `*_vector` is 1 where every row starts at a multiple of 16 bytes.

use super::{Abi, DevicePtr, Struct, abi_struct};

/// Codes of element types; `tollgate/gemm/element.cuh` has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementCode;

impl ElementCode {
    /// f32.
    pub const F32: u32 = 0;
    /// f16.
    pub const F16: u32 = 1;
    /// bf16.
    pub const BF16: u32 = 2;
}

/// Codes of activations; `tollgate/activation.cuh` has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationCode;

impl ActivationCode {
    /// `max(v, 0)`.
    pub const RELU: u32 = 0;
    /// With the error function.
    pub const GELU: u32 = 1;
    /// With tanh.
    pub const GELU_TANH: u32 = 2;
    /// `v · sigmoid(v)`.
    pub const SILU: u32 = 3;
}

/// The tile of a block; `tollgate/gemm/tile.cuh` has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmTile;

impl GemmTile {
    /// Rows of a tile.
    pub const ROWS: u32 = 128;
    /// Columns of a tile; a gated up map's tile has half of them in either part.
    pub const COLS: u32 = 64;
}

abi_struct! {
    /// Parameters of `tg_m_grouped` (`D = A · B[e]ᵀ + bias[e]`, B `[E, cols, depth]`) and of
    /// `tg_m_grouped_transposed` (`D = A · B[e]`, B `[E, depth, cols]`).
    pub struct MGroupedParams {
        /// A `[rows, depth]`.
        pub a: DevicePtr = "const void*",
        /// B, contiguous.
        pub b: DevicePtr = "const void*",
        /// bias `[E, cols]` in B's type, or null.
        pub bias: DevicePtr = "const void*",
        /// D `[rows, cols]`.
        pub d: DevicePtr = "void*",
        /// `[E+1]`.
        pub offsets: DevicePtr = "const int32_t*",
        /// Where bad offsets are reported.
        pub status: DevicePtr = "StatusBlock*",
        /// From row to row of A.
        pub a_stride: u64 = "uint64_t",
        /// From row to row of D.
        pub d_stride: u64 = "uint64_t",
        /// Bound of M.
        pub rows: u32 = "uint32_t",
        /// E.
        pub experts: u32 = "uint32_t",
        /// Columns of D.
        pub cols: u32 = "uint32_t",
        /// Terms of a sum.
        pub depth: u32 = "uint32_t",
        /// Tiles of rows that the grid has for each strip of columns.
        pub row_tiles: u32 = "uint32_t",
        /// [`ElementCode`] of A.
        pub a_type: u32 = "uint32_t",
        /// [`ElementCode`] of B and bias.
        pub b_type: u32 = "uint32_t",
        /// [`ElementCode`] of D.
        pub d_type: u32 = "uint32_t",
        /// Whether A's rows are aligned.
        pub a_vector: u32 = "uint32_t",
        /// Whether B's rows are aligned.
        pub b_vector: u32 = "uint32_t",
        /// Whether D's rows are aligned.
        pub d_vector: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_k_grouped`: `W[e] (+)= Σ A[m, :]ᵀ · X[m, :]`.
    pub struct KGroupedParams {
        /// A `[rows, n]`.
        pub a: DevicePtr = "const void*",
        /// X `[rows, k]`.
        pub x: DevicePtr = "const void*",
        /// W `[E, n, k]`, contiguous.
        pub w: DevicePtr = "float*",
        /// `[E+1]`.
        pub offsets: DevicePtr = "const int32_t*",
        /// Where bad offsets are reported.
        pub status: DevicePtr = "StatusBlock*",
        /// From row to row of A.
        pub a_stride: u64 = "uint64_t",
        /// From row to row of X.
        pub x_stride: u64 = "uint64_t",
        /// Bound of M.
        pub rows: u32 = "uint32_t",
        /// E.
        pub experts: u32 = "uint32_t",
        /// Rows of each matrix of W.
        pub n: u32 = "uint32_t",
        /// Columns of each matrix of W.
        pub k: u32 = "uint32_t",
        /// Whether to add to W.
        pub accumulate: u32 = "uint32_t",
        /// [`ElementCode`] of A.
        pub a_type: u32 = "uint32_t",
        /// [`ElementCode`] of X.
        pub x_type: u32 = "uint32_t",
        /// Whether A's rows are aligned.
        pub a_vector: u32 = "uint32_t",
        /// Whether X's rows are aligned.
        pub x_vector: u32 = "uint32_t",
        /// Whether W's rows are aligned.
        pub w_vector: u32 = "uint32_t",
    }

    /// Parameters of `tg_column_sums`: `sums[e] (+)= Σ A[m, :]`.
    pub struct ColumnSumsParams {
        /// A `[rows, cols]`.
        pub a: DevicePtr = "const void*",
        /// `[E, cols]`.
        pub sums: DevicePtr = "float*",
        /// `[E+1]`.
        pub offsets: DevicePtr = "const int32_t*",
        /// Where bad offsets are reported.
        pub status: DevicePtr = "StatusBlock*",
        /// From row to row of A.
        pub a_stride: u64 = "uint64_t",
        /// Bound of M.
        pub rows: u32 = "uint32_t",
        /// E.
        pub experts: u32 = "uint32_t",
        /// Columns.
        pub cols: u32 = "uint32_t",
        /// Whether to add to the sums.
        pub accumulate: u32 = "uint32_t",
        /// [`ElementCode`] of A.
        pub a_type: u32 = "uint32_t",
        /// 0.
        pub reserved: u32 = "uint32_t",
    }

    /// Parameters of `tg_experts_up`: `pre = round(x · W_up[e]ᵀ + b_up[e])`, and `act` of it.
    pub struct ExpertsUpParams {
        /// x `[rows, hidden]`.
        pub x: DevicePtr = "const void*",
        /// W_up `[E, N1, hidden]`, N1 = I or 2·I.
        pub up: DevicePtr = "const void*",
        /// b_up `[E, N1]`, or null.
        pub up_bias: DevicePtr = "const void*",
        /// pre `[rows, N1]`.
        pub pre: DevicePtr = "void*",
        /// act `[rows, I]`.
        pub act: DevicePtr = "void*",
        /// `[E+1]`.
        pub offsets: DevicePtr = "const int32_t*",
        /// Where bad offsets are reported.
        pub status: DevicePtr = "StatusBlock*",
        /// From row to row of x.
        pub x_stride: u64 = "uint64_t",
        /// From row to row of pre.
        pub pre_stride: u64 = "uint64_t",
        /// From row to row of act.
        pub act_stride: u64 = "uint64_t",
        /// Bound of A.
        pub rows: u32 = "uint32_t",
        /// E.
        pub experts: u32 = "uint32_t",
        /// I.
        pub intermediate: u32 = "uint32_t",
        /// H.
        pub hidden: u32 = "uint32_t",
        /// Tiles of rows that the grid has for each strip of columns.
        pub row_tiles: u32 = "uint32_t",
        /// [`ElementCode`] of all tensors.
        pub element_type: u32 = "uint32_t",
        /// [`ActivationCode`].
        pub activation: u32 = "uint32_t",
        /// Whether N1 is 2·I.
        pub gated: u32 = "uint32_t",
        /// Whether x's rows are aligned.
        pub x_vector: u32 = "uint32_t",
        /// Whether W_up's rows are aligned.
        pub up_vector: u32 = "uint32_t",
        /// Whether the rows of pre are aligned, both parts.
        pub pre_vector: u32 = "uint32_t",
        /// Whether the rows of act are aligned.
        pub act_vector: u32 = "uint32_t",
    }

    /// Parameters of `tg_experts_down_backward`: `dact = dy · W_down[e]`, and `dpre` of it and pre.
    pub struct ExpertsDownBackwardParams {
        /// dy `[rows, hidden]`.
        pub dy: DevicePtr = "const void*",
        /// W_down `[E, hidden, I]`.
        pub down: DevicePtr = "const void*",
        /// pre `[rows, N1]`, N1 = I or 2·I.
        pub pre: DevicePtr = "const void*",
        /// dpre `[rows, N1]`.
        pub dpre: DevicePtr = "void*",
        /// `[E+1]`.
        pub offsets: DevicePtr = "const int32_t*",
        /// Where bad offsets are reported.
        pub status: DevicePtr = "StatusBlock*",
        /// From row to row of dy.
        pub dy_stride: u64 = "uint64_t",
        /// From row to row of pre.
        pub pre_stride: u64 = "uint64_t",
        /// From row to row of dpre.
        pub dpre_stride: u64 = "uint64_t",
        /// Bound of A.
        pub rows: u32 = "uint32_t",
        /// E.
        pub experts: u32 = "uint32_t",
        /// I.
        pub intermediate: u32 = "uint32_t",
        /// H.
        pub hidden: u32 = "uint32_t",
        /// Tiles of rows that the grid has for each strip of columns.
        pub row_tiles: u32 = "uint32_t",
        /// [`ElementCode`] of all tensors.
        pub element_type: u32 = "uint32_t",
        /// [`ActivationCode`].
        pub activation: u32 = "uint32_t",
        /// Whether N1 is 2·I.
        pub gated: u32 = "uint32_t",
        /// Whether dy's rows are aligned.
        pub dy_vector: u32 = "uint32_t",
        /// Whether W_down's rows are aligned.
        pub down_vector: u32 = "uint32_t",
        /// Whether the rows of pre are aligned, both parts.
        pub pre_vector: u32 = "uint32_t",
        /// Whether the rows of dpre are aligned, both parts.
        pub dpre_vector: u32 = "uint32_t",
    }
}

/// All of them, in the order of the header.
pub const STRUCTS: &[Struct] = &[
    MGroupedParams::STRUCT,
    KGroupedParams::STRUCT,
    ColumnSumsParams::STRUCT,
    ExpertsUpParams::STRUCT,
    ExpertsDownBackwardParams::STRUCT,
];
