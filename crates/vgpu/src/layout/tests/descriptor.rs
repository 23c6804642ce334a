//! `wgmma` descriptors: the examples of PTX ISA 9.7.15.5.1.2, and tiles that a tensor copy wrote.

use super::Rng;
use crate::layout::descriptor::{Major, MatrixDescriptor};
use crate::layout::elements::Element;
use crate::layout::swizzle::Swizzle;
use crate::layout::tma::{
    Interleave, L2Promotion, OobFill, TensorElement, TensorMap, encode_tiled,
};

/// CuTe's `Swizzle<bits, 4, 3>` on a byte address.
fn cute(bits: u32, address: u32) -> u32 {
    address ^ ((address >> 3) & (((1 << bits) - 1) << 4))
}

#[test]
fn examples_of_the_isa() {
    use Element::{Bf16, Tf32};
    /// Element offset of `(mn, k)` in the "exact layout" of an example.
    type Exact = fn(mn: u32, k: u32) -> u32;
    // Major, type, swizzle bits; LBO and SBO in elements; the exact layout.
    let examples: &[(Major, Element, u32, u32, u32, Exact)] = &[
        // ((8,2),(4,4)):((4,32),(1,64))
        (Major::K, Tf32, 0, 64, 32, |m, k| {
            m % 8 * 4 + m / 8 * 32 + k % 4 + k / 4 * 64
        }),
        // ((8,2),(4,4)):((8,64),(1,4))
        (Major::K, Tf32, 1, 0, 64, |m, k| m % 8 * 8 + m / 8 * 64 + k),
        // ((8,1,2),(8,2)):((1,8,64),(8,128))
        (Major::Mn, Bf16, 0, 128, 64, |m, k| {
            m % 8 + m / 8 * 64 + k % 8 * 8 + k / 8 * 128
        }),
        // ((8,2,2),(8,2)):((1,8,128),(16,256))
        (Major::Mn, Bf16, 1, 128, 256, |m, k| {
            m % 8 + m / 8 % 2 * 8 + m / 16 * 128 + k % 8 * 16 + k / 8 * 256
        }),
        // ((8,4,2),(8,2)):((1,8,256),(32,512))
        (Major::Mn, Bf16, 2, 256, 512, |m, k| {
            m % 8 + m / 8 % 4 * 8 + m / 32 * 256 + k % 8 * 32 + k / 8 * 512
        }),
    ];
    for &(major, element, bits, leading, stride, exact) in examples {
        let size = element.bits() / 8;
        let descriptor = MatrixDescriptor {
            start: 2048,
            leading: leading * size,
            stride: stride * size,
            base_offset: 0,
            swizzle: Swizzle::ALL[bits as usize],
        };
        assert_eq!(
            MatrixDescriptor::decode(descriptor.encode()),
            Ok(descriptor)
        );
        let extent = if major == Major::K { 16 } else { 16 << bits };
        descriptor.check(major, element, extent).unwrap();
        for mn in 0..extent {
            for k in 0..256 / element.bits() {
                let expected = cute(bits, 2048 + exact(mn, k) * size);
                let address = descriptor.address(major, element, mn, k);
                assert_eq!(address, expected, "{major:?} {element} {bits}: ({mn}, {k})");
            }
        }
    }
}

#[test]
fn fields_lie_where_the_isa_puts_them() {
    // As CUTLASS and DeepGEMM build one: 128-byte swizzle, LBO 1 (ignored), SBO 1,024 bytes.
    let bits = 1u64 << 62 | (1024 >> 4) << 32 | 1 << 16 | (0x8020 >> 4);
    let descriptor = MatrixDescriptor::decode(bits).unwrap();
    let expected = MatrixDescriptor {
        start: 0x8020,
        leading: 16,
        stride: 1024,
        base_offset: 0,
        swizzle: Swizzle::B128,
    };
    assert_eq!(descriptor, expected);
    assert_eq!(descriptor.encode(), bits);
    for (mode, swizzle) in [
        (0, Swizzle::None),
        (1, Swizzle::B128),
        (2, Swizzle::B64),
        (3, Swizzle::B32),
    ] {
        assert_eq!(
            MatrixDescriptor::decode(mode << 62).unwrap().swizzle,
            swizzle
        );
    }
    assert_eq!(
        MatrixDescriptor::decode(5 << 49 | 1 << 62)
            .unwrap()
            .base_offset,
        5
    );
}

