//! Integer instructions, by width: [`w16`], [`w32`], [`w64`], and two halves of a word in [`x2`].
//!
//! Signed operands are passed as the same bits. Suffix `_u` is the unsigned (or untyped) form, `_s`
//! the signed one; a function without suffix does not depend on the sign.
//!
//! Division and remainder by zero are unspecified in PTX; here both give all ones, as GPUs do. The
//! most negative number divided by -1 wraps to itself with remainder zero.

/// Doc and body of what every width has.
macro_rules! common {
    ($unsigned:ty, $signed:ty) => {
        /// Bits of the width.
        pub const BITS: u32 = <$unsigned>::BITS;

        /// `add`: wraps.
        #[inline(always)]
        pub fn add(a: $unsigned, b: $unsigned) -> $unsigned {
            a.wrapping_add(b)
        }

        /// `sub`: wraps.
        #[inline(always)]
        pub fn sub(a: $unsigned, b: $unsigned) -> $unsigned {
            a.wrapping_sub(b)
        }

        /// `mul.lo`.
        #[inline(always)]
        pub fn mul_lo(a: $unsigned, b: $unsigned) -> $unsigned {
            a.wrapping_mul(b)
        }

        /// `mad.lo`.
        #[inline(always)]
        pub fn mad_lo(a: $unsigned, b: $unsigned, c: $unsigned) -> $unsigned {
            mul_lo(a, b).wrapping_add(c)
        }

        /// `mad.hi.u`.
        #[inline(always)]
        pub fn mad_hi_u(a: $unsigned, b: $unsigned, c: $unsigned) -> $unsigned {
            mul_hi_u(a, b).wrapping_add(c)
        }

        /// `mad.hi.s`.
        #[inline(always)]
        pub fn mad_hi_s(a: $unsigned, b: $unsigned, c: $unsigned) -> $unsigned {
            mul_hi_s(a, b).wrapping_add(c)
        }

        /// `sad.u`: `c + |a - b|`.
        #[inline(always)]
        pub fn sad_u(a: $unsigned, b: $unsigned, c: $unsigned) -> $unsigned {
            a.abs_diff(b).wrapping_add(c)
        }

        /// `sad.s`: `c + |a - b|`.
        #[inline(always)]
        pub fn sad_s(a: $unsigned, b: $unsigned, c: $unsigned) -> $unsigned {
            (a as $signed).abs_diff(b as $signed).wrapping_add(c)
        }

        /// `div.u`; all ones for a zero divisor.
        #[inline(always)]
        pub fn div_u(a: $unsigned, b: $unsigned) -> $unsigned {
            a.checked_div(b).unwrap_or(<$unsigned>::MAX)
        }

        /// `div.s`, towards zero; all ones for a zero divisor.
        #[inline(always)]
        pub fn div_s(a: $unsigned, b: $unsigned) -> $unsigned {
            if b == 0 {
                <$unsigned>::MAX
            } else {
                (a as $signed).wrapping_div(b as $signed) as $unsigned
            }
        }

        /// `rem.u`; all ones for a zero divisor.
        #[inline(always)]
        pub fn rem_u(a: $unsigned, b: $unsigned) -> $unsigned {
            a.checked_rem(b).unwrap_or(<$unsigned>::MAX)
        }

        /// `rem.s`, with the sign of `a`; all ones for a zero divisor.
        #[inline(always)]
        pub fn rem_s(a: $unsigned, b: $unsigned) -> $unsigned {
            if b == 0 {
                <$unsigned>::MAX
            } else {
                (a as $signed).wrapping_rem(b as $signed) as $unsigned
            }
        }

        /// `abs.s`; the most negative number stays.
        #[inline(always)]
        pub fn abs(a: $unsigned) -> $unsigned {
            (a as $signed).wrapping_abs() as $unsigned
        }

        /// `neg.s`.
        #[inline(always)]
        pub fn neg(a: $unsigned) -> $unsigned {
            a.wrapping_neg()
        }

        /// `min.u`.
        #[inline(always)]
        pub fn min_u(a: $unsigned, b: $unsigned) -> $unsigned {
            a.min(b)
        }

        /// `min.s`.
        #[inline(always)]
        pub fn min_s(a: $unsigned, b: $unsigned) -> $unsigned {
            (a as $signed).min(b as $signed) as $unsigned
        }

        /// `max.u`.
        #[inline(always)]
        pub fn max_u(a: $unsigned, b: $unsigned) -> $unsigned {
            a.max(b)
        }

        /// `max.s`.
        #[inline(always)]
        pub fn max_s(a: $unsigned, b: $unsigned) -> $unsigned {
            (a as $signed).max(b as $signed) as $unsigned
        }

        /// `.relu` of a signed result: negative becomes zero.
        #[inline(always)]
        pub fn relu(a: $unsigned) -> $unsigned {
            max_s(a, 0)
        }

        /// `cnot`: 1 if `a` is zero, else 0.
        #[inline(always)]
        pub fn cnot(a: $unsigned) -> $unsigned {
            <$unsigned>::from(a == 0)
        }

        /// `shl`: amounts past the width give zero.
        #[inline(always)]
        pub fn shl(a: $unsigned, amount: u32) -> $unsigned {
            let shifted = a << (amount & (BITS - 1));
            if amount < BITS { shifted } else { 0 }
        }

        /// `shr.u` and `shr.b`: amounts past the width give zero.
        #[inline(always)]
        pub fn shr_u(a: $unsigned, amount: u32) -> $unsigned {
            let shifted = a >> (amount & (BITS - 1));
            if amount < BITS { shifted } else { 0 }
        }

        /// `shr.s`: amounts past the width give the sign in every bit.
        #[inline(always)]
        pub fn shr_s(a: $unsigned, amount: u32) -> $unsigned {
            ((a as $signed) >> amount.min(BITS - 1)) as $unsigned
        }
    };
}

