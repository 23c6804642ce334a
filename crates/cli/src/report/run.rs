//! The report of `tollgate run`.

use tollgate::options::GateOptions;
use tollgate::{Element, RoutingTable};

use super::bars::bar;
use super::table::{Align, Table};
use super::{Style, filled, percent, plural, short, variation};
use crate::args::RunArgs;
use crate::engine::Counted;
use crate::run::Run;

/// Above this many experts the load of each is no longer shown.
const MAX_LISTED_EXPERTS: usize = 32;
/// How many of the fullest and of the emptiest are shown then.
const EXTREMES: usize = 6;
/// Tokens with more experts than this share one line.
const MAX_LISTED_DEGREE: usize = 8;

/// The whole report.
pub fn text<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let sections = [
        header(run, style),
        experts_per_token(run, style),
        load(&run.seen.gate.table, style),
        match &run.times.counted {
            Some(counted) => counts(run, counted, style),
            None => time(run, style),
        },
        losses(run, style),
        agreement(run, style),
        notes(run.notes, style),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|s| !s.is_empty()).collect();
    sections.join("\n")
}

/// What is run on what.
fn header<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let (args, problem, model) = (run.args, run.problem, run.problem.model);
    let tokens = problem.tokens;
    let form = if model.gated { ", gated" } else { "" };
    let sequences = match &tokens.sequence_offsets {
        Some(offsets) => format!(
            " in {}",
            plural(offsets.len().saturating_sub(1), "sequence")
        ),
        None => String::new(),
    };
    let passes = if args.backward {
        "forward and backward"
    } else {
        "forward"
    };
    let mode = if args.inference {
        "inference"
    } else {
        "training"
    };
    let source = match tokens.origin == model.origin {
        true => String::new(),
        false => format!(" from {}", model.origin),
    };
    let mut lines = vec![
        (
            "tokens",
            format!(
                "{}{sequences}, H {}, {}",
                tokens.count, model.hidden, tokens.origin
            ),
        ),
        (
            "experts",
            format!(
                "{} of I {}, {}{form}: {}{source}",
                model.experts, model.intermediate, model.activation, model.form
            ),
        ),
        (
            "router",
            format!("{}{}", args.router, gate_options(problem.options())),
        ),
    ];
    if let Some(text) = dropout_options(problem.options()) {
        let local = args.gate.local_experts.clone().unwrap_or(0..model.experts);
        lines.push((
            "dropout",
            format!("{text}, experts {}..{} local", local.start, local.end),
        ));
    }
    let threads = plural(problem.layer.device().threads(), "thread");
    let place = match run.gpu {
        None => threads,
        Some(name) if run.times.counted.is_some() => format!("{name} on {threads}"),
        Some(name) => format!("{} ({name})", args.device.device),
    };
    lines.push((
        "run",
        format!(
            "{}, {place}, {passes}, {mode}, seed {}",
            T::DTYPE,
            args.execution.seed
        ),
    ));
    let mut text = String::new();
    for (name, value) in lines {
        let name = format!("{name:<9}");
        text.push_str(&format!(
            "{}{}\n",
            style.quiet(&name),
            filled(&value, style.width, 9)
        ));
    }
    text
}

/// The options in force, after the router's name.
fn gate_options(options: &GateOptions) -> String {
    let mut text = String::new();
    let mut put = |part: String| text.push_str(&format!(", {part}"));
    if options.router.has_gate() {
        if matches!(options.router, tollgate::Router::Adaptive { .. }) {
            put(format!("gap {}", options.gap));
        }
        put(format!("weights {}", options.weights()));
        match options.balance_alpha {
            0.0 => put("no balance loss".to_owned()),
            alpha => put(format!("balance {alpha} over {}", options.balance_over())),
        }
        match options.z_coefficient {
            0.0 => put("no z-loss".to_owned()),
            c => put(format!("z {c}")),
        }
        if options.jitter != 0.0 {
            put(format!("jitter {}", options.jitter));
        }
    }
    if options.weight_scale != 1.0 {
        put(format!("weight scale {}", options.weight_scale));
    }
    match options.capacity {
        Some(c) => put(format!("capacity {} by {}", c.factor, c.order)),
        None => put("no capacity".to_owned()),
    }
    text
}

/// Gating Dropout's options.
fn dropout_options(options: &GateOptions) -> Option<String> {
    let d = options.gating_dropout?;
    Some(format!(
        "p {}, {}, local choice {}, local weight {}, aux loss {}, one coin a {}",
        d.probability, d.mode, d.local_choice, d.local_weight, d.aux_loss, d.granularity
    ))
}

