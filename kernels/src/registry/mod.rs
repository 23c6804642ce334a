//! Which kernels there are: module, entry, block size.

pub mod gating;
pub mod gemm;
pub mod permute;
pub mod selection;

/// A compiled module: one source file.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// `family/name`, as its source is called.
    pub name: &'static str,
    /// PTX for compute_80 and everything later.
    pub sm_80: &'static str,
    /// PTX for compute_90a, where that differs.
    pub sm_90a: Option<&'static str>,
}

impl Module {
    /// The PTX for a device of this compute capability (major, minor). What is compiled for 90a runs on
    /// 9.0 alone.
    pub fn image(&self, capability: (u32, u32)) -> &'static str {
        let hopper = self.sm_90a.filter(|_| capability == (9, 0));
        hopper.unwrap_or(self.sm_80)
    }
}

/// An entry of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The module that holds it.
    pub module: &'static Module,
    /// The name of its entry.
    pub entry: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory that a launch may ask for at most, in bytes.
    pub max_dynamic_shared: u32,
}

/// All modules, by family and name.
pub const MODULES: &[&[&Module]] = &[
    gating::MODULES,
    selection::MODULES,
    permute::MODULES,
    gemm::MODULES,
];
