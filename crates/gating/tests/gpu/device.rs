//! x
use tollgate_core::Router;
use tollgate_core::options::GateOptions;
use tollgate_device::{Gpu, VirtualOptions};
use crate::memory::some_context;
use crate::problem::{Problem, random_logits};
#[test]
fn probe() {
    let gpu = Gpu::virtual_gpu(&VirtualOptions { checks: false, ..VirtualOptions::default() }).unwrap();
    for (t, e, k, z) in [(1, 128, 1,0.0), (16, 128, 1,1.0), (32,128,1,1.0), (4096, 128, 1,1.0), (4096, 256, 1,1.0),(4096,64,1,1.0),(4096,64,1,0.0),(4096,256,8,0.0)] {
        let mut options = GateOptions::new(Router::top_k(k));
        options.z_coefficient = z; options.balance_alpha = z;
        let logits = random_logits(t, e, 5);
        let mut problem = Problem::new(&gpu, &options, (t, e), &logits, &some_context(), (0, 0));
        gpu.take_launches();
        problem.launch(&gpu, gpu.default_stream()).unwrap();
        gpu.default_stream().synchronize().unwrap();
        for l in gpu.take_launches() {
            println!("T {t} E {e} k {k} {z}: {} grid {:?}: conflicts {} warp instr {}", l.kernel, l.grid, l.counters.bank_conflicts, l.counters.warp_instructions);
        }
    }
}
