//! The references of the kernels against published values and against identities.

mod references;

use half::bf16;
use references::*;

#[test]
fn philox_gives_the_published_words() {
    // Known answers that come with the authors' implementation.
    assert_eq!(
        philox4x32_10([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32_10(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn normals_have_mean_zero_and_variance_one() {
    let values = philox_normal(4096, 1, 2, 3);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
    // Standard errors 1/128 and sqrt(2)/128; five of them.
    assert!(mean.abs() < 0.04, "{mean}");
    assert!((variance - 1.0).abs() < 0.056, "{variance}");
}

#[test]
fn fp8_has_the_values_of_its_specification() {
    let cases = [
        (Fp8::E4m3, 0x01, 2f32.powi(-9)),
        (Fp8::E4m3, 0x08, 2f32.powi(-6)),
        (Fp8::E4m3, 0x38, 1.0),
        (Fp8::E4m3, 0xfe, -448.0),
        (Fp8::E5m2, 0x01, 2f32.powi(-16)),
        (Fp8::E5m2, 0x04, 2f32.powi(-14)),
        (Fp8::E5m2, 0x3c, 1.0),
        (Fp8::E5m2, 0xfb, -57344.0),
        (Fp8::E5m2, 0x7c, f32::INFINITY),
    ];
    for (format, code, value) in cases {
        assert_eq!(fp8_to_f32(format, code), value, "{format:?} {code:#x}");
    }
    assert!(fp8_to_f32(Fp8::E4m3, 0x7f).is_nan());
    // An e5m2 code is the upper half of an f16.
    for code in 0..=u8::MAX {
        let half = half::f16::from_bits(u16::from(code) << 8).to_f32();
        let value = fp8_to_f32(Fp8::E5m2, code);
        assert!(
            value == half || value.is_nan() && half.is_nan(),
            "{code:#x}"
        );
    }
}

#[test]
fn fp8_rounds_to_the_nearest_and_ties_to_even() {
    for format in [Fp8::E4m3, Fp8::E5m2] {
        let finite = |code: &u8| fp8_to_f32(format, *code).is_finite();
        for code in (0..=u8::MAX).filter(finite) {
            assert_eq!(fp8_from_f32(format, fp8_to_f32(format, code)), code);
        }
        for code in (0..0x7f).filter(|code| finite(&(code + 1))) {
            let (low, high) = (fp8_to_f32(format, code), fp8_to_f32(format, code + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(fp8_from_f32(format, middle), code + code % 2);
            assert_eq!(fp8_from_f32(format, middle.next_up()), code + 1);
            assert_eq!(fp8_from_f32(format, middle.next_down()), code);
        }
        assert_eq!(fp8_to_f32(format, fp8_from_f32(format, 1e30)), format.max());
        let low = fp8_from_f32(format, f32::NEG_INFINITY);
        assert_eq!(fp8_to_f32(format, low), -format.max());
        assert_eq!(quantize_row(format, &[0.0, -0.0]), (vec![0, 0x80], 1.0));
    }
}

#[test]
fn ranks_and_rows_fit_together() {
    let expert_of = [2, 0, 2, 9, 0, 2];
    let (ranks, counts) = stable_ranks(&expert_of, 3);
    assert_eq!(ranks, [0, 0, 1, NONE, 1, 2]);
    assert_eq!(counts, [2, 0, 3]);

    let layout = RowLayout {
        row_elems: 2,
        src_stride: 3,
        dst_stride: 2,
    };
    let src = [1, 2, 99, 3, 4, 99];
    let mut dst = [7; 6];
    gather_rows(&src, &mut dst, &[1, NONE, 0], layout);
    assert_eq!(dst, [3, 4, 0, 0, 1, 2]);
    let mut dst = [7; 6];
    scatter_rows(&src, &mut dst, &[2, NONE], layout);
    assert_eq!(dst, [7, 7, 7, 7, 1, 2]);

    let src = [1.0, 2.0, 99.0, 3.0, 4.0, 99.0].map(bf16::from_f32);
    let mut dst = [bf16::ZERO; 2];
    unpermute_rows(&src, &mut dst, &[0, 1, NONE], &[0.5, 2.0, 1.0], 3, layout);
    assert_eq!(dst.map(bf16::to_f32), [6.5, 9.0]);
}

#[test]
fn probabilities_sum_to_one_and_ties_go_to_the_lower_index() {
    let result = softmax_topk(&[1.0, 3.0, -0.0, 3.0, 0.0, 0.0], 3, 2);
    assert_eq!(result.topk_idx, [1, 0, 0, 1]);
    for row in result.probs.chunks(3) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }
    assert_eq!(result.topk_w[0], result.probs[1]);
}

#[test]
fn both_layouts_of_weights_give_the_same_product() {
    let values = |n: usize, step: usize| -> Vec<bf16> {
        (0..n)
            .map(|i| bf16::from_f32((i * step % 7) as f32 - 3.0))
            .collect()
    };
    let (rows, n, k) = (5, 3, 4);
    let a = values(rows * k, 3);
    let b = values(2 * n * k, 5);
    let turned: Vec<bf16> = b.chunks(n * k).flat_map(|w| transpose(w, n, k)).collect();
    let offsets = [0, 2, 5];
    let nk = grouped_gemm(&a, &b, &offsets, n, k, WeightLayout::Nk);
    let kn = grouped_gemm(&a, &turned, &offsets, n, k, WeightLayout::Kn);
    assert_eq!(nk.values, kn.values);
    let first = gemm_nt(&a[..2 * k], &b[..n * k], n, k);
    assert_eq!(nk.values[..2 * n], first.values);
    let by_hand: f64 = (0..k).map(|i| a[i].to_f64() * b[i].to_f64()).sum();
    assert_eq!(first.values[0], by_hand);
    assert!(first.bf16_tolerance(0) >= first.f32_tolerance(0));
    assert_eq!(first.to_bf16()[0].to_f64(), by_hand);
}

#[test]
fn integers_add_up() {
    assert_eq!(
        segment_scan(&[1, 2, 3, 4, 5], 3),
        (vec![1, 3, 6, 4, 9], vec![6, 9])
    );
    assert_eq!(segment_square_sums(&[1, 2, 3], 2), [5, 9]);
    assert_eq!(histogram(&[1, 1, 0, 7], 2), [1, 2]);
    assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 2, 3), [1, 4, 2, 5, 3, 6]);
    assert_eq!(ring_stencil(&[1, 0, 0, 0], 1), [3, 1, 0, 1]);
    // Rank r sends 10 r + p to rank p.
    let sends = [vec![0, 1], vec![10, 11]];
    assert_eq!(all_to_all_digest(&sends, 1, 1, 1), [1, 11]);
    let ones = vec![1.0; 2 * 1000];
    assert_eq!(cluster_sums(&ones, 2, 1000), [1000.0, 1000.0]);
    assert_eq!(wide_add([u32::MAX, u32::MAX, 1], [1, 0, 5]), [0, 0, 7]);
    assert_eq!([0, 1, 6, 27].map(collatz_steps), [0, 0, 8, 111]);
    assert_eq!(constants(&[1; 9])[8], 101);
    assert_eq!(affine(&[1; 4], [2, 3, 4], 1), [3, 4, 5, 3]);
    assert_eq!((switch_op(8, 12), jump_op(8, 2)), (1, 0x5d));
}

#[test]
fn warps_agree_with_themselves() {
    let keys: Vec<u32> = (0..64).map(|i| if i < 32 { 3 } else { i % 4 }).collect();
    let votes = warp_votes(&keys);
    let row = |j: usize| &votes[j * 64..(j + 1) * 64];
    assert!(row(5)[..32].iter().all(|&m| m == u32::MAX));
    assert!(row(5)[32..].iter().all(|&m| m == 0));
    assert_eq!((row(0)[32], row(4)[33]), (0xaaaa_aaaa, 0x2222_2222));
    assert_eq!((row(6)[0], row(6)[40]), (96, 48));
    assert_eq!((row(12)[63], row(13)[32]), (0, 3));
    assert_eq!(warp_divergent(&keys)[32..34], [16, 0]);
    assert_eq!(warp_exchange(&keys)[32], 1 + 2);
}

#[test]
fn boxes_are_filled_clipped_and_swizzled() {
    let layout = TensorLayout::dense(&[3, 2], 1);
    let tensor = [1, 2, 3, 4, 5, 6];
    let tile = tensor_box(&tensor, &layout, &[2, 2], &[2, -1]);
    assert_eq!(tile, [0, 0, 3, 0]);
    let mut stored = tensor;
    store_tensor_box(&mut stored, &layout, &[2, 2], &[2, -1], &[7, 8, 9, 10]);
    assert_eq!(stored, [1, 2, 9, 4, 5, 6]);

    let tile: Vec<u8> = (0..1024u32).map(|i| (i / 16) as u8).collect();
    for swizzle in [0, 32, 64, 128] {
        let once = swizzled(&tile, swizzle);
        assert_eq!(swizzled(&once, swizzle), tile);
        assert_eq!(once[..128], tile[..128]);
    }
    // Row 1 of 128 bytes: neighbours change places.
    assert_eq!(swizzled(&tile, 128)[128], 9);
    // Row 3 with 32 bytes: still neighbours; with 64: the pieces of each half in reverse.
    assert_eq!(swizzled(&tile, 32)[3 * 128], 25);
    assert_eq!(swizzled(&tile, 64)[3 * 128], 27);
}