/// What the widths with a double width in the machine have.
macro_rules! widening {
    ($unsigned:ty, $signed:ty, $double:ty, $double_signed:ty) => {
        /// `mul.wide.u`.
        #[inline(always)]
        pub fn mul_wide_u(a: $unsigned, b: $unsigned) -> $double {
            <$double>::from(a) * <$double>::from(b)
        }

        /// `mul.wide.s`.
        #[inline(always)]
        pub fn mul_wide_s(a: $unsigned, b: $unsigned) -> $double {
            (<$double_signed>::from(a as $signed) * <$double_signed>::from(b as $signed)) as $double
        }

        /// `mul.hi.u`.
        #[inline(always)]
        pub fn mul_hi_u(a: $unsigned, b: $unsigned) -> $unsigned {
            (mul_wide_u(a, b) >> BITS) as $unsigned
        }

        /// `mul.hi.s`.
        #[inline(always)]
        pub fn mul_hi_s(a: $unsigned, b: $unsigned) -> $unsigned {
            (mul_wide_s(a, b) >> BITS) as $unsigned
        }

        /// `mad.wide.u`.
        #[inline(always)]
        pub fn mad_wide_u(a: $unsigned, b: $unsigned, c: $double) -> $double {
            mul_wide_u(a, b).wrapping_add(c)
        }

        /// `mad.wide.s`.
        #[inline(always)]
        pub fn mad_wide_s(a: $unsigned, b: $unsigned, c: $double) -> $double {
            mul_wide_s(a, b).wrapping_add(c)
        }
    };
}

