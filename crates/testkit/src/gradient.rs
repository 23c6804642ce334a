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
    /// At most this many coordinates are probed, chosen by seed; all of them when there are fewer.
    pub coordinates: usize,
    /// Seed of the choice.
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
    let mut data = Data::new(probe.seed);
    let all = x.len() <= probe.coordinates;
    let mut moved = x.to_vec();
    for i in 0..x.len().min(probe.coordinates) {
        let at = if all { i } else { data.below(x.len()) };
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
