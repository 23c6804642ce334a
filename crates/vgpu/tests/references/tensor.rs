//! Boxes of tensors as TMA moves them.

/// A tensor in a buffer of bytes; all lists innermost dimension first.
#[derive(Debug, Clone)]
pub struct TensorLayout {
    /// Elements in each dimension.
    pub dims: Vec<usize>,
    /// Bytes from one index to the next; the first is the element's size.
    pub strides: Vec<usize>,
}

impl TensorLayout {
    /// Without gaps.
    pub fn dense(dims: &[usize], elem_bytes: usize) -> Self {
        let strides = dims
            .iter()
            .scan(elem_bytes, |stride, dim| {
                let this = *stride;
                *stride *= dim;
                Some(this)
            })
            .collect();
        Self {
            dims: dims.to_vec(),
            strides,
        }
    }

    /// Where the element lies that is `index`-th of the box at `at`; `None` if outside.
    fn offset(&self, box_dims: &[usize], at: &[i32], mut index: usize) -> Option<usize> {
        let mut offset = 0;
        for d in 0..self.dims.len() {
            let coordinate = i64::from(at[d]) + (index % box_dims[d]) as i64;
            index /= box_dims[d];
            let coordinate = usize::try_from(coordinate).ok()?;
            if coordinate >= self.dims[d] {
                return None;
            }
            offset += coordinate * self.strides[d];
        }
        Some(offset)
    }
}

/// The box at `at` without swizzle; what is outside the tensor is zero.
pub fn tensor_box(bytes: &[u8], layout: &TensorLayout, box_dims: &[usize], at: &[i32]) -> Vec<u8> {
    let elem_bytes = layout.strides[0];
    (0..box_dims.iter().product())
        .flat_map(|i| match layout.offset(box_dims, at, i) {
            Some(offset) => bytes[offset..offset + elem_bytes].to_vec(),
            None => vec![0; elem_bytes],
        })
        .collect()
}

/// Writes a box without swizzle to `at`, what is inside the tensor of it.
pub fn store_tensor_box(
    bytes: &mut [u8],
    layout: &TensorLayout,
    box_dims: &[usize],
    at: &[i32],
    tile: &[u8],
) {
    let elem_bytes = layout.strides[0];
    for (i, elem) in tile.chunks_exact(elem_bytes).enumerate() {
        if let Some(offset) = layout.offset(box_dims, at, i) {
            bytes[offset..offset + elem_bytes].copy_from_slice(elem);
        }
    }
}

/// The bytes of a box as a swizzle of 32, 64 or 128 bytes lays them in shared memory; 0 is none.
/// The box's rows are as wide as the swizzle, and its first byte is aligned to 8 times that.
///
/// The 16-byte piece within a row of 128 bytes is exchanged by the number of the row of 128 bytes,
/// modulo as many rows as the swizzle has pieces.
pub fn swizzled(tile: &[u8], swizzle_bytes: usize) -> Vec<u8> {
    let pieces = match swizzle_bytes {
        0 => return tile.to_vec(),
        32 | 64 | 128 => swizzle_bytes / 16,
        _ => panic!("no swizzle of {swizzle_bytes} bytes"),
    };
    let mut out = vec![0; tile.len()];
    for (i, piece) in tile.chunks(16).enumerate() {
        let to = i ^ (i / 8 % pieces);
        out[to * 16..][..piece.len()].copy_from_slice(piece);
    }
    out
}
