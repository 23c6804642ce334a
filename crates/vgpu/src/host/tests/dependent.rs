//! Programmatic dependent launches.

use super::*;

const KERNELS: &str = r"
.version 8.3
.target sm_90
.address_size 64
// out = 1, and the dependents may start before.
.visible .entry first(.param .u64 out)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    griddepcontrol.launch_dependents;
    st.global.u32 [%rd1], 1;
    ret;
}
// out = in + 1, when the grid before is complete.
.visible .entry second(.param .u64 out, .param .u64 in)
{
    .reg .b64 %rd<3>;
    .reg .b32 %r<3>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [in];
    griddepcontrol.wait;
    ld.global.u32 %r1, [%rd2];
    add.u32 %r2, %r1, 1;
    st.global.u32 [%rd1], %r2;
    ret;
}
// The same, but it does not wait.
.visible .entry hasty(.param .u64 out, .param .u64 in)
{
    .reg .b64 %rd<3>;
    .reg .b32 %r<3>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [in];
    ld.global.u32 %r1, [%rd2];
    add.u32 %r2, %r1, 1;
    st.global.u32 [%rd1], %r2;
    ret;
}
";

fn run(seed: u64, second: &str, dependent: bool) -> (u32, Vec<Kind>) {
    let machine = machine_of(Config { seed, ..config() });
    let module = machine.load(0, KERNELS).unwrap();
    let [a, b] = [4, 4].map(|bytes| machine.alloc(0, bytes).unwrap());
    machine.fill32(a, 0, 1).unwrap();
    let stream = machine.default_stream(0).unwrap();
    for (name, words) in [("first", [a, 0]), (second, [b, a])] {
        let function = module.function(name).unwrap();
        let config = LaunchConfig {
            programmatic_dependent: dependent,
            ..LaunchConfig::new([1; 3], [1; 3])
        };
        let params = params(&function, words);
        machine.launch(stream, &function, &config, &params).unwrap();
    }
    let value = read_words(&machine, b, 1)[0];
    (value, kinds(&machine.take_reports()))
}

#[test]
fn a_dependent_launch_that_waits_sees_what_was_before() {
    for seed in 0..50 {
        assert_eq!(run(seed, "second", true), (2, vec![]), "seed {seed}");
    }
}

#[test]
fn a_dependent_launch_that_does_not_wait_races() {
    for seed in 0..20 {
        // Also when it happens to start late.
        assert_eq!(run(seed, "hasty", true).1, [Kind::Race], "seed {seed}");
        assert_eq!(run(seed, "hasty", false), (2, vec![]), "seed {seed}");
    }
}
