//! Calls, local arrays, switches, constants, structs by value, carry chains: a word a thread.

use super::references;
use super::{Case, Failure, Params, Random, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let language = kernel_file!("language");
    let table = kernel_file!("jump_table");
    vec![
        Case::new("call_collatz", language, COUNTS, |run, &n| {
            let x = run.random().list(n, |random| random.below(200) as u32);
            let want: Vec<u32> = x.iter().map(|&x| references::collatz_steps(x)).collect();
            words(run, "call_collatz", n, &[&x], &want, |params| params)
        }),
        Case::new("local_sort", language, COUNTS, |run, &n| {
            let x = run
                .random()
                .list(16 * n, |random| random.below(1000) as u32);
            let mut want = x.clone();
            want.chunks_mut(16).for_each(<[u32]>::sort);
            words(run, "local_sort", n, &[&x], &want, |params| params)
        }),
        Case::new("switch_ops", language, COUNTS, |run, &n| {
            coded(run, "switch_ops", n, u32::MAX, references::switch_op)
        }),
        Case::new("jump_table", table, COUNTS, |run, &n| {
            coded(run, "jump_table", n, 4, references::jump_op)
        }),
        Case::new("constants", language, COUNTS, |run, &n| {
            let x = run.random().words(n);
            words(
                run,
                "constants",
                n,
                &[&x],
                &references::constants(&x),
                |params| params,
            )
        }),
        Case::new("by_value", language, COUNTS, |run, &n| {
            let mut random = run.random();
            let x = random.words(n);
            let [a, b, c, bias] = [(); 4].map(|()| random.next() as u32);
            let want = references::affine(&x, [a, b, c], bias);
            words(run, "by_value", n, &[&x], &want, |params| {
                params.bytes(bytemuck::bytes_of(&[a, b, c, bias]), 4)
            })
        }),
        Case::new("trap_unless_below", language, COUNTS, |run, &n| {
            let x = run.random().list(n, |random| random.below(1000) as u32);
            words(run, "trap_unless_below", n, &[&x], &x, |params| {
                params.u32(1000)
            })
        }),
        Case::new("wide_add", table, COUNTS, |run, &n| {
            let mut random = run.random();
            // Full words make long carries.
            let mut number = |random: &mut Random| match random.below(3) {
                0 => u32::MAX,
                1 => 0,
                _ => random.next() as u32,
            };
            let a = random.list(3 * n, &mut number);
            let b = random.list(3 * n, &mut number);
            let want: Vec<u32> = (0..n)
                .flat_map(|i| {
                    let of = |words: &[u32]| [0, 1, 2].map(|j| words[3 * i + j]);
                    references::wide_add(of(&a), of(&b))
                })
                .collect();
            words(run, "wide_add", n, &[&a, &b], &want, |params| params)
        }),
    ]
}

/// Threads with work; the last block may have idle ones, or there is nothing to do at all.
const COUNTS: &[usize] = &[75, 0, 1, 32, 33, 1000];
const BLOCK: usize = 48;

/// Launches with the inputs, the output, `n`, and what `more` adds.
fn words(
    run: &Run<'_>,
    entry: &str,
    n: usize,
    inputs: &[&[u32]],
    want: &[u32],
    more: impl Fn(Params) -> Params,
) -> Result<(), Failure> {
    let mut params = Params::new();
    for input in inputs {
        params = params.u64(run.upload(input)?);
    }
    let out = run.alloc::<u32>(want.len())?;
    let params = more(params.u64(out).len(n));
    run.launch(entry, &launch(n.div_ceil(BLOCK).max(1), BLOCK, 0), &params)?;
    same("out", &run.read::<u32>(out, want.len())?, want)
}

/// Words and codes.
fn coded(
    run: &Run<'_>,
    entry: &str,
    n: usize,
    codes: u32,
    operation: fn(u32, u32) -> u32,
) -> Result<(), Failure> {
    let mut random = run.random();
    let x = random.words(n);
    let code = random.list(n, |random| random.below(codes as usize) as u32);
    let pairs = x.iter().zip(&code);
    let want: Vec<u32> = pairs.map(|(&x, &code)| operation(x, code)).collect();
    words(run, entry, n, &[&x, &code], &want, |params| params)
}
