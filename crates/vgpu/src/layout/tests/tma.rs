//! Tensor maps: the restrictions of `cuTensorMapEncodeTiled`, and the walk against a loop over
//! elements with the swizzle tables of PTX ISA 5.5.7.

use super::Rng;
use crate::layout::swizzle::Swizzle;
use crate::layout::tma::{
    BYTES, Interleave, L2Promotion, OobFill, TensorElement, TensorMap, TmaError, encode_tiled,
    swizzle_from_raw,
};

/// Where the ISA's tables put each 16-byte cell of a line; lines repeat in this order.
fn cells(swizzle: Swizzle) -> &'static [[u32; 8]] {
    match swizzle {
        Swizzle::None => &[[0, 1, 2, 3, 4, 5, 6, 7]],
        Swizzle::B32 => &[[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]],
        Swizzle::B64 => &[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [1, 0, 3, 2, 5, 4, 7, 6],
            [2, 3, 0, 1, 6, 7, 4, 5],
            [3, 2, 1, 0, 7, 6, 5, 4],
        ],
        Swizzle::B128 => &[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [1, 0, 3, 2, 5, 4, 7, 6],
            [2, 3, 0, 1, 6, 7, 4, 5],
            [3, 2, 1, 0, 7, 6, 5, 4],
            [4, 5, 6, 7, 0, 1, 2, 3],
            [5, 4, 7, 6, 1, 0, 3, 2],
            [6, 7, 4, 5, 2, 3, 0, 1],
            [7, 6, 5, 4, 3, 2, 1, 0],
        ],
    }
}

fn by_table(swizzle: Swizzle, address: u32) -> u32 {
    let cells = cells(swizzle);
    let (line, cell, byte) = (address / 128, address / 16 % 8, address % 16);
    line * 128 + 16 * cells[line as usize % cells.len()][cell as usize] + byte
}

#[test]
fn swizzles_equal_the_tables_of_the_isa() {
    for swizzle in Swizzle::ALL {
        for address in 0..4096 {
            assert_eq!(
                swizzle.apply(address),
                by_table(swizzle, address),
                "{swizzle:?}"
            );
            assert_eq!(swizzle.apply(swizzle.apply(address)), address);
            let repeats = swizzle.apply(address + swizzle.period());
            assert_eq!(repeats, swizzle.apply(address) + swizzle.period());
        }
    }
    assert_eq!(Swizzle::ALL.map(Swizzle::span), [16, 32, 64, 128]);
    assert_eq!(Swizzle::ALL.map(Swizzle::period), [16, 256, 512, 1024]);
}

/// A map with everything legal, to be spoilt one parameter at a time.
#[derive(Clone)]
struct Parameters {
    element: TensorElement,
    rank: u32,
    address: u64,
    dims: Vec<u64>,
    strides: Vec<u64>,
    extent: Vec<u32>,
    element_strides: Vec<u32>,
    interleave: Interleave,
    swizzle: Swizzle,
    oob: OobFill,
}

impl Parameters {
    fn legal() -> Parameters {
        Parameters {
            element: TensorElement::F16,
            rank: 3,
            address: 0x7f00_0000_0010,
            dims: vec![100, 1 << 32, 7],
            strides: vec![208, 208 * 64],
            extent: vec![64, 256, 3],
            element_strides: vec![1, 2, 8],
            interleave: Interleave::None,
            swizzle: Swizzle::B128,
            oob: OobFill::Zero,
        }
    }

    fn encode(&self) -> Result<[u8; BYTES], TmaError> {
        encode_tiled(
            self.element,
            self.rank,
            self.address,
            &self.dims,
            &self.strides,
            &self.extent,
            &self.element_strides,
            self.interleave,
            self.swizzle,
            L2Promotion::B256,
            self.oob,
        )
    }
}

