//! The tokens: activations, and what some routers and reports need beside them.

use tollgate::Element;

use super::Container;
use crate::error::{Failure, Result};

/// The tokens that a layer is run on.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens<T> {
    /// Where they come from, for the report.
    pub origin: String,
    /// T.
    pub count: usize,
    /// H.
    pub hidden: usize,
    /// `[T, H]`.
    pub x: Vec<T>,
    /// `[T]`.
    pub ids: Option<Vec<i32>>,
    /// `[S+1]`, exclusive prefix sums of the sequences' lengths.
    pub sequence_offsets: Option<Vec<i32>>,
}

impl<T: Element> Tokens<T> {
    /// Reads `hidden` (or the file's only matrix of real numbers), `token_ids` and
    /// `sequence_offsets`.
    ///
    /// # Errors
    /// No tokens, or tensors that do not fit each other.
    pub fn read(container: &Container<'_>) -> Result<Self> {
        let name = match container.get("hidden") {
            Some(_) => "hidden",
            None => only_matrix(container)?,
        };
        let hidden = container.require(name)?;
        let (count, columns) = hidden.matrix()?;
        let ids = container.get("token_ids").map(|tensor| {
            tensor.expect_shape(&[count], "[T]")?;
            tensor.indices(usize::MAX)
        });
        let sequence_offsets = container.get("sequence_offsets").map(|tensor| {
            let offsets = tensor.indices(count.saturating_add(1))?;
            let sorted = offsets.is_sorted();
            if tensor.shape().len() == 1
                && offsets.first() == Some(&0)
                && offsets.last().is_some_and(|&last| last as usize == count)
                && sorted
            {
                return Ok(offsets);
            }
            let (first, last) = (offsets.first(), offsets.last());
            let problem = match (first, last) {
                (Some(first), Some(last)) if sorted => format!("goes from {first} to {last}"),
                (Some(_), Some(_)) => "descends".to_owned(),
                _ => "is empty".to_owned(),
            };
            let problem = format!("{problem}, must ascend from 0 to {count} (T)");
            Err(tensor.error(
                problem,
                "store exclusive prefix sums of the sequences' lengths",
            ))
        });
        Ok(Self {
            origin: container.file().to_owned(),
            count,
            hidden: columns,
            x: hidden.elements()?,
            ids: ids.transpose()?,
            sequence_offsets: sequence_offsets.transpose()?,
        })
    }
}

/// The name of the only matrix of real numbers.
fn only_matrix<'a>(container: &'a Container<'_>) -> Result<&'a str> {
    let matrices: Vec<&str> = container
        .names()
        .filter(|name| {
            container
                .get(name)
                .is_some_and(|t| t.shape().len() == 2 && t.real_type().is_some())
        })
        .collect();
    match *matrices.as_slice() {
        [name] => Ok(name),
        _ => {
            let count = matrices.len();
            let listing = container.listing();
            Err(Failure::file(
                container.file(),
                format!("has no tensor 'hidden' and {count} matrices instead of one ({listing})"),
                "store the activations [T, H] as 'hidden', or name their file with --tokens",
            ))
        }
    }
}
