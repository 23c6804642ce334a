//! What a warp has under way: copies, bulk groups, matrix products.

/// Asynchronous operations of a warp that it has not waited for.
#[derive(Default)]
pub struct AsyncState {
    /// Lanes whose bounded wait ended without success; taken by the instruction that waited.
    pub gave_up: u32,
    /// Lanes that are parked at an mbarrier.
    pub parked: u32,
    /// `cp.async`.
    pub copies: super::cp_async::Copies,
    /// Products of its warpgroup.
    pub wgmma: super::wgmma::WgmmaState,
}