/// How many tokens have how many experts.
fn experts_per_token<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let (table, trace) = (&run.seen.gate.table, run.seen.trace);
    let tokens = table.num_tokens();
    let mut remark = plural(table.num_assignments(), "assignment");
    if tokens > 0 {
        let mean = table.num_assignments() as f64 / tokens as f64;
        remark.push_str(&format!(", {mean:.3} per token"));
    }
    if run.problem.options().capacity.is_some() {
        remark.push_str(&format!(
            ", {} dropped by capacity",
            trace.dropped_assignments
        ));
    }
    let mut text = style.titled("Experts per token", &remark);
    if run.problem.options().gating_dropout.is_some() {
        let decision = match trace.dropped {
            Some(mode) => format!("dropped ({mode})"),
            None => "not dropped".to_owned(),
        };
        text.push_str(&format!(
            "  Gating Dropout: step {} is {decision}\n",
            run.args.steps - 1
        ));
    }
    let most = (0..tokens)
        .map(|t| table.assignments_of(t).len())
        .max()
        .unwrap_or(0);
    let listed = most.min(MAX_LISTED_DEGREE);
    let mut lines: Vec<(String, usize)> = (0..=listed)
        .map(|k| (name_of(k), table.tokens_with(k)))
        .collect();
    let rest = tokens - lines.iter().map(|(_, n)| n).sum::<usize>();
    if rest > 0 {
        lines.push((format!("{} to {most}", listed + 1), rest));
    }
    let columns = style.width.saturating_sub(31);
    let mut rows =
        Table::new(&[("", Align::Left), ("", Align::Right), ("", Align::Right)]).with_bars();
    for (name, count) in lines.into_iter().filter(|&(_, count)| count > 0) {
        let share = count as f64 / tokens as f64;
        let bar = bar(share, 1.0, columns);
        rows.row([
            format!("{name:<6}"),
            format!("{count:>7}"),
            percent(share),
            bar,
        ]);
    }
    text.push_str(&rows.render(style));
    text
}

/// A small number in words.
fn name_of(k: usize) -> String {
    match k {
        0 => "none".to_owned(),
        1 => "one".to_owned(),
        2 => "two".to_owned(),
        _ => k.to_string(),
    }
}

/// The rows of every expert.
fn load(table: &RoutingTable, style: Style) -> String {
    let counts = table.counts();
    let mean = table.num_assignments() as f64 / counts.len().max(1) as f64;
    let largest = counts.iter().copied().max().unwrap_or(0);
    let empty = counts.iter().filter(|&&c| c == 0).count();
    let mut remark = format!("coefficient of variation {:.3}", variation(&counts));
    if mean > 0.0 {
        remark.push_str(&format!(", largest {:.2} × mean", largest as f64 / mean));
    }
    if empty > 0 {
        remark.push_str(&format!(", {empty} empty"));
    }
    let mut text = style.titled("Load per expert", &remark);
    let columns = style.width.saturating_sub(23);
    let mut rows = Table::new(&[("", Align::Right), ("", Align::Right)]).with_bars();
    let line = |e: usize| {
        let bar = bar(counts[e] as f64, largest as f64, columns);
        [format!("{e:>6}"), format!("{:>7}", counts[e]), bar]
    };
    if counts.len() <= MAX_LISTED_EXPERTS {
        (0..counts.len()).for_each(|e| rows.row(line(e)));
    } else {
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&e| (counts[e], e));
        let at = |share: f64| counts[order[((order.len() - 1) as f64 * share).round() as usize]];
        text.push_str(&format!(
            "  least {}, quarter {}, median {}, three quarters {}, most {}; the ends:\n",
            at(0.0),
            at(0.25),
            at(0.5),
            at(0.75),
            at(1.0)
        ));
        order
            .iter()
            .rev()
            .take(EXTREMES)
            .for_each(|&e| rows.row(line(e)));
        rows.row(["…".to_owned(), "…".to_owned()]);
        order
            .iter()
            .take(EXTREMES)
            .rev()
            .for_each(|&e| rows.row(line(e)));
    }
    text.push_str(&rows.render(style));
    text
}

/// Time per stage.
fn time<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let (times, args) = (run.times, run.args);
    let total = times.last();
    let flops: f64 = times.trace.stages.iter().map(|s| s.flops).sum();
    let title = format!("Time of {}: {:.2} ms", described_step(args), 1e3 * total);
    let fastest = match times.repeat {
        1 => String::new(),
        repeat => format!("fastest of {repeat}, "),
    };
    let remark = format!("{fastest}{:.0} GFLOP/s over all", flops / total / 1e9);
    let mut text = style.titled(&title, &remark);
    let mut rows = Table::new(&[
        ("stage", Align::Left),
        ("ms", Align::Right),
        ("GFLOP/s", Align::Right),
        ("GB/s", Align::Right),
        ("share", Align::Right),
    ])
    .with_bars();
    let columns = style.width.saturating_sub(60);
    for stage in &times.trace.stages {
        let rate = match stage.flops {
            0.0 => "–".to_owned(),
            flops => format!("{:.1}", flops / stage.seconds / 1e9),
        };
        let share = stage.seconds / total;
        rows.row([
            stage.name.replace('_', " "),
            format!("{:.3}", 1e3 * stage.seconds),
            rate,
            format!("{:.1}", stage.bytes / stage.seconds / 1e9),
            percent(share),
            bar(share, 1.0, columns),
        ]);
    }
    text.push_str(&rows.render(style));
    if args.steps > 1 {
        text.push_str(&format!(
            "  over {} steps: min {:.2} ms, median {:.2} ms; {} dropped\n",
            args.steps,
            1e3 * times.min(),
            1e3 * times.median(),
            times.dropped
        ));
    }
    text
}

