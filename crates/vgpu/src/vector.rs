//! Lane loops compiled for AVX2 and FMA where the CPU has them, chosen at run time.

use pulp::NullaryFnOnce;

/// The vector extensions of this CPU, found out once.
///
/// There is no form for AVX-512: it would make every instruction's loop a third time, for little: 32
/// lanes are four AVX2 registers. Results do not depend on the form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vector {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    v3: Option<pulp::x86::V3>,
}

impl Vector {
    /// What this CPU has.
    pub fn new() -> Self {
        Self {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            v3: pulp::x86::V3::try_new(),
        }
    }

    /// Calls `f`, whose loops are compiled for these extensions as far as they are inlined into it.
    #[inline(always)]
    pub fn dispatch<F: NullaryFnOnce>(self, f: F) -> F::Output {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if let Some(v3) = self.v3 {
            return pulp::Simd::vectorize(v3, f);
        }
        f.call()
    }
}
