//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; 2011).

/// Four words from a counter and a key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    for _ in 0..10 {
        let (hi0, lo0) = product(0xD251_1F53, counter[0]);
        let (hi1, lo1) = product(0xCD9E_8D57, counter[2]);
        counter = [
            hi1 ^ counter[1] ^ key[0],
            lo1,
            hi0 ^ counter[3] ^ key[1],
            lo0,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// `philox_u32`: `4 * groups` words.
pub fn philox_u32(groups: usize, seed: u64, subsequence: u64, offset: u64) -> Vec<u32> {
    let halves = |v: u64| [v as u32, (v >> 32) as u32];
    (0..groups as u64)
        .flat_map(|i| {
            let [c0, c1] = halves(offset.wrapping_add(i));
            let [c2, c3] = halves(subsequence);
            philox4x32_10([c0, c1, c2, c3], halves(seed))
        })
        .collect()
}

/// A multiple of 2^-24 in [0, 1) from the upper 24 bits.
fn unit(word: u32) -> f64 {
    f64::from(word >> 8) * 2f64.powi(-24)
}

/// `philox_f32`; exact.
pub fn philox_f32(groups: usize, seed: u64, subsequence: u64, offset: u64) -> Vec<f32> {
    philox_u32(groups, seed, subsequence, offset)
        .into_iter()
        .map(|word| unit(word) as f32)
        .collect()
}

/// `philox_normal`: Box and Muller's pairs.
pub fn philox_normal(groups: usize, seed: u64, subsequence: u64, offset: u64) -> Vec<f64> {
    philox_u32(groups, seed, subsequence, offset)
        .chunks_exact(2)
        .flat_map(|pair| {
            let u = unit(pair[0]) + 2f64.powi(-24);
            let angle = std::f64::consts::TAU * unit(pair[1]);
            let radius = (-2.0 * u.ln()).sqrt();
            [radius * angle.cos(), radius * angle.sin()]
        })
        .collect()
}
