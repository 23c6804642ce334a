//! Boxes of tensors.

use super::*;
use crate::layout::swizzle::Swizzle;
use crate::layout::tma::{Interleave, L2Promotion, OobFill, TensorElement, encode_tiled};

/// A tensor of 32-bit elements whose value is their number, and a box of it.
#[derive(Clone)]
struct Tensor {
    dims: Vec<u64>,
    extent: Vec<u32>,
    swizzle: Swizzle,
}

impl Tensor {
    fn new(dims: &[u64], extent: &[u32]) -> Self {
        Self {
            dims: dims.to_vec(),
            extent: extent.to_vec(),
            swizzle: Swizzle::None,
        }
    }

    fn elements(&self) -> u32 {
        self.dims.iter().product::<u64>() as u32
    }

    fn map(&self, address: u64, element: TensorElement) -> [u8; 128] {
        let rank = self.dims.len();
        let mut strides = Vec::new();
        let mut stride = 4;
        for dim in &self.dims[..rank - 1] {
            stride *= dim;
            strides.push(stride);
        }
        encode_tiled(
            element,
            rank as u32,
            address,
            &self.dims,
            &strides,
            &self.extent,
            &[1; 5],
            Interleave::None,
            self.swizzle,
            L2Promotion::None,
            OobFill::Zero,
        )
        .expect("a map")
    }

    /// Visits the box at `corner`: byte in shared memory, number of the element if it is in the tensor.
    fn each(&self, corner: &[i32], mut f: impl FnMut(u32, Option<u32>)) {
        let total: u32 = self.extent.iter().product();
        let row_bytes = self.extent[0] * 4;
        let pitch = match self.swizzle {
            Swizzle::None => row_bytes,
            swizzle => swizzle.span(),
        };
        for index in 0..total {
            let (mut rest, mut number, mut step, mut inside) = (index, 0, 1, true);
            for (d, (extent, dim)) in self.extent.iter().zip(&self.dims).enumerate() {
                let at = i64::from(corner[d]) + i64::from(rest % extent);
                rest /= extent;
                inside &= (0..*dim as i64).contains(&at);
                number += at * step;
                step *= *dim as i64;
            }
            let byte = index / self.extent[0] * pitch + index % self.extent[0] * 4;
            f(self.swizzle.apply(byte), inside.then_some(number as u32));
        }
    }

    fn coordinates(&self, corner: &[i32]) -> String {
        let list: Vec<String> = corner.iter().map(i32::to_string).collect();
        format!("{{{}}}", list.join(", "))
    }
}

/// Loads a box and dumps its 2 KiB of shared memory.
fn load(tensor: &Tensor, corner: &[i32]) -> String {
    let rank = tensor.dims.len();
    let at = tensor.coordinates(corner);
    let bytes = tensor.extent.iter().product::<u32>() * 4;
    format!(
        "mad.lo.u32 %s0, %t, 16, %tile;\nmov.u32 %v0, 0;\n\
         st.shared.v4.u32 [%s0], {{%v0, %v0, %v0, %v0}};\n{PUBLISH}\
         @%lead mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {bytes};\n\
         @%lead cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [%tile], [%map, {at}], [%bar];\nAWAIT\n{DUMP}"
    )
}

fn threads(launch: &mut Launch<'_>) {
    launch.threads = [128, 1, 1];
}

fn shapes() -> Vec<(Tensor, Vec<Vec<i32>>)> {
    vec![
        (
            Tensor::new(&[100], &[64]),
            vec![vec![8], vec![-4], vec![60]],
        ),
        (
            Tensor::new(&[40, 12], &[16, 8]),
            vec![vec![0, 0], vec![32, 6], vec![-3, -2]],
        ),
        (
            Tensor::new(&[8, 6, 5], &[8, 4, 2]),
            vec![vec![0, 1, 2], vec![4, 4, 4]],
        ),
        (
            Tensor::new(&[8, 3, 4, 3], &[4, 3, 2, 2]),
            vec![vec![2, 0, 1, 1], vec![2, 1, -1, 2]],
        ),
        (
            Tensor::new(&[8, 2, 3, 2, 4], &[8, 2, 2, 2, 2]),
            vec![vec![0, 0, 1, 0, 1], vec![0, 1, 2, -1, 3]],
        ),
    ]
}

#[test]
fn loads_of_every_rank() {
    for (tensor, corners) in shapes() {
        for corner in corners {
            let memory = Memory::new(1, true);
            let data: Vec<u32> = (0..tensor.elements()).map(|n| n + 1).collect();
            let input = buffer(&memory, &data);
            let output = buffer(&memory, &[9_u32; 512]);
            let map = tensor.map(input.base(), TensorElement::U32);
            let at = [input.base(), output.base()];
            let text = kernel(&load(&tensor, &corner));
            let outcome = launch(&text, [map; 2], at, &memory, threads);
            silent(&outcome);
            let mut want = vec![0; 512];
            let mut inside = 0;
            tensor.each(&corner, |byte, number| {
                want[byte as usize / 4] = number.map_or(0, |number| number + 1);
                inside += u64::from(number.is_some());
            });
            assert_eq!(contents::<u32>(&output), want, "{corner:?}");
            assert_eq!(outcome.counters.async_read_bytes, 4 * inside);
        }
    }
}

