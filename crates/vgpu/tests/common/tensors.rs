//! Boxes of tensors in and out by TMA.

use tollgate_vgpu::host::TensorElement::{Bf16, F32, F64, S32, U8, U16, U32, U64};
use tollgate_vgpu::host::{Interleave, L2Promotion, OobFill, TensorElement, encode_tiled};
use tollgate_vgpu::layout::swizzle::Swizzle;

use super::products::MAP_ALIGN;
use super::references::{TensorLayout, store_tensor_box, swizzled, tensor_box};
use super::{Case, Failure, Params, Random, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let file = kernel_file!("tma_tiles_sm90a");
    vec![
        Case::new("tma_copy_1d", file, BOXES_1D, copy_box),
        Case::new("tma_copy_2d", file, BOXES_2D, copy_box),
        Case::new("tma_copy_3d", file, BOXES_3D, copy_box),
        Case::new("tma_copy_4d", file, BOXES_4D, copy_box),
        Case::new("tma_copy_5d", file, BOXES_5D, copy_box),
        Case::new("tma_reduce_add_2d", file, SUMS, reduce_add),
    ]
}

/// Innermost dimension first.
struct Tensor {
    element: TensorElement,
    dims: &'static [usize],
    /// Bytes more than needed from one row to the next.
    gap: usize,
    extent: &'static [usize],
    swizzle: Swizzle,
}

const fn tensor(
    element: TensorElement,
    dims: &'static [usize],
    gap: usize,
    extent: &'static [usize],
    swizzle: Swizzle,
) -> Tensor {
    Tensor {
        element,
        dims,
        gap,
        extent,
        swizzle,
    }
}

const BOXES_1D: &[Tensor] = &[
    tensor(U32, &[100], 0, &[32], Swizzle::None),
    tensor(U8, &[77], 0, &[16], Swizzle::None),
    tensor(F64, &[300], 0, &[256], Swizzle::None),
    tensor(Bf16, &[20], 0, &[64], Swizzle::B128),
];
const BOXES_2D: &[Tensor] = &[
    tensor(Bf16, &[100, 20], 16, &[64, 12], Swizzle::B128),
    tensor(Bf16, &[40, 9], 0, &[32, 16], Swizzle::B64),
    tensor(U32, &[8, 40], 0, &[8, 33], Swizzle::B32),
    tensor(U8, &[200, 10], 48, &[48, 5], Swizzle::None),
    tensor(U64, &[3, 3], 0, &[2, 1], Swizzle::None),
    tensor(U8, &[300, 260], 0, &[128, 256], Swizzle::B128),
];
const BOXES_3D: &[Tensor] = &[
    tensor(F32, &[30, 7, 5], 16, &[16, 4, 3], Swizzle::B64),
    tensor(U16, &[70, 6, 4], 0, &[64, 5, 2], Swizzle::B128),
    tensor(U32, &[9, 5, 3], 0, &[4, 2, 2], Swizzle::None),
];
const BOXES_4D: &[Tensor] = &[
    tensor(U16, &[20, 4, 5, 3], 0, &[16, 3, 2, 2], Swizzle::B32),
    tensor(F32, &[33, 3, 3, 3], 32, &[32, 2, 2, 2], Swizzle::B128),
    tensor(U8, &[17, 2, 3, 2], 0, &[16, 2, 2, 1], Swizzle::None),
];
const BOXES_5D: &[Tensor] = &[
    tensor(U8, &[40, 3, 4, 2, 3], 0, &[32, 2, 3, 2, 2], Swizzle::B32),
    tensor(S32, &[40, 2, 2, 2, 3], 16, &[32, 2, 1, 2, 2], Swizzle::B128),
    tensor(U64, &[5, 2, 3, 2, 2], 0, &[4, 2, 2, 2, 2], Swizzle::None),
];

impl Tensor {
    fn layout(&self) -> TensorLayout {
        let bytes = self.element.bytes() as usize;
        let mut strides = vec![bytes];
        for (d, &dim) in self.dims[..self.dims.len() - 1].iter().enumerate() {
            let dense = strides[d] * dim;
            strides.push(dense.next_multiple_of(16) + if d == 0 { self.gap } else { 0 });
        }
        TensorLayout {
            dims: self.dims.to_vec(),
            strides,
        }
    }

    /// Bytes from the first element to the end of the last.
    fn span(&self) -> usize {
        let layout = self.layout();
        let last = layout.dims.iter().zip(&layout.strides);
        last.map(|(dim, stride)| (dim - 1) * stride).sum::<usize>() + layout.strides[0]
    }

    fn box_bytes(&self) -> usize {
        self.extent.iter().product::<usize>() * self.element.bytes() as usize
    }

    fn swizzle_bytes(&self) -> usize {
        match self.swizzle {
            Swizzle::None => 0,
            swizzle => swizzle.span() as usize,
        }
    }

    fn map(&self, ptr: u64) -> [u8; 128] {
        let wide = |list: &[usize]| list.iter().map(|&n| n as u64).collect::<Vec<_>>();
        let rank = self.dims.len();
        let extent: Vec<u32> = self.extent.iter().map(|&n| n as u32).collect();
        encode_tiled(
            self.element,
            rank as u32,
            ptr,
            &wide(self.dims),
            &wide(&self.layout().strides[1..]),
            &extent,
            &[1; 5],
            Interleave::None,
            self.swizzle,
            L2Promotion::None,
            OobFill::Zero,
        )
        .expect("a legal map")
    }

