//! Random programs: the detector and the exact model must agree about every access.

use super::super::*;
use super::model::{Know, Model, Release, take};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n as u64) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

/// A running program, in the detector and in the model.
struct Program {
    rng: Rng,
    detector: Detector,
    model: Model,
    warps: Vec<(WarpId, usize)>,
    clocks: Vec<(Clock, Know)>,
    scoped: Vec<(ScopedClock, Vec<Release>)>,
    /// Of the detector, of the model, whether it was released, and its proxy.
    agents: Vec<(AgentId, usize, bool, Proxy)>,
    /// Bytes of global and of shared memory that are used, a power of two.
    size: u32,
    inst: u32,
    next_block: u32,
    log: Vec<String>,
}

const SCOPES: [Scope; 4] = [Scope::Cta, Scope::Cluster, Scope::Gpu, Scope::Sys];

impl Program {
    fn new(seed: u64) -> Self {
        let mut p = Program {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            detector: Detector::new(Config { limit: usize::MAX }),
            model: Model::default(),
            warps: Vec::new(),
            clocks: vec![Default::default(); 3],
            scoped: vec![Default::default(); 2],
            agents: Vec::new(),
            size: 64,
            inst: 0,
            next_block: 0,
            log: Vec::new(),
        };
        p.size = p.rng.pick(&[16, 64, 64, 512]);
        p.detector.begin_block(0, p.size as u64);
        for _ in 0..2 + p.rng.below(3) {
            p.begin(None);
        }
        p
    }

    fn begin(&mut self, start: Option<usize>) {
        let block = if self.next_block == 0 || self.rng.one_in(2) {
            self.next_block += 1;
            self.next_block - 1
        } else {
            self.rng.below(self.next_block)
        };
        let info = WarpInfo {
            launch: block / 2,
            device: block / 4,
            cluster: block / 2,
            block,
            warp: self.model.warps.len() as u32,
            lanes: match self.size {
                512 => self.rng.pick(&[15, 0xffff, u32::MAX]),
                _ => self.rng.pick(&[1, 3, 7, 15, 15, 15]),
            },
        };
        let (clock, know) = start.map(|c| self.clocks[c].clone()).unwrap_or_default();
        let id = self.detector.begin_warp(info, &clock);
        self.warps.push((id, self.model.begin(info, &know)));
        self.log.push(format!(
            "begin {} {info:?} from {start:?}",
            self.warps.len() - 1
        ));
    }

    fn lanes(&mut self, of: u32) -> u32 {
        if self.rng.one_in(2) {
            return of;
        }
        let some = of & self.rng.below(u32::MAX) & self.rng.pick(&[15, 0xff, u32::MAX]);
        if some == 0 { of } else { some }
    }

    fn space(&mut self) -> Space {
        if self.rng.one_in(3) {
            Space::Shared(0)
        } else {
            Space::Global
        }
    }

    /// Whether the two agree that `kinds` is what `got` found; `true` ends the program.
    fn compare(&mut self, got: Option<Box<Conflict>>, kinds: &[ConflictKind]) -> bool {
        match got {
            None => assert!(
                kinds.is_empty(),
                "missed {kinds:?} after\n{}",
                self.log.join("\n")
            ),
            Some(c) => {
                assert!(
                    kinds.contains(&c.kind),
                    "reported {c:?}, expected {kinds:?} after\n{}",
                    self.log.join("\n")
                );
                return true;
            }
        }
        false
    }

    /// Conflicts mostly are not made, so that programs get somewhere.
    fn skips(&mut self, kinds: &[ConflictKind]) -> bool {
        !kinds.is_empty() && !self.rng.one_in(12)
    }

    fn addresses(&mut self, bytes: u32) -> [u64; 32] {
        let size = self.size as u64;
        let slots = self.size / bytes;
        let base = (self.rng.below(slots) * bytes) as u64;
        let random: [u32; 32] = std::array::from_fn(|_| self.rng.below(slots));
        match self.rng.below(4) {
            0 => [base; 32],
            1 => std::array::from_fn(|l| (random[l] * bytes) as u64),
            // Swizzled rows.
            2 => std::array::from_fn(|l| base ^ (l as u32 % slots * bytes) as u64),
            _ => std::array::from_fn(|l| (base + l as u64 * bytes as u64) % size),
        }
    }

