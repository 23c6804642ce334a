//! What the assembled instructions say of each entry.

/// Counts of an entry's instructions. Functions that it calls are part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sass {
    /// The entry's name.
    pub entry: String,
    /// All, without padding.
    pub instructions: u32,
    /// Loads of 16 bytes from global memory.
    pub ldg_128: u32,
    /// Stores of 16 bytes to global memory.
    pub stg_128: u32,
    /// Loads and stores of local memory.
    pub local: u32,
    /// Tensor products of a warp group.
    pub hgmma: u32,
    /// Tiles loaded by a tensor map.
    pub utmaldg: u32,
}

/// Counts in what `cuobjdump -sass` printed. Entries come sorted by name.
pub fn parse(text: &str) -> Vec<Sass> {
    let mut found: Vec<Sass> = Vec::new();
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            found.push(Sass {
                entry: name.trim().to_owned(),
                ..Sass::default()
            });
        } else if let (Some(name), Some(last)) = (mnemonic(line), found.last_mut()) {
            last.count(name);
        }
    }
    found.sort_by(|a, b| a.entry.cmp(&b.entry));
    found
}

impl Sass {
    fn count(&mut self, mnemonic: &str) {
        let mut parts = mnemonic.split('.');
        let operation = parts.next().unwrap_or_default();
        if operation == "NOP" {
            return;
        }
        self.instructions += 1;
        let wide = parts.any(|part| part == "128");
        match operation {
            "LDG" if wide => self.ldg_128 += 1,
            "STG" if wide => self.stg_128 += 1,
            "LDL" | "STL" => self.local += 1,
            "HGMMA" => self.hgmma += 1,
            "UTMALDG" => self.utmaldg += 1,
            _ => {}
        }
    }
}

/// The operation of a line `/*0040*/ @!P0 LDG.E.128 R4, [R2.64] ; /* 0x… */`.
fn mnemonic(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("/*")?;
    let (address, rest) = rest.split_once("*/")?;
    // The second half of an encoding has a line of its own, which starts with 0x.
    if !address.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    rest.split_whitespace()
        .find(|word| !word.starts_with('@'))
        .map(|word| word.trim_end_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_counted_by_entry() {
        let text = "
\tcode for sm_80
\t\tFunction : zeta
\t.headerflags\t@\"EF_CUDA_SM80\"
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;   /* 0x00000a00ff017624 */
                                                                             /* 0x000fe400078e00ff */
        /*0010*/               @P0 LDG.E.128.CONSTANT R4, [R2.64] ;          /* 0x0000000002047981 */
        /*0020*/              @!P1 LDG.E R9, desc[UR6][R2.64] ;              /* 0x0000000602098981 */
        /*0030*/                   STG.E.128 [R6.64], R8 ;                   /* 0x0000000806007986 */
        /*0040*/                   STL.64 [R1+0x6e8], R4 ;                   /* 0x0006e80401007387 */
        /*0050*/                   EXIT;                                     /* 0x000000000000794d */
        /*0060*/                   NOP;                                      /* 0x0000000000007918 */
\t\tFunction : alpha
        /*0000*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR16], R24, UP0 ;
        /*00a0*/                   UTMALDG.2D [UR8], [UR4] ;
";
        let found = parse(text);
        let alpha = Sass {
            entry: "alpha".into(),
            instructions: 2,
            hgmma: 1,
            utmaldg: 1,
            ..Sass::default()
        };
        let zeta = Sass {
            entry: "zeta".into(),
            instructions: 6,
            ldg_128: 1,
            stg_128: 1,
            local: 1,
            ..Sass::default()
        };
        assert_eq!(found, [alpha, zeta]);
    }
}