#[test]
fn loads_with_every_swizzle() {
    for swizzle in Swizzle::ALL {
        let width = swizzle.span().max(32) / 4;
        let tensor = Tensor {
            swizzle,
            ..Tensor::new(&[64, 16], &[width, 8])
        };
        for corner in [[8, 3], [64 - width as i32 / 2, 12]] {
            let memory = Memory::new(1, true);
            let data: Vec<u32> = (0..tensor.elements()).map(|n| n + 1).collect();
            let input = buffer(&memory, &data);
            let output = buffer(&memory, &[9_u32; 512]);
            let map = tensor.map(input.base(), TensorElement::F32);
            let at = [input.base(), output.base()];
            let text = kernel(&load(&tensor, &corner));
            let outcome = launch(&text, [map; 2], at, &memory, threads);
            silent(&outcome);
            let mut want = vec![0; 512];
            tensor.each(&corner, |byte, number| {
                want[byte as usize / 4] = number.map_or(0, |number| number + 1);
            });
            assert_eq!(contents::<u32>(&output), want, "{swizzle:?}");
        }
    }
}

#[test]
fn stores_and_reductions_leave_the_outside_alone() {
    for (tensor, corners) in shapes() {
        let rank = tensor.dims.len();
        for corner in corners {
            for (words, start) in [("cp.async", 7), ("cp.reduce.async", 1000)] {
                let memory = Memory::new(1, true);
                let input = buffer(&memory, &numbers(512));
                let output = buffer(&memory, &vec![start; tensor.elements() as usize]);
                let map = tensor.map(output.base(), TensorElement::U32);
                let add = if start == 1000 { ".add" } else { "" };
                let body = format!(
                    "{FILL}{PUBLISH}\
                     @%lead {words}.bulk.tensor.{rank}d.global.shared::cta{add}.tile.bulk_group \
                     [%map, {}], [%tile];\n\
                     @%lead cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n",
                    tensor.coordinates(&corner)
                );
                let at = [input.base(), output.base()];
                let outcome = launch(&kernel(&body), [map; 2], at, &memory, threads);
                silent(&outcome);
                let mut want = vec![start; tensor.elements() as usize];
                tensor.each(&corner, |byte, number| {
                    if let Some(number) = number {
                        let value = byte / 4 * 7 + 1;
                        want[number as usize] = if start == 7 { value } else { start + value };
                    }
                });
                assert_eq!(contents::<u32>(&output), want, "{corner:?}");
            }
        }
    }
}

#[test]
fn a_multicast_of_a_box() {
    let tensor = Tensor::new(&[40, 12], &[16, 8]);
    let memory = Memory::new(1, true);
    let data: Vec<u32> = (0..tensor.elements()).collect();
    let input = buffer(&memory, &data);
    let output = buffer(&memory, &[9_u32; 1024]);
    let map = tensor.map(input.base(), TensorElement::U32);
    let body = load(&tensor, &[4, 2])
        .replace(
            "@%lead cp.async",
            "setp.eq.and.u32 %lead, %s3, 0, %lead;\nmov.u16 %h, 3;\n@%lead cp.async",
        )
        .replace(
            "complete_tx::bytes [",
            "complete_tx::bytes.multicast::cluster [",
        )
        .replace("[%bar];\nAWAIT", "[%bar], %h;\nAWAIT");
    let body = format!(
        "mov.u32 %s3, %cluster_ctarank;\nmul.wide.u32 %x2, %s3, 2048;\nadd.s64 %out, %out, %x2;\n{}\n\
         barrier.cluster.arrive;\nbarrier.cluster.wait;",
        body.replace(
            PUBLISH,
            "fence.proxy.async;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n"
        )
    );
    for seed in 0..10 {
        let at = [input.base(), output.base()];
        let outcome = launch(&kernel(&body), [map; 2], at, &memory, |launch| {
            threads(launch);
            launch.blocks = [2, 1, 1];
            launch.cluster = [2, 1, 1];
            launch.seed = seed;
        });
        silent(&outcome);
        let got = contents::<u32>(&output);
        tensor.each(&[4, 2], |byte, number| {
            let at = byte as usize / 4;
            assert_eq!([got[at], got[512 + at]], [number.unwrap_or(0); 2]);
        });
    }
}

