//! Barriers of lanes, warps, blocks and clusters, and mbarriers.

use tollgate_vgpu::report::Kind::{Race, Scope, WarpRace};

use super::Apart::{Cluster, Lanes, Warps};
use super::{Litmus, all, racy, silent, until};

const WRITE: &str = "st.shared.u32 [%s], 7;";
const READ: &str = "ld.shared.u32 %v, [%s];";

fn both(sync: &str) -> [String; 2] {
    [all(&[WRITE, sync]), all(&[sync, READ])]
}

pub(super) fn tests() -> Vec<Litmus> {
    [lanes(), warps(), clusters(), mbarriers()].concat()
}

fn lanes() -> Vec<Litmus> {
    vec![
        silent("a warp barrier", Lanes, both("bar.warp.sync 3;"), &[[0, 7]]),
        racy("no warp barrier", Lanes, both(""), WarpRace),
        racy(
            "a warp barrier behind the read",
            Lanes,
            [
                all(&[WRITE, "bar.warp.sync 3;"]),
                all(&[READ, "bar.warp.sync 3;"]),
            ],
            WarpRace,
        ),
    ]
}

fn warps() -> Vec<Litmus> {
    let flag = |store: &str, load: &str| {
        [
            all(&[
                WRITE,
                "fence.acq_rel.cta;",
                &format!("st.{store}.shared.u32 [%s+32], 1;"),
            ]),
            all(&[
                &until(&format!("ld.{load}.shared.u32"), "%s+32", 1),
                "fence.acq_rel.cta;",
                READ,
            ]),
        ]
    };
    vec![
        silent(
            "a block barrier",
            Warps,
            both("barrier.sync 1, 64;"),
            &[[0, 7]],
        ),
        silent(
            "an arrival at a barrier",
            Warps,
            [
                all(&[WRITE, "barrier.arrive 1, 64;"]),
                all(&["barrier.sync 1, 64;", READ]),
            ],
            &[[0, 7]],
        ),
        silent(
            "a volatile flag in shared memory",
            Warps,
            flag("volatile", "volatile"),
            &[[0, 7]],
        ),
        racy("no block barrier", Warps, both(""), Race),
        racy(
            "an arrival before the write",
            Warps,
            [
                all(&["barrier.arrive 1, 64;", WRITE]),
                all(&["barrier.sync 1, 64;", READ]),
            ],
            Race,
        ),
        racy(
            "a warp barrier between warps",
            Warps,
            both("bar.warp.sync 1;"),
            Race,
        ),
        racy(
            "a weak flag in shared memory",
            Warps,
            flag("weak", "volatile"),
            Race,
        ),
    ]
}

fn clusters() -> Vec<Litmus> {
    // Of the block of rank 0, wherever the thread is.
    const WRITE_0: &str = "mapa.shared::cluster.u32 %r0, %s, 0;\nst.shared::cluster.u32 [%r0], 7;";
    // The other lanes of the warp meet it with the one at their end.
    let sync = |sem: &str| format!("barrier.cluster.arrive.{sem};\nbarrier.cluster.wait;");
    let through = |sync: &str| [all(&[sync, READ]), all(&[WRITE_0, sync])];
    let flag = |scope: &str| {
        [
            all(&[
                &until(&format!("ld.acquire.{scope}.shared.u32"), "%s+32", 1),
                READ,
            ]),
            all(&[
                WRITE_0,
                &format!("st.release.{scope}.shared::cluster.u32 [%r0+32], 1;"),
            ]),
        ]
    };
    vec![
        silent(
            "a flag in another block",
            Cluster,
            flag("cluster"),
            &[[7, 0]],
        ),
        racy(
            "a flag of block scope in another block",
            Cluster,
            flag("cta"),
            Scope,
        ),
        racy("no cluster barrier", Cluster, through(""), Race),
        racy(
            "a fence alone between blocks of a cluster",
            Cluster,
            through("fence.acq_rel.cluster;"),
            Race,
        ),
        silent(
            "a cluster barrier of one lane a block",
            Cluster,
            through(&sync("release")),
            &[[7, 0]],
        ),
        racy(
            "a cluster barrier that does not release",
            Cluster,
            through(&sync("relaxed")),
            Race,
        ),
    ]
}

fn mbarriers() -> Vec<Litmus> {
    let arrive = |sem: &str| {
        all(&[
            WRITE,
            "mbarrier.init.shared.b64 [%b], 1;",
            "barrier.sync 1, 64;",
            &format!("mbarrier.arrive.{sem}.cta.shared.b64 _, [%b];"),
        ])
    };
    let wait = |sem: &str| {
        format!(
            "barrier.sync 1, 64;\nWAIT~:\n\
             mbarrier.try_wait.parity.{sem}.cta.shared.b64 %q, [%b], 0;\n@!%q bra WAIT~;\n{READ}"
        )
    };
    // The barrier orders what came before it; the write comes behind.
    let late = |sem: &str| {
        all(&[
            "mbarrier.init.shared.b64 [%b], 1;",
            "barrier.sync 1, 64;",
            WRITE,
            &format!("mbarrier.arrive.{sem}.cta.shared.b64 _, [%b];"),
        ])
    };
    vec![
        silent(
            "an mbarrier",
            Warps,
            [late("release"), wait("acquire")],
            &[[0, 7]],
        ),
        silent(
            "an mbarrier that need not order",
            Warps,
            [arrive("relaxed"), wait("relaxed")],
            &[[0, 7]],
        ),
        racy(
            "an arrival that does not release",
            Warps,
            [late("relaxed"), wait("acquire")],
            Race,
        ),
        racy(
            "a wait that does not acquire",
            Warps,
            [late("release"), wait("relaxed")],
            Race,
        ),
    ]
}
