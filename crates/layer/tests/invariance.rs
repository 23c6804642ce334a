//! Same input, same bits: whatever the threads, the neighbours in the batch, or the state's past.

mod common;

use common::{Problem, Step, routers, sized};
use tollgate::options::{Activation, GateOptions, StochasticPer};
use tollgate::{Cpu, Element, LayerState, Router};
use tollgate_testkit::assert_same;

fn same<T: Element>(what: &str, a: &Step<T>, b: &Step<T>) {
    assert_eq!(
        a.state.gate().table,
        b.state.gate().table,
        "{what}: routing table"
    );
    assert_same(&format!("{what}: y"), &a.y, &b.y);
    assert_same(&format!("{what}: dx"), &a.dx, &b.dx);
    assert_same(&format!("{what}: router"), &a.router, &b.router);
    assert_same(
        &format!("{what}: router noise"),
        &a.router_noise,
        &b.router_noise,
    );
    assert_same(&format!("{what}: up"), &a.up, &b.up);
    assert_same(&format!("{what}: up bias"), &a.up_bias, &b.up_bias);
    assert_same(&format!("{what}: down"), &a.down, &b.down);
    assert_same(&format!("{what}: down bias"), &a.down_bias, &b.down_bias);
    assert_eq!(
        a.state.gate().losses,
        b.state.gate().losses,
        "{what}: losses"
    );
}

fn threads<T: Element>() {
    let case = sized(700, 8, 72, 100);
    for router in routers(8) {
        let run = |threads| {
            let cpu = Cpu::new(threads).unwrap();
            Problem::<T>::on(
                cpu,
                &case,
                GateOptions::new(router),
                Activation::Gelu,
                false,
            )
            .run()
        };
        let one = run(1);
        for n in [2, 3] {
            same(
                &format!("{} {router} with {n} threads", T::DTYPE),
                &one,
                &run(n),
            );
        }
    }
}

#[test]
fn thread_count_does_not_change_a_bit() {
    threads::<f32>();
    threads::<half::bf16>();
    threads::<half::f16>();
}

#[test]
fn a_token_does_not_feel_its_batch() {
    let case = sized(90, 8, 48, 72);
    let alone = |r: &Router| {
        !matches!(
            r,
            Router::ExpertChoice { .. }
                | Router::Stochastic {
                    per: StochasticPer::Sentence
                }
        )
    };
    for router in routers(8).into_iter().filter(alone) {
        let whole =
            Problem::<half::bf16>::new(&case, GateOptions::new(router), Activation::Silu, true);
        let all = whole.run();
        for (first, last) in [(0, 1), (17, 18), (40, 53), (89, 90)] {
            let mut part =
                Problem::<half::bf16>::new(&case, GateOptions::new(router), Activation::Silu, true);
            part.tokens = last - first;
            part.ctx.first_token = first as u32;
            part.x = whole.x[first * 48..last * 48].to_vec();
            part.dy = whole.dy[first * 48..last * 48].to_vec();
            part.token_ids = whole.token_ids[first..last].to_vec();
            part.sequence_offsets = vec![0, part.tokens as i32];
            let some = part.run();
            let what = format!("{router} tokens {first}..{last}");
            assert_same(&what, &some.y, &all.y[first * 48..last * 48]);
            let (ours, table) = (&some.state.gate().table, &all.state.gate().table);
            for t in first..last {
                assert_eq!(ours.experts_of(t - first), table.experts_of(t), "{what}");
                assert_same(&what, ours.weights_of(t - first), table.weights_of(t));
            }
        }
    }
}

#[test]
fn a_used_state_gives_the_same_bits_and_keeps_its_memory() {
    let large = sized(300, 8, 48, 72);
    let small = sized(33, 8, 48, 72);
    for router in routers(8) {
        let problem =
            |case| Problem::<f32>::new(case, GateOptions::new(router), Activation::Gelu, false);
        let fresh = problem(&small).run();
        let used = problem(&large).run_in(LayerState::default()).state;
        let scores = used.gate().scores.as_ptr();
        let rows = used.maps().row_of_assignment.as_ptr();
        let again = problem(&small).run_in(used);
        same(&format!("{router} in a used state"), &fresh, &again);
        assert_eq!(
            scores,
            again.state.gate().scores.as_ptr(),
            "{router}: scores moved"
        );
        let moved = again.state.maps().row_of_assignment.as_ptr();
        assert_eq!(rows, moved, "{router}: maps moved");
    }
}
