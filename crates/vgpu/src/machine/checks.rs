//! Which checks are on.

use std::str::FromStr;

/// Checks that can be switched. Out-of-bounds, misaligned and freed addresses, illegal launches and
/// deadlocks are always found: there is nothing sensible to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Reads of global, shared and local memory that nobody wrote.
    pub memory_init: bool,
    /// Uses of registers that were never set.
    pub registers: bool,
    /// Data races in global and shared memory, scopes, proxies, asynchronous accesses.
    pub races: bool,
    /// Divergent barriers, wrong masks, over-arrival, transaction counts, barrier objects.
    pub barriers: bool,
    /// Allocations that are not freed when the machine goes.
    pub leaks: bool,
}

impl Checks {
    /// Nothing that can be switched.
    pub const NONE: Self = Self {
        memory_init: false,
        registers: false,
        races: false,
        barriers: false,
        leaks: false,
    };
    /// Everything.
    pub const ALL: Self = Self {
        memory_init: true,
        registers: true,
        races: true,
        barriers: true,
        leaks: true,
    };
}

impl Default for Checks {
    /// Everything but leaks: a program may leave its memory to the end of the machine.
    fn default() -> Self {
        let mut checks = Self::ALL;
        checks.leaks = false;
        checks
    }
}

impl FromStr for Checks {
    type Err = String;

    /// Reads `all`, `none` or a list of `memory-init`, `registers`, `races`, `barriers`, `leaks`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut checks = Self::NONE;
        for word in text.split(',').map(str::trim) {
            match word {
                "all" => checks = Self::ALL,
                "none" | "" => {}
                "memory-init" => checks.memory_init = true,
                "registers" => checks.registers = true,
                "races" => checks.races = true,
                "barriers" => checks.barriers = true,
                "leaks" => checks.leaks = true,
                other => {
                    return Err(format!(
                        "check `{other}` is unknown; known are all, none, memory-init, registers, \
                         races, barriers, leaks"
                    ));
                }
            }
        }
        Ok(checks)
    }
}
