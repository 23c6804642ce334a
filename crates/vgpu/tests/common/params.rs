//! Parameters and geometry of a launch.

use tollgate_vgpu::host::LaunchConfig;

/// The parameter block: each value at the next multiple of its alignment.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<u8>);

impl Params {
    /// No parameter yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pointer or another 64-bit number.
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes(), 8)
    }

    /// A 32-bit number.
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes(), 4)
    }

    /// A count.
    pub fn len(self, value: usize) -> Self {
        self.u32(u32::try_from(value).expect("a small count"))
    }

    /// A struct.
    pub fn bytes(mut self, bytes: &[u8], align: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Zeros up to a multiple of `align`: the end of a struct.
    pub fn pad_to(mut self, align: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self
    }

    /// All of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A plain launch in one dimension.
pub fn launch(grid: usize, block: usize, dynamic_shared: usize) -> LaunchConfig {
    LaunchConfig {
        dynamic_shared: dynamic_shared as u32,
        ..LaunchConfig::new([grid as u32, 1, 1], [block as u32, 1, 1])
    }
}