/// What 32 and 64 bits have: carries and bit fields.
macro_rules! words {
    ($unsigned:ty, $signed:ty) => {
        /// `add.cc` (carry `false`) and `addc.cc`: the sum and the carry out.
        #[inline(always)]
        pub fn add_carry(a: $unsigned, b: $unsigned, carry: bool) -> ($unsigned, bool) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(<$unsigned>::from(carry));
            (sum, first | second)
        }

        /// `sub.cc` (borrow `false`) and `subc.cc`: the difference and the borrow out.
        #[inline(always)]
        pub fn sub_borrow(a: $unsigned, b: $unsigned, borrow: bool) -> ($unsigned, bool) {
            let (difference, first) = a.overflowing_sub(b);
            let (difference, second) = difference.overflowing_sub(<$unsigned>::from(borrow));
            (difference, first | second)
        }

        /// `mad.lo.cc` (carry `false`) and `madc.lo.cc`: the sum and the carry out.
        #[inline(always)]
        pub fn mad_lo_carry(
            a: $unsigned,
            b: $unsigned,
            c: $unsigned,
            carry: bool,
        ) -> ($unsigned, bool) {
            add_carry(mul_lo(a, b), c, carry)
        }

        /// `mad.hi.cc.u` (carry `false`) and `madc.hi.cc.u`: the sum and the carry out.
        #[inline(always)]
        pub fn mad_hi_carry_u(
            a: $unsigned,
            b: $unsigned,
            c: $unsigned,
            carry: bool,
        ) -> ($unsigned, bool) {
            add_carry(mul_hi_u(a, b), c, carry)
        }

        /// `mad.hi.cc.s` (carry `false`) and `madc.hi.cc.s`: the sum and the carry out.
        #[inline(always)]
        pub fn mad_hi_carry_s(
            a: $unsigned,
            b: $unsigned,
            c: $unsigned,
            carry: bool,
        ) -> ($unsigned, bool) {
            add_carry(mul_hi_s(a, b), c, carry)
        }

        /// `popc`.
        #[inline(always)]
        pub fn popc(a: $unsigned) -> u32 {
            a.count_ones()
        }

        /// `clz`: the width for zero.
        #[inline(always)]
        pub fn clz(a: $unsigned) -> u32 {
            a.leading_zeros()
        }

        /// `brev`.
        #[inline(always)]
        pub fn brev(a: $unsigned) -> $unsigned {
            a.reverse_bits()
        }

        /// `bfind.u`: position of the highest one; all ones if there is none.
        #[inline(always)]
        pub fn bfind_u(a: $unsigned) -> u32 {
            (BITS - 1).wrapping_sub(a.leading_zeros())
        }

        /// `bfind.s`: position of the highest bit that differs from the sign; all ones if none.
        #[inline(always)]
        pub fn bfind_s(a: $unsigned) -> u32 {
            bfind_u(a ^ shr_s(a, BITS - 1))
        }

        /// `bfind.shiftamt.u`: the left shift that brings the found bit to the top; all ones if
        /// none.
        #[inline(always)]
        pub fn bfind_shift_u(a: $unsigned) -> u32 {
            if a == 0 { u32::MAX } else { a.leading_zeros() }
        }

        /// `bfind.shiftamt.s`: as [`bfind_shift_u`] for the bit that [`bfind_s`] finds.
        #[inline(always)]
        pub fn bfind_shift_s(a: $unsigned) -> u32 {
            bfind_shift_u(a ^ shr_s(a, BITS - 1))
        }

        /// `bfe.u`: the field of `length` bits at `start`; only the low 8 bits of both count.
        #[inline(always)]
        pub fn bfe_u(a: $unsigned, start: u32, length: u32) -> $unsigned {
            shr_u(a, start & 0xff) & !shl(<$unsigned>::MAX, length & 0xff)
        }

        /// `bfe.s`: as [`bfe_u`], the field's top bit (or that of `a`, if the field reaches past
        /// it) repeated above; zero for a zero length.
        #[inline(always)]
        pub fn bfe_s(a: $unsigned, start: u32, length: u32) -> $unsigned {
            let length = length & 0xff;
            let unused = BITS - length.clamp(1, BITS);
            let field = shr_s(shl(shr_s(a, start & 0xff), unused), unused);
            if length == 0 { 0 } else { field }
        }

        /// `bfi`: `b` with its `length` bits at `start` replaced by the low bits of `a`; only the
        /// low 8 bits of start and length count.
        #[inline(always)]
        pub fn bfi(a: $unsigned, b: $unsigned, start: u32, length: u32) -> $unsigned {
            let start = start & 0xff;
            let mask = shl(!shl(<$unsigned>::MAX, length & 0xff), start);
            (shl(a, start) & mask) | (b & !mask)
        }

        /// `lop3` for this width: bit `i` of the result is the bit of `table` that the bits of
        /// `a`, `b` and `c` number, `a` the most significant.
        #[inline(always)]
        pub fn lop3(a: $unsigned, b: $unsigned, c: $unsigned, table: u8) -> $unsigned {
            let term = |bit: u32| (0 as $unsigned).wrapping_sub((table >> bit & 1).into());
            let under = |bc: u32, a_term: u32| term(a_term * 4 + bc);
            let pick = |bc: u32| (under(bc, 1) & a) | (under(bc, 0) & !a);
            (((pick(3) & c) | (pick(2) & !c)) & b) | (((pick(1) & c) | (pick(0) & !c)) & !b)
        }
    };
}

/// 16 bits.
pub mod w16 {
    common!(u16, i16);
    widening!(u16, i16, u32, i32);
}

/// 64 bits.
pub mod w64 {
    common!(u64, i64);
    words!(u64, i64);

    /// `mul.hi.u`.
    #[inline(always)]
    pub fn mul_hi_u(a: u64, b: u64) -> u64 {
        ((u128::from(a) * u128::from(b)) >> 64) as u64
    }

