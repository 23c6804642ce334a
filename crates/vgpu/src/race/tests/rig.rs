//! A few warps and short names for what they do.

use super::super::*;

pub use ConflictKind::{InsufficientScope, IntraWarp, MissingProxyFence, Race};
pub use Order::{AcqRel, Acquire, Relaxed, Release};
pub use Scope::{Cluster, Cta, Gpu, Sys};

/// All lanes.
pub const ALL: u32 = u32::MAX;

/// Where the tests' shared memory is.
pub const SHARED: Space = Space::Shared(0);

/// What an access met.
pub type Met = Option<ConflictKind>;

pub struct Rig {
    pub d: Detector,
    pub w: Vec<WarpId>,
    inst: u32,
}

/// A warp of 32 lanes.
pub fn warp(device: u32, cluster: u32, block: u32, warp: u32) -> WarpInfo {
    WarpInfo {
        launch: device,
        device,
        cluster,
        block,
        warp,
        lanes: ALL,
    }
}

impl Rig {
    pub fn of(warps: &[WarpInfo]) -> Rig {
        let mut d = Detector::new(Config::default());
        let w = warps
            .iter()
            .map(|i| d.begin_warp(*i, &Clock::default()))
            .collect();
        d.begin_block(0, 4096);
        Rig { d, w, inst: 0 }
    }

    /// Two warps of one block.
    pub fn one_block() -> Rig {
        Rig::of(&[warp(0, 0, 0, 0), warp(0, 0, 0, 1)])
    }

    /// One warp each in: two blocks of a cluster, another cluster, another device.
    pub fn wide() -> Rig {
        Rig::of(&[
            warp(0, 0, 0, 0),
            warp(0, 0, 1, 0),
            warp(0, 1, 2, 0),
            warp(1, 2, 3, 0),
        ])
    }

    pub fn access(&mut self, w: usize, access: Access) -> Met {
        self.inst += 1;
        let c = self.d.access(
            self.w[w],
            &Access {
                inst: self.inst,
                ..access
            },
        )?;
        assert_eq!(c.second.inst, self.inst);
        Some(c.kind)
    }

    fn one(&mut self, w: usize, lane: u32, kind: Kind, order: Order, scope: Scope, at: u64) -> Met {
        let at = [at; 32];
        self.access(w, word(Space::Global, kind, order, scope, 1 << lane, &at))
    }

    /// Weak load of a word of global memory by one lane.
    pub fn ld(&mut self, w: usize, lane: u32, at: u64) -> Met {
        self.one(w, lane, Kind::Read, Order::Weak, Cta, at)
    }

    /// Weak store.
    pub fn st(&mut self, w: usize, lane: u32, at: u64) -> Met {
        self.one(w, lane, Kind::Write, Order::Weak, Cta, at)
    }

    /// Strong load by lane 0.
    pub fn lds(&mut self, w: usize, order: Order, scope: Scope, at: u64) -> Met {
        self.one(w, 0, Kind::Read, order, scope, at)
    }

    /// Strong store by lane 0.
    pub fn sts(&mut self, w: usize, order: Order, scope: Scope, at: u64) -> Met {
        self.one(w, 0, Kind::Write, order, scope, at)
    }

    /// Read-modify-write by lane 0.
    pub fn rmw(&mut self, w: usize, order: Order, scope: Scope, at: u64) -> Met {
        self.one(w, 0, Kind::Rmw, order, scope, at)
    }

    pub fn fence(&mut self, w: usize, scope: Scope) {
        self.d.fence(self.w[w], ALL, scope, FenceKind::AcqRel);
    }

    /// `bar.sync` of these warps.
    pub fn bar(&mut self, warps: &[usize]) {
        let mut clock = Clock::default();
        for &w in warps {
            self.d.release(self.w[w], ALL, &mut clock);
        }
        for &w in warps {
            self.d.acquire(self.w[w], ALL, &clock);
        }
    }

    /// An asynchronous operation of lane 0 touches a run of the block's shared memory.
    pub fn bulk(&mut self, agent: AgentId, kind: Kind, at: u64, bytes: u64) -> Met {
        self.inst += 1;
        let range = RangeAccess {
            space: SHARED,
            kind,
            proxy: Proxy::Async,
            address: at,
            bytes,
            inst: self.inst,
        };
        self.d.agent_access(agent, &range).map(|c| c.kind)
    }

    pub fn spawn(&mut self, w: usize) -> AgentId {
        self.d.spawn(self.w[w], 1, 7)
    }

    /// A whole warp reads or writes 128 bytes of shared memory.
    pub fn tile(&mut self, w: usize, kind: Kind, at: u64) -> Met {
        let addresses = std::array::from_fn(|l| at + 4 * l as u64);
        self.access(w, word(SHARED, kind, Order::Weak, Cta, ALL, &addresses))
    }
}

/// An access of a word a lane.
pub fn word(
    space: Space,
    kind: Kind,
    order: Order,
    scope: Scope,
    lanes: u32,
    addresses: &[u64; 32],
) -> Access<'_> {
    Access {
        space,
        kind,
        order,
        scope,
        proxy: Proxy::Generic,
        lanes,
        addresses,
        bytes: 4,
        unit: 4,
        inst: 0,
    }
}
