//! What every device checks of the arguments before it writes anything.
//!
//! All of it is cheap next to moving the rows: lengths and shapes, one vectorised pass over the
//! indices that the operation will follow, and for the scattering operation one pass that proves
//! the maps to be inverses.

use tollgate_core::{BrokenInvariant, Error, Result, RoutingTable};

use crate::PermuteMaps;

/// Assignments, tokens and rows are numbered in i32.
const MAX_INDEX: usize = i32::MAX as usize;

/// Rows and columns of a matrix.
pub(crate) type Shape = (usize, usize);

/// The table can be numbered in i32. Offsets into matrices are computed in usize and need no limit.
pub(crate) fn table_size(tokens: usize, experts: usize, assignments: usize) -> Result<()> {
    for (what, value) in [
        ("tokens (T)", tokens),
        ("experts (E)", experts),
        ("assignments (A)", assignments),
    ] {
        if value > MAX_INDEX {
            return Err(Error::Overflow {
                what,
                detail: value.to_string(),
                limit: MAX_INDEX as u64,
            });
        }
    }
    Ok(())
}

/// The three maps have one entry an assignment.
fn map_lengths(maps: &PermuteMaps, assignments: usize) -> Result<()> {
    table_size(0, 0, assignments)?;
    for (what, map) in [
        ("entries of token_of_row (A)", &maps.token_of_row),
        ("entries of row_of_assignment (A)", &maps.row_of_assignment),
        ("entries of assignment_of_row (A)", &maps.assignment_of_row),
    ] {
        Error::check_shape(what, map.len(), assignments)?;
    }
    Ok(())
}

/// The table's lengths agree and its offsets cut the assignments into tokens and into experts.
/// Expert indices are not looked at. Errors are those of [`RoutingTable::validate`], in its order.
pub(crate) fn table(table: &RoutingTable) -> Result<()> {
    let assignments = table.num_assignments();
    table_size(table.num_tokens(), table.num_experts(), assignments)?;
    if table.routing_weights.len() != assignments {
        return Err(Error::Routing(BrokenInvariant::WeightCount {
            weights: table.routing_weights.len(),
            assignments,
        }));
    }
    Error::check_offsets("token_offsets", &table.token_offsets, assignments)?;
    Error::check_offsets("expert_offsets", &table.expert_offsets, assignments)
}

/// The maps are of this table's size and count the same rows for every expert.
fn maps_of_table(maps: &PermuteMaps, table: &RoutingTable) -> Result<()> {
    map_lengths(maps, table.num_assignments())?;
    let (found, wanted) = (&maps.expert_offsets, &table.expert_offsets);
    Error::check_shape(
        "entries of maps.expert_offsets (E+1)",
        found.len(),
        wanted.len(),
    )?;
    match found.iter().zip(wanted).position(|(f, w)| f != w) {
        None => Ok(()),
        Some(i) => Err(foreign(
            format!("maps with expert_offsets[{i}] = {}", found[i]),
            format!("a table with expert_offsets[{i}] = {}", wanted[i]),
        )),
    }
}

fn foreign(what: String, with: String) -> Error {
    Error::Incompatible {
        what,
        with,
        reason: "the maps belong to another table; sort this one",
    }
}

/// Arguments of `permute`: x `[T, H]`, rows `[A, H]`.
pub(crate) fn permute(x: Shape, maps: &PermuteMaps, rows: Shape) -> Result<()> {
    Error::check_shape(
        "rows of the permuted matrix (A)",
        rows.0,
        maps.token_of_row.len(),
    )?;
    Error::check_shape("columns of the permuted matrix (H)", rows.1, x.1)?;
    map_lengths(maps, rows.0)?;
    Error::check_indices("token_of_row", &maps.token_of_row, 0, x.0)
}

/// Arguments of `unpermute` and of `permute_backward`: rows `[A, H]`, y `[T, H]`.
pub(crate) fn unpermute(
    rows: Shape,
    table: &RoutingTable,
    maps: &PermuteMaps,
    y: Shape,
) -> Result<()> {
    let (tokens, assignments) = (table.num_tokens(), table.num_assignments());
    Error::check_shape("rows of the permuted matrix (A)", rows.0, assignments)?;
    Error::check_shape("rows of the token matrix (T)", y.0, tokens)?;
    Error::check_shape("columns of the token matrix (H)", y.1, rows.1)?;
    self::table(table)?;
    maps_of_table(maps, table)?;
    Error::check_indices("row_of_assignment", &maps.row_of_assignment, 0, assignments)
}

/// The optional addend of `permute_backward`, f32 `[T, H]`, has the shape of dx.
pub(crate) fn addend(addend: Shape, dx: Shape) -> Result<()> {
    Error::check_shape("rows of the addend (T)", addend.0, dx.0)?;
    Error::check_shape("columns of the addend (H)", addend.1, dx.1)
}

/// Arguments of `unpermute_backward`: dy `[T, H]`, rows and drows `[A, H]`, dweights `[A]`.
///
/// Here every row and every weight must be written exactly once, so the maps must be inverses and
/// agree with the table on each row's token.
pub(crate) fn unpermute_backward(
    dy: Shape,
    rows: Shape,
    table: &RoutingTable,
    maps: &PermuteMaps,
    drows: Shape,
    dweights: usize,
) -> Result<()> {
    Error::check_shape(
        "rows of the gradient of the permuted matrix (A)",
        drows.0,
        rows.0,
    )?;
    Error::check_shape(
        "columns of the gradient of the permuted matrix (H)",
        drows.1,
        rows.1,
    )?;
    Error::check_shape("entries of dweights (A)", dweights, table.num_assignments())?;
    unpermute(rows, table, maps, dy)?;
    Error::check_indices("assignment_of_row", &maps.assignment_of_row, 0, rows.0)?;
    Error::check_indices("token_of_row", &maps.token_of_row, 0, dy.0)?;
    inverses(table, maps)
}

/// Row → assignment → row is the identity and each row's token owns its assignment. All indices
/// are in range.
fn inverses(table: &RoutingTable, maps: &PermuteMaps) -> Result<()> {
    for (row, &assignment) in maps.assignment_of_row.iter().enumerate() {
        let back = maps.row_of_assignment[assignment as usize];
        if back as usize != row {
            return Err(Error::Incompatible {
                what: format!("maps.assignment_of_row[{row}] = {assignment}"),
                with: format!("maps.row_of_assignment[{assignment}] = {back}"),
                reason: "the two maps must be inverses; sort the table",
            });
        }
        let token = maps.token_of_row[row] as usize;
        if !table.assignments_of(token).contains(&(assignment as usize)) {
            return Err(foreign(
                format!("maps with token_of_row[{row}] = {token}"),
                format!("a table in which token {token} does not own assignment {assignment}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_i32_are_refused_by_arithmetic() {
        let big = MAX_INDEX + 1;
        assert!(table_size(MAX_INDEX, MAX_INDEX, MAX_INDEX).is_ok());
        let error = table_size(0, 1, big).unwrap_err();
        assert_eq!(
            error.to_string(),
            "assignments (A): 2147483648 overflows the limit of 2147483647"
        );
        assert!(
            table_size(big, 1, 0)
                .unwrap_err()
                .to_string()
                .starts_with("tokens (T)")
        );
        assert!(
            table_size(0, big, 0)
                .unwrap_err()
                .to_string()
                .starts_with("experts (E)")
        );
    }
}
