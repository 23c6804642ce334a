//! The bounded run of the fuzz target: random bytes, and random mutations of valid texts.

use crate::ptx::harness::check_parser;

const SEEDS: [&str; 3] = [
    include_str!("sample_sm_80.ptx"),
    include_str!("sample_sm_90a.ptx"),
    ".version 8.8\n.target sm_90a, debug\n.address_size 64\n\
     .global .v2 .f32 g[][2] = {{{1.0, -2.5}, {0f3F800000}}}, h; .const .u64 a = generic(g)+8;\n\
     .global .b8 m[9] = {0xff(g), 0xff00(g), 1};\n\
     .func (.reg .u32 r) f(.reg .u32 a, .param .align 8 .b8 b[24]) .noreturn;\n\
     .entry k(.param .u64 .ptr .global .align 16 p) .maxntid 1,2,3 .pragma \"x\"; {\n\
     .reg .v4 .f32 v<3>; t: .branchtargets t, t; q: .callprototype _ (.param .b32 _);\n\
     @!p op.a::b.2d v0.x|_, !p, {a, -1, 1.5e3}, [a+-4, {x, y}], (1+2)*3 ? ~0U : -5 % 3;\n\
     call.uni (r), f, (a, 1), q; .loc 1 2 3, function_name L+1, inlined_at 1 2 3\n{ { ret; } } }",
];

/// Pieces that are worth more than random bytes.
const PIECES: [&str; 32] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    ":",
    "::",
    ".",
    "@",
    "!",
    "|",
    "+",
    "-",
    "<",
    ">",
    "=",
    "?",
    "%",
    "_",
    "\"",
    "//",
    "/*",
    "*/",
    ".reg",
    "0x",
    "18446744073709551615",
    "1.5e",
    "é",
    "\n",
];

/// A generator of the xorshift family; what it is good for is being short.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

#[test]
fn the_seeds_are_valid() {
    for seed in SEEDS {
        check_parser(seed.as_bytes()).expect(seed);
    }
    assert!(crate::ptx::parse(SEEDS[0]).is_ok() && crate::ptx::parse(SEEDS[1]).is_ok());
}

#[test]
fn random_bytes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        let length = random.below(200);
        let mut data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        check_parser(&data).unwrap_or_else(|error| panic!("{error}: {data:?}"));
        // The same behind a valid header, where more of the grammar is within reach.
        let header = b".version 8.0 .target sm_80 .address_size 64 .entry k() { ";
        data.splice(0..0, header.iter().copied());
        check_parser(&data).unwrap_or_else(|error| panic!("{error}: {data:?}"));
    }
}

#[test]
fn random_pieces() {
    let mut random = Random(1);
    for _ in 0..3000 {
        let mut text = ".version 8.0 .target sm_80 .address_size 64 .entry k() { op ".to_owned();
        for _ in 0..random.below(30) {
            text.push_str(PIECES[random.below(PIECES.len())]);
            text.push_str(["", " ", "a", "1"][random.below(4)]);
        }
        text.push_str("; }");
        check_parser(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
}

#[test]
fn mutated_texts() {
    let mut random = Random(2);
    for round in 0..6000 {
        let mut data = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(data.len());
            let span = at..(at + random.below(40)).min(data.len());
            match random.below(6) {
                0 => data.truncate(at),
                1 => drop(data.drain(span)),
                2 => {
                    // What stands elsewhere in the same text, once more.
                    let copy = data[span].to_vec();
                    let to = random.below(data.len());
                    data.splice(to..to, copy);
                }
                3 => {
                    if let Some(byte) = data.get_mut(at) {
                        *byte = random.next() as u8;
                    }
                }
                4 => {
                    let piece = PIECES[random.below(PIECES.len())].bytes();
                    data.splice(span.start..span.start, piece);
                }
                _ => {
                    let piece = PIECES[random.below(PIECES.len())].bytes();
                    data.splice(span, piece);
                }
            }
        }
        check_parser(&data)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&data)));
    }
}
