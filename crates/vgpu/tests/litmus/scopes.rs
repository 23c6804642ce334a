//! Orders and scopes of loads, stores, read-modify-writes and fences in global memory.

use tollgate_vgpu::report::Kind::{Race, Scope};

use super::Apart::{Blocks, Cluster, Devices, Warps};
use super::{Litmus, all, racy, silent, until};

const X: &str = "st.global.u32 [%m], 7;";
const READ_X: &str = "ld.global.u32 %v, [%m];";

/// Writes `x`, then the flag with these statements.
fn send(flag: &[&str]) -> String {
    all(&[&[X], flag].concat())
}

/// Waits for the flag with this load and statement, then reads `x`.
fn receive(load: &str, then: &str) -> String {
    all(&[&until(load, "%m+64", 1), then, READ_X])
}

fn store(words: &str) -> String {
    format!("st.{words}.global.u32 [%m+64], 1;")
}

fn load(words: &str) -> String {
    format!("ld.{words}.global.u32")
}

pub(super) fn tests() -> Vec<Litmus> {
    [message_passing(), chains(), buffering(), atomics()].concat()
}

fn message_passing() -> Vec<Litmus> {
    let by_release = |scope: &str| {
        [
            send(&[&store(&format!("release.{scope}"))]),
            receive(&load(&format!("acquire.{scope}")), ""),
        ]
    };
    let by_fence = |fence: &str, scope: &str| {
        [
            send(&[fence, &store(&format!("relaxed.{scope}"))]),
            receive(&load(&format!("relaxed.{scope}")), fence),
        ]
    };
    let [released, acquired] = by_release("gpu");
    let [fenced, refenced] = by_fence("fence.acq_rel.gpu;", "gpu");
    let relaxed = receive(&load("relaxed.gpu"), "");
    vec![
        silent(
            "release and acquire of warps",
            Warps,
            by_release("cta"),
            &[[0, 7]],
        ),
        silent(
            "release and acquire of a cluster",
            Cluster,
            by_release("cluster"),
            &[[0, 7]],
        ),
        silent(
            "release and acquire of blocks",
            Blocks,
            by_release("gpu"),
            &[[0, 7]],
        ),
        silent(
            "release and acquire of devices",
            Devices,
            by_release("sys"),
            &[[0, 7]],
        ),
        silent(
            "fences of blocks",
            Blocks,
            by_fence("fence.acq_rel.gpu;", "gpu"),
            &[[0, 7]],
        ),
        silent(
            "sc fences of blocks",
            Blocks,
            by_fence("fence.sc.gpu;", "gpu"),
            &[[0, 7]],
        ),
        silent(
            "fences of devices",
            Devices,
            by_fence("membar.sys;", "sys"),
            &[[0, 7]],
        ),
        silent(
            "volatile flag and membar",
            Blocks,
            [
                send(&["membar.gl;", &store("volatile")]),
                receive(&load("volatile"), "membar.gl;"),
            ],
            &[[0, 7]],
        ),
        silent(
            "release, then a fence behind the poll",
            Blocks,
            [released.clone(), refenced.clone()],
            &[[0, 7]],
        ),
        silent(
            "a fence, then an acquire",
            Blocks,
            [fenced.clone(), acquired.clone()],
            &[[0, 7]],
        ),
        racy(
            "a flag without a release",
            Blocks,
            [send(&[&store("relaxed.gpu")]), acquired.clone()],
            Race,
        ),
        racy(
            "a flag without an acquire",
            Blocks,
            [released.clone(), relaxed.clone()],
            Race,
        ),
        racy(
            "no fence behind the poll",
            Blocks,
            [fenced.clone(), relaxed],
            Race,
        ),
        racy(
            "no fence before the flag",
            Blocks,
            [send(&[&store("relaxed.gpu")]), refenced],
            Race,
        ),
        racy(
            "a fence behind the flag",
            Blocks,
            [
                send(&[&store("relaxed.gpu"), "fence.acq_rel.gpu;"]),
                acquired.clone(),
            ],
            Race,
        ),
        racy(
            "the flag before the data",
            Blocks,
            [all(&[&store("release.gpu"), X]), acquired.clone()],
            Race,
        ),
        racy(
            "block scope between blocks",
            Blocks,
            by_release("cta"),
            Scope,
        ),
        racy(
            "cluster scope between clusters",
            Blocks,
            by_release("cluster"),
            Scope,
        ),
        racy(
            "device scope between devices",
            Devices,
            by_release("gpu"),
            Scope,
        ),
        racy(
            "an acquire of block scope between blocks",
            Blocks,
            [released.clone(), receive(&load("acquire.cta"), "")],
            Scope,
        ),
        racy(
            "a release of block scope between blocks",
            Blocks,
            [send(&[&store("release.cta")]), acquired],
            Scope,
        ),
        racy(
            "fences of block scope between blocks",
            Blocks,
            by_fence("fence.acq_rel.cta;", "gpu"),
            Race,
        ),
        racy(
            "a weak flag",
            Blocks,
            [
                send(&["fence.acq_rel.gpu;", "st.global.u32 [%m+64], 1;"]),
                receive(&load("acquire.gpu"), ""),
            ],
            Race,
        ),
    ]
}