    /// `mul.hi.s`.
    #[inline(always)]
    pub fn mul_hi_s(a: u64, b: u64) -> u64 {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    }
}

/// 32 bits, with the instructions that exist for this width only.
pub mod w32 {
    common!(u32, i32);
    widening!(u32, i32, u64, i64);
    words!(u32, i32);

    /// `add.sat.s32`: clamped to the range of `s32`.
    #[inline(always)]
    pub fn add_sat(a: u32, b: u32) -> u32 {
        (a as i32).saturating_add(b as i32) as u32
    }

    /// `sub.sat.s32`: clamped to the range of `s32`.
    #[inline(always)]
    pub fn sub_sat(a: u32, b: u32) -> u32 {
        (a as i32).saturating_sub(b as i32) as u32
    }

    /// `mad.hi.sat.s32`: the sum clamped to the range of `s32`.
    #[inline(always)]
    pub fn mad_hi_sat(a: u32, b: u32, c: u32) -> u32 {
        add_sat(mul_hi_s(a, b), c)
    }

    /// The 48-bit product of the low 24 bits, unsigned.
    #[inline(always)]
    fn wide24_u(a: u32, b: u32) -> u64 {
        mul_wide_u(a & 0xff_ffff, b & 0xff_ffff)
    }

    /// The 48-bit product of the low 24 bits, signed.
    #[inline(always)]
    fn wide24_s(a: u32, b: u32) -> u64 {
        mul_wide_s(shr_s(a << 8, 8), shr_s(b << 8, 8))
    }

    /// `mul24.lo.u32`: bits 31 to 0 of the 48-bit product of the low 24 bits.
    #[inline(always)]
    pub fn mul24_lo_u(a: u32, b: u32) -> u32 {
        wide24_u(a, b) as u32
    }

    /// `mul24.lo.s32`: bits 31 to 0 of the 48-bit product of the low 24 bits.
    #[inline(always)]
    pub fn mul24_lo_s(a: u32, b: u32) -> u32 {
        wide24_s(a, b) as u32
    }

    /// `mul24.hi.u32`: bits 47 to 16 of the 48-bit product of the low 24 bits.
    #[inline(always)]
    pub fn mul24_hi_u(a: u32, b: u32) -> u32 {
        (wide24_u(a, b) >> 16) as u32
    }

    /// `mul24.hi.s32`: bits 47 to 16 of the 48-bit product of the low 24 bits.
    #[inline(always)]
    pub fn mul24_hi_s(a: u32, b: u32) -> u32 {
        (wide24_s(a, b) >> 16) as u32
    }

    /// `mad24.lo.u32`.
    #[inline(always)]
    pub fn mad24_lo_u(a: u32, b: u32, c: u32) -> u32 {
        mul24_lo_u(a, b).wrapping_add(c)
    }

    /// `mad24.lo.s32`.
    #[inline(always)]
    pub fn mad24_lo_s(a: u32, b: u32, c: u32) -> u32 {
        mul24_lo_s(a, b).wrapping_add(c)
    }

    /// `mad24.hi.u32`.
    #[inline(always)]
    pub fn mad24_hi_u(a: u32, b: u32, c: u32) -> u32 {
        mul24_hi_u(a, b).wrapping_add(c)
    }

    /// `mad24.hi.s32`.
    #[inline(always)]
    pub fn mad24_hi_s(a: u32, b: u32, c: u32) -> u32 {
        mul24_hi_s(a, b).wrapping_add(c)
    }

    /// `mad24.hi.sat.s32`: the sum clamped to the range of `s32`.
    #[inline(always)]
    pub fn mad24_hi_sat(a: u32, b: u32, c: u32) -> u32 {
        add_sat(mul24_hi_s(a, b), c)
    }

    /// `shf.l.clamp`: the high word of `{b, a}` shifted left, by 32 at most.
    #[inline(always)]
    pub fn shf_l_clamp(a: u32, b: u32, amount: u32) -> u32 {
        ((join(a, b) << amount.min(32)) >> 32) as u32
    }

    /// `shf.l.wrap`: the high word of `{b, a}` shifted left by the amount modulo 32.
    #[inline(always)]
    pub fn shf_l_wrap(a: u32, b: u32, amount: u32) -> u32 {
        ((join(a, b) << (amount & 31)) >> 32) as u32
    }

