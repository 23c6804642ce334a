//! What results must not depend on: threads, the batch around a token, strides and alignment.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, GatingDropout};
use tollgate_core::{DropMode, Router, RowView, RowViewMut, StepContext};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Case, Guarded, assert_same, gate_cases, run_all};

use crate::support::{Tensors, assert_same_state, combinations, cpu, ctx, gate, routers};

fn large() -> Case {
    gate_cases()
        .into_iter()
        .find(|c| c.name == "many tokens")
        .unwrap()
}

/// The gradient of upstream gradients that depend on the position only.
fn backward(
    threads: usize,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    state: &GateState,
    seed: u64,
) -> (Vec<f32>, Vec<f32>) {
    let (t, e) = (inputs.num_tokens, inputs.num_experts);
    let mut data = tollgate_testkit::Data::new(seed);
    let dw: Vec<f32> = data.normals(state.table.num_assignments(), 1.0);
    let (mut dz, mut dn) = (vec![f32::NAN; t * e], vec![f32::NAN; t * e]);
    let out = RowViewMut::new(&mut dz, t, e).unwrap();
    let noise = RowViewMut::new(&mut dn, t, e).unwrap();
    cpu(threads)
        .gate_backward(inputs, options, &ctx(), state, &dw, out, Some(noise))
        .unwrap();
    (dz, dn)
}

#[test]
fn one_two_and_three_threads_give_the_same_bits() {
    let case = large();
    let tensors = Tensors::new(&case);
    for router in routers(case.tokens, case.experts) {
        for dropped in [false, true] {
            let mut o = GateOptions::new(router);
            o.capacity = Some(Capacity {
                factor: 1.1,
                order: DropOrder::Probability,
            });
            if dropped && router.has_gate() {
                o.gating_dropout = Some(GatingDropout::new(1.0, DropMode::Gate));
            }
            let inputs = tensors.inputs(&router, true);
            let one = gate(&cpu(1), &inputs, &o, &ctx());
            let gradient = backward(1, &inputs, &o, &one, 4);
            for threads in [2, 3] {
                let what = format!("{router}, {threads} threads");
                let more = gate(&cpu(threads), &inputs, &o, &ctx());
                assert_same_state(&what, &one, &more);
                let (dz, dn) = backward(threads, &inputs, &o, &more, 4);
                assert_same(&what, &gradient.0, &dz);
                assert_same(&what, &gradient.1, &dn);
            }
        }
    }
}

/// Rows `start..end` of the inputs as a batch of their own.
fn slice<'a>(inputs: &GateInputs<'a>, start: usize, end: usize) -> GateInputs<'a> {
    GateInputs {
        num_tokens: end - start,
        logits: inputs.logits.map(|z| z.sub_rows(start..end)),
        noise_logits: inputs.noise_logits.map(|z| z.sub_rows(start..end)),
        token_ids: inputs.token_ids.map(|ids| &ids[start..end]),
        ..inputs.clone()
    }
}

