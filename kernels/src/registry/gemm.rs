//! The gemm kernels.

use super::{Kernel, Module};

/// Declares a module of one entry, with blocks of 256 threads.
macro_rules! gemm_kernel {
    ($(#[$doc:meta])* $kernel:ident, $module:ident, $name:literal) => {
        static $module: Module = Module {
            name: concat!("gemm/", $name),
            sm_80: include_str!(concat!("../../prebuilt/gemm/", $name, ".sm_80.ptx")),
            sm_90a: None,
        };

        $(#[$doc])*
        pub static $kernel: Kernel = Kernel {
            module: &$module,
            entry: concat!("tg_", $name),
            threads: 256,
            max_dynamic_shared: 0,
        };
    };
}

gemm_kernel! {
    /// Takes [`crate::abi::gemm::MGroupedParams`].
    M_GROUPED, M_GROUPED_MODULE, "m_grouped"
}
gemm_kernel! {
    /// Takes [`crate::abi::gemm::MGroupedParams`].
    M_GROUPED_TRANSPOSED, M_GROUPED_TRANSPOSED_MODULE, "m_grouped_transposed"
}
gemm_kernel! {
    /// Takes [`crate::abi::gemm::KGroupedParams`].
    K_GROUPED, K_GROUPED_MODULE, "k_grouped"
}
gemm_kernel! {
    /// Takes [`crate::abi::gemm::ColumnSumsParams`].
    COLUMN_SUMS, COLUMN_SUMS_MODULE, "column_sums"
}
gemm_kernel! {
    /// Takes [`crate::abi::gemm::ExpertsUpParams`].
    EXPERTS_UP, EXPERTS_UP_MODULE, "experts_up"
}
gemm_kernel! {
    /// Takes [`crate::abi::gemm::ExpertsDownBackwardParams`].
    EXPERTS_DOWN_BACKWARD, EXPERTS_DOWN_BACKWARD_MODULE, "experts_down_backward"
}

/// All modules of the family.
pub const MODULES: &[&Module] = &[
    &M_GROUPED_MODULE,
    &M_GROUPED_TRANSPOSED_MODULE,
    &K_GROUPED_MODULE,
    &COLUMN_SUMS_MODULE,
    &EXPERTS_UP_MODULE,
    &EXPERTS_DOWN_BACKWARD_MODULE,
];
