//! What a named architecture can do: the limits against which launches are checked.

use std::str::FromStr;

/// Limits of an architecture, per multiprocessor (SM) or per block as named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arch {
    /// `sm_90a` and the like.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// SMs of the device that this machine models.
    pub multiprocessors: u32,
    /// Threads an SM.
    pub threads_per_sm: u32,
    /// Blocks an SM.
    pub blocks_per_sm: u32,
    /// 32-bit registers an SM (and a block at most).
    pub registers_per_sm: u32,
    /// Bytes of shared memory an SM.
    pub shared_per_sm: u32,
    /// Bytes of shared memory a block, when the kernel opted in.
    pub shared_per_block_optin: u32,
    /// Bytes the system keeps of each block's shared memory.
    pub shared_reserved: u32,
    /// Blocks a cluster at most (8 portable; 0: no clusters).
    pub cluster_blocks: u32,
}

/// Bytes of shared memory a block may use without opting in.
pub const SHARED_PER_BLOCK: u32 = 48 * 1024;
/// Threads a block at most.
pub const THREADS_PER_BLOCK: u32 = 1024;

const fn arch(
    name: &'static str,
    capability: (u32, u32),
    [multiprocessors, threads_per_sm, blocks_per_sm, shared_kib]: [u32; 4],
    cluster_blocks: u32,
) -> Arch {
    Arch {
        name,
        capability,
        multiprocessors,
        threads_per_sm,
        blocks_per_sm,
        registers_per_sm: 65_536,
        shared_per_sm: shared_kib * 1024,
        shared_per_block_optin: (shared_kib - 1) * 1024,
        shared_reserved: 1024,
        cluster_blocks,
    }
}

impl Arch {
    /// Every architecture that is known.
    pub const ALL: [Self; 5] = [
        arch("sm_80", (8, 0), [108, 2048, 32, 164], 0),
        arch("sm_86", (8, 6), [84, 1536, 16, 100], 0),
        arch("sm_89", (8, 9), [128, 1536, 24, 100], 0),
        arch("sm_90", (9, 0), [132, 2048, 32, 228], 16),
        arch("sm_90a", (9, 0), [132, 2048, 32, 228], 16),
    ];

    /// `sm_90a`.
    pub const SM_90A: Self = Self::ALL[4];
    /// `sm_80`.
    pub const SM_80: Self = Self::ALL[0];

    /// Whether a module for `target` runs here: the same or an older architecture; an `a` target only
    /// on exactly itself.
    pub fn runs(&self, target: &str) -> bool {
        let number = |name: &str| -> Option<u32> {
            name.strip_prefix("sm_")?
                .trim_end_matches(char::is_alphabetic)
                .parse()
                .ok()
        };
        if target.ends_with(char::is_alphabetic) {
            return target == self.name;
        }
        number(target).is_some_and(|wanted| wanted <= self.capability.0 * 10 + self.capability.1)
    }
}

impl Default for Arch {
    fn default() -> Self {
        Self::SM_90A
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.name == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(|arch| arch.name).join(", ");
                format!("architecture `{text}` is unknown; known are {known}")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_targets_run_and_special_ones_only_at_home() {
        let hopper = Arch::SM_90A;
        assert!(hopper.runs("sm_80") && hopper.runs("sm_90") && hopper.runs("sm_90a"));
        assert!(!hopper.runs("sm_100") && !hopper.runs("sm_100a"));
        assert!(!Arch::SM_80.runs("sm_90a") && !Arch::SM_80.runs("sm_86"));
        assert_eq!("sm_80".parse::<Arch>(), Ok(Arch::SM_80));
        assert!("sm_70".parse::<Arch>().unwrap_err().contains("sm_80"));
    }
}