    /// Where a box may lie: inside, over an edge, or wholly outside.
    fn place(&self, random: &mut Random) -> Vec<i32> {
        let sides = self.dims.iter().zip(self.extent);
        sides
            .map(|(&dim, &extent)| random.between(-(extent as i32) - 1, dim as i32 + 1))
            .collect()
    }
}

fn bytes(random: &mut Random, n: usize) -> Vec<u8> {
    random.list(n, |random| random.next() as u8)
}

fn copy_box(run: &Run<'_>, p: &Tensor) -> Result<(), Failure> {
    let mut random = run.random();
    let (layout, box_bytes) = (p.layout(), p.box_bytes());
    let src = bytes(&mut random, p.span());
    let mut want = bytes(&mut random, p.span());
    // Half of the boxes lie at the origin, so that there is something in most.
    let origin = vec![0; p.dims.len()];
    let load = if random.once_in(2) {
        origin.clone()
    } else {
        p.place(&mut random)
    };
    let store = if random.once_in(2) {
        origin
    } else {
        p.place(&mut random)
    };
    let flip = random.next() as u32;

    let dst = run.upload(&want)?;
    let dump = run.alloc::<u8>(box_bytes)?;
    let mut words = [0i32; 12];
    words[..load.len()].copy_from_slice(&load);
    words[5..5 + store.len()].copy_from_slice(&store);
    words[10] = box_bytes as i32;
    words[11] = flip as i32;
    let params = Params::new()
        .bytes(&p.map(run.upload(&src)?), MAP_ALIGN)
        .bytes(&p.map(dst), MAP_ALIGN)
        .u64(dump)
        .bytes(bytemuck::bytes_of(&words), 4);
    let entry = format!("tma_copy_{}d", p.dims.len());
    let shared = box_bytes.next_multiple_of(128);
    run.launch(&entry, &launch(1, 128, shared), &params)?;

    let mut tile = tensor_box(&src, &layout, p.extent, &load);
    let lain = swizzled(&tile, p.swizzle_bytes());
    same("dump", &run.read::<u8>(dump, box_bytes)?, &lain)?;
    let flips = flip.to_le_bytes();
    for (i, byte) in tile.iter_mut().enumerate() {
        *byte ^= flips[i % 4];
    }
    store_tensor_box(&mut want, &layout, p.extent, &store, &tile);
    same("dst", &run.read::<u8>(dst, want.len())?, &want)
}

/// Blocks, the tensor that each adds a box of, and rows of the sums.
struct Sum {
    blocks: usize,
    src: Tensor,
    dst: Tensor,
}

const SUMS: &[Sum] = &[
    Sum {
        blocks: 4,
        src: tensor(U32, &[40, 30], 0, &[32, 8], Swizzle::B128),
        dst: tensor(U32, &[33, 7], 16, &[32, 8], Swizzle::B128),
    },
    Sum {
        blocks: 1,
        src: tensor(S32, &[3, 1], 0, &[4, 1], Swizzle::None),
        dst: tensor(S32, &[2, 2], 0, &[4, 1], Swizzle::None),
    },
    Sum {
        blocks: 3,
        src: tensor(U64, &[16, 9], 0, &[8, 3], Swizzle::B64),
        dst: tensor(U64, &[8, 3], 0, &[8, 3], Swizzle::B64),
    },
    Sum {
        blocks: 9,
        src: tensor(U32, &[8, 500], 0, &[8, 64], Swizzle::B32),
        dst: tensor(U32, &[8, 64], 0, &[8, 64], Swizzle::B32),
    },
];

fn reduce_add(run: &Run<'_>, p: &Sum) -> Result<(), Failure> {
    let mut random = run.random();
    let src = bytes(&mut random, p.src.span());
    let mut want = bytes(&mut random, p.dst.span());
    let dst = run.upload(&want)?;
    let box_rows = p.src.extent[1];
    let box_bytes = p.src.box_bytes();
    let params = Params::new()
        .bytes(&p.src.map(run.upload(&src)?), MAP_ALIGN)
        .bytes(&p.dst.map(dst), MAP_ALIGN)
        .len(box_bytes)
        .len(box_rows);
    let shared = box_bytes.next_multiple_of(128);
    run.launch("tma_reduce_add_2d", &launch(p.blocks, 128, shared), &params)?;

    for block in 0..p.blocks {
        let (extent, layout) = (p.src.extent, p.dst.layout());
        let more = tensor_box(
            &src,
            &p.src.layout(),
            extent,
            &[0, (block * box_rows) as i32],
        );
        let mut sum = tensor_box(&want, &layout, extent, &[0, 0]);
        let elem_bytes = layout.strides[0];
        let pairs = sum.chunks_mut(elem_bytes).zip(more.chunks(elem_bytes));
        pairs.for_each(|(sum, more)| add(sum, more));
        store_tensor_box(&mut want, &layout, extent, &[0, 0], &sum);
    }
    same("dst", &run.read::<u8>(dst, want.len())?, &want)
}

/// Adds little-endian integers of any width, modulo their range.
fn add(sum: &mut [u8], more: &[u8]) {
    let mut carry = 0;
    for (sum, more) in sum.iter_mut().zip(more) {
        let wide = u16::from(*sum) + u16::from(*more) + carry;
        *sum = wide as u8;
        carry = wide >> 8;
    }
}