/// What one thread learnt and hands on.
fn chains() -> Vec<Litmus> {
    let last = all(&[&until(&load("acquire.gpu"), "%m+72", 2), READ_X]);
    let hand_on = |poll: &str, flag: &str| {
        all(&[
            &until(&load(poll), "%m+64", 1),
            &format!("st.{flag}.global.u32 [%m+72], 2;"),
        ])
    };
    let first = send(&[&store("release.gpu")]);
    let add = |sem: &str| format!("atom.add.{sem}.gpu.global.u32 %w, [%m+72], 1;");
    // The last thread learns from a third word, which orders nothing, that the flag is 2.
    let overwritten = all(&[
        &until(&load("relaxed.gpu"), "%m+72", 1),
        "ld.acquire.gpu.global.u32 %w, [%m+64];",
        READ_X,
    ]);
    vec![
        silent(
            "a message handed on",
            Blocks,
            [
                first.clone(),
                hand_on("acquire.gpu", "release.gpu"),
                last.clone(),
            ],
            &[[0, 0, 7]],
        ),
        silent(
            "a message handed on by a block to a device",
            Devices,
            [
                send(&[&store("release.sys")]),
                hand_on("acquire.sys", "release.sys"),
                all(&[&until(&load("acquire.sys"), "%m+72", 2), READ_X]),
            ],
            &[[0, 0, 7]],
        ),
        racy(
            "handed on without an acquire",
            Blocks,
            [
                first.clone(),
                hand_on("relaxed.gpu", "release.gpu"),
                last.clone(),
            ],
            Race,
        ),
        racy(
            "handed on without a release",
            Blocks,
            [first, hand_on("acquire.gpu", "relaxed.gpu"), last.clone()],
            Race,
        ),
        silent(
            "read-modify-writes carry a release on",
            Blocks,
            [send(&[&add("release")]), add("relaxed"), last.clone()],
            &[[0, 0, 7]],
        ),
        racy(
            "a read-modify-write that does not release",
            Blocks,
            [send(&[&add("relaxed")]), add("release"), last],
            Race,
        ),
        racy(
            "a plain store ends a release sequence",
            Blocks,
            [
                send(&["st.release.gpu.global.u32 [%m+64], 1;"]),
                all(&[
                    &until(&load("relaxed.gpu"), "%m+64", 1),
                    "st.relaxed.gpu.global.u32 [%m+64], 2;",
                    "st.relaxed.gpu.global.u32 [%m+72], 1;",
                ]),
                overwritten,
            ],
            Race,
        ),
    ]
}

