//! Checks of index arrays that every operation shares: a vectorised pass that finds nothing wrong,
//! and only then the search for what to name.

use crate::math::vectorized;
use crate::{BrokenInvariant, Error, Result};

impl Error {
    /// `Ok` when every value lies in `min..bound`, else [`Error::Index`] with the first that does
    /// not. `min` is 0, or −1 where −1 stands for "none".
    pub fn check_indices(what: &'static str, values: &[i32], min: i32, bound: usize) -> Result<()> {
        // The largest legal value; beyond i32 there is nothing to refuse.
        let max = (bound.min(1 << 31) as i64 - 1) as i32;
        let any_outside = vectorized(
            #[inline(always)]
            || {
                let mut any = 0u32;
                for &value in values {
                    any |= u32::from((value < min) | (value > max));
                }
                any != 0
            },
        );
        if !any_outside {
            return Ok(());
        }
        match values.iter().position(|v| !(min..=max).contains(v)) {
            None => Ok(()),
            Some(position) => Err(Self::Index {
                what,
                position,
                value: values[position].into(),
                bound,
            }),
        }
    }

    /// `Ok` when `offsets` are exclusive prefix sums that ascend from 0 to `total` assignments (the
    /// number of entries is up to the caller, but one there must be), else [`Error::Routing`] with
    /// the first [`BrokenInvariant`] of the array called `array`.
    pub fn check_offsets(array: &'static str, offsets: &[i32], total: usize) -> Result<()> {
        Ok(prefix_sums(array, offsets, total)?)
    }
}

/// See [`Error::check_offsets`].
pub(crate) fn prefix_sums(
    array: &'static str,
    offsets: &[i32],
    total: usize,
) -> std::result::Result<(), BrokenInvariant> {
    let (Some(&value), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(BrokenInvariant::EmptyOffsets { array });
    };
    if value != 0 {
        return Err(BrokenInvariant::FirstOffset { array, value });
    }
    let pairs = offsets.iter().zip(&offsets[1..]);
    let descends = vectorized(
        #[inline(always)]
        || {
            let mut any = 0u32;
            for (&previous, &value) in pairs.clone() {
                any |= u32::from(value < previous);
            }
            any != 0
        },
    );
    if descends {
        for (i, (&previous, &value)) in pairs.enumerate() {
            if value < previous {
                return Err(BrokenInvariant::Descending {
                    array,
                    position: i + 1,
                    value,
                    previous,
                });
            }
        }
    }
    // Ascending from 0, the last one is not negative.
    if last as usize != total {
        return Err(BrokenInvariant::LastOffset {
            array,
            value: last,
            assignments: total,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn indices_names_the_first_offender() {
        let check = |values: &[i32], min, bound| Error::check_indices("v", values, min, bound);
        assert!(check(&[0, 3, i32::MAX], 0, usize::MAX).is_ok());
        assert!(check(&[0, 3, i32::MAX], 0, 1 << 31).is_ok());
        assert!(check(&[], 0, 0).is_ok());
        assert!(check(&[-1, 3], -1, 4).is_ok());
        assert!(check(&[-1], -1, 0).is_ok());
        for (values, min, bound, position) in [
            (&[0, 1, 4][..], 0, 4, 2),
            (&[0, -1, 9], 0, 4, 1),
            (&[-1, 0, -2], -1, 4, 2),
            (&[0], 0, 0, 0),
            (&[0], -1, 0, 0),
            (&[i32::MIN], 0, usize::MAX, 0),
            (&[i32::MIN], -1, usize::MAX, 0),
            (&[0, i32::MAX], 0, i32::MAX as usize, 1),
        ] {
            let expected = Error::Index {
                what: "v",
                position,
                value: values[position].into(),
                bound,
            };
            assert_eq!(check(values, min, bound), Err(expected));
        }
        let error = check(&[0, 7], 0, 4).unwrap_err();
        assert_eq!(error.to_string(), "v[1] is 7, must be in 0..4");
    }

    #[test]
    fn offsets_names_the_first_broken_invariant() {
        let check = |offsets: &[i32], total| Error::check_offsets("o", offsets, total);
        assert!(check(&[0], 0).is_ok());
        assert!(check(&[0, 0, 3, 3], 3).is_ok());
        assert!(check(&[0, i32::MAX], i32::MAX as usize).is_ok());
        for (offsets, total, expected) in [
            (&[][..], 0, "o is empty"),
            (&[1, 0], 0, "o[0] is 1, must be 0"),
            (&[i32::MIN], 0, "o[0] is -2147483648, must be 0"),
            (&[0, 2, 1, 0], 0, "o[2] is 1, below its predecessor 2"),
            (
                &[0, i32::MAX, i32::MIN],
                0,
                "o[2] is -2147483648, below its predecessor 2147483647",
            ),
            (&[0, 2], 3, "o ends at 2, but there are 3"),
            (&[0], 1 << 32, "o ends at 0, but there are 4294967296"),
        ] {
            let error = check(offsets, total).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "'{error}' should say '{expected}'"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Long enough for vectors and their remainders.
        #[test]
        fn one_wrong_entry_is_found_wherever_it_is(
            n in 1..100usize, at in any::<prop::sample::Index>(), wrong in any::<i32>(),
        ) {
            let at = at.index(n);
            let mut values = vec![3i32; n];
            values[at] = wrong;
            let legal = (0..5).contains(&wrong);
            let outcome = Error::check_indices("v", &values, 0, 5);
            prop_assert_eq!(outcome.is_ok(), legal);
            let named = matches!(outcome, Err(Error::Index { position, .. }) if position == at);
            prop_assert!(legal || named);

            let mut offsets: Vec<i32> = (0..=n as i32).collect();
            offsets[at] = wrong;
            let (low, high) = (at.saturating_sub(1) as i32, at as i32 + 1);
            let legal = wrong == at as i32 || at > 0 && (low..=high).contains(&wrong);
            prop_assert_eq!(Error::check_offsets("o", &offsets, n).is_ok(), legal);
        }
    }
}