#[test]
fn restrictions_are_named_with_value_and_bound() {
    type Spoil = fn(&mut Parameters);
    let cases: &[(Spoil, &str)] = &[
        (|p| p.rank = 0, "tensorRank is 0, must be from 1 to 5"),
        (|p| p.rank = 6, "tensorRank is 6"),
        (|p| p.rank = 4, "globalDim has 3 entries, needs 4"),
        (
            |p| p.address += 8,
            "globalAddress is 0x7f0000000018, must be a multiple of 16",
        ),
        (
            |p| p.dims[2] = 0,
            "globalDim[2] is 0, must be from 1 to 4294967296",
        ),
        (|p| p.dims[1] += 1, "globalDim[1] is 4294967297"),
        (
            |p| p.strides[0] = 200,
            "globalStrides[0] is 200 bytes, must be a multiple of 16",
        ),
        (
            |p| p.strides[1] = 1 << 40,
            "globalStrides[1] is 1099511627776",
        ),
        (|p| p.extent[1] = 0, "boxDim[1] is 0, must be from 1 to 256"),
        (|p| p.extent[1] = 257, "boxDim[1] is 257"),
        (
            |p| p.extent[0] = 12,
            "boxDim[0] is 24 bytes, must be a multiple of 16",
        ),
        (
            |p| p.extent[0] = 72,
            "boxDim[0] is 144 bytes, must be at most 128 bytes",
        ),
        (
            |p| p.element_strides[1] = 0,
            "elementStrides[1] is 0, must be from 1 to 8",
        ),
        (|p| p.element_strides[2] = 9, "elementStrides[2] is 9"),
        (
            |p| p.interleave = Interleave::B16,
            "not supported: an interleaved",
        ),
        (|p| p.address = !15, "ends beyond the address space"),
        (
            |p| {
                p.element = TensorElement::U16;
                p.oob = OobFill::Nan;
            },
            "not a floating-point type",
        ),
    ];
    assert!(Parameters::legal().encode().is_ok());
    for (spoil, words) in cases {
        let mut parameters = Parameters::legal();
        spoil(&mut parameters);
        let text = parameters.encode().expect_err(words).to_string();
        assert!(text.contains(words), "{text:?} should contain {words:?}");
    }
}

#[test]
fn raw_numbers_are_those_of_the_driver() {
    assert_eq!(TensorElement::from_raw(9), Ok(TensorElement::Bf16));
    assert_eq!(TensorElement::from_raw(12), Ok(TensorElement::Tf32Ftz));
    assert!(matches!(
        TensorElement::from_raw(13),
        Err(TmaError::NotSupported(_))
    ));
    assert!(matches!(
        TensorElement::from_raw(16),
        Err(TmaError::UnknownValue { .. })
    ));
    assert_eq!(swizzle_from_raw(3), Ok(Swizzle::B128));
    assert!(matches!(
        swizzle_from_raw(4),
        Err(TmaError::NotSupported(_))
    ));
    assert!(matches!(
        swizzle_from_raw(7),
        Err(TmaError::UnknownValue { .. })
    ));
    assert_eq!(L2Promotion::from_raw(3), Ok(L2Promotion::B256));
    assert!(OobFill::from_raw(2).is_err() && Interleave::from_raw(3).is_err());
}

#[test]
fn a_map_survives_encoding_and_damage_is_found() {
    let bytes = Parameters::legal().encode().unwrap();
    let map = TensorMap::decode(&bytes).unwrap();
    assert_eq!(map.encode(), bytes);
    assert_eq!(map.dims, [100, 1 << 32, 7, 1, 1]);
    assert_eq!(map.strides[..3], [2, 208, 208 * 64]);
    assert_eq!(map.extent, [64, 256, 3, 1, 1]);
    assert_eq!(map.element_strides, [1, 2, 8, 1, 1]);
    assert_eq!((map.swizzle, map.l2), (Swizzle::B128, L2Promotion::B256));
    for byte in 0..BYTES {
        for bit in 0..8 {
            let mut damaged = bytes;
            damaged[byte] ^= 1 << bit;
            let error = TensorMap::decode(&damaged).unwrap_err();
            assert!(
                matches!(error, TmaError::Corrupt(_)),
                "byte {byte}: {error}"
            );
        }
    }
    assert!(TensorMap::decode(&[0; BYTES]).is_err());
}

