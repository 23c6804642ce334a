//! Votes, matches, reductions and exchanges of warps of 32 lanes.

use super::collatz_steps;

/// A bit for each lane where it holds.
fn mask_where(holds: impl Fn(usize) -> bool) -> u32 {
    (0..32).filter(|&l| holds(l)).map(|l| 1 << l).sum()
}

/// `warp_votes`: `[16, n]` of n keys, a multiple of 32.
pub fn warp_votes(keys: &[u32]) -> Vec<u32> {
    let n = keys.len();
    let mut out = vec![0; 16 * n];
    for (w, keys) in keys.chunks_exact(32).enumerate() {
        let odd = mask_where(|l| keys[l] % 2 == 1);
        let all_equal = keys.iter().all(|&key| key == keys[0]);
        let fold = |op: fn(u32, u32) -> u32| keys.iter().copied().reduce(op).expect("32 keys");
        let signed = keys.iter().map(|&key| key as i32);
        let (signed_min, signed_max) = (signed.clone().min(), signed.max());
        for lane in 0..32 {
            let results = [
                odd,
                u32::from(odd == u32::MAX),
                u32::from(odd != 0),
                u32::from(odd == u32::MAX || odd == 0),
                mask_where(|l| keys[l] == keys[lane]),
                if all_equal { u32::MAX } else { 0 },
                fold(u32::wrapping_add),
                fold(u32::min),
                fold(u32::max),
                fold(|a, b| a & b),
                fold(|a, b| a | b),
                fold(|a, b| a ^ b),
                keys[(lane + 1) % 32],
                keys[lane / 8 * 8 + 7],
                signed_min.expect("32 keys") as u32,
                signed_max.expect("32 keys") as u32,
            ];
            for (j, result) in results.into_iter().enumerate() {
                out[j * n + w * 32 + lane] = result;
            }
        }
    }
    out
}

/// `warp_divergent`: even lanes the sum of their keys, odd lanes their Collatz steps.
pub fn warp_divergent(keys: &[u32]) -> Vec<u32> {
    keys.chunks_exact(32)
        .flat_map(|keys| {
            let even = keys
                .iter()
                .step_by(2)
                .fold(0u32, |sum, &key| sum.wrapping_add(key));
            (0..32).map(move |lane| match lane % 2 {
                0 => even,
                _ => collatz_steps(keys[lane]),
            })
        })
        .collect()
}

/// `warp_exchange`: the keys 5 and 10 lanes further, added.
pub fn warp_exchange(keys: &[u32]) -> Vec<u32> {
    keys.chunks_exact(32)
        .flat_map(|keys| {
            (0..32).map(|lane| keys[(lane + 5) % 32].wrapping_add(keys[(lane + 10) % 32]))
        })
        .collect()
}
