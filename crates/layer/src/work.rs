//! Operations and bytes of the stages: useful operations, and what must be moved, each tensor once.

use tollgate_core::RoutingTable;
use tollgate_gemm::ExpertShape;

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    /// A multiply–add counts as two.
    pub(crate) flops: f64,
    /// Read and written.
    pub(crate) bytes: f64,
}

/// The sizes that the work of a step follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    t: f64,
    e: f64,
    h: f64,
    n1: f64,
    i: f64,
    /// Bytes of an activation.
    element: f64,
    /// Router maps in use: 2 with router noise, 0 without a gate.
    maps: f64,
}

impl Sizes {
    pub(crate) fn of<T>(shape: &ExpertShape, tokens: usize, gated: bool, noisy: bool) -> Self {
        Self {
            t: tokens as f64,
            e: shape.experts as f64,
            h: shape.hidden as f64,
            n1: shape.up_rows() as f64,
            i: shape.intermediate as f64,
            element: size_of::<T>() as f64,
            maps: match (gated, noisy) {
                (false, _) => 0.0,
                (true, false) => 1.0,
                (true, true) => 2.0,
            },
        }
    }

    /// The router's products.
    pub(crate) fn router(&self) -> Work {
        Work {
            flops: self.maps * 2.0 * self.t * self.h * self.e,
            bytes: self.t * self.h * self.element + self.maps * (self.t + self.h) * self.e * 4.0,
        }
    }

    pub(crate) fn gate(&self) -> Work {
        let bytes = match self.maps {
            0.0 => self.t * 8.0,
            _ => 2.0 * self.t * self.e * 4.0,
        };
        Work { flops: 0.0, bytes }
    }

    pub(crate) fn gate_backward(&self) -> Work {
        Work {
            flops: 0.0,
            bytes: 3.0 * self.t * self.e * 4.0,
        }
    }

    pub(crate) fn router_backward(&self) -> Work {
        Work {
            flops: self.maps * 4.0 * self.t * self.h * self.e,
            bytes: self.t * self.h * (self.element + 4.0 * self.maps)
                + self.maps * (self.t + 2.0 * self.h) * self.e * 4.0,
        }
    }

    /// The sizes of what follows the gate.
    pub(crate) fn routed(self, table: &RoutingTable) -> Routed {
        let used = (0..table.num_experts()).filter(|&e| table.count_of(e) > 0);
        Routed {
            of: self,
            a: table.num_assignments() as f64,
            used: used.count() as f64,
        }
    }
}

/// The same with what the gate decided: weights count only where an expert has rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed {
    of: Sizes,
    /// A.
    a: f64,
    /// Experts that have rows.
    used: f64,
}

impl Routed {
    fn rows(&self) -> f64 {
        self.of.element * self.of.h * (self.of.t + self.a)
    }

    pub(crate) fn permute(&self) -> Work {
        Work {
            flops: 0.0,
            bytes: self.rows(),
        }
    }

    pub(crate) fn up(&self) -> Work {
        let s = &self.of;
        let elements = self.a * (s.h + s.n1 + s.i) + self.used * s.n1 * s.h;
        Work {
            flops: 2.0 * self.a * s.n1 * s.h,
            bytes: s.element * elements,
        }
    }

    pub(crate) fn down(&self) -> Work {
        let s = &self.of;
        let elements = self.a * (s.h + s.i) + self.used * s.h * s.i;
        Work {
            flops: 2.0 * self.a * s.h * s.i,
            bytes: s.element * elements,
        }
    }

    pub(crate) fn unpermute(&self) -> Work {
        Work {
            flops: 2.0 * self.a * self.of.h,
            bytes: self.rows(),
        }
    }

    pub(crate) fn unpermute_backward(&self) -> Work {
        Work {
            flops: 3.0 * self.a * self.of.h,
            bytes: self.rows() + self.of.element * self.a * self.of.h,
        }
    }

    pub(crate) fn down_backward(&self) -> Work {
        let s = &self.of;
        let elements = self.a * (s.h + s.i + 2.0 * s.n1) + self.used * s.h * s.i;
        Work {
            flops: 2.0 * self.down().flops,
            bytes: s.element * elements + s.e * s.h * s.i * 4.0,
        }
    }

    pub(crate) fn up_backward(&self) -> Work {
        let s = &self.of;
        let elements = self.a * (2.0 * s.h + s.n1) + self.used * s.n1 * s.h;
        Work {
            flops: 2.0 * self.up().flops,
            bytes: s.element * elements + s.e * s.h * s.n1 * 4.0,
        }
    }

    pub(crate) fn permute_backward(&self) -> Work {
        let addend = match self.of.maps {
            0.0 => 0.0,
            _ => self.of.t * self.of.h * 4.0,
        };
        Work {
            flops: self.a * self.of.h,
            bytes: self.rows() + addend,
        }
    }
}