#[test]
fn a_token_does_not_see_the_batch_around_it() {
    let case = large();
    let tensors = Tensors::new(&case);
    let choose =
        |r: &Router| !matches!(r, Router::ExpertChoice { .. }) && r.to_string() != "thor:sentence";
    for router in routers(case.tokens, case.experts)
        .into_iter()
        .filter(choose)
    {
        for dropped in [false, true] {
            let mut o = GateOptions::new(router);
            // The losses are means over the batch.
            (o.balance_alpha, o.z_coefficient) = (0.0, 0.0);
            if dropped && router.has_gate() {
                o.gating_dropout = Some(GatingDropout::new(1.0, DropMode::Gate));
            }
            let inputs = tensors.inputs(&router, true);
            let all = gate(&cpu(2), &inputs, &o, &ctx());
            for (start, end) in [(0, 1), (1, 2), (255, 258), (700, 1300), (2000, 2049)] {
                let what = format!("{router}, tokens {start}..{end}");
                let part_inputs = slice(&inputs, start, end);
                let first_token = ctx().first_token.wrapping_add(start as u32);
                let part = gate(
                    &cpu(2),
                    &part_inputs,
                    &o,
                    &StepContext {
                        first_token,
                        ..ctx()
                    },
                );
                let e = case.experts;
                let gated = |n: usize| if router.has_gate() { n } else { 0 };
                let rows = gated(start) * e..gated(end) * e;
                assert_same(&what, &all.scores[rows.clone()], &part.scores);
                assert_same(&what, &all.lse[gated(start)..gated(end)], &part.lse);
                if !all.noise.is_empty() {
                    assert_same(&what, &all.noise[rows.clone()], &part.noise);
                    assert_same(&what, &all.noisy_logits[rows], &part.noisy_logits);
                }
                for t in start..end {
                    let (a, b) = (&all.table, &part.table);
                    assert_eq!(a.experts_of(t), b.experts_of(t - start), "{what}");
                    assert_same(&what, a.weights_of(t), b.weights_of(t - start));
                }
                if router.has_gate() {
                    assert_eq!(all.first_choice[start..end], part.first_choice, "{what}");
                }
                if !all.runner_up.is_empty() {
                    assert_eq!(all.runner_up[start..end], part.runner_up, "{what}");
                }
            }
        }
    }
}

#[test]
fn strides_and_alignment_do_not_matter() {
    run_all(
        "cpu strided gate",
        &gate_cases(),
        &[("cpu", ())],
        |case, ()| {
            let (t, e) = (case.tokens, case.experts);
            if t > 300 {
                return;
            }
            let tensors = Tensors::new(case);
            let stride = e + 5;
            let spread = |values: &[f32], misalign| {
                let mut memory = Guarded::<f32>::new(t * stride, misalign);
                for (r, row) in values.chunks_exact(e).enumerate() {
                    memory.as_mut_slice()[r * stride..r * stride + e].copy_from_slice(row);
                }
                memory
            };
            let (z, noise) = (spread(&tensors.logits, 3), spread(&tensors.noise, 6));
            for o in combinations(t, e) {
                let inputs = tensors.inputs(&o.router, true);
                let strided = GateInputs {
                    logits: Some(RowView::strided(z.as_slice(), t, e, stride).unwrap()),
                    noise_logits: inputs
                        .noise_logits
                        .map(|_| RowView::strided(noise.as_slice(), t, e, stride).unwrap()),
                    ..inputs.clone()
                };
                let state = gate(&cpu(1), &inputs, &o, &ctx());
                let other = gate(&cpu(1), &strided, &o, &ctx());
                assert_same_state(&o.router.to_string(), &state, &other);

                let expected = backward(1, &inputs, &o, &state, 8);
                let mut data = tollgate_testkit::Data::new(8);
                let dw: Vec<f32> = data.normals(state.table.num_assignments(), 1.0);
                let (mut dz, mut dn) = (
                    Guarded::<f32>::new(t * stride, 1),
                    Guarded::<f32>::new(t * stride, 2),
                );
                let out = RowViewMut::strided(dz.as_mut_slice(), t, e, stride).unwrap();
                let out_noise = RowViewMut::strided(dn.as_mut_slice(), t, e, stride).unwrap();
                cpu(1)
                    .gate_backward(&strided, &o, &ctx(), &state, &dw, out, Some(out_noise))
                    .unwrap();
                dz.assert_canaries("dlogits");
                dn.assert_canaries("dnoise_logits");
                for (memory, expected) in [(&dz, &expected.0), (&dn, &expected.1)] {
                    for r in 0..t {
                        let row = &memory.as_slice()[r * stride..(r + 1) * stride];
                        assert_same(
                            &o.router.to_string(),
                            &row[..e],
                            &expected[r * e..(r + 1) * e],
                        );
                        assert!(
                            row[e..].iter().all(|gap| gap.is_nan()),
                            "gaps are left alone"
                        );
                    }
                }
            }
        },
    );
}
