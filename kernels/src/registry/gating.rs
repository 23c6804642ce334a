//! The gating kernels.

use super::{Kernel, Module};

/// All modules of the family.
pub const MODULES: &[&Module] = &[&GATE, &GATE_GENERAL, &GATE_BACKWARD, &SOFTMAX];

/// Dynamic shared memory that every device since compute capability 8.0 has, beside 3 KiB of static.
const MOST_SHARED: u32 = 96 << 10;

/// `gating/gate.cu`.
pub static GATE: Module = Module {
    name: "gating/gate",
    sm_80: include_str!("../../prebuilt/gating/gate.sm_80.ptx"),
    sm_90a: None,
};

/// `gating/gate_general.cu`.
pub static GATE_GENERAL: Module = Module {
    name: "gating/gate_general",
    sm_80: include_str!("../../prebuilt/gating/gate_general.sm_80.ptx"),
    sm_90a: None,
};

const fn gate(entry: &'static str, threads: u32) -> Kernel {
    Kernel {
        module: &GATE,
        entry,
        threads,
        max_dynamic_shared: MOST_SHARED,
    }
}

/// Softmax, fixed k, up to 32 experts.
pub static GATE_E32: Kernel = gate("tg_gate_e32", 512);
/// Up to 64.
pub static GATE_E64: Kernel = gate("tg_gate_e64", 512);
/// Up to 128.
pub static GATE_E128: Kernel = gate("tg_gate_e128", 512);
/// Up to 256.
pub static GATE_E256: Kernel = gate("tg_gate_e256", 512);
/// Up to 512.
pub static GATE_E512: Kernel = gate("tg_gate_e512", 256);
/// Up to 1024.
pub static GATE_E1024: Kernel = gate("tg_gate_e1024", 256);

/// Every router with a gate, a warp a row.
pub static GATE_WARP: Kernel = Kernel {
    module: &GATE_GENERAL,
    entry: "tg_gate_warp",
    threads: 128,
    max_dynamic_shared: MOST_SHARED,
};

/// Every router with a gate, a block a row.
pub static GATE_BLOCK: Kernel = Kernel {
    module: &GATE_GENERAL,
    entry: "tg_gate_block",
    threads: 256,
    max_dynamic_shared: MOST_SHARED,
};

/// `gating/gate_backward.cu`.
pub static GATE_BACKWARD: Module = Module {
    name: "gating/gate_backward",
    sm_80: include_str!("../../prebuilt/gating/gate_backward.sm_80.ptx"),
    sm_90a: None,
};

/// The gate's backward pass, a warp a row.
pub static GATE_BACKWARD_WARP: Kernel = Kernel {
    module: &GATE_BACKWARD,
    entry: "tg_gate_backward_warp",
    threads: 128,
    max_dynamic_shared: MOST_SHARED,
};

/// The gate's backward pass, a block a row.
pub static GATE_BACKWARD_BLOCK: Kernel = Kernel {
    module: &GATE_BACKWARD,
    entry: "tg_gate_backward_block",
    threads: 256,
    max_dynamic_shared: MOST_SHARED,
};

/// The inverse of `kept`.
pub static GATE_POSITIONS: Kernel = Kernel {
    module: &GATE_BACKWARD,
    entry: "tg_gate_positions",
    threads: 256,
    max_dynamic_shared: 0,
};

/// `gating/softmax.cu`.
pub static SOFTMAX: Module = Module {
    name: "gating/softmax",
    sm_80: include_str!("../../prebuilt/gating/softmax.sm_80.ptx"),
    sm_90a: None,
};

const fn softmax(entry: &'static str, threads: u32) -> Kernel {
    Kernel {
        module: &SOFTMAX,
        entry,
        threads,
        max_dynamic_shared: 0,
    }
}

/// Softmax, a warp a row of up to 1024 columns.
pub static SOFTMAX_WARP: Kernel = softmax("tg_softmax_warp", 256);
/// Softmax, a block a row.
pub static SOFTMAX_BLOCK: Kernel = softmax("tg_softmax_block", 256);
/// Its backward pass, a warp a row of up to 1024 columns.
pub static SOFTMAX_BACKWARD_WARP: Kernel = softmax("tg_softmax_backward_warp", 128);
/// Its backward pass, a block a row.
pub static SOFTMAX_BACKWARD_BLOCK: Kernel = softmax("tg_softmax_backward_block", 256);
