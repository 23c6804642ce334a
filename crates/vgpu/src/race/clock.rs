//! Vector clocks as values.
//!
//! An *actor* is whatever makes accesses: a warp, the `cp.async` lanes of a warp, the asynchronous
//! operations that one instruction of a warp issues, a host stream. Its events carry a time. A
//! [`Clock`] says which events of which actors are known, that is ordered before whoever holds it.

use std::sync::Arc;

/// What is known of one actor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Row {
    /// All events up to this time, of every lane.
    Floor(u32),
    /// Of each lane, all events up to this time. Lanes that do not exist say `u32::MAX`.
    Lanes(Arc<[u32; 32]>),
    /// Operations that finish in any order: a prefix and what is known beyond it.
    Ops(Arc<Ops>),
}

/// A set of operation numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ops {
    /// All operations up to this one.
    prefix: u32,
    /// Sorted half-open runs beyond the prefix, which do not touch each other or the prefix.
    runs: Vec<(u32, u32)>,
}

impl Default for Row {
    fn default() -> Self {
        Row::Floor(0)
    }
}

impl Row {
    /// Up to which time all lanes are known.
    pub(super) fn floor(&self) -> u32 {
        match self {
            Row::Floor(t) => *t,
            Row::Lanes(l) => l.iter().copied().min().unwrap_or(0),
            Row::Ops(o) => o.prefix,
        }
    }

    /// Whether the event of `lane` at `time` is known.
    pub(super) fn knows(&self, lane: u32, time: u32) -> bool {
        match self {
            Row::Floor(t) => time <= *t,
            Row::Lanes(l) => time <= l[lane as usize & 31],
            Row::Ops(o) => {
                time <= o.prefix || {
                    let i = o.runs.partition_point(|r| r.0 <= time);
                    i > 0 && time < o.runs[i - 1].1
                }
            }
        }
    }

    /// Whether the event at `time` is known for every lane it may have come from.
    pub(super) fn knows_all(&self, time: u32) -> bool {
        match self {
            Row::Ops(_) => self.knows(0, time),
            _ => time <= self.floor(),
        }
    }

    /// Of `lanes`, everything up to `time`. `exist` are the lanes of the actor.
    pub(super) fn raise(&mut self, lanes: u32, exist: u32, time: u32) {
        if lanes & exist == exist {
            match self {
                Row::Lanes(l) if l.iter().any(|&t| t > time && t != u32::MAX) => {}
                Row::Floor(t) if *t >= time => return,
                _ => {
                    *self = Row::Floor(time);
                    return;
                }
            }
        }
        self.raise_each(lanes, exist, |_| time);
    }

    /// As [`raise`](Self::raise), with a time for each lane.
    pub(super) fn raise_each(&mut self, lanes: u32, exist: u32, time: impl Fn(usize) -> u32) {
        let wanted = |l: usize| lanes & exist & (1 << l) != 0;
        if (0..32).all(|l| !wanted(l) || self.knows(l as u32, time(l))) {
            return;
        }
        let mut to = match self {
            Row::Lanes(l) => **l,
            _ => {
                let t = self.floor();
                std::array::from_fn(|l| if exist & (1 << l) != 0 { t } else { u32::MAX })
            }
        };
        for l in 0..32 {
            if wanted(l) {
                to[l] = to[l].max(time(l));
            }
        }
        *self = Row::of_lanes(to);
    }

    /// The shortest form of per-lane times.
    fn of_lanes(lanes: [u32; 32]) -> Row {
        let mut real = lanes.iter().copied().filter(|&t| t != u32::MAX);
        match real.next() {
            Some(t) if real.all(|u| u == t) => Row::Floor(t),
            _ => Row::Lanes(Arc::new(lanes)),
        }
    }

    /// The single operation `op`.
    pub(super) fn of_op(op: u32) -> Row {
        Row::of_ops(0, vec![(op, op + 1)])
    }

    fn of_ops(mut prefix: u32, runs: Vec<(u32, u32)>) -> Row {
        let beyond = runs.iter().take_while(|r| {
            let joins = r.0 <= prefix + 1;
            if joins {
                prefix = prefix.max(r.1 - 1);
            }
            joins
        });
        let used = beyond.count();
        if used == runs.len() {
            Row::Floor(prefix)
        } else {
            Row::Ops(Arc::new(Ops {
                prefix,
                runs: runs[used..].to_vec(),
            }))
        }
    }

