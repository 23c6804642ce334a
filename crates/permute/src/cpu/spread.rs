//! `permute`: copies of whole rows.

use tollgate_core::{Cpu, Element, RowView, RowViewMut};

use super::tiles::Tiles;
use super::{bytes_of, for_each};
use crate::PermuteMaps;

/// `rows[r] = x[token_of_row[r]]`. Arguments are checked.
pub(super) fn permute<T: Element>(
    cpu: &Cpu,
    x: RowView<'_, T>,
    maps: &PermuteMaps,
    rows: RowViewMut<'_, T>,
) {
    let bytes = 2 * bytes_of::<T>(rows.rows(), rows.cols());
    let tiles = Tiles::new(cpu, maps, x.rows(), bytes_of::<T>(1, x.cols()), bytes);
    let blocks = tiles.deal(rows.split_at_offsets(tiles.points()));
    for_each(cpu, blocks, bytes, |tiles| {
        for (range, mut rows) in tiles {
            for (i, &token) in maps.token_of_row[range].iter().enumerate() {
                rows.row_mut(i).copy_from_slice(x.row(token as usize));
            }
        }
    });
}