#[test]
fn maps_lie_in_global_and_constant_memory_too() {
    let tensor = Tensor::new(&[40, 12], &[16, 8]);
    let memory = Memory::new(1, true);
    let data: Vec<u32> = (0..tensor.elements()).collect();
    let input = buffer(&memory, &data);
    let output = buffer(&memory, &[9_u32; 512]);
    let map = buffer(&memory, &tensor.map(input.base(), TensorElement::U32));
    let at = [map.base(), output.base()];
    let text = kernel(&load(&tensor, &[0, 0]).replace("[%map", "[%in"));
    let outcome = launch(&text, [[0; 128]; 2], at, &memory, threads);
    silent(&outcome);
    let got = contents::<u32>(&output);
    tensor.each(&[0, 0], |byte, number| {
        assert_eq!(Some(got[byte as usize / 4]), number);
    });
}

#[test]
fn maps_and_boxes_that_the_hardware_refuses() {
    let tensor = Tensor::new(&[40, 12], &[16, 8]);
    let memory = Memory::new(1, true);
    let data: Vec<u32> = (0..tensor.elements()).collect();
    let input = buffer(&memory, &data);
    let map = tensor.map(input.base(), TensorElement::U32);
    let mut spoilt = map;
    spoilt[40] ^= 1;
    let longer = Tensor::new(&[40, 13], &[16, 8]).map(input.base(), TensorElement::U32);
    let body = load(&tensor, &[0, 0]);
    let fault = |body: &str, map| {
        let at = [input.base(), input.base()];
        let outcome = launch(&kernel(body), [map; 2], at, &memory, threads);
        outcome.fault.expect("a fault")
    };
    for (found, kind, words) in [
        (fault(&body, [0; 128]), Kind::Descriptor, "not a tensor map"),
        (
            fault(&body, spoilt),
            Kind::Descriptor,
            "changed after encoding",
        ),
        (
            fault(&body.replace("{0, 0}", "{0, 5}"), longer),
            Kind::OutOfBounds,
            "past the end",
        ),
        (
            fault(&body.replace("[%tile], [%map", "[%tile+16], [%map"), map),
            Kind::Misaligned,
            "multiple of 128",
        ),
        (
            fault(&format!("add.s64 %map, %map, 8;\n{body}"), map),
            Kind::Misaligned,
            "tensor map address",
        ),
        (
            fault(
                &body
                    .replace("tensor.2d", "tensor.3d")
                    .replace("{0, 0}", "{0, 0, 0}"),
                map,
            ),
            Kind::Descriptor,
            "3 coordinates",
        ),
        (
            fault(&body.replace("[%tile], [%map", "[%tile+7936], [%map"), map),
            Kind::OutOfBounds,
            "past the end",
        ),
    ] {
        assert_eq!(found.kind, kind, "{found}");
        assert!(found.message.contains(words), "{found}");
    }
}

#[test]
fn too_few_bytes_expected() {
    let tensor = Tensor::new(&[40, 12], &[16, 8]);
    let memory = Memory::new(1, true);
    let data: Vec<u32> = (0..tensor.elements()).collect();
    let input = buffer(&memory, &data);
    let map = tensor.map(input.base(), TensorElement::U32);
    let body = load(&tensor, &[0, 0]).replace("[%bar], 512", "[%bar], 496");
    let at = [input.base(), input.base()];
    let outcome = launch(&kernel(&body), [map; 2], at, &memory, threads);
    let found = outcome.fault.iter().chain(&outcome.reports);
    assert!(
        found
            .into_iter()
            .any(|report| report.kind == Kind::TransactionCount),
        "{outcome:?}"
    );
}

#[test]
fn modes_that_are_not_modelled_are_refused_in_words() {
    use super::super::super::testing::load_error;
    let tensor = Tensor::new(&[8, 6, 5], &[8, 4, 2]);
    let body = load(&tensor, &[0, 0, 0]);
    for (from, to, words) in [
        (".tile.", ".im2col.", "not im2col"),
        (".tile.", ".tile::gather4.", "sm_100"),
        ("::bytes ", "::bytes.cta_group::1 ", "sm_100"),
        ("3d", "6d", "not supported"),
        ("3d", "2d", "3 coordinates for a copy of 2"),
    ] {
        let error = load_error(&kernel(&body.replace(from, to)), "k");
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn a_prefetch_reads_its_map() {
    let tensor = Tensor::new(&[40, 12], &[16, 8]);
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &numbers(480));
    let map = tensor.map(input.base(), TensorElement::U32);
    let body = "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%map, {0, 0}];";
    let at = [input.base(); 2];
    silent(&launch(&kernel(body), [map; 2], at, &memory, |_| {}));
    let outcome = launch(&kernel(body), [[0; 128]; 2], at, &memory, |_| {});
    assert_eq!(outcome.fault.expect("a fault").kind, Kind::Descriptor);
}
