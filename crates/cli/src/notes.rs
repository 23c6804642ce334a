//! What a user should know beside the numbers: options without effect, tensors that were made up.

use tollgate::options::GateOptions;
use tollgate::{Element, Router, Trace};

use crate::args::{GateArgs, RunArgs};
use crate::step::Problem;

/// The notes of a run.
pub fn of_run<T: Element>(args: &RunArgs, problem: &Problem<'_, T>, trace: &Trace) -> Vec<String> {
    let (options, model) = (problem.options(), problem.model);
    let router = &options.router;
    let mut notes = without_effect(&args.gate, options);
    if router.is_noisy() && args.inference {
        notes.push(format!(
            "router {router} adds no noise in inference: it is top-k"
        ));
    } else if router.is_noisy() && model.router_noise.is_none() {
        notes.push(
            "the file has no 'router_noise': its noise weight starts at 0, so every logit gets \
             noise of standard deviation ln 2"
                .to_owned(),
        );
    }
    if *router == Router::Hash && model.hash_table.is_none() {
        notes.push(
            "the file has no 'hash_table': expert of a token id drawn from the seed".to_owned(),
        );
    }
    if model.selection_bias.is_some() && !problem.takes_bias() {
        notes.push(format!(
            "the file's selection bias has no effect on router {router}"
        ));
    }
    if let Some(names) = &model.unused {
        notes.push(format!(
            "the layer has tensors that are not part of this computation: {names}"
        ));
    }
    if args.inference && (options.gating_dropout.is_some() || options.jitter != 0.0) {
        notes.push("inference: Gating Dropout and jitter are off".to_owned());
    }
    let status = trace.status;
    if let Some(first) = status.first_faulty_row {
        notes.push(format!(
            "{} tokens have router logits with a NaN or +∞, the first is token {first}: their \
             outputs are NaN",
            status.faulty_rows
        ));
    }
    if trace.tokens == 0 {
        notes.push("there are no tokens".to_owned());
    }
    notes
}

/// Options that are given, but have no effect on this router.
pub fn without_effect(args: &GateArgs, options: &GateOptions) -> Vec<String> {
    let router = &options.router;
    let gateless = !router.has_gate();
    let adaptive = matches!(router, Router::Adaptive { .. });
    let given = [
        ("--gap", args.gap.is_some() && !adaptive),
        ("--balance-over", args.balance_over.is_some() && gateless),
        ("--balance-alpha", args.balance_alpha.is_some() && gateless),
        ("--z-coefficient", args.z_coefficient.is_some() && gateless),
        ("--jitter", args.jitter.is_some() && gateless),
    ];
    let names: Vec<&str> = given
        .iter()
        .filter(|(_, idle)| *idle)
        .map(|(n, _)| *n)
        .collect();
    match names.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "no effect on router {router}: {}",
            names.join(", ")
        )],
    }
}