    /// `shf.r.clamp`: the low word of `{b, a}` shifted right, by 32 at most.
    #[inline(always)]
    pub fn shf_r_clamp(a: u32, b: u32, amount: u32) -> u32 {
        (join(a, b) >> amount.min(32)) as u32
    }

    /// `shf.r.wrap`: the low word of `{b, a}` shifted right by the amount modulo 32.
    #[inline(always)]
    pub fn shf_r_wrap(a: u32, b: u32, amount: u32) -> u32 {
        (join(a, b) >> (amount & 31)) as u32
    }

    /// `{high, low}` as one value.
    #[inline(always)]
    fn join(low: u32, high: u32) -> u64 {
        u64::from(high) << 32 | u64::from(low)
    }

    /// `bmsk.clamp`: a mask of `width` ones from bit `start`; a start past the word gives zero, a
    /// width past it ones up to the top.
    #[inline(always)]
    pub fn bmsk_clamp(start: u32, width: u32) -> u32 {
        shl(!shl(u32::MAX, width), start)
    }

    /// `bmsk.wrap`: as [`bmsk_clamp`], start and width modulo 32.
    #[inline(always)]
    pub fn bmsk_wrap(start: u32, width: u32) -> u32 {
        bmsk_clamp(start & 31, width & 31)
    }

    /// `szext.clamp.u32`: the low `bits` of `a`; all of it for 32 and more.
    #[inline(always)]
    pub fn szext_clamp_u(a: u32, bits: u32) -> u32 {
        a & !shl(u32::MAX, bits)
    }

    /// `szext.clamp.s32`: as [`szext_clamp_u`], the top bit of the field repeated above; zero for
    /// no bits.
    #[inline(always)]
    pub fn szext_clamp_s(a: u32, bits: u32) -> u32 {
        let unused = 32 - bits.clamp(1, 32);
        let field = shr_s(shl(a, unused), unused);
        if bits == 0 { 0 } else { field }
    }

    /// `szext.wrap.u32`: as [`szext_clamp_u`], the count modulo 32.
    #[inline(always)]
    pub fn szext_wrap_u(a: u32, bits: u32) -> u32 {
        szext_clamp_u(a, bits & 31)
    }

    /// `szext.wrap.s32`: as [`szext_clamp_s`], the count modulo 32.
    #[inline(always)]
    pub fn szext_wrap_s(a: u32, bits: u32) -> u32 {
        szext_clamp_s(a, bits & 31)
    }

    /// `fns`: position of the n-th set bit of `mask` from bit `base`, upwards for a positive
    /// `offset`, downwards for a negative one, `base` itself for zero; all ones if there is none.
    /// A base past 31 is undefined in PTX; here it finds none.
    #[inline]
    pub fn fns(mask: u32, base: u32, offset: u32) -> u32 {
        let offset = offset as i32;
        if base > 31 {
            return u32::MAX;
        }
        if offset == 0 {
            return if mask >> base & 1 != 0 {
                base
            } else {
                u32::MAX
            };
        }
        let (step, end) = if offset > 0 { (1, 32) } else { (-1, -1) };
        let mut left = offset.unsigned_abs();
        let mut position = base as i32;
        while position != end {
            if mask >> position & 1 != 0 {
                left -= 1;
                if left == 0 {
                    return position as u32;
                }
            }
            position += step;
        }
        u32::MAX
    }

    /// `prmt` without mode: byte `i` of the result is the byte of `{b, a}` that the low 3 bits of
    /// nibble `i` of `select` number, or its sign in all bits if the nibble's bit 3 is set.
    #[inline(always)]
    pub fn prmt(a: u32, b: u32, select: u32) -> u32 {
        let source = join(a, b);
        let byte = |i: u32| {
            let control = select >> (4 * i);
            let value = (source >> (8 * (control & 7))) as u8;
            let sign = ((value as i8) >> 7) as u8;
            u32::from(if control & 8 != 0 { sign } else { value }) << (8 * i)
        };
        byte(0) | byte(1) | byte(2) | byte(3)
    }

    /// `prmt` with a mode: as [`prmt`] with the selection that the mode makes of the low 2 bits of
    /// `control`.
    #[inline(always)]
    pub fn prmt_mode(mode: PrmtMode, a: u32, b: u32, control: u32) -> u32 {
        let n = control & 3;
        let nibble = |i: u32| match mode {
            PrmtMode::F4e => n + i,
            PrmtMode::B4e => n.wrapping_sub(i) & 7,
            PrmtMode::Rc8 => n,
            PrmtMode::Ecl => n.max(i),
            PrmtMode::Ecr => n.min(i),
            PrmtMode::Rc16 => (n & 1) << 1 | (i & 1),
        };
        let select = nibble(0) | nibble(1) << 4 | nibble(2) << 8 | nibble(3) << 12;
        prmt(a, b, select)
    }