#[test]
fn invalid_descriptors_are_explained() {
    for bit in [14, 15, 30, 31, 46, 47, 48, 52, 61] {
        let error = MatrixDescriptor::decode(1 << bit).unwrap_err().to_string();
        assert!(error.contains("reserved bits"), "{error}");
    }
    let error = MatrixDescriptor::decode(3 << 49).unwrap_err().to_string();
    assert_eq!(
        error,
        "matrix base offset is 3, must be 0 without a swizzle"
    );

    let good = MatrixDescriptor {
        start: 1024,
        leading: 16,
        stride: 1024,
        base_offset: 0,
        swizzle: Swizzle::B128,
    };
    let words = |d: MatrixDescriptor, major, element, extent| {
        d.check(major, element, extent).map_err(|e| e.to_string())
    };
    assert_eq!(words(good, Major::K, Element::F16, 64), Ok(()));
    let at_the_end = MatrixDescriptor {
        start: 1024 + 96,
        ..good
    };
    assert_eq!(words(at_the_end, Major::K, Element::E4m3, 64), Ok(()));
    let beyond = MatrixDescriptor {
        start: 1024 + 112,
        ..good
    };
    let error = words(beyond, Major::K, Element::F16, 64).unwrap_err();
    assert!(
        error.contains("112 bytes into a 128-byte swizzled row"),
        "{error}"
    );
    let flat = MatrixDescriptor { stride: 0, ..good };
    let error = words(flat, Major::K, Element::F16, 64).unwrap_err();
    assert!(
        error.contains("stride dimension byte offset is 0, so that 8 groups"),
        "{error}"
    );
    // With 8 columns there is one group, and its offset does not count.
    assert_eq!(words(flat, Major::K, Element::F16, 8), Ok(()));
    let error = words(good, Major::Mn, Element::Tf32, 64).unwrap_err();
    assert!(error.contains(".tf32 has no transposed layout"), "{error}");
}

/// A matrix in global memory with `inner` contiguous bytes a row.
struct Global {
    bytes: Vec<u8>,
    rows: u32,
    inner: u32,
}

impl Global {
    fn random(rng: &mut Rng, rows: u32, inner: u32) -> Global {
        let bytes = (0..rows * inner).map(|_| rng.next() as u8).collect();
        Global { bytes, rows, inner }
    }

    /// Copies the whole matrix in boxes of `width` bytes by all rows, one after the other in
    /// shared memory, as a kernel does that fills a stage.
    fn copy(&self, swizzle: Swizzle, width: u32, shared: &mut [u8], base: u32) {
        let map = encode_tiled(
            TensorElement::U8,
            2,
            0,
            &[self.inner.into(), self.rows.into()],
            &[self.inner.into()],
            &[width, self.rows],
            &[1, 1],
            Interleave::None,
            swizzle,
            L2Promotion::None,
            OobFill::Zero,
        )
        .unwrap();
        let map = TensorMap::decode(&map).unwrap();
        for number in 0..self.inner / width {
            let begin = base + number * map.shared_bytes() as u32;
            map.walk(&[(number * width) as i32, 0], begin, |piece| {
                let (to, from) = (piece.shared as usize, piece.global.unwrap() as usize);
                let len = piece.len as usize;
                shared[to..to + len].copy_from_slice(&self.bytes[from..from + len]);
            })
            .unwrap();
        }
    }
}

const BASES: [u32; 4] = [0, 1024, 1024 + 128, 4096 + 5 * 128];

