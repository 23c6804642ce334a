//! What a benchmark does at least, and how its time compares with the machine's limits.

use criterion::Throughput;
use tollgate::DType;

use crate::limits::Limits;

/// Useful operations and compulsory bytes of one iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Floating-point operations, a multiply–add counting as two; 0 where rates are in bytes.
    flops: f64,
    /// The type of the operands: decides the peak.
    dtype: DType,
    /// Bytes that must be read, each tensor once.
    read: f64,
    /// Bytes that must be written, each tensor once.
    written: f64,
    /// Whether the operands stay in the caches: then RAM is no limit.
    cached: bool,
}

impl Work {
    /// Something that moves or compares; its rate is in bytes.
    pub fn traffic(read_bytes: usize, written_bytes: usize) -> Self {
        Self {
            flops: 0.0,
            dtype: DType::F32,
            read: read_bytes as f64,
            written: written_bytes as f64,
            cached: false,
        }
    }

    /// Products of matrices of `dtype`; their rate is in operations. The bytes matter where RAM
    /// cannot deliver the operands as fast as they are multiplied.
    pub fn products(dtype: DType, flops: f64, read_bytes: usize, written_bytes: usize) -> Self {
        Self {
            flops,
            dtype,
            ..Self::traffic(read_bytes, written_bytes)
        }
    }

    /// The same from the caches.
    pub fn cached(self) -> Self {
        Self {
            cached: true,
            ..self
        }
    }

    /// What criterion prints: bytes, or operations as its elements.
    pub fn throughput(&self) -> Throughput {
        if self.flops > 0.0 {
            Throughput::Elements(self.flops as u64)
        } else {
            Throughput::BytesDecimal((self.read + self.written) as u64)
        }
    }

    /// Units a second (operations, or bytes read and written), and their name for 10⁹ of them.
    pub fn rate(&self, seconds: f64) -> (f64, &'static str) {
        if self.flops > 0.0 {
            (self.flops / seconds, "GFLOP/s")
        } else {
            ((self.read + self.written) / seconds, "GB/s")
        }
    }

    /// The shortest time that the limits allow, and the name of the limit that decides; `None`
    /// where none applies (traffic inside the caches).
    ///
    /// Bytes read and bytes written in equal parts flow at the rate of copying, a surplus of reads
    /// at the rate of reading; a surplus of writes is held to the rate of copying as well.
    pub fn floor_seconds(&self, limits: &Limits) -> Option<(f64, &'static str)> {
        let (peak, peak_name) = limits.peak(self.dtype);
        let arithmetic = self.flops / peak;
        let paired = 2.0 * self.read.min(self.written) + (self.written - self.read).max(0.0);
        let surplus = (self.read - self.written).max(0.0);
        let memory = if self.cached {
            0.0
        } else {
            paired / limits.copy.all + surplus / limits.read.all
        };
        match (arithmetic, memory) {
            (a, m) if a <= 0.0 && m <= 0.0 => None,
            (a, m) if a >= m => Some((a, peak_name)),
            (_, m) => Some((m, "RAM")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Rate;

    fn limits() -> Limits {
        let rate = |all| Rate {
            one: all / 2.0,
            all,
        };
        Limits {
            threads: 2,
            f32_flops: rate(200.0),
            bf16_flops: Some(rate(400.0)),
            read: rate(40.0),
            copy: rate(50.0),
            memcpy: rate(45.0),
        }
    }

    #[test]
    fn traffic_is_held_to_copying_and_reading() {
        let floor = |read, written| Work::traffic(read, written).floor_seconds(&limits());
        assert_eq!(floor(100, 100), Some((4.0, "RAM")));
        assert_eq!(floor(180, 100), Some((4.0 + 2.0, "RAM")));
        assert_eq!(floor(80, 0), Some((2.0, "RAM")));
        assert_eq!(floor(0, 50), Some((1.0, "RAM")));
        assert_eq!(floor(0, 0), None);
        let cached = Work::traffic(100, 100).cached();
        assert_eq!(cached.floor_seconds(&limits()), None);
        assert_eq!(cached.rate(2.0), (100.0, "GB/s"));
    }

    #[test]
    fn products_are_held_to_the_larger_of_two_times() {
        let work = |dtype, flops, read| Work::products(dtype, flops, read, 0);
        let floor = |w: Work| w.floor_seconds(&limits());
        assert_eq!(floor(work(DType::F32, 800.0, 40)), Some((4.0, "f32 FMA")));
        assert_eq!(floor(work(DType::Bf16, 800.0, 40)), Some((2.0, "bf16 dot")));
        assert_eq!(floor(work(DType::Bf16, 800.0, 120)), Some((3.0, "RAM")));
        let cached = work(DType::Bf16, 800.0, 120).cached();
        assert_eq!(floor(cached), Some((2.0, "bf16 dot")));
        assert_eq!(work(DType::F32, 800.0, 0).rate(4.0), (200.0, "GFLOP/s"));
    }
}
