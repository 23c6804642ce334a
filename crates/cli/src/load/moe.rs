//! Mixture-of-Experts layers under the tensor names of published models.

use std::collections::BTreeSet;

use tollgate::Element;
use tollgate::options::Activation;

use super::container::list;
use super::{Container, Model};
use crate::args::InputArgs;
use crate::error::{Failure, Result};

/// How a family of models names the tensors of one layer, after the layer's own prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Family {
    name: &'static str,
    /// What the names of all its tensors begin with.
    module: &'static str,
    gate: &'static str,
    /// Before the expert's number.
    expert: &'static str,
    /// Gate, up and down map of an expert, after its number.
    maps: [&'static str; 3],
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "Mixtral",
        module: "block_sparse_moe.",
        gate: "block_sparse_moe.gate.weight",
        expert: "block_sparse_moe.experts.",
        maps: [".w1.weight", ".w3.weight", ".w2.weight"],
    },
    Family {
        name: "Qwen3-MoE",
        module: "mlp.",
        gate: "mlp.gate.weight",
        expert: "mlp.experts.",
        maps: [".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"],
    },
];

/// Selection biases in use: DeepSeek's name beside the gate.
const SELECTION_BIAS: &str = "mlp.gate.e_score_correction_bias";

/// One layer of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    family: Family,
    prefix: String,
}

impl Layer {
    fn expert(&self, e: usize, map: usize) -> String {
        let Family { expert, maps, .. } = self.family;
        format!("{}{expert}{e}{}", self.prefix, maps[map])
    }

    /// The last number in the prefix: `model.layers.3.` is layer 3.
    fn index(&self) -> Option<u32> {
        self.prefix
            .split('.')
            .rev()
            .find_map(|part| part.parse().ok())
    }
}

/// The layers that a file holds, by prefix.
fn layers(container: &Container<'_>) -> Vec<Layer> {
    container
        .names()
        .flat_map(|name| {
            FAMILIES.iter().filter_map(move |&family| {
                let prefix = name.strip_suffix(family.gate)?;
                (prefix.is_empty() || prefix.ends_with('.')).then(|| Layer {
                    family,
                    prefix: prefix.to_owned(),
                })
            })
        })
        .collect()
}

/// Whether the file holds such a layer.
pub(super) fn found(container: &Container<'_>) -> bool {
    !layers(container).is_empty()
}

/// The layer that the options ask for.
fn choose(container: &Container<'_>, args: &InputArgs) -> Result<Layer> {
    let all = layers(container);
    let prefixes = list(all.iter().map(|l| l.prefix.clone()).collect());
    let asked = match (&args.layer_prefix, args.layer_index) {
        (Some(prefix), _) => format!("with the prefix '{prefix}'"),
        (None, Some(index)) => format!("with the number {index}"),
        (None, None) => String::new(),
    };
    let wanted = |layer: &Layer| match (&args.layer_prefix, args.layer_index) {
        (Some(prefix), _) => layer.prefix.trim_end_matches('.') == prefix.trim_end_matches('.'),
        (None, Some(index)) => layer.index() == Some(index),
        (None, None) => true,
    };
    let mut matching: Vec<Layer> = all.into_iter().filter(wanted).collect();
    match matching.len() {
        1 => Ok(matching.remove(0)),
        0 => Err(Failure::file(
            container.file(),
            format!("has no layer {asked}, only {prefixes}"),
            "choose one with --layer-index N or --layer-prefix PREFIX",
        )),
        count => Err(Failure::file(
            container.file(),
            format!("has {count} layers {asked}: {prefixes}").replace(" :", ":"),
            "choose one with --layer-index N or --layer-prefix PREFIX",
        )),
    }
}