    fn access(&mut self, w: usize) -> bool {
        let (id, m) = self.warps[w];
        let lanes = self.lanes(self.model.warps[m].info.lanes);
        let bytes = self.rng.pick(&[1, 2, 4, 4, 4, 8, 16]);
        let strong = self.rng.one_in(2);
        let kind = self.rng.pick(&[Kind::Read, Kind::Write, Kind::Rmw]);
        let kind = if !strong && kind == Kind::Rmw {
            Kind::Read
        } else {
            kind
        };
        let unit = if strong { bytes.min(4) } else { bytes };
        let bytes = if kind == Kind::Rmw { unit } else { bytes };
        let order = match kind {
            _ if !strong => Order::Weak,
            Kind::Read => self.rng.pick(&[Order::Relaxed, Order::Acquire]),
            Kind::Write => self.rng.pick(&[Order::Relaxed, Order::Release]),
            Kind::Rmw => self.rng.pick(&[
                Order::Relaxed,
                Order::Acquire,
                Order::Release,
                Order::AcqRel,
            ]),
        };
        let mut addresses = self.addresses(bytes);
        if strong && self.rng.one_in(2) {
            addresses = [self.rng.pick(&[0, 4]); 32];
        }
        self.inst += 1;
        let access = Access {
            space: self.space(),
            kind,
            order,
            scope: self.rng.pick(&SCOPES),
            proxy: Proxy::Generic,
            lanes,
            addresses: &addresses,
            bytes,
            unit,
            inst: self.inst,
        };
        let mut next = self.model.clone();
        let kinds = next.access(m, &access);
        if self.skips(&kinds) {
            return false;
        }
        self.model = next;
        self.log.push(format!("{w}: {access:?}"));
        let got = self.detector.access(id, &access);
        self.compare(got, &kinds)
    }

    fn copy(&mut self, w: usize) -> bool {
        let (id, m) = self.warps[w];
        let lanes = self.lanes(self.model.warps[m].info.lanes);
        let bytes = self.rng.pick(&[4, 8, 16]);
        let addresses = self.addresses(bytes);
        self.inst += 1;
        let access = Access {
            space: self.space(),
            kind: self.rng.pick(&[Kind::Read, Kind::Write]),
            order: Order::Weak,
            scope: Scope::Cta,
            proxy: Proxy::Generic,
            lanes,
            addresses: &addresses,
            bytes,
            unit: bytes,
            inst: self.inst,
        };
        let mut next = self.model.clone();
        next.warps[m].tickets += 1;
        let kinds = next.copy_access(m, next.warps[m].tickets, &access);
        if self.skips(&kinds) {
            return false;
        }
        self.model = next;
        self.log.push(format!("{w}: copy {access:?}"));
        let ticket = self.detector.copy(id);
        assert_eq!(ticket, CopyTicket(self.model.warps[m].tickets));
        let got = self.detector.copy_access(id, ticket, &access);
        self.compare(got, &kinds)
    }

    fn agent(&mut self, a: usize) -> bool {
        let (id, m, _, proxy) = self.agents[a];
        self.inst += 1;
        let size = self.size as u64;
        let address = self.rng.below(self.size) as u64;
        let address = address & !self.rng.pick(&[0, 0, 15, 63]);
        let range = RangeAccess {
            space: self.space(),
            kind: self.rng.pick(&[Kind::Read, Kind::Write]),
            proxy,
            address,
            bytes: self
                .rng
                .pick(&[1 + address % 64, 16, 32, 64, 128])
                .min(size - address),
            inst: self.inst,
        };
        let mut next = self.model.clone();
        let kinds = next.agent_access(m, &range);
        if self.skips(&kinds) {
            return false;
        }
        self.model = next;
        self.log.push(format!("agent {a}: {range:?}"));
        let got = self.detector.agent_access(id, &range);
        self.compare(got, &kinds)
    }