    /// Whether everything `other` knows is known.
    pub(super) fn covers(&self, other: &Row) -> bool {
        match (self, other) {
            (Row::Floor(a), Row::Floor(b)) => a >= b,
            (_, Row::Floor(b)) => self.floor() >= *b,
            (Row::Ops(a), Row::Ops(b)) => {
                Arc::ptr_eq(a, b)
                    || (self.knows(0, b.prefix)
                        && a.prefix >= b.prefix
                        && b.runs.iter().all(|r| {
                            let i = a.runs.partition_point(|q| q.0 <= r.0);
                            r.1 - 1 <= a.prefix || i > 0 && r.1 <= a.runs[i - 1].1
                        }))
            }
            (Row::Floor(a), Row::Ops(b)) => b.runs.last().is_none_or(|r| r.1 - 1 <= *a),
            (Row::Lanes(a), Row::Lanes(b)) if Arc::ptr_eq(a, b) => true,
            (_, Row::Lanes(b)) => {
                // Without branches: this is the inner loop where clocks meet.
                let floor = self.floor();
                let fits = |a: u32, b: u32| (a >= b) | (b == u32::MAX);
                match self {
                    Row::Lanes(a) => a
                        .iter()
                        .zip(b.iter())
                        .fold(true, |y, (&a, &b)| y & fits(a, b)),
                    _ => b.iter().fold(true, |y, &b| y & fits(floor, b)),
                }
            }
            (Row::Lanes(_), Row::Ops(_)) => false,
        }
    }

    /// Adds what `other` knows.
    pub(super) fn join(&mut self, other: &Row) {
        if self.covers(other) {
            return;
        }
        if other.covers(self) {
            *self = other.clone();
            return;
        }
        let joined = match (&*self, other) {
            (Row::Ops(_), _) | (_, Row::Ops(_)) => {
                let runs = |r: &Row| match r {
                    Row::Ops(o) => o.runs.clone(),
                    _ => Vec::new(),
                };
                let mut both = runs(self);
                union(&mut both, &runs(other));
                Row::of_ops(self.floor().max(other.floor()), both)
            }
            (a, b) => {
                let at = |r: &Row, l: usize| match r {
                    Row::Lanes(x) => x[l],
                    _ => r.floor(),
                };
                Row::of_lanes(std::array::from_fn(|l| at(a, l).max(at(b, l))))
            }
        };
        *self = joined;
    }
}

/// Adds sorted half-open runs to others; runs that touch become one.
fn union(into: &mut Vec<(u32, u32)>, other: &[(u32, u32)]) {
    for &(from, to) in other {
        let i = into.partition_point(|r| r.1 < from);
        let j = into.partition_point(|r| r.0 <= to);
        if i == j {
            into.insert(i, (from, to));
        } else {
            let run = (from.min(into[i].0), to.max(into[j - 1].1));
            into.splice(i..j, [run]);
        }
    }
}

/// By so much a clock must be smaller than another for its rows to be looked up there one by one.
const MUCH_SMALLER: usize = 8;

/// One vector clock: what is known of which actors.
#[derive(Clone, Debug, Default)]
pub(super) struct Vector {
    /// Sorted by actor.
    rows: Vec<(u32, Row)>,
    /// Actors of which everything is known for good, as sorted half-open runs.
    done: Arc<Vec<(u32, u32)>>,
}

impl Vector {
    fn is_done(&self, actor: u32) -> bool {
        let i = self.done.partition_point(|r| r.0 <= actor);
        i > 0 && actor < self.done[i - 1].1
    }

    fn row(&self, actor: u32) -> Option<&Row> {
        self.rows
            .binary_search_by_key(&actor, |r| r.0)
            .ok()
            .map(|i| &self.rows[i].1)
    }

    fn knows(&self, actor: u32, lane: u32, time: u32) -> bool {
        self.row(actor).is_some_and(|r| r.knows(lane, time)) || self.is_done(actor)
    }

    fn knows_all(&self, actor: u32, time: u32) -> bool {
        self.row(actor).is_some_and(|r| r.knows_all(time)) || self.is_done(actor)
    }

    fn floor(&self, actor: u32) -> u32 {
        match self.row(actor) {
            Some(row) => row.floor(),
            None if self.is_done(actor) => u32::MAX,
            None => 0,
        }
    }

