//! The executable specification: scalar, f64, one loop an equation.
//!
//! Matrices are row-major slices without gaps: x, y `[T, H]` and rows `[A, H]`; results are
//! allocated here. The maps are those of [`sort`]; weights are read from a
//! [`RoutingTable<f64>`](RoutingTable). As in MegaBlocks there is no capacity and nothing is
//! dropped: any number of experts a token, any number of rows an expert.
//!
//! With `r = row_of_assignment[a]` for assignment a of token t:
//!
//! | forward | backward |
//! |---|---|
//! | `rows[r] = x[t]` | `dx[t] = addend[t] + Σ_a drows[r]` |
//! | `y[t] = Σ_a w_a · rows[r]` | `drows[r] = w_a · dy[t]`, `dw_a = <dy[t], rows[r]>` |

use tollgate_core::{Error, Result, RoutingTable};

use crate::PermuteMaps;

/// Numbers the rows: expert by expert, inside an expert by token.
///
/// # Errors
/// The first invariant that the table breaks.
pub fn sort<W>(table: &RoutingTable<W>) -> Result<PermuteMaps> {
    sort_aligned(table, 1)
}

/// Numbers the rows as [`sort`] does, but lets every expert's rows start at a multiple of
/// `row_alignment`: after an expert's rows come as many that belong to no token, −1 in
/// `assignment_of_row` and `token_of_row`. `expert_offsets` count them.
///
/// # Errors
/// As [`sort`]; an alignment of 0.
pub fn sort_aligned<W>(table: &RoutingTable<W>, row_alignment: usize) -> Result<PermuteMaps> {
    table.validate()?;
    let what = "the alignment of an expert's rows";
    Error::check_range(what, row_alignment, 1, i32::MAX as usize)?;
    let mut maps = PermuteMaps {
        row_of_assignment: vec![0; table.num_assignments()],
        expert_offsets: vec![0],
        ..PermuteMaps::default()
    };
    for expert in 0..table.num_experts() as i32 {
        for token in 0..table.num_tokens() {
            for assignment in table.assignments_of(token) {
                if table.expert_indices[assignment] == expert {
                    maps.row_of_assignment[assignment] = maps.token_of_row.len() as i32;
                    maps.assignment_of_row.push(assignment as i32);
                    maps.token_of_row.push(token as i32);
                }
            }
        }
        let end = maps.token_of_row.len().next_multiple_of(row_alignment);
        maps.assignment_of_row.resize(end, -1);
        maps.token_of_row.resize(end, -1);
        maps.expert_offsets.push(end as i32);
    }
    Ok(maps)
}

/// `rows[r] = x[token_of_row[r]]`.
///
/// # Errors
/// `x` is not a whole number of rows of `hidden`, or a map points outside it.
pub fn permute(x: &[f64], hidden: usize, maps: &PermuteMaps) -> Result<Vec<f64>> {
    let tokens = rows_of("elements of x (T·H)", x, hidden)?;
    let mut rows = Vec::new();
    for (r, &token) in maps.token_of_row.iter().enumerate() {
        let token = index("token_of_row", r, token, tokens)?;
        rows.extend_from_slice(row(x, hidden, token));
    }
    Ok(rows)
}

/// `y[t] = Σ_a w_a · rows[row_of_assignment[a]]`; 0 for a token without experts.
///
/// # Errors
/// A broken table, sizes that differ from the table's, a map that points outside `rows`.
pub fn unpermute(
    rows: &[f64],
    hidden: usize,
    table: &RoutingTable<f64>,
    maps: &PermuteMaps,
) -> Result<Vec<f64>> {
    let row_of = rows_of_assignments(rows, hidden, table, maps)?;
    let mut y = vec![0.0; elems(table.num_tokens(), hidden)?];
    for token in 0..table.num_tokens() {
        for a in table.assignments_of(token) {
            let w = table.routing_weights[a];
            for h in 0..hidden {
                y[token * hidden + h] += w * rows[row_of[a] * hidden + h];
            }
        }
    }
    Ok(y)
}