    /// One random step. `true` ends the program.
    fn step(&mut self) -> bool {
        let w = self.rng.below(self.warps.len() as u32) as usize;
        let (id, m) = self.warps[w];
        let lanes = self.lanes(self.model.warps[m].info.lanes);
        let (c, s) = (self.rng.below(3) as usize, self.rng.below(2) as usize);
        let scope = self.rng.pick(&SCOPES);
        let info = self.model.warps[m].info;
        let what = self.rng.below(40);
        if what < 12 {
            return self.access(w);
        }
        if what >= 18 {
            self.log.push(format!(
                "step {what} warp {w} lanes {lanes:#x} c{c} s{s} {scope:?}"
            ));
        }
        match what {
            12..14 => return self.copy(w),
            14..18 => {
                let open: Vec<usize> = (0..self.agents.len())
                    .filter(|a| !self.agents[*a].2)
                    .collect();
                if !open.is_empty() {
                    let a = self.rng.pick(&open);
                    return self.agent(a);
                }
            }
            18..21 => {
                self.detector.warp_sync(id, lanes);
                let know = self.model.union(m, lanes);
                self.model.acquire(m, lanes, &know);
            }
            21..23 => {
                self.detector.release(id, lanes, &mut self.clocks[c].0);
                let know = self.model.union(m, lanes);
                self.clocks[c].1.join(&know);
            }
            23..25 => {
                self.detector.acquire(id, lanes, &self.clocks[c].0);
                let know = self.clocks[c].1.clone();
                self.model.acquire(m, lanes, &know);
            }
            25 => {
                self.detector
                    .release_scoped(id, lanes, scope, &mut self.scoped[s].0);
                let know = self.model.union(m, lanes);
                self.scoped[s].1.push(Release { know, info, scope });
            }
            26..28 => {
                self.detector
                    .acquire_scoped(id, lanes, scope, &self.scoped[s].0);
                let mut know = Know::default();
                take(&self.scoped[s].1, &info, scope, &mut know);
                self.model.acquire(m, lanes, &know);
            }
            28..30 => {
                self.detector.fence(id, lanes, scope, FenceKind::AcqRel);
                self.model.fence(m, lanes, scope);
            }
            30 => {
                self.detector.proxy_fence(id, lanes);
                self.model.proxy_fence(m, lanes);
            }
            31 => {
                let inst = 1000 + self.rng.below(2);
                let agent = self.detector.spawn(id, lanes, inst);
                let model = self.model.spawn(m, lanes);
                let proxy = self.rng.pick(&[Proxy::Generic, Proxy::Async, Proxy::Async]);
                self.agents.push((agent, model, false, proxy));
            }
            32..34 => {
                if !self.agents.is_empty() {
                    let a = self.rng.below(self.agents.len() as u32) as usize;
                    let (agent, model, ..) = self.agents[a];
                    self.log.push(format!("  agent {a} releases"));
                    let know = self.model.agent_release(model);
                    if self.rng.one_in(2) {
                        self.detector.agent_release(agent, &mut self.clocks[c].0);
                        self.clocks[c].1.join(&know);
                    } else {
                        let to = &mut self.scoped[s];
                        self.detector.agent_release_scoped(agent, scope, &mut to.0);
                        to.1.push(Release {
                            know,
                            info: self.model.agents[model].info,
                            scope,
                        });
                    }
                    self.agents[a].2 = true;
                    if self.rng.one_in(3) {
                        self.detector.agent_end(agent);
                        self.agents.remove(a);
                    }
                }
            }
            34..36 => {
                let ticket = self.rng.below(self.model.warps[m].tickets + 1);
                self.log.push(format!("  waits {ticket}"));
                self.detector.copy_wait(id, lanes, CopyTicket(ticket));
                self.model.copy_wait(m, lanes, ticket);
            }
            36 => {
                let ticket = self.model.warps[m].tickets;
                let to = &mut self.scoped[s];
                self.detector
                    .copy_release(id, lanes, CopyTicket(ticket), scope, &mut to.0);
                let mut know = self.model.union(m, lanes);
                know.all.join(&self.model.copy_ids(m, lanes, ticket));
                to.1.push(Release { know, info, scope });
            }
            37 => {
                // A warp ends, and another, perhaps in its slot, begins; perhaps ordered after it.
                let know = self.model.end(m);
                self.detector.end_warp(id, &mut self.clocks[c].0);
                self.clocks[c].1.join(&know);
                self.warps.remove(w);
                let start = self.rng.one_in(2).then_some(c);
                self.begin(start);
            }
            38 => {
                let (all, stay) = (info.lanes, info.lanes & !lanes);
                if stay != 0 && self.rng.one_in(2) {
                    self.detector.exit_lanes(id, lanes);
                    // The model's end still counts what those lanes knew.
                    let left = self.model.union(m, all & lanes);
                    self.model.warps[m].left.join(&left);
                    self.model.warps[m].info.lanes = stay;
                }
            }
            _ => {
                let from = self.rng.below(self.size / 4) as u64 * 4;
                let bytes = 4 * (1 + self.rng.below(20) as u64);
                let space = self.space();
                self.log.push(format!("  forgets {space:?} {from} {bytes}"));
                self.detector.forget(space, from, bytes);
                self.model.forget(space, from, from + bytes);
            }
        }
        false
    }
}

#[test]
fn agrees_with_the_exact_model_on_random_programs() {
    let (mut conflicts, mut steps) = (0, 0);
    for seed in 1..=3000 {
        let mut program = Program::new(seed);
        for _ in 0..90 {
            steps += 1;
            if program.step() {
                conflicts += 1;
                break;
            }
        }
    }
    // Both outcomes are well covered.
    assert!(
        conflicts > 1500 && steps > 100_000,
        "{conflicts} conflicts in {steps} steps"
    );
}
