//! Asynchronous copies, and the proxies by which they access memory.

use tollgate_vgpu::report::Kind::{ProxyFence, Race};

use super::Apart::Warps;
use super::{Litmus, all, racy, silent};

const FENCE: &str = "fence.proxy.async.shared::cta;";
const SYNC: &str = "barrier.sync 1, 64;";

pub(super) fn tests() -> Vec<Litmus> {
    [cp_async(), stores(), loads()].concat()
}

fn cp_async() -> Vec<Litmus> {
    const COPY: &str = "cp.async.ca.shared.global [%s+64], [%m+64], 16;";
    const READ: &str = "ld.shared.u32 %v, [%s+64];";
    let nobody = || String::new();
    vec![
        silent(
            "a copy is read by its thread after the wait",
            Warps,
            [all(&[COPY, "cp.async.wait_all;", READ]), nobody()],
            &[[0, 0]],
        ),
        silent(
            "a copy is read by another thread after wait and barrier",
            Warps,
            [all(&[COPY, "cp.async.wait_all;", SYNC]), all(&[SYNC, READ])],
            &[[0, 0]],
        ),
        racy(
            "a copy is overwritten before the wait",
            Warps,
            [
                all(&[COPY, "st.shared.u32 [%s+64], 1;", "cp.async.wait_all;"]),
                nobody(),
            ],
            Race,
        ),
        racy(
            "a barrier alone does not wait for a copy",
            Warps,
            [
                all(&[COPY, SYNC, "cp.async.wait_all;"]),
                all(&[SYNC, "st.shared.u32 [%s+64], 1;"]),
            ],
            Race,
        ),
        racy(
            "a wait alone does not reach another thread",
            Warps,
            [
                all(&[COPY, "cp.async.wait_all;"]),
                "st.shared.u32 [%s+64], 1;".to_owned(),
            ],
            Race,
        ),
        racy(
            "the source is written while it is copied",
            Warps,
            [
                all(&[COPY, "cp.async.wait_all;"]),
                "st.global.u32 [%m+64], 1;".to_owned(),
            ],
            Race,
        ),
    ]
}

fn stores() -> Vec<Litmus> {
    const WRITE: &str = "st.shared.v4.u32 [%s], {%who, %who, %who, %who};";
    const STORE: &str = "cp.async.bulk.global.shared::cta.bulk_group [%m], [%s], 16;\n\
                         cp.async.bulk.commit_group;";
    const WAIT: &str = "cp.async.bulk.wait_group 0;";
    let copied = |first: &str, second: &str| {
        [
            all(&[WRITE, first, SYNC]),
            all(&[SYNC, second, STORE, WAIT]),
        ]
    };
    let reused = |wait: &str| {
        [
            all(&[WRITE, FENCE, STORE, wait, WRITE, WAIT]),
            String::new(),
        ]
    };
    let back = |wait: &str| {
        [
            all(&[WRITE, FENCE, STORE, wait, "ld.global.u32 %v, [%m];", WAIT]),
            String::new(),
        ]
    };
    vec![
        silent(
            "a proxy fence of the writer",
            Warps,
            copied(FENCE, ""),
            &[[0, 0]],
        ),
        silent(
            "a proxy fence of the copier",
            Warps,
            copied("", FENCE),
            &[[0, 0]],
        ),
        racy("no proxy fence", Warps, copied("", ""), ProxyFence),
        racy(
            "an ordinary fence is no proxy fence",
            Warps,
            copied("fence.sc.gpu;", "fence.sc.gpu;"),
            ProxyFence,
        ),
        racy(
            "a proxy fence without a barrier",
            Warps,
            [all(&[WRITE, FENCE]), all(&[STORE, WAIT])],
            Race,
        ),
        silent(
            "the source is written again after it was read",
            Warps,
            reused("cp.async.bulk.wait_group.read 0;"),
            &[[0, 0]],
        ),
        racy(
            "the source is written again at once",
            Warps,
            reused(""),
            Race,
        ),
        silent(
            "a destination is read after the wait",
            Warps,
            back(WAIT),
            &[[0, 0]],
        ),
        racy(
            "a destination is read when only the source is free",
            Warps,
            back("cp.async.bulk.wait_group.read 0;"),
            Race,
        ),
    ]
}

fn loads() -> Vec<Litmus> {
    const INIT: &str = "mbarrier.init.shared.b64 [%b], 1;";
    const LOAD: &str = "mbarrier.arrive.expect_tx.shared.b64 _, [%b], 16;\n\
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%m+64], 16, [%b];";
    const AWAIT: &str = "WAIT~:\nmbarrier.try_wait.parity.shared.b64 %q, [%b], 0;\n@!%q bra WAIT~;";
    const READ: &str = "ld.shared.u32 %v, [%s];";
    // Thread 1 sets the barrier up and reads, thread 0 copies.
    let load = |fence: &str, sync: &str, wait: &str| {
        [
            all(&[sync, LOAD, AWAIT]),
            all(&[INIT, fence, SYNC, wait, READ]),
        ]
    };
    vec![
        silent("a load", Warps, load(FENCE, SYNC, AWAIT), &[[0, 0]]),
        silent(
            "a load with a fence for barriers",
            Warps,
            load("fence.mbarrier_init.release.cluster;", SYNC, AWAIT),
            &[[0, 0]],
        ),
        silent(
            "a load with the copier's fence",
            Warps,
            load("", &all(&[SYNC, FENCE]), AWAIT),
            &[[0, 0]],
        ),
        racy(
            "an mbarrier that copies do not see",
            Warps,
            load("", SYNC, AWAIT),
            ProxyFence,
        ),
        racy(
            "a load is read before the wait",
            Warps,
            load(FENCE, SYNC, ""),
            Race,
        ),
        racy(
            "the source of a load was written without a proxy fence",
            Warps,
            [
                all(&[INIT, FENCE, "st.global.u32 [%m+64], 1;", LOAD, AWAIT]),
                String::new(),
            ],
            ProxyFence,
        ),
        racy(
            "the destination of a load was written without a proxy fence",
            Warps,
            [
                all(&[INIT, FENCE, "st.shared.u32 [%s], 1;", LOAD, AWAIT]),
                String::new(),
            ],
            ProxyFence,
        ),
    ]
}
