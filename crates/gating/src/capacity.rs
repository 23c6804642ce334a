//! The limit on rows per expert.

use tollgate_core::Router;
use tollgate_core::options::Capacity;

/// Rows that one expert may have: `ceil(factor · T · k / E)`, evaluated in f64 from left to right,
/// with `k` the router's largest number of experts per token. It may exceed T.
pub fn rows_per_expert(
    capacity: &Capacity,
    router: &Router,
    num_tokens: usize,
    num_experts: usize,
) -> usize {
    let k = router.max_experts_per_token(num_experts);
    let even = f64::from(capacity.factor) * num_tokens as f64 * k as f64 / num_experts as f64;
    even.ceil() as usize
}

#[cfg(test)]
mod tests {
    use tollgate_core::options::DropOrder;

    use super::*;

    #[test]
    fn an_even_share_is_rounded_up() {
        let rows = |factor, k, t, e| {
            let capacity = Capacity {
                factor,
                order: DropOrder::Position,
            };
            rows_per_expert(&capacity, &Router::top_k(k), t, e)
        };
        assert_eq!(rows(1.0, 1, 8, 4), 2);
        assert_eq!(rows(1.0, 1, 9, 4), 3);
        assert_eq!(rows(1.25, 2, 8, 4), 5);
        assert_eq!(rows(0.0, 2, 8, 4), 0);
        assert_eq!(rows(f32::MAX, 2, 8, 4), usize::MAX);
        assert_eq!(rows(2.0, 2, 0, 4), 0);
    }
}
