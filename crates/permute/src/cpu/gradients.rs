//! The backward of `unpermute`: gradients of the rows and of the routing weights in one pass.

use std::cell::Cell;

use tollgate_core::math::vectorized;
use tollgate_core::{Cpu, Element, RoutingTable, RowView, RowViewMut};

use super::kernels::scale_and_dot;
use super::tiles::Tiles;
use super::{bytes_of, for_each, scratch};
use crate::PermuteMaps;

thread_local! {
    /// `[A]`, the dot products of a call in row order.
    static DOTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `drows[r] = round(w_a · dy[t])`, `dweights[a] = <dy[t], rows[r]>`. Arguments are checked.
pub(super) fn unpermute_backward<T: Element>(
    cpu: &Cpu,
    dy: RowView<'_, T>,
    rows: RowView<'_, T>,
    table: &RoutingTable,
    maps: &PermuteMaps,
    drows: RowViewMut<'_, T>,
    dweights: &mut [f32],
) {
    scratch::with(&DOTS, |dots| {
        // Every one of them is written: the tiles cover the rows.
        dots.resize(rows.rows(), 0.0);
        rows_and_dots(cpu, dy, rows, table, maps, drows, dots);
        for (dweight, &r) in dweights.iter_mut().zip(&maps.row_of_assignment) {
            *dweight = dots[r as usize];
        }
    });
}

/// Rows are written where they lie; the dot products lie in row order first, so that both outputs
/// are cut by the same points.
fn rows_and_dots<T: Element>(
    cpu: &Cpu,
    dy: RowView<'_, T>,
    rows: RowView<'_, T>,
    table: &RoutingTable,
    maps: &PermuteMaps,
    drows: RowViewMut<'_, T>,
    dots: &mut [f32],
) {
    let bytes = 3 * bytes_of::<T>(rows.rows(), rows.cols());
    let tiles = Tiles::new(cpu, maps, dy.rows(), bytes_of::<T>(1, dy.cols()), bytes);
    let mut rest = dots;
    let dots_of_tiles = tiles.points().windows(2).map(|pair| {
        let (tile, tail) = std::mem::take(&mut rest).split_at_mut((pair[1] - pair[0]) as usize);
        rest = tail;
        tile
    });
    let parts = drows
        .split_at_offsets(tiles.points())
        .into_iter()
        .zip(dots_of_tiles);
    for_each(cpu, tiles.deal(parts), bytes, |tiles| {
        vectorized(
            #[inline(always)]
            || {
                for (range, (mut drows, dots)) in tiles {
                    for (i, r) in range.enumerate() {
                        let weight = table.routing_weights[maps.assignment_of_row[r] as usize];
                        let dy = dy.row(maps.token_of_row[r] as usize);
                        let dot = scale_and_dot(drows.row_mut(i), dy, rows.row(r), weight);
                        dots[i] = dot;
                    }
                }
            },
        )
    });
}