/// A random legal map and coordinates that often cross its borders.
fn random(rng: &mut Rng) -> (TensorMap, Vec<i32>) {
    let rank = rng.range(1, 5) as usize;
    let element = TensorElement::ALL[rng.range(0, 12) as usize];
    let swizzle = Swizzle::ALL[rng.range(0, 3) as usize];
    let size = element.bytes();
    let widest = match swizzle {
        Swizzle::None => 12,
        s => s.chunks().into(),
    };
    let mut p = Parameters::legal();
    p.element = element;
    p.rank = rank as u32;
    p.address = 16 * rng.range(0, 1 << 20) as u64;
    p.swizzle = swizzle;
    p.oob = OobFill::Zero;
    p.dims = (0..rank).map(|_| rng.range(1, 20) as u64).collect();
    p.strides = (1..rank).map(|_| 16 * rng.range(0, 300) as u64).collect();
    p.extent = (0..rank).map(|_| rng.range(1, 7) as u32).collect();
    p.extent[0] = (16 * rng.range(1, widest) as u32 / size).clamp(16 / size, 256 / size * 8);
    p.element_strides = (0..rank).map(|_| rng.range(1, 3) as u32).collect();
    let map = TensorMap::decode(&p.encode().unwrap()).unwrap();
    let coordinates = (0..rank)
        .map(|d| rng.range(-4, p.dims[d] as i64 + 2) as i32)
        .collect();
    (map, coordinates)
}

/// What the documentation says of each byte of the box: where it lies in shared memory, and where
/// it comes from. One element at a time.
fn by_element(map: &TensorMap, coordinates: &[i32], shared: u32) -> Vec<(u32, Option<u64>)> {
    let mut all = Vec::new();
    let size = map.element.bytes();
    let [n0, n1, n2, n3, n4] = std::array::from_fn(|d| match d {
        0 => map.extent[0],
        _ => map.extent[d].div_ceil(map.element_strides[d]),
    });
    let pitch = match map.swizzle {
        Swizzle::None => n0 * size,
        Swizzle::B32 => 32,
        Swizzle::B64 => 64,
        Swizzle::B128 => 128,
    };
    let mut row = 0;
    for i4 in 0..n4 {
        for i3 in 0..n3 {
            for i2 in 0..n2 {
                for i1 in 0..n1 {
                    for i0 in 0..n0 {
                        let mut global = Some(map.address);
                        for (d, i) in [i0, i1, i2, i3, i4].into_iter().enumerate() {
                            let step = if d == 0 { 1 } else { map.element_strides[d] };
                            let start = i64::from(coordinates.get(d).copied().unwrap_or(0));
                            let at = start + i64::from(i * step);
                            global = global
                                .filter(|_| at >= 0 && (at as u64) < map.dims[d])
                                .map(|g| g + at as u64 * map.strides[d]);
                        }
                        for byte in 0..size {
                            let address = shared + row * pitch + i0 * size + byte;
                            let source = global.map(|g| g + u64::from(byte));
                            all.push((by_table(map.swizzle, address), source));
                        }
                    }
                    row += 1;
                }
            }
        }
    }
    all
}

#[test]
fn the_walk_equals_a_loop_over_elements() {
    let mut rng = Rng(11);
    let (mut inside, mut outside) = (0, 0);
    for _ in 0..3000 {
        let (map, coordinates) = random(&mut rng);
        let shared = 128 * rng.range(0, 20) as u32;
        let mut walked = Vec::new();
        map.walk(&coordinates, shared, |piece| {
            if map.swizzle != Swizzle::None {
                assert_eq!(piece.shared / 16, (piece.shared + piece.len - 1) / 16);
            }
            assert!(piece.len > 0);
            for byte in 0..piece.len {
                let source = piece.global.map(|g| g + u64::from(byte));
                walked.push((piece.shared + byte, source));
            }
        })
        .unwrap();
        let expected = by_element(&map, &coordinates, shared);
        assert_eq!(
            walked, expected,
            "{map:?} at {coordinates:?}, shared {shared:#x}"
        );
        assert_eq!(walked.len() as u64, map.box_bytes());
        let end = u64::from(shared) + map.shared_bytes();
        assert!(
            walked
                .iter()
                .all(|&(at, _)| at >= shared && u64::from(at) < end)
        );
        let filled = walked.iter().filter(|(_, source)| source.is_none()).count();
        outside += filled;
        inside += walked.len() - filled;
    }
    // The generator reaches both.
    assert!(inside > 100_000 && outside > 100_000, "{inside} {outside}");
}