    fn covers(&self, other: &Vector) -> bool {
        let done = Arc::ptr_eq(&self.done, &other.done)
            || other.done.iter().all(|r| {
                let i = self.done.partition_point(|q| q.0 <= r.0);
                i > 0 && r.1 <= self.done[i - 1].1
            });
        if !done {
            return false;
        }
        if other.rows.len() * MUCH_SMALLER < self.rows.len() {
            return other.rows.iter().all(|(actor, row)| {
                self.row(*actor).is_some_and(|r| r.covers(row)) || self.is_done(*actor)
            });
        }
        let mut mine = self.rows.iter().peekable();
        other.rows.iter().all(|(actor, row)| {
            while mine.next_if(|m| m.0 < *actor).is_some() {}
            match mine.peek() {
                Some(m) if m.0 == *actor && m.1.covers(row) => true,
                _ => self.is_done(*actor),
            }
        })
    }

    fn join_row(&mut self, actor: u32, row: &Row) {
        match self.rows.binary_search_by_key(&actor, |r| r.0) {
            Ok(i) => self.rows[i].1.join(row),
            Err(i) => {
                if !self.is_done(actor) {
                    self.rows.insert(i, (actor, row.clone()));
                }
            }
        }
    }

    fn join(&mut self, other: &Vector) {
        if !Arc::ptr_eq(&self.done, &other.done) {
            self.finish(&other.done);
        }
        if other.rows.len() * MUCH_SMALLER < self.rows.len() {
            for (actor, row) in &other.rows {
                self.join_row(*actor, row);
            }
            return;
        }
        // Clocks that meet often hold the same actors: then rows are joined in place.
        let mut mine = self.rows.iter_mut().peekable();
        let mut missing = 0;
        for (actor, row) in &other.rows {
            while mine.next_if(|m| m.0 < *actor).is_some() {}
            match mine.peek_mut() {
                Some(m) if m.0 == *actor => m.1.join(row),
                _ => missing += 1,
            }
        }
        if missing == 0 {
            return;
        }
        let mut merged = Vec::with_capacity(self.rows.len() + missing);
        let mut mine = std::mem::take(&mut self.rows).into_iter().peekable();
        for (actor, row) in &other.rows {
            while let Some(m) = mine.next_if(|m| m.0 <= *actor) {
                merged.push(m);
            }
            if merged.last().is_none_or(|m| m.0 != *actor) && !self.is_done(*actor) {
                merged.push((*actor, row.clone()));
            }
        }
        merged.extend(mine);
        self.rows = merged;
    }

    /// Everything of the actors in `runs` is known.
    fn finish(&mut self, runs: &[(u32, u32)]) {
        union(Arc::make_mut(&mut self.done), runs);
        for run in runs {
            let from = self.rows.partition_point(|r| r.0 < run.0);
            let to = self.rows.partition_point(|r| r.0 < run.1);
            self.rows.drain(from..to);
        }
    }
}

/// A vector clock that is shared until it changes. `None` knows nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    vector: Option<Arc<Vector>>,
    /// What was last joined in. The warps that meet at a barrier mostly bring the same.
    joined: Option<Arc<Vector>>,
}

impl Part {
    pub(super) fn knows(&self, actor: u32, lane: u32, time: u32) -> bool {
        self.vector
            .as_ref()
            .is_some_and(|v| v.knows(actor, lane, time))
    }

    pub(super) fn knows_all(&self, actor: u32, time: u32) -> bool {
        self.vector
            .as_ref()
            .is_some_and(|v| v.knows_all(actor, time))
    }

    /// Up to which time all of an actor is known.
    pub(super) fn floor(&self, actor: u32) -> u32 {
        self.vector.as_ref().map_or(0, |v| v.floor(actor))
    }

    pub(super) fn row(&self, actor: u32) -> Option<&Row> {
        self.vector.as_ref().and_then(|v| v.row(actor))
    }

