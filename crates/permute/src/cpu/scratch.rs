//! Memory that a thread keeps from call to call.

use std::cell::Cell;
use std::thread::LocalKey;

/// Lends the thread's vector to `work`, with whatever it held before. Nested on one thread (a
/// worker that waits may run another task), the inner call gets an empty vector; the one that
/// returns last is kept.
pub(super) fn with<T, R>(
    kept: &'static LocalKey<Cell<Vec<T>>>,
    work: impl FnOnce(&mut Vec<T>) -> R,
) -> R {
    let mut lent = kept.take();
    let result = work(&mut lent);
    kept.set(lent);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }

    #[test]
    fn memory_is_kept_and_nesting_is_harmless() {
        let outer = with(&KEPT, |outer| {
            outer.extend([1, 2, 3]);
            with(&KEPT, |inner| {
                assert!(inner.is_empty());
                inner.push(9);
            });
            assert_eq!(outer, &[1, 2, 3]);
            outer.as_ptr()
        });
        with(&KEPT, |again| {
            assert_eq!((again.as_ptr(), &again[..]), (outer, &[1, 2, 3][..]));
        });
    }
}