/// K-major: element (mn, k) is byte `k·size` of row `mn`.
#[test]
fn k_major_tiles_of_a_tensor_copy_read_back() {
    let mut rng = Rng(5);
    for element in [Element::F16, Element::Tf32, Element::E4m3] {
        let size = element.bits() / 8;
        for swizzle in Swizzle::ALL {
            for (mn, base) in [
                (64, BASES[1]),
                (8, BASES[2]),
                (24, BASES[0]),
                (128, BASES[3]),
            ] {
                // 128 bytes of K: four steps of the instruction.
                let global = Global::random(&mut rng, mn, 128);
                let mut shared = vec![0; 1 << 16];
                global.copy(swizzle, swizzle.span(), &mut shared, base);
                let box_bytes = mn * swizzle.span();
                for step in 0..4 {
                    let k_bytes = 32 * step;
                    let span = swizzle.span().max(32);
                    let start = match swizzle {
                        // Chunks of 16 bytes, one box each: two boxes a step.
                        Swizzle::None => base + 2 * step * box_bytes,
                        _ => base + k_bytes / span * box_bytes + k_bytes % span,
                    };
                    let descriptor = MatrixDescriptor {
                        start,
                        leading: if swizzle == Swizzle::None {
                            box_bytes
                        } else {
                            16
                        },
                        stride: 8 * swizzle.span(),
                        base_offset: 0,
                        swizzle,
                    };
                    let descriptor = MatrixDescriptor::decode(descriptor.encode()).unwrap();
                    descriptor.check(Major::K, element, mn).unwrap();
                    let mut dense = Vec::new();
                    let chunks = descriptor.chunks(Major::K, element, mn);
                    chunks.gather(&shared, &mut dense).unwrap();
                    for row in 0..mn {
                        let from = (row * 128 + k_bytes) as usize;
                        let expected = &global.bytes[from..from + 32];
                        let at = row as usize * 32;
                        assert_eq!(&dense[at..at + 32], expected, "{element} {swizzle:?} {row}");
                        for k in 0..32 / size {
                            let address = descriptor.address(Major::K, element, row, k) as usize;
                            for byte in 0..size as usize {
                                let expected = expected[(k * size) as usize + byte];
                                assert_eq!(shared[address + byte], expected);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// MN-major: element (mn, k) is byte `2·mn` of row `k`.
#[test]
fn mn_major_tiles_of_a_tensor_copy_read_back() {
    let mut rng = Rng(6);
    let element = Element::Bf16;
    for swizzle in Swizzle::ALL {
        for (mn, base) in [
            (64, BASES[0]),
            (128, BASES[3]),
            (256, BASES[1]),
            (64, BASES[2]),
        ] {
            let depth = 64;
            let global = Global::random(&mut rng, depth, 2 * mn);
            let mut shared = vec![0; 1 << 16];
            global.copy(swizzle, swizzle.span(), &mut shared, base);
            let span = swizzle.span();
            for step in 0..depth / 16 {
                let (box_bytes, group) = (depth * span, 8 * span);
                let (leading, stride) = match swizzle {
                    Swizzle::None => (group, box_bytes),
                    _ => (box_bytes, group),
                };
                let descriptor = MatrixDescriptor {
                    start: base + step * 16 * span,
                    leading,
                    stride,
                    base_offset: 0,
                    swizzle,
                };
                let descriptor = MatrixDescriptor::decode(descriptor.encode()).unwrap();
                descriptor.check(Major::Mn, element, mn).unwrap();
                let mut dense = Vec::new();
                let chunks = descriptor.chunks(Major::Mn, element, mn);
                assert_eq!((chunks.lines, chunks.per_line), (16, mn / 8));
                chunks.gather(&shared, &mut dense).unwrap();
                let row = 2 * mn as usize;
                let from = step as usize * 16 * row;
                assert_eq!(
                    dense,
                    global.bytes[from..from + 16 * row],
                    "{swizzle:?} {step}"
                );
                for k in 0..16 {
                    for m in 0..mn {
                        let address = descriptor.address(Major::Mn, element, m, k) as usize;
                        let at = k as usize * row + 2 * m as usize;
                        assert_eq!(shared[address..address + 2], dense[at..at + 2]);
                    }
                }
            }
        }
    }
}

#[test]
fn base_offset_moves_the_pattern_to_its_own_start() {
    for (swizzle, bits) in [(Swizzle::B32, 1), (Swizzle::B64, 2), (Swizzle::B128, 3)] {
        for line in 0..16 {
            let start = 8192 + 128 * line;
            let descriptor = MatrixDescriptor {
                start,
                leading: 16,
                stride: 8 * swizzle.span(),
                base_offset: (start >> 7) & 7,
                swizzle,
            };
            for row in 0..32 {
                for k in 0..16 {
                    // The pattern as it lies from `start`, as if `start` were address 0.
                    let expected = start + cute(bits, row * swizzle.span() + 2 * k);
                    let address = descriptor.address(Major::K, Element::F16, row, k);
                    assert_eq!(address, expected, "{swizzle:?} line {line} ({row}, {k})");
                }
            }
        }
    }
}

#[test]
fn chunks_outside_shared_memory_are_named() {
    let descriptor = MatrixDescriptor {
        start: 0,
        leading: 16,
        stride: 1024,
        base_offset: 0,
        swizzle: Swizzle::B128,
    };
    let chunks = descriptor.chunks(Major::K, Element::F16, 16);
    let mut dense = Vec::new();
    // Row 15 lies in the last line of two blocks of 1,024 bytes, its chunk 0 in its last cell.
    assert_eq!(chunks.gather(&vec![0; 2040], &mut dense), Err(2032));
    assert_eq!(chunks.gather(&vec![0; 2048], &mut dense), Ok(()));
}
