//! The small kernels of `language.cu` and `jump_table.ptx`, an element each.

/// `call_collatz`: steps to 1, at most 1000, of the sequence modulo 2^32.
pub fn collatz_steps(mut v: u32) -> u32 {
    let mut steps = 0;
    while v > 1 && steps < 1000 {
        v = if v.is_multiple_of(2) {
            v / 2
        } else {
            v.wrapping_mul(3).wrapping_add(1)
        };
        steps += 1;
    }
    steps
}

/// `switch_ops`: the operation `code % 9` of x.
pub fn switch_op(x: u32, code: u32) -> u32 {
    match code % 9 {
        0 => x.wrapping_add(1),
        1 => x.wrapping_mul(3),
        2 => x ^ 0x55,
        3 => x >> 3,
        4 => !x,
        5 => x.count_ones(),
        6 => x.leading_zeros(),
        7 => x.reverse_bits(),
        _ => x.wrapping_sub(7),
    }
}

/// `jump_table`: the operation `code`, below 4, of x.
pub fn jump_op(x: u32, code: u32) -> u32 {
    match code {
        0 => x.wrapping_add(1),
        1 => x.wrapping_mul(3),
        2 => x ^ 0x55,
        3 => !x,
        _ => panic!("code {code} is not below 4"),
    }
}

/// `constants`.
pub fn constants(x: &[u32]) -> Vec<u32> {
    const SCALE: [u32; 8] = [1, 3, 5, 7, 11, 13, 17, 19];
    const BIAS: [u32; 4] = [100, 200, 300, 400];
    x.iter()
        .enumerate()
        .map(|(i, x)| x.wrapping_mul(SCALE[i % 8]).wrapping_add(BIAS[i % 4]))
        .collect()
}

/// `by_value`.
pub fn affine(x: &[u32], scale: [u32; 3], bias: u32) -> Vec<u32> {
    x.iter()
        .enumerate()
        .map(|(i, x)| x.wrapping_mul(scale[i % 3]).wrapping_add(bias))
        .collect()
}

/// `wide_add`: the sum modulo 2^96, words from the lowest.
pub fn wide_add(a: [u32; 3], b: [u32; 3]) -> [u32; 3] {
    let wide = |words: [u32; 3]| {
        words
            .iter()
            .rev()
            .fold(0u128, |sum, &word| sum << 32 | u128::from(word))
    };
    let sum = wide(a) + wide(b);
    [sum as u32, (sum >> 32) as u32, (sum >> 64) as u32]
}