/// Reads one layer.
pub(super) fn read<T: Element>(container: &Container<'_>, args: &InputArgs) -> Result<Model<T>> {
    let layer = choose(container, args)?;
    let Layer { family, prefix } = &layer;
    if let Some(how) = args.upcycle {
        return Err(Failure::Usage(format!(
            "--upcycle {} makes experts of a dense FFN, but {} holds the experts of a {} layer; \
             leave it out",
            how.name(),
            container.file(),
            family.name,
        )));
    }
    let gate_name = format!("{prefix}{}", family.gate);
    let gate = container.require(&gate_name)?;
    let (experts, hidden) = gate.matrix()?;
    let surplus = layer.expert(experts, 0);
    if container.get(&surplus).is_some() {
        return Err(gate.error(
            format!("has {experts} rows, one an expert, but there is a tensor '{surplus}'"),
            "give gate and experts of one and the same layer",
        ));
    }
    if experts == 0 {
        return Err(gate.error(
            "has 0 rows, must have one an expert",
            "export the layer again",
        ));
    }
    let first = layer.expert(0, 0);
    let (intermediate, _) = container.require(&first)?.matrix()?;

    // Every tensor is there and fits before the memory for all of them is asked for.
    for e in 0..experts {
        for map in 0..3 {
            let name = layer.expert(e, map);
            let (shape, letters) = match map {
                2 => ([hidden, intermediate], "[H, I]"),
                _ => ([intermediate, hidden], "[I, H]"),
            };
            container.require(&name)?.expect_shape(&shape, letters)?;
        }
    }
    let matrix = intermediate * hidden;
    let too_large = || {
        let elems = experts.saturating_mul(3).saturating_mul(matrix);
        let problem = format!("needs memory for {elems} elements, more than there is");
        Failure::file(container.file(), problem, "use a larger machine")
    };
    let (mut up, mut down) = match (
        super::zeros::<T>(experts * 2 * matrix),
        super::zeros::<T>(experts * matrix),
    ) {
        (Some(up), Some(down)) => (up, down),
        _ => return Err(too_large()),
    };
    if matrix > 0 {
        let parts = up
            .chunks_exact_mut(2 * matrix)
            .zip(down.chunks_exact_mut(matrix));
        for (e, (up, down)) in parts.enumerate() {
            let (gate_rows, up_rows) = up.split_at_mut(matrix);
            for (map, out) in [gate_rows, up_rows, down].into_iter().enumerate() {
                container.require(&layer.expert(e, map))?.decode_into(out)?;
            }
        }
    }
    let selection_bias = container
        .get(&format!("{prefix}{SELECTION_BIAS}"))
        .map(|bias| {
            bias.expect_shape(&[experts], "[E]")?;
            bias.reals()
        });
    let read: BTreeSet<String> = (0..experts)
        .flat_map(|e| (0..3).map(move |map| (e, map)))
        .map(|(e, map)| layer.expert(e, map))
        .chain([gate_name.clone(), format!("{prefix}{SELECTION_BIAS}")])
        .collect();
    let module = format!("{prefix}{}", family.module);
    let unused: Vec<String> = container
        .names()
        .filter(|name| name.starts_with(&module) && !read.contains(*name))
        .map(str::to_owned)
        .collect();
    let place = match prefix.trim_end_matches('.') {
        "" => String::new(),
        prefix => format!(" '{prefix}'"),
    };
    Ok(Model {
        origin: container.file().to_owned(),
        form: format!("{} layer{place}", family.name),
        hidden,
        intermediate,
        experts,
        activation: args.activation.unwrap_or(Activation::Silu),
        gated: true,
        router: gate.reals()?,
        router_noise: None,
        selection_bias: selection_bias.transpose()?,
        hash_table: None,
        up,
        up_bias: None,
        down,
        down_bias: None,
        upcycle: None,
        unused: (!unused.is_empty()).then(|| list(unused)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_layer_is_the_last_one_of_its_prefix() {
        let layer = |prefix: &str| Layer {
            family: FAMILIES[0],
            prefix: prefix.to_owned(),
        };
        assert_eq!(layer("model.layers.12.").index(), Some(12));
        assert_eq!(layer("a.3.b.4.c.").index(), Some(4));
        assert_eq!(layer("").index(), None);
        assert_eq!(
            layer("x.").expert(7, 1),
            "x.block_sparse_moe.experts.7.w3.weight"
        );
    }
}
