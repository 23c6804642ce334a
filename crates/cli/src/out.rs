//! `--out`: a step as a safetensors file, so that it can be checked from outside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use bytemuck::{Pod, cast_slice};
use serde::Serialize;
use tollgate::{DType, Element};

use crate::args::RunArgs;
use crate::engine::Seen;
use crate::error::{Failure, Result};
use crate::pair::Pair;
use crate::step::{Outputs, Problem};

/// Fails early where the file could not be written anyway.
///
/// # Errors
/// A folder that does not exist, or a path that is one.
pub fn writable(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => {
            let reason = format!("there is no folder '{}'", parent.display());
            Err(Failure::write(path, reason))
        }
        _ if path.is_dir() => Err(Failure::write(path, "it is a folder")),
        _ => Ok(()),
    }
}

/// Tensors on their way to a file, in the order of the data.
#[derive(Default)]
struct Tensors<'a> {
    all: Vec<(&'static str, Entry, &'a [u8])>,
}

/// What the header says of a tensor.
#[derive(Serialize)]
struct Entry {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
    #[serde(skip)]
    size: usize,
}

impl<'a> Tensors<'a> {
    fn put<N: Pod>(
        &mut self,
        name: &'static str,
        dtype: &'static str,
        shape: &[usize],
        v: &'a [N],
    ) {
        let entry = Entry {
            dtype,
            shape: shape.to_vec(),
            data_offsets: [0, 0],
            size: size_of::<N>(),
        };
        self.all.push((name, entry, cast_slice(v)));
    }

    fn whole(&mut self, name: &'static str, values: &'a [i32]) {
        self.put(name, "I32", &[values.len()], values);
    }

    fn real(&mut self, name: &'static str, shape: &[usize], values: &'a [f32]) {
        self.put(name, "F32", shape, values);
    }

    fn typed<T: Element>(&mut self, name: &'static str, shape: &[usize], values: &'a [T]) {
        let dtype = match T::DTYPE {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::Bf16 => "BF16",
        };
        self.put(name, dtype, shape, values);
    }

    /// Writes the file. Equal tensors and metadata give equal bytes: names are sorted, where the
    /// `safetensors` crate takes metadata in the order of a hash map.
    fn write(mut self, path: &Path, metadata: BTreeMap<String, String>) -> std::io::Result<()> {
        // Larger elements first, so that every tensor is aligned to its type.
        self.all
            .sort_by_key(|(_, entry, _)| std::cmp::Reverse(entry.size));
        let mut end = 0;
        for (_, entry, bytes) in &mut self.all {
            let begin = end;
            end += bytes.len();
            entry.data_offsets = [begin, end];
        }
        let mut header = BTreeMap::from([("__metadata__", serde_json::to_value(metadata)?)]);
        for (name, entry, _) in &self.all {
            header.insert(name, serde_json::to_value(entry)?);
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, _, bytes) in &self.all {
            file.write_all(bytes)?;
        }
        file.flush()
    }
}

/// Writes input, routing and output; after a backward pass also the upstream gradient and all
/// gradients; of a pair also the second pass.
///
/// # Errors
/// What the system refuses.
pub fn write<T: Element>(
    path: &Path,
    args: &RunArgs,
    problem: &Problem<'_, T>,
    seen: Seen<'_>,
    outputs: &Outputs<T>,
    pair: Option<&Pair<T>>,
) -> Result<()> {
    let (model, gate) = (problem.model, seen.gate);
    let (t, h, e, i) = (
        problem.tokens.count,
        model.hidden,
        model.experts,
        model.intermediate,
    );
    let n1 = problem.layer.shape().up_rows();
    let gated = problem.options().router.has_gate();

    let mut out = Tensors::default();
    out.typed("x", &[t, h], &problem.tokens.x);
    if gated {
        out.real("router_logits", &[t, e], seen.router_logits);
        out.real("router_probs", &[t, e], &gate.scores);
    }
    if !gate.noisy_logits.is_empty() {
        out.real("noisy_logits", &[t, e], &gate.noisy_logits);
    }
    out.whole("token_offsets", &gate.table.token_offsets);
    out.whole("expert_indices", &gate.table.expert_indices);
    out.whole("expert_offsets", &gate.table.expert_offsets);
    let weights = &gate.table.routing_weights;
    out.real("routing_weights", &[weights.len()], weights);
    out.typed("y", &[t, h], &outputs.y);
    if let Some(pair) = pair {
        out.whole("pair.token_offsets", &pair.table.token_offsets);
        out.whole("pair.expert_indices", &pair.table.expert_indices);
        out.typed("pair.y", &[t, h], &pair.y);
    }
    if let Some(b) = &outputs.backward {
        out.typed("dy", &[t, h], &b.dy);
        out.typed("grad.x", &[t, h], &b.x);
        if gated {
            out.real("grad.router_weight", &[e, h], &b.router);
            out.real("grad.router_logits", &[t, e], seen.router_logit_gradient);
        }
        if !gate.noisy_logits.is_empty() {
            out.real("grad.router_noise", &[e, h], &b.router_noise);
        }
        out.real("grad.up", &[e, n1, h], &b.up);
        out.real("grad.down", &[e, h, i], &b.down);
        if let Some(bias) = &b.up_bias {
            out.real("grad.up_bias", &[e, n1], bias);
        }
        if let Some(bias) = &b.down_bias {
            out.real("grad.down_bias", &[e, h], bias);
        }
    }
    let written = out.write(path, metadata(args, problem));
    written.map_err(|e| Failure::write(path, e))
}

/// Everything that decides what the tensors are, by the names of the options.
fn metadata<T: Element>(args: &RunArgs, problem: &Problem<'_, T>) -> BTreeMap<String, String> {
    let (options, model) = (problem.options(), problem.model);
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: &dyn ToString| all.insert(key.to_owned(), value.to_string());
    put("format", &"tollgate step 1");
    put("router", &options.router);
    put("dtype", &T::DTYPE);
    put("layer", &model.origin);
    put("tokens", &problem.tokens.origin);
    put("activation", &model.activation);
    put("gated", &model.gated);
    if let Some(how) = model.upcycle {
        put("upcycle", &how.name());
        put("upcycle_seed", &args.input.upcycle_seed());
        put("sigma", &args.input.sigma());
    }
    put("seed", &args.execution.seed);
    put("step", &(args.steps - 1));
    put("training", &!args.inference);
    put("gap", &options.gap);
    put("weights", &options.weights());
    put("weight_scale", &options.weight_scale);
    put("balance_over", &options.balance_over());
    put("balance_alpha", &options.balance_alpha);
    put("z_coefficient", &options.z_coefficient);
    put("jitter", &options.jitter);
    if let Some(capacity) = options.capacity {
        put("capacity", &capacity.factor);
        put("drop_order", &capacity.order);
    }
    if let Some(dropout) = options.gating_dropout {
        put(
            "gating_dropout",
            &format!("{}:{}", dropout.probability, dropout.mode),
        );
        put("local_choice", &dropout.local_choice);
        put("local_weight", &dropout.local_weight);
        put("aux_loss", &dropout.aux_loss);
        put("granularity", &dropout.granularity);
        let local = args.gate.local_experts.clone().unwrap_or(0..model.experts);
        put("local_experts", &format!("{}..{}", local.start, local.end));
    }
    all
}