#[test]
fn pieces_without_a_swizzle_are_as_long_as_they_can_be() {
    let mut p = Parameters::legal();
    p.swizzle = Swizzle::None;
    p.dims = vec![20, 2, 1];
    p.extent = vec![32, 2, 1];
    p.element_strides = vec![1, 1, 1];
    let map = TensorMap::decode(&p.encode().unwrap()).unwrap();
    let mut pieces = Vec::new();
    map.walk(&[-3, 1, 0], 256, |piece| {
        let offset = piece.global.map(|g| g - p.address);
        pieces.push((piece.shared, offset, piece.len));
    })
    .unwrap();
    let expected = [
        (256, None, 6),
        (262, Some(208), 40),
        (302, None, 18),
        (320, None, 64),
    ];
    assert_eq!(pieces, expected);
}

#[test]
fn a_copy_checks_its_operands() {
    let map = TensorMap::decode(&Parameters::legal().encode().unwrap()).unwrap();
    let mut called = 0;
    let mut walk = |coordinates: &[i32], shared| {
        let result = map.walk(coordinates, shared, |_| called += 1);
        result.map_err(|e| e.to_string())
    };
    assert!(
        walk(&[0, 0], 0)
            .unwrap_err()
            .contains("2 coordinates for a tensor map of rank 3")
    );
    assert!(
        walk(&[0, 0, 0], 64)
            .unwrap_err()
            .contains("0x40 of a tensor copy")
    );
    assert!(walk(&[i32::MIN, i32::MAX, i32::MIN], 0).is_ok());
    assert!(called > 0);
    let mut p = Parameters::legal();
    (p.extent, p.element_strides) = (vec![64, 256, 256], vec![1; 3]);
    let huge = TensorMap::decode(&p.encode().unwrap()).unwrap();
    let error = huge.walk(&[0, 0, 0], 0, |_| {}).unwrap_err();
    assert!(error.to_string().contains("takes 8388608 bytes"), "{error}");
}

fn map_of(element: TensorElement, oob: OobFill) -> TensorMap {
    let mut p = Parameters::legal();
    (p.element, p.oob) = (element, oob);
    p.extent[0] = 128 / element.bytes();
    TensorMap::decode(&p.encode().unwrap()).unwrap()
}

#[test]
fn fill_is_zero_or_a_nan_of_the_type() {
    let nan = |element| map_of(element, OobFill::Nan).fill();
    assert_eq!(map_of(TensorElement::F32, OobFill::Zero).fill(), [0; 16]);
    for pair in nan(TensorElement::F16).as_chunks::<2>().0 {
        assert!(half::f16::from_le_bytes(*pair).is_nan());
    }
    for pair in nan(TensorElement::Bf16).as_chunks::<2>().0 {
        assert!(half::bf16::from_le_bytes(*pair).is_nan());
    }
    for four in nan(TensorElement::F32).as_chunks::<4>().0 {
        assert_eq!(u32::from_le_bytes(*four), 0x7fff_ffff);
    }
    for eight in nan(TensorElement::F64).as_chunks::<8>().0 {
        assert!(f64::from_le_bytes(*eight).is_nan());
    }
}

#[test]
fn some_types_change_values_on_their_way() {
    let convert = |element, bits: u32| {
        let mut bytes = bits.to_le_bytes();
        map_of(element, OobFill::Zero).convert(&mut bytes);
        u32::from_le_bytes(bytes)
    };
    let one = 1.0f32.to_bits();
    use TensorElement::{F32, F32Ftz, Tf32, Tf32Ftz, U32};
    for (element, bits, expected) in [
        (F32, 0x0000_0001, 0x0000_0001),
        (U32, one + 1, one + 1),
        (F32Ftz, 0x807f_ffff, 0x8000_0000),
        (F32Ftz, one + 1, one + 1),
        (Tf32, one + 0x0fff, one),
        (Tf32, one + 0x1000, one),
        (Tf32, one + 0x1001, one + 0x2000),
        (Tf32, one + 0x3000, one + 0x4000),
        (Tf32, 0x7f80_0000, 0x7f80_0000),
        (Tf32Ftz, 0x0000_3000, 0),
    ] {
        assert_eq!(convert(element, bits), expected, "{element:?} {bits:#x}");
    }
}
