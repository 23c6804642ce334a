//! What the virtual GPU counts: bytes, bank conflicts, local memory.

use tollgate_core::Router;
use tollgate_core::options::GateOptions;
use tollgate_device::{Gpu, VirtualOptions};

use crate::memory::some_context;
use crate::problem::{Logits, Problem};

/// Bytes that a gate call must move: logits once; indices, weights, token offsets, log-sum-exp and
/// first choices written; the experts' offsets and load.
fn needed_bytes(tokens: usize, experts: usize, k: usize) -> u64 {
    let of_token = 4 * experts + 8 * k + 4 + 4 + 4;
    (tokens * of_token + 4 + 4 * (experts + 1) + 8 * experts) as u64
}

/// T = 65,536 as it is measured on a GPU: sums over blocks of tokens are a part of the bytes that
/// depends on T, so that a smaller batch would say nothing about it.
#[test]
fn a_gate_moves_hardly_more_than_it_must_without_conflicts_or_local_memory() {
    const TOKENS: usize = 1 << 16;
    let options = VirtualOptions {
        // The checks look at every access; the counters are the same without.
        checks: false,
        ..VirtualOptions::default()
    };
    let gpu = Gpu::virtual_gpu(&options).unwrap();
    for experts in [64, 128, 256] {
        let logits = Logits::random(TOKENS, experts, 5);
        for k in [1, 2, 8] {
            let options = GateOptions::new(Router::top_k(k));
            let mut problem = Problem::new(&gpu, &options, &logits, &some_context());
            gpu.take_launches();
            problem.forward(&gpu, gpu.default_stream()).unwrap();
            gpu.default_stream().synchronize().unwrap();
            let launches = gpu.take_launches();
            let moved: u64 = launches.iter().map(|l| l.counters.moved_bytes()).sum();
            let needed = needed_bytes(TOKENS, experts, k);
            let ratio = moved as f64 / needed as f64;
            let of_token: u64 = launches.iter().map(|l| l.counters.warp_instructions).sum();
            println!(
                "E {experts}, k {k}: moved / needed {ratio:.4}, {:.0} warp instructions a token",
                of_token as f64 / TOKENS as f64
            );
            for launch in &launches {
                let c = &launch.counters;
                println!("  {} grid {:?}: {c:?}", launch.kernel, launch.grid);
                let what = format!("{} at E {experts}, k {k}", launch.kernel);
                assert_eq!(c.bank_conflicts, 0, "{what}");
                assert_eq!(c.local_sectors, 0, "{what}");
            }
            assert!(ratio <= 1.05, "E {experts}, k {k}: {ratio}");
        }
    }
}
