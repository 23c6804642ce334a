//! How accesses reach the shadow: lanes become runs of words, and runs become lines.

use super::history::Histories;
use super::location::{Locations, Strong};
use super::observer::{Observer, bits};
use super::shadow::{LINE, LaneMap, QUARTER, Rec, Shadow};
use super::types::{Access, Kind, Order, Space};
use super::warp::Warp;

/// What is remembered of memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) shadow: Shadow,
    pub(super) histories: Histories,
    pub(super) locations: Locations,
}

impl Memory {
    /// What a strong access acquires and releases. The shadow comes afterwards, so that an acquire
    /// orders its own access as well. Says whether something was released.
    pub(super) fn synchronise(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        lanes: u32,
        lives: impl Fn(u32) -> bool,
    ) -> bool {
        let mut released = false;
        if self.locations.is_empty() && !access.order.releases() && !warp.has_fences() {
            return false;
        }
        let unit = access.unit.clamp(1, 16);
        for lane in bits(lanes) {
            for offset in (0..access.bytes).step_by(unit as usize) {
                let at = access.addresses[lane as usize].wrapping_add(offset as u64);
                let strong = Strong {
                    lane,
                    space: access.space,
                    address: at,
                    kind: access.kind,
                    order: access.order,
                    scope: access.scope,
                };
                if access.kind != Kind::Write {
                    self.locations.read(warp, &strong);
                }
                if access.kind != Kind::Read && self.locations.write(warp, &strong, &lives) {
                    released = true;
                    if let Some(line) = self.shadow.line(access.space, at / LINE) {
                        line.sync = true;
                    }
                }
            }
        }
        released
    }

    /// The accesses of lanes, each at its own address.
    pub(super) fn lanes(&mut self, obs: &mut Observer, exist: u32, access: &Access, lanes: u32) {
        let bytes = access.bytes as u64;
        let first = lanes.trailing_zeros();
        let start = access.addresses[first as usize];
        let log2 = bytes.trailing_zeros();
        let power = bytes.is_power_of_two() && start.is_multiple_of(bytes);
        if power && lanes.count_ones() > 1 {
            let count = 32 - first - lanes.leading_zeros();
            let run =
                (lanes >> first).wrapping_add(1).is_power_of_two() || lanes >> first == u32::MAX;
            let own = &access.addresses[first as usize..(first + count) as usize];
            if run
                && own
                    .iter()
                    .enumerate()
                    .all(|(i, a)| *a == start.wrapping_add(i as u64 * bytes))
                && let Some(end) = start.checked_add(count as u64 * bytes)
            {
                let rec = obs.rec.mapped(LaneMap::affine(log2, start, first));
                obs.rec = rec;
                self.run(obs, access.space, start, end, rec);
                return;
            }
        }
        let everyone = lanes == exist && lanes.count_ones() > 1;
        // Several lanes that write the same bytes weakly are in conflict with each other.
        let harmless = access.kind == Kind::Read || access.order != Order::Weak;
        if everyone
            && harmless
            && bits(lanes).all(|l| access.addresses[l as usize] == start)
            && let Some(end) = start.checked_add(bytes)
        {
            let rec = obs.rec.mapped(LaneMap::ALL);
            obs.rec = rec;
            self.run(obs, access.space, start, end, rec);
            return;
        }
        for lane in bits(lanes) {
            let at = access.addresses[lane as usize];
            let Some(end) = at.checked_add(bytes) else {
                continue;
            };
            if bytes <= 4 || bytes.is_power_of_two() && at.is_multiple_of(bytes) {
                let rec = obs.rec.mapped(LaneMap::affine(log2.max(2), at, lane));
                obs.rec = rec;
                self.run(obs, access.space, at, end, rec);
                continue;
            }
            let mut from = at;
            while from < end {
                let to = (from | 3).saturating_add(1).min(end);
                let rec = obs.rec.mapped(LaneMap::affine(2, from, lane));
                obs.rec = rec;
                self.run(obs, access.space, from, to, rec);
                from = to;
            }
        }
    }

    /// One record over the bytes `from..to`.
    pub(super) fn run(&mut self, obs: &mut Observer, space: Space, from: u64, to: u64, rec: Rec) {
        if from >= to {
            return;
        }
        let clears = rec.writes() && !rec.is_strong();
        let mut at = from;
        while at < to {
            let number = at / LINE;
            let base = number * LINE;
            let end = to.min(base.saturating_add(LINE));
            let here = at;
            at = end;
            let Some(line) = self.shadow.line(space, number) else {
                // Out of bounds, or past the end of the address space.
                if matches!(space, Space::Shared(_)) || end == to {
                    return;
                }
                continue;
            };
            if clears && line.sync {
                self.locations.clear(space, here, end);
            }
            let whole = end - here == LINE;
            if whole
                && let Some(cell) = line.whole()
                && self.histories.step(cell, rec, obs)
            {
                continue;
            }
            let mut from = here;
            let aligned = (here | end).is_multiple_of(QUARTER);
            if aligned && let Some(quarters) = line.quarters() {
                for cell in &mut quarters[((here - base) / QUARTER) as usize..] {
                    if from >= end || !self.histories.step(cell, rec, obs) {
                        break;
                    }
                    from += QUARTER;
                }
            }
            if from < end {
                self.histories
                    .words(line.words(), base, from, end, rec, obs);
            }
            if rec.writes() && (whole || aligned && from < end) {
                line.fold();
            }
        }
    }
}