/// Which step the report is about.
fn described_step(args: &RunArgs) -> String {
    match args.steps {
        1 => "one step".to_owned(),
        steps => format!("step {}", steps - 1),
    }
}

/// What the kernels of each stage did, on a device that counts.
fn counts<T: Element>(run: &Run<'_, T>, counted: &[Counted], style: Style) -> String {
    let (times, args) = (run.times, run.args);
    let all: u64 = counted.iter().map(|c| c.counters.warp_instructions).sum();
    let title = format!("Work of {}", described_step(args));
    let mut text = style.titled(&title, "virtual GPU: counted, not timed");
    let mut rows = Table::new(&[
        ("stage", Align::Left),
        ("kernels", Align::Right),
        ("instructions", Align::Right),
        ("MB moved", Align::Right),
        ("/ needed", Align::Right),
        ("share", Align::Right),
    ])
    .with_bars();
    let columns = style.width.saturating_sub(75);
    for stage in &times.trace.stages {
        let Some(c) = counted.iter().find(|c| c.stage == stage.name) else {
            continue;
        };
        let moved = c.counters.moved_bytes() as f64;
        let share = c.counters.warp_instructions as f64 / all.max(1) as f64;
        rows.row([
            stage.name.replace('_', " "),
            c.launches.to_string(),
            c.counters.warp_instructions.to_string(),
            format!("{:.2}", moved / 1e6),
            match stage.bytes {
                0.0 => "–".to_owned(),
                bytes => format!("{:.2}", moved / bytes),
            },
            percent(share),
            bar(share, 1.0, columns),
        ]);
    }
    text.push_str(&rows.render(style));
    let legend = "instructions: of warps; needed: every tensor read or written once; share: of the \
                  instructions";
    text.push_str(&format!(
        "  {}\n",
        style.quiet(&filled(legend, style.width, 2))
    ));
    if args.steps > 1 {
        let dropped = times.dropped;
        text.push_str(&format!("  over {} steps: {dropped} dropped\n", args.steps));
    }
    text
}

/// The losses.
fn losses<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let mut text = String::new();
    if run.problem.options().router.has_gate() {
        let losses = run.seen.gate.losses;
        text.push_str(&style.titled("Losses", "coefficients included"));
        text.push_str(&format!(
            "  balance {:.6}   z {:.6}\n",
            losses.balance, losses.z
        ));
    }
    if let Some(pair) = run.pair {
        let first = drawn(&run.seen.gate.table);
        let second = drawn(&pair.table);
        let title = "Pair of passes";
        text.push_str(&style.titled(title, "outputs taken as logits, α 5"));
        text.push_str(&format!("  pass 0 drew {first}, pass 1 drew {second}\n"));
        text.push_str(&format!("  consistency loss {}\n", short(pair.consistency)));
    }
    text
}

/// What a stochastic router drew.
fn drawn(table: &RoutingTable) -> String {
    match table.sole_expert() {
        Some(expert) => format!("expert {expert}"),
        None => {
            let used = table.counts().iter().filter(|&&c| c > 0).count();
            plural(used, "expert")
        }
    }
}

/// The comparison with the reference.
fn agreement<T: Element>(run: &Run<'_, T>, style: Style) -> String {
    let Some(agreement) = run.agreement else {
        return String::new();
    };
    let routing = match agreement.routing_differs {
        0 => "routing of all tokens agrees".to_owned(),
        1 => "routing of 1 token differs".to_owned(),
        n => format!("routing of {n} tokens differs"),
    };
    let mut text = style.titled("Error against the f64 reference", &routing);
    let mut rows = Table::new(&[
        ("", Align::Left),
        ("", Align::Right),
        ("", Align::Left),
        ("", Align::Right),
        ("", Align::Left),
        ("", Align::Right),
    ]);
    for three in agreement.errors.chunks(3) {
        rows.row(
            three
                .iter()
                .flat_map(|&(name, error)| [name.to_owned(), format!("{error:.1e} ")]),
        );
    }
    text.push_str(&rows.render(style));
    text.push_str(&format!(
        "  {}\n",
        style.quiet("largest difference, as a share of the tensor's largest magnitude")
    ));
    text
}

/// What the user should know.
pub(super) fn notes(notes: &[String], style: Style) -> String {
    notes
        .iter()
        .map(|note| format!("{}\n", filled(&format!("note: {note}"), style.width, 6)))
        .collect()
}