/// Results that sequential consistency forbids are never seen, with and without the fences that PTX
/// asks for.
fn buffering() -> Vec<Litmus> {
    let store_load = |own: u32, other: u32, fence: &str| {
        format!(
            "st.relaxed.gpu.global.u32 [%m+{own}], 1;\n{fence}\n\
             ld.relaxed.gpu.global.u32 %v, [%m+{other}];"
        )
    };
    let load_store = |own: u32, other: u32| {
        format!(
            "ld.relaxed.gpu.global.u32 %v, [%m+{other}];\nst.relaxed.gpu.global.u32 [%m+{own}], 1;"
        )
    };
    let two_loads = |first: u32, second: u32| {
        format!(
            "ld.relaxed.gpu.global.u32 %v, [%m+{first}];\n\
             ld.relaxed.gpu.global.u32 %w, [%m+{second}];\nmad.lo.u32 %v, %v, 10, %w;"
        )
    };
    let set = |at: u32| format!("st.relaxed.gpu.global.u32 [%m+{at}], 1;");
    let mut reads_of_two = Vec::new();
    for first in [0, 1, 10, 11] {
        for second in [0, 1, 10, 11] {
            // Two readers that see the writes in opposite orders.
            if (first, second) != (10, 10) {
                reads_of_two.push([0, 0, first, second]);
            }
        }
    }
    vec![
        silent(
            "store buffering with sc fences",
            Blocks,
            [
                store_load(0, 4, "fence.sc.gpu;"),
                store_load(4, 0, "fence.sc.gpu;"),
            ],
            &[[0, 1], [1, 0], [1, 1]],
        ),
        silent(
            "store buffering, both zero permitted and never seen",
            Blocks,
            [store_load(0, 4, ""), store_load(4, 0, "")],
            &[[0, 1], [1, 0], [1, 1]],
        ),
        silent(
            "load buffering",
            Blocks,
            [load_store(0, 4), load_store(4, 0)],
            &[[0, 0], [0, 1], [1, 0]],
        ),
        silent(
            "coherence of one word",
            Blocks,
            [set(0), two_loads(0, 0)],
            &[[0, 0], [0, 1], [0, 11]],
        ),
        silent(
            "independent reads of independent writes",
            Blocks,
            [set(0), set(4), two_loads(0, 4), two_loads(4, 0)],
            &reads_of_two,
        ),
        racy(
            "weak store buffering",
            Blocks,
            [
                "st.global.u32 [%m], 1;\nld.global.u32 %v, [%m+4];".to_owned(),
                "st.global.u32 [%m+4], 1;\nld.global.u32 %v, [%m];".to_owned(),
            ],
            Race,
        ),
        racy(
            "strong accesses of two sizes",
            Blocks,
            [set(0), "ld.relaxed.gpu.global.u64 %d0, [%m];".to_owned()],
            Race,
        ),
    ]
}

fn atomics() -> Vec<Litmus> {
    let add = |scope: &str| format!("red.relaxed.{scope}.global.add.u32 [%m], 1;");
    let locked = |take: &str, free: &str| {
        format!(
            "TAKE~:\natom.cas.{take}.gpu.global.b32 %w, [%m+64], 0, 1;\nsetp.ne.u32 %q, %w, 0;\n\
             @%q bra TAKE~;\n\
             ld.global.u32 %v, [%m];\nadd.u32 %v, %v, 1;\nst.global.u32 [%m], %v;\n\
             atom.exch.{free}.gpu.global.b32 %w, [%m+64], 0;"
        )
    };
    let lock = |take: &str, free: &str| [locked(take, free), locked(take, free)];
    vec![
        silent(
            "sums by atomics",
            Blocks,
            [add("gpu"), add("gpu"), add("gpu")],
            &[[0; 3]],
        ),
        racy(
            "sums of block scope between blocks",
            Blocks,
            [add("cta"), add("cta")],
            Scope,
        ),
        racy(
            "sums of device scope between devices",
            Devices,
            [add("gpu"), add("gpu")],
            Scope,
        ),
        racy(
            "a sum and a plain store",
            Blocks,
            [add("gpu"), X.to_owned()],
            Race,
        ),
        racy(
            "a sum and a plain load",
            Blocks,
            [add("gpu"), READ_X.to_owned()],
            Race,
        ),
        silent(
            "a lock",
            Blocks,
            lock("acquire", "release"),
            &[[1, 2], [2, 1]],
        ),
        racy(
            "a lock taken without an acquire",
            Blocks,
            lock("relaxed", "release"),
            Race,
        ),
        racy(
            "a lock freed without a release",
            Blocks,
            lock("acquire", "relaxed"),
            Race,
        ),
    ]
}