    /// The modes of `prmt`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum PrmtMode {
        /// `.f4e`: four bytes upwards from the selected one.
        F4e,
        /// `.b4e`: four bytes downwards from the selected one, in a ring of eight.
        B4e,
        /// `.rc8`: the selected byte four times.
        Rc8,
        /// `.ecl`: bytes below the selected one replaced by it.
        Ecl,
        /// `.ecr`: bytes above the selected one replaced by it.
        Ecr,
        /// `.rc16`: the selected half twice.
        Rc16,
    }

    /// Byte `i`, sign- or zero-extended.
    #[inline(always)]
    fn byte<const SIGNED: bool>(word: u32, i: u32) -> u32 {
        let value = (word >> (8 * i)) as u8;
        if SIGNED {
            value as i8 as u32
        } else {
            u32::from(value)
        }
    }

    /// `dp4a`: `c` plus the products of four bytes; the parameters say whether those of `a` and
    /// of `b` are signed.
    #[inline(always)]
    pub fn dp4a<const SIGNED_A: bool, const SIGNED_B: bool>(a: u32, b: u32, c: u32) -> u32 {
        let product = |i| byte::<SIGNED_A>(a, i).wrapping_mul(byte::<SIGNED_B>(b, i));
        (0..4).fold(c, |sum, i| sum.wrapping_add(product(i)))
    }

    /// `dp2a`: `c` plus the products of the halves of `a` with two bytes of `b`, the upper two if
    /// `HIGH`; the parameters say whether those of `a` and of `b` are signed.
    #[inline(always)]
    pub fn dp2a<const SIGNED_A: bool, const SIGNED_B: bool, const HIGH: bool>(
        a: u32,
        b: u32,
        c: u32,
    ) -> u32 {
        let half = |i: u32| {
            let value = (a >> (16 * i)) as u16;
            if SIGNED_A {
                value as i16 as u32
            } else {
                u32::from(value)
            }
        };
        let first = if HIGH { 2 } else { 0 };
        let product = |i| half(i).wrapping_mul(byte::<SIGNED_B>(b, first + i));
        c.wrapping_add(product(0)).wrapping_add(product(1))
    }
}

/// Two 16-bit halves of a word: `u16x2`, `s16x2`, and what [`half`](super::half) does by halves.
pub mod x2 {
    use super::w16;

    /// Applies `f` to both halves.
    #[inline(always)]
    pub fn map(a: u32, f: impl Fn(u16) -> u16) -> u32 {
        u32::from(f(a as u16)) | u32::from(f((a >> 16) as u16)) << 16
    }

    /// Applies `f` to the low halves and to the high halves.
    #[inline(always)]
    pub fn zip(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
    }

    /// Applies `f` to the low halves and to the high halves.
    #[inline(always)]
    pub fn zip3(a: u32, b: u32, c: u32, f: impl Fn(u16, u16, u16) -> u16) -> u32 {
        let high = f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
        u32::from(f(a as u16, b as u16, c as u16)) | u32::from(high) << 16
    }

    /// `add.u16x2` and `add.s16x2`.
    #[inline(always)]
    pub fn add(a: u32, b: u32) -> u32 {
        zip(a, b, w16::add)
    }

    /// `min.u16x2`.
    #[inline(always)]
    pub fn min_u(a: u32, b: u32) -> u32 {
        zip(a, b, w16::min_u)
    }

    /// `min.s16x2`.
    #[inline(always)]
    pub fn min_s(a: u32, b: u32) -> u32 {
        zip(a, b, w16::min_s)
    }

    /// `max.u16x2`.
    #[inline(always)]
    pub fn max_u(a: u32, b: u32) -> u32 {
        zip(a, b, w16::max_u)
    }

    /// `max.s16x2`.
    #[inline(always)]
    pub fn max_s(a: u32, b: u32) -> u32 {
        zip(a, b, w16::max_s)
    }

    /// `.relu` of `s16x2` results: negative halves become zero.
    #[inline(always)]
    pub fn relu(a: u32) -> u32 {
        map(a, w16::relu)
    }
}
