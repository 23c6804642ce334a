//! How busy other processes kept the machine meanwhile: a figure taken on shared cores should say
//! so.

/// Processor time of the machine and of this process so far, in the system's ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ticks {
    /// All cores, idle or not.
    total: f64,
    /// All cores, not idle.
    busy: f64,
    /// This process.
    own: f64,
}

impl Ticks {
    /// Until now; `None` where the system does not say (it does on Linux).
    pub fn now() -> Option<Self> {
        let machine = std::fs::read_to_string("/proc/stat").ok()?;
        let process = std::fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&machine, &process)
    }

    fn parse(machine: &str, process: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq steal; guests are counted in user and nice.
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        let all: Vec<f64> = line
            .split_whitespace()
            .take(8)
            .map_while(|v| v.parse().ok())
            .collect();
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th after
        // it.
        let (_, fields) = process.rsplit_once(')')?;
        let mut own = fields.split_whitespace().skip(11);
        let mut next = || own.next()?.parse::<f64>().ok();
        let total: f64 = all.iter().sum();
        Some(Self {
            total,
            busy: total - all.get(3)? - all.get(4)?,
            own: next()? + next()?,
        })
    }

    /// What passed since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            total: self.total - earlier.total,
            busy: self.busy - earlier.busy,
            own: self.own - earlier.own,
        }
    }
}

/// How many of `cores` others used over several spans together; 0 if nothing is known.
pub fn foreign_cores(spans: &[Ticks], cores: usize) -> f64 {
    let sum = |part: fn(&Ticks) -> f64| spans.iter().map(part).sum::<f64>();
    let total = sum(|t| t.total);
    if total <= 0.0 {
        return 0.0;
    }
    let foreign = (sum(|t| t.busy) - sum(|t| t.own)) / total;
    foreign.max(0.0) * cores as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_processes_are_what_is_busy_and_not_our_own() {
        let machine = "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n";
        let process = "12 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 60 15 0 0\n";
        let start = Ticks::parse(machine, process).unwrap();
        assert_eq!((start.total, start.busy, start.own), (1000.0, 150.0, 75.0));
        // 200 ticks of two cores later: 150 busy, 100 of them ours.
        let machine = "cpu  250 0 50 850 50 0 0 0 0 0\n";
        let process = "12 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 160 15 0 0\n";
        let span = Ticks::parse(machine, process).unwrap().since(&start);
        assert_eq!(foreign_cores(&[span], 2), 0.5);
        assert_eq!(foreign_cores(&[], 2), 0.0);
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert_eq!(Ticks::parse("", ""), None);
        assert_eq!(Ticks::parse("cpu  1 2 3 4 5 6 7 8\n", "12 (x) R 1"), None);
        assert_eq!(
            Ticks::parse("cpu  1 2\n", "1 (x) R 1 2 3 4 5 6 7 8 9 10 60 15 0"),
            None
        );
    }
}
