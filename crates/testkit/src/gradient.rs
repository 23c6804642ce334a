//! Gradients against central finite differences of an f64 function.

use crate::Data;

/// How a gradient is probed.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Step of the central difference, relative to `max(1, |x|)`.
    pub step: f64,
    /// Largest allowed `|difference − gradient| / scale`, where the scale is the largest magnitude
    /// in the gradient (at least 1e-6): truncation `O(step²)` plus rounding `O(2^-52 / step)`.
    pub tolerance: f64,
    /// At most this many different coordinates are probed, chosen at random; all of them when there
    /// are no more.
    pub coordinates: usize,
    /// Seed of the choice. The name of the check goes into it too, so that many configurations with
    /// one seed do not all probe the same coordinates.
    pub seed: u64,
}

impl Default for Probe {
    /// Step 1e-5: truncation about 1e-10 and rounding about 1e-11 of the function's magnitude;
    /// tolerance 1e-6 leaves room for curvature.
    fn default() -> Self {
        Self {
            step: 1e-5,
            tolerance: 1e-6,
            coordinates: 40,
            seed: 1,
        }
    }
}

/// Which of `n` coordinates are probed: different ones, the same in every run of the check `what`.
fn coordinates(what: &str, n: usize, probe: Probe) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if n > probe.coordinates {
        let mut data = Data::new(probe.seed ^ fnv1a(what));
        // A shuffle, as far as it is used.
        for i in 0..probe.coordinates {
            order.swap(i, i + data.below(n - i));
        }
        order.truncate(probe.coordinates);
    }
    order
}

/// The 64-bit FNV-1a hash: the same on every machine and with every compiler.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Compares `gradient` with central differences of `function` around `x`; panics with `what` and
/// the coordinate on a mismatch, or on a NaN.
#[track_caller]
pub fn check_gradient(
    what: &str,
    x: &[f64],
    gradient: &[f64],
    probe: Probe,
    mut function: impl FnMut(&[f64]) -> f64,
) {
    assert_eq!(x.len(), gradient.len(), "{what}: one gradient an input");
    let scale = gradient.iter().fold(1e-6f64, |m, g| m.max(g.abs()));
    let mut moved = x.to_vec();
    for at in coordinates(what, x.len(), probe) {
        let h = probe.step * x[at].abs().max(1.0);
        moved[at] = x[at] + h;
        let up = function(&moved);
        moved[at] = x[at] - h;
        let down = function(&moved);
        moved[at] = x[at];
        let difference = (up - down) / (2.0 * h);
        let error = (difference - gradient[at]).abs() / scale;
        assert!(
            error <= probe.tolerance,
            "{what}: coordinate {at} of {}: gradient {} but finite difference {difference} \
             (error {error:e} of the largest gradient {scale:e}, allowed {:e})",
            x.len(),
            gradient[at],
            probe.tolerance,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_different_and_follow_seed_and_name() {
        let probe = Probe::default();
        let chosen = coordinates("dx", 50, probe);
        let mut sorted = chosen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((chosen.len(), sorted.len()), (40, 40));
        assert!(sorted.iter().all(|&c| c < 50));
        assert_eq!(chosen, coordinates("dx", 50, probe));
        assert_ne!(chosen, coordinates("dw", 50, probe));
        assert_ne!(chosen, coordinates("dx", 50, Probe { seed: 2, ..probe }));
        for n in [0, 1, 39, 40] {
            let all: Vec<usize> = (0..n).collect();
            assert_eq!(coordinates("dx", n, probe), all);
        }
    }

    #[test]
    fn many_names_together_probe_every_coordinate() {
        let mut probed = [false; 400];
        for case in 0..100 {
            for at in coordinates(&format!("case {case}: dx"), 400, Probe::default()) {
                probed[at] = true;
            }
        }
        // Each misses one with probability 0.9: all hundred about 400 · 0.9^100 < 0.02.
        assert!(probed.iter().all(|&p| p));
    }

    #[test]
    fn a_wrong_gradient_is_found_and_a_right_one_passes() {
        let x = [0.3f64, -1.2, 2.0];
        let f = |v: &[f64]| v[0].sin() * v[1] + v[2].powi(3);
        let right = [x[0].cos() * x[1], x[0].sin(), 3.0 * x[2] * x[2]];
        check_gradient("right", &x, &right, Probe::default(), f);
        let wrong = [right[0], -right[1], right[2]];
        let caught = std::panic::catch_unwind(|| {
            check_gradient("wrong", &x, &wrong, Probe::default(), f);
        });
        assert!(caught.is_err());
    }
}
