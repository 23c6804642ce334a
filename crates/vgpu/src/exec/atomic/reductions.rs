//! Which reductions let blocks run on several threads, and that they are exact there.

use crate::{Checks, Config, LaunchConfig, Machine};

/// Every thread applies `instruction` to the first word, with its number in `%r1`.
fn ptx(instruction: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 out)\n{{\n\
         .reg .b32 %r<4>;\n.reg .f32 %f<2>;\n.reg .b64 %rd<2>;\n\
         ld.param.u64 %rd0, [out];\n\
         mov.u32 %r1, %tid.x;\n\
         mov.f32 %f1, 0f3F800000;\n\
         {instruction}\n\
         exit;\n}}\n"
    )
}

fn machine(threads: usize) -> Machine {
    let config = Config {
        threads,
        checks: Checks::NONE,
        ..Config::default()
    };
    Machine::new(config).expect("a machine")
}

#[test]
fn only_what_commutes_and_tells_nothing_is_no_talk() {
    let machine = machine(1);
    for (instruction, talks) in [
        ("red.global.or.b32 [%rd0], %r1;", false),
        ("red.relaxed.gpu.global.add.u32 [%rd0], %r1;", false),
        ("red.global.min.s32 [%rd0], %r1;", false),
        ("red.release.gpu.global.add.u32 [%rd0], %r1;", true),
        ("red.global.inc.u32 [%rd0], %r1;", true),
        ("red.global.add.f32 [%rd0], %f1;", true),
        ("atom.global.add.u32 %r2, [%rd0], %r1;", true),
    ] {
        let module = machine.load(0, &ptx(instruction)).expect(instruction);
        let function = module.function("k").expect("the kernel");
        let habits = function.program().habits;
        assert_eq!(habits.talks_across_blocks, talks, "{instruction}");
    }
}

#[test]
fn reductions_are_exact_on_several_threads() {
    for (instruction, start, expected) in [
        (
            "red.global.add.u32 [%rd0], %r1;",
            7,
            7 + 300 * (63 * 64 / 2),
        ),
        ("red.global.max.u32 [%rd0], %r1;", 0, 63),
        ("red.global.or.b32 [%rd0], %r1;", 64, 127),
    ] {
        for threads in [1, 3] {
            let machine = machine(threads);
            let kernel = machine.load(0, &ptx(instruction)).expect(instruction);
            let kernel = kernel.function("k").expect("the kernel");
            let out = machine.alloc(0, 4).expect("memory");
            machine
                .write(out, &u32::to_le_bytes(start))
                .expect("a write");
            let stream = machine.default_stream(0).expect("a stream");
            let config = LaunchConfig::new([300, 1, 1], [64, 1, 1]);
            machine
                .launch(stream, &kernel, &config, &out.to_le_bytes())
                .expect("a launch");
            machine.synchronize(stream).expect("no fault");
            let mut word = [0; 4];
            machine.read(out, &mut word).expect("a read");
            let found = u32::from_le_bytes(word);
            assert_eq!(found, expected, "{instruction}, {threads} threads");
        }
    }
}