/// Backward of [`permute`]: `dx[t] = addend[t] + Σ_a drows[row_of_assignment[a]]`.
///
/// # Errors
/// As [`unpermute`]; an addend that is not `[T, H]`.
pub fn permute_backward(
    drows: &[f64],
    hidden: usize,
    table: &RoutingTable<f64>,
    maps: &PermuteMaps,
    addend: Option<&[f64]>,
) -> Result<Vec<f64>> {
    let row_of = rows_of_assignments(drows, hidden, table, maps)?;
    let elems = elems(table.num_tokens(), hidden)?;
    let given = addend.map_or(elems, <[f64]>::len);
    Error::check_shape("elements of the addend (T·H)", given, elems)?;
    let mut dx = addend.map_or_else(|| vec![0.0; elems], <[f64]>::to_vec);
    for token in 0..table.num_tokens() {
        for a in table.assignments_of(token) {
            for h in 0..hidden {
                dx[token * hidden + h] += drows[row_of[a] * hidden + h];
            }
        }
    }
    Ok(dx)
}

/// Backward of [`unpermute`]: `drows[r] = w_a · dy[t]` and `dweights[a] = <dy[t], rows[r]>`.
///
/// # Errors
/// As [`unpermute`]; dy that is not `[T, H]`; two assignments on one row.
pub fn unpermute_backward(
    dy: &[f64],
    rows: &[f64],
    hidden: usize,
    table: &RoutingTable<f64>,
    maps: &PermuteMaps,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let row_of = rows_of_assignments(rows, hidden, table, maps)?;
    Error::check_shape(
        "elements of dy (T·H)",
        dy.len(),
        elems(table.num_tokens(), hidden)?,
    )?;
    let mut assignment_of = vec![None; row_of.len()];
    for (a, &r) in row_of.iter().enumerate() {
        if let Some(other) = assignment_of[r].replace(a) {
            return Err(Error::Incompatible {
                what: format!("row_of_assignment[{other}] = {r}"),
                with: format!("row_of_assignment[{a}] = {r}"),
                reason: "every row must belong to one assignment",
            });
        }
    }
    let mut drows = vec![0.0; rows.len()];
    let mut dweights = vec![0.0; table.num_assignments()];
    for token in 0..table.num_tokens() {
        for a in table.assignments_of(token) {
            let r = row_of[a];
            for h in 0..hidden {
                let gradient = dy[token * hidden + h];
                drows[r * hidden + h] = table.routing_weights[a] * gradient;
                dweights[a] += gradient * rows[r * hidden + h];
            }
        }
    }
    Ok((drows, dweights))
}

/// The row of every assignment as usize, after the table, its map and `rows` have been held to
/// each other: one entry an assignment, each inside `rows`.
fn rows_of_assignments(
    rows: &[f64],
    hidden: usize,
    table: &RoutingTable<f64>,
    maps: &PermuteMaps,
) -> Result<Vec<usize>> {
    table.validate()?;
    let assignments = table.num_assignments();
    let entries = maps.row_of_assignment.len();
    Error::check_shape("entries of row_of_assignment (A)", entries, assignments)?;
    Error::check_shape(
        "elements of rows (A·H)",
        rows.len(),
        elems(assignments, hidden)?,
    )?;
    let row_of = maps.row_of_assignment.iter().enumerate();
    row_of
        .map(|(a, &r)| index("row_of_assignment", a, r, assignments))
        .collect()
}

/// Elements of a matrix of `rows` rows: as many f64 as an allocation can hold.
fn elems(rows: usize, hidden: usize) -> Result<usize> {
    Error::checked_product(
        "elements of a matrix (rows·H)",
        rows,
        hidden,
        isize::MAX as usize / size_of::<f64>(),
    )
}

fn row(matrix: &[f64], hidden: usize, r: usize) -> &[f64] {
    &matrix[r * hidden..(r + 1) * hidden]
}

/// How many rows of `hidden` the matrix has. A matrix without columns is taken to have as many
/// rows as are asked for.
fn rows_of(what: &'static str, matrix: &[f64], hidden: usize) -> Result<usize> {
    if hidden == 0 {
        Error::check_shape(what, matrix.len(), 0)?;
        return Ok(i32::MAX as usize);
    }
    let rows = matrix.len() / hidden;
    Error::check_shape(what, matrix.len(), rows * hidden)?;
    Ok(rows)
}

fn index(what: &'static str, position: usize, value: i32, bound: usize) -> Result<usize> {
    match usize::try_from(value) {
        Ok(index) if index < bound => Ok(index),
        _ => Err(Error::Index {
            what,
            position,
            value: i64::from(value),
            bound,
        }),
    }
}
