//! The maps in device memory.

use tollgate_device::{DeviceSlice, DeviceSliceMut};

/// [`PermuteMaps`](crate::PermuteMaps) in device memory. Arrays may be longer than is said here.
///
/// Whatever wrote them, the operations hold every entry to its bound before they follow it.
#[derive(Debug, Clone, Copy)]
pub struct DevicePermuteMaps<'a> {
    /// The bound of R: rows that the row arrays and the permuted matrices have.
    pub max_rows: usize,
    /// `[max_assignments]` row of each assignment; −1 behind A, and where an assignment has none.
    pub row_of_assignment: DeviceSlice<'a, i32>,
    /// `[max_rows]` assignment of each row; −1 where a row belongs to no token.
    pub assignment_of_row: DeviceSlice<'a, i32>,
    /// `[max_rows]` token of each row; −1 where a row belongs to no token.
    pub token_of_row: DeviceSlice<'a, i32>,
    /// `[E+1]` where each expert's rows start, and R.
    pub expert_offsets: DeviceSlice<'a, i32>,
}

/// The maps as [`sort`](super::sort) writes them.
#[derive(Debug)]
pub struct DevicePermuteMapsMut<'a> {
    /// The bound of R.
    pub max_rows: usize,
    /// `[max_assignments]`.
    pub row_of_assignment: DeviceSliceMut<'a, i32>,
    /// `[max_rows]`.
    pub assignment_of_row: DeviceSliceMut<'a, i32>,
    /// `[max_rows]`.
    pub token_of_row: DeviceSliceMut<'a, i32>,
    /// `[E+1]`.
    pub expert_offsets: DeviceSliceMut<'a, i32>,
}

impl<'a> DevicePermuteMapsMut<'a> {
    /// The same maps for a shorter time.
    pub fn reborrow(&mut self) -> DevicePermuteMapsMut<'_> {
        DevicePermuteMapsMut {
            max_rows: self.max_rows,
            row_of_assignment: self.row_of_assignment.reborrow(),
            assignment_of_row: self.assignment_of_row.reborrow(),
            token_of_row: self.token_of_row.reborrow(),
            expert_offsets: self.expert_offsets.reborrow(),
        }
    }

    /// The same maps, to be read.
    pub fn as_maps(&self) -> DevicePermuteMaps<'_> {
        DevicePermuteMaps {
            max_rows: self.max_rows,
            row_of_assignment: self.row_of_assignment.as_slice(),
            assignment_of_row: self.assignment_of_row.as_slice(),
            token_of_row: self.token_of_row.as_slice(),
            expert_offsets: self.expert_offsets.as_slice(),
        }
    }

    /// The same maps, to be read for as long as they were to be written.
    pub fn into_maps(self) -> DevicePermuteMaps<'a> {
        DevicePermuteMaps {
            max_rows: self.max_rows,
            row_of_assignment: self.row_of_assignment.into_slice(),
            assignment_of_row: self.assignment_of_row.into_slice(),
            token_of_row: self.token_of_row.into_slice(),
            expert_offsets: self.expert_offsets.into_slice(),
        }
    }
}