    pub(super) fn same(&self, other: &Part) -> bool {
        match (&self.vector, &other.vector) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    pub(super) fn covers(&self, other: &Part) -> bool {
        match (&self.vector, &other.vector) {
            (_, None) => true,
            (None, Some(b)) => b.rows.is_empty() && b.done.is_empty(),
            (Some(a), Some(b)) => {
                Arc::ptr_eq(a, b)
                    || self.joined.as_ref().is_some_and(|j| Arc::ptr_eq(j, b))
                    || a.covers(b)
            }
        }
    }

    pub(super) fn join(&mut self, other: &Part) {
        let Some(theirs) = &other.vector else { return };
        if self.covers(other) {
            return;
        }
        if other.covers(self) {
            // Sharing, rather than joining in place, is what keeps later comparisons cheap.
            *self = Part {
                vector: Some(theirs.clone()),
                joined: Some(theirs.clone()),
            };
            return;
        }
        if let Some(mine) = &mut self.vector {
            Arc::make_mut(mine).join(theirs);
            self.joined = Some(theirs.clone());
        }
    }

    pub(super) fn join_row(&mut self, actor: u32, row: &Row) {
        if *row == Row::Floor(0) {
            return;
        }
        if let Some(v) = &self.vector
            && (v.row(actor).is_some_and(|r| r.covers(row)) || v.is_done(actor))
        {
            return;
        }
        Arc::make_mut(self.vector.get_or_insert_default()).join_row(actor, row);
    }

    pub(super) fn finish(&mut self, runs: &[(u32, u32)]) {
        if !runs.is_empty() {
            Arc::make_mut(self.vector.get_or_insert_default()).finish(runs);
        }
    }

    fn is_empty(&self) -> bool {
        self.vector.is_none()
    }
}

/// What is known: which accesses come before whoever holds, or acquires, this clock.
///
/// A cheap value (two shared pointers). The executor keeps one in each object that orders threads
/// without a scope of its own: CTA, named and cluster barriers, streams, events, wait groups.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// What is known.
    pub(super) all: Part,
    /// The part of it that is visible to asynchronous proxies as well.
    pub(super) proxied: Part,
}

impl Clock {
    /// Adds what `other` knows.
    pub fn join(&mut self, other: &Clock) {
        self.all.join(&other.all);
        self.proxied.join(&other.proxied);
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.proxied.is_empty()
    }

    /// Whether everything that `other` knows is known.
    pub fn covers(&self, other: &Clock) -> bool {
        self.all.covers(&other.all) && self.proxied.covers(&other.proxied)
    }

    /// Rows and runs that are stored.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let runs = |r: &Row| match r {
            Row::Ops(o) => 1 + o.runs.len(),
            _ => 1,
        };
        let part = |p: &Part| match &p.vector {
            Some(v) => v.done.len() + v.rows.iter().map(|r| runs(&r.1)).sum::<usize>(),
            None => 0,
        };
        part(&self.all) + part(&self.proxied)
    }

    pub(super) fn same(&self, other: &Clock) -> bool {
        self.all.same(&other.all) && self.proxied.same(&other.proxied)
    }

    /// Up to which time all of an actor is known and proxied.
    pub(super) fn floor(&self, actor: u32) -> u32 {
        self.all.floor(actor).min(self.proxied.floor(actor))
    }

    pub(super) fn finish(&mut self, runs: &[(u32, u32)]) {
        self.all.finish(runs);
        self.proxied.finish(runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_unite() {
        let mut a = vec![(1, 3), (6, 8)];
        union(&mut a, &[(3, 4), (5, 6), (10, 11)]);
        assert_eq!(a, [(1, 4), (5, 8), (10, 11)]);
        union(&mut a, &[(0, 20)]);
        assert_eq!(a, [(0, 20)]);
    }

    #[test]
    fn operations_known_out_of_order_stay_apart_and_close_up() {
        let mut row = Row::default();
        row.join(&Row::of_op(3));
        assert!(row.knows(0, 3) && !row.knows(0, 1) && !row.knows(0, 2));
        row.join(&Row::of_op(1));
        assert!(row.knows(0, 1) && !row.knows(0, 2));
        row.join(&Row::of_op(2));
        assert_eq!(row, Row::Floor(3));
    }

    #[test]
    fn lanes_that_do_not_exist_do_not_hold_the_floor_down() {
        let mut row = Row::default();
        row.raise(0b01, 0b11, 5);
        assert!(row.knows(0, 5) && !row.knows(1, 5));
        assert_eq!(row.floor(), 0);
        row.raise(0b10, 0b11, 5);
        assert_eq!(row, Row::Floor(5));
    }

    #[test]
    fn a_finished_actor_needs_no_row() {
        let mut a = Part::default();
        a.join_row(7, &Row::Floor(2));
        let mut b = Part::default();
        b.finish(&[(5, 9)]);
        assert!(b.covers(&a) && !a.covers(&b));
        a.join(&b);
        assert!(a.row(7).is_none() && a.knows(7, 3, 1000));
        assert!(!a.knows(9, 0, 1));
    }
}
