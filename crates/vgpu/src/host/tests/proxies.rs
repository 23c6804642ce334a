//! What the host wrote and a kernel's asynchronous copies read.

use super::*;

/// A block of one thread brings 16 bytes by a bulk copy and stores the first word. Nothing in it
/// fences what was written before the launch.
const KERNEL: &str = r"
.version 8.3
.target sm_90
.address_size 64
.visible .entry bring(.param .u64 out, .param .u64 in)
{
    .shared .align 16 .b8 piece[16];
    .shared .align 8 .b64 full;
    .reg .b64 %rd<4>;
    .reg .b32 %r<4>;
    .reg .pred %p;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [in];
    mov.u32 %r1, full;
    mov.u32 %r2, piece;
    mbarrier.init.shared.b64 [%r1], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd2], 16, [%r1];
again:
    mbarrier.try_wait.parity.shared::cta.b64 %p, [%r1], 0;
    @!%p bra again;
    ld.shared.u32 %r3, [%r2];
    st.global.u32 [%rd1], %r3;
    ret;
}
";

#[test]
fn a_launch_sees_what_came_before_it_by_every_proxy() {
    let machine = machine_of(config());
    let module = machine.load(0, KERNEL).unwrap();
    let function = module.function("bring").unwrap();
    let [out, written, copied, filled] = [16; 4].map(|bytes| machine.alloc(0, bytes).unwrap());
    machine.write(written, &[7; 16]).unwrap();
    machine.copy(copied, written, 16).unwrap();
    machine.fill32(filled, 0x0707_0707, 4).unwrap();
    let stream = machine.default_stream(0).unwrap();
    for from in [written, copied, filled] {
        let params = params(&function, [out, from]);
        let config = LaunchConfig::new([1; 3], [1; 3]);
        machine.launch(stream, &function, &config, &params).unwrap();
        assert_eq!(read_words(&machine, out, 1), [0x0707_0707]);
    }
    assert_eq!(kinds(&machine.take_reports()), []);
}
