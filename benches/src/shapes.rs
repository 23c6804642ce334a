//! The papers' shapes.

use tollgate::ExpertShape;
use tollgate::options::Activation;

use crate::harness::Scale;

/// A layer: tokens of a batch and sizes of the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// First part of benchmark names.
    pub name: &'static str,
    /// T.
    pub tokens: usize,
    /// Experts per token that the model is run with.
    pub k: usize,
    /// E, H, I and the form.
    pub experts: ExpertShape,
    /// The smallest scale at which the shape is run.
    scale: Scale,
}

const fn layer(
    name: &'static str,
    [tokens, k, experts, hidden, intermediate]: [usize; 5],
    activation: Activation,
    gated: bool,
    scale: Scale,
) -> LayerShape {
    LayerShape {
        name,
        tokens,
        k,
        experts: ExpertShape {
            experts,
            hidden,
            intermediate,
            activation,
            gated,
        },
        scale,
    }
}

/// BERT-base, GPT-2-medium and FSMT with 16 experts are the settings of the adaptive-gating paper;
/// the last two are a present-day model of many small experts, a batch of 512 tokens and one token.
const LAYERS: [LayerShape; 5] = [
    layer(
        "bert",
        [3072, 2, 16, 768, 3072],
        Activation::Gelu,
        false,
        Scale::Smoke,
    ),
    layer(
        "gpt2m",
        [4096, 2, 16, 1024, 4096],
        Activation::Gelu,
        false,
        Scale::Full,
    ),
    layer(
        "fsmt",
        [4096, 2, 16, 1024, 8192],
        Activation::Relu,
        false,
        Scale::Full,
    ),
    layer(
        "qwen512",
        [512, 8, 128, 2048, 768],
        Activation::Silu,
        true,
        Scale::Smoke,
    ),
    layer(
        "qwen1",
        [1, 8, 128, 2048, 768],
        Activation::Silu,
        true,
        Scale::Default,
    ),
];

/// The layers of a scale. The smoke scale keeps the form and shrinks every size.
pub fn layers(scale: Scale) -> Vec<LayerShape> {
    let chosen = LAYERS.iter().copied().filter(|l| l.scale <= scale);
    match scale {
        Scale::Smoke => chosen.map(LayerShape::shrunken).collect(),
        _ => chosen.collect(),
    }
}

impl LayerShape {
    fn shrunken(self) -> Self {
        let ExpertShape {
            experts,
            hidden,
            intermediate,
            ..
        } = self.experts;
        Self {
            tokens: self.tokens.min(50),
            experts: ExpertShape {
                experts: experts.min(16),
                hidden: hidden / 16,
                intermediate: intermediate / 16,
                ..self.experts
            },
            ..self
        }
    }

    /// Elements of the experts' two maps.
    pub fn weight_elems(&self) -> usize {
        let s = &self.experts;
        s.experts * s.hidden * (s.up_rows() + s.intermediate)
    }

    /// Useful operations of the forward pass for `assignments` chosen (token, expert) pairs, a
    /// multiply–add counting as two: the experts' two maps, and the router's where there is one.
    /// A backward pass has twice as many.
    pub fn forward_flops(&self, assignments: usize, has_router: bool) -> f64 {
        let s = &self.experts;
        let experts = 2 * assignments * s.hidden * (s.up_rows() + s.intermediate);
        let router = if has_router {
            2 * self.tokens * s.hidden * s.experts
        } else {
            0
        };
        (experts + router) as f64
    }
}

/// Router logits `[T, E]` and the numbers of experts per token that are chosen from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateShape {
    /// T.
    pub tokens: usize,
    /// E.
    pub experts: usize,
}

impl GateShape {
    /// `65536x64`.
    pub fn name(&self) -> String {
        format!("{}x{}", self.tokens, self.experts)
    }
}

/// The gate's shapes: a large batch, few and many experts.
pub fn gates(scale: Scale) -> [GateShape; 2] {
    let tokens = if scale == Scale::Smoke { 300 } else { 65_536 };
    [64, 256].map(|experts| GateShape { tokens, experts })
}

/// Rows that are moved: tokens `[T, H]`, each to k of E experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsShape {
    /// T.
    pub tokens: usize,
    /// H.
    pub hidden: usize,
    /// E.
    pub experts: usize,
    /// Experts per token.
    pub k: usize,
}

impl RowsShape {
    /// `T3072-D768-k2`.
    pub fn name(&self) -> String {
        format!("T{}-D{}-k{}", self.tokens, self.hidden, self.k)
    }

    /// A.
    pub fn assignments(&self) -> usize {
        self.tokens * self.k
    }
}

/// The shapes of permute and unpermute.
pub fn rows(scale: Scale) -> [RowsShape; 2] {
    let shape = |tokens, hidden| RowsShape {
        tokens,
        hidden,
        experts: 16,
        k: 2,
    };
    match scale {
        Scale::Smoke => [shape(70, 48), shape(130, 64)],
        _ => [shape(3072, 768), shape(65_536, 1024)],
    }
}

/// The shape of sorting: 131,072 assignments to 64 experts. H is not used.
pub fn sort(scale: Scale) -> RowsShape {
    RowsShape {
        tokens: if scale == Scale::Smoke { 300 } else { 65_536 },
        hidden: 0,
        experts: 64,
        k: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> LayerShape {
        let all = layers(Scale::Full);
        *all.iter().find(|l| l.name == name).unwrap()
    }

    #[test]
    fn operations_are_those_of_the_experts_and_the_router() {
        // Up and down of 6144 rows: 2 · 6144 · 2 · 768 · 3072; router: 2 · 3072 · 768 · 16.
        let bert = named("bert");
        assert_eq!(bert.forward_flops(6144, false), 57_982_058_496.0);
        assert_eq!(
            bert.forward_flops(6144, true) - bert.forward_flops(6144, false),
            75_497_472.0
        );
        // The gated form has three maps of the same size.
        let qwen = named("qwen512");
        assert_eq!(qwen.forward_flops(1, false), 2.0 * 3.0 * 2048.0 * 768.0);
        assert_eq!(qwen.weight_elems(), 128 * 3 * 2048 * 768);
    }

    #[test]
    fn the_largest_shapes_are_for_the_full_scale() {
        let names = |scale| layers(scale).iter().map(|l| l.name).collect::<Vec<_>>();
        assert_eq!(names(Scale::Default), ["bert", "qwen512", "qwen1"]);
        assert_eq!(names(Scale::Full).len(), LAYERS.len());
        for layer in layers(Scale::Smoke) {
            assert!(layer.weight_elems() < 1 << 20 && layer.k <= layer.experts.experts);
        }
    }

    #[test]
    fn names_say_the_sizes() {
        assert_eq!(gates(Scale::Default)[1].name(), "65536x256");
        assert_eq!(rows(Scale::Default)[0].name(), "T3072-D768-k2");
        assert_eq!(sort(Scale::Default).assignments(), 131_072);
    }
}
