//! Where in training a forward pass stands: the counters that every random draw is made from.

/// The position of one forward pass of one layer. Two passes with equal contexts draw the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepContext {
    /// Key of the generator.
    pub seed: u64,
    /// Index of the MoE layer in the model.
    pub layer: u32,
    /// Training step.
    pub step: u32,
    /// Which of several passes over the same batch this is (THOR runs two); 0..=15.
    pub pass: u32,
    /// Global index of the first token, so that a token's draws do not depend on its neighbours.
    pub first_token: u32,
    /// Whether training-only behaviour is on: Gating Dropout, jitter, router noise.
    pub training: bool,
}

impl Default for StepContext {
    /// Seed 0, layer 0, step 0, pass 0, first token 0, training.
    fn default() -> Self {
        Self {
            seed: 0,
            layer: 0,
            step: 0,
            pass: 0,
            first_token: 0,
            training: true,
        }
    }
}

crate::named::named_enum! {
    /// What a step that Gating Dropout dropped does with its tokens (Liu et al., ICML 2022, §3).
    pub enum DropMode("gating-dropout mode") {
        /// Gate-Drop: every token stays on its rank and goes to a local expert.
        Gate = "gate",
        /// Gate-Expert-Drop: the experts are skipped as well; the layer's output is 0.
        GateExpert = "gate-expert",
    }
}
