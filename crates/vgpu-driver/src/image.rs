//! What a program loads as a module: PTX text, or a container in which to look for some.

use crate::boundary::{Buffer, In};
use crate::failure::{Failure, Outcome, code};

/// First bytes of an ELF file: a cubin.
const ELF: [u8; 4] = *b"\x7fELF";
/// First word of the structure by which the runtime registers a fatbin.
const WRAPPER: u32 = 0x4662_43b1;
/// First word of a fatbin.
const FATBIN: u32 = 0xba55_ed50;
/// Kind of an entry of a fatbin that holds PTX.
const KIND_PTX: u16 = 1;
/// Flags of an entry whose content is compressed: LZ4, or Zstandard.
const COMPRESSED: u64 = 0x2000 | 0x8000;
/// Bytes of an entry's header that are read here.
const ENTRY_BYTES: usize = 64;
/// Bytes of a fatbin at most; more is not a fatbin but damage.
const MOST_BYTES: u64 = 1 << 32;

/// The PTX in the image at `image`, whose length nobody tells: text ends with NUL, the containers
/// know their size.
///
/// # Errors
/// `NO_BINARY_FOR_GPU` for a cubin and for a fatbin without readable PTX, `INVALID_IMAGE` for what
/// is neither.
pub(crate) fn ptx(image: In<u8>) -> Outcome<String> {
    if image.is_null() {
        return Err(Failure::quiet(code::INVALID_VALUE));
    }
    let mut start = [0; 4];
    for (at, byte) in start.iter_mut().enumerate() {
        *byte = image.at(at)?;
        if *byte == 0 {
            break;
        }
    }
    if start == ELF {
        return Err(cubin());
    }
    match u32::from_le_bytes(start) {
        WRAPPER => fatbin(In::from_address(image.cast::<[usize; 2]>().get()?[1])),
        FATBIN => fatbin(image),
        _ => text(image),
    }
}

/// The PTX in `bytes`, which came from a file or with their length.
///
/// # Errors
/// As [`ptx`].
pub(crate) fn ptx_in(bytes: &[u8]) -> Outcome<String> {
    // NUL at the end, because text may have none; the containers do not mind.
    let mut bytes = bytes.to_vec();
    bytes.push(0);
    if bytes.len() >= 16 && bytes.starts_with(&FATBIN.to_le_bytes()) {
        return in_fatbin(&bytes);
    }
    ptx(In::from_address(bytes.as_ptr() as usize))
}

fn cubin() -> Failure {
    Failure::new(
        code::NO_BINARY_FOR_GPU,
        "a cubin cannot run on the virtual GPU: it holds machine code for a real one; compile to \
         PTX (`nvcc -ptx`, or `-gencode arch=compute_90a,code=compute_90a`)",
    )
}

fn text(image: In<u8>) -> Outcome<String> {
    let mut bytes = Vec::new();
    loop {
        match image.at(bytes.len())? {
            0 => break,
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(
            code::INVALID_IMAGE,
            "the image is no PTX text, no cubin and no fatbin",
        )
    })
}

fn fatbin(image: In<u8>) -> Outcome<String> {
    let header = image.cast::<[u8; 16]>().get()?;
    if header[..4] != FATBIN.to_le_bytes() {
        return Err(Failure::new(
            code::INVALID_IMAGE,
            "the fatbin's header is damaged",
        ));
    }
    let bytes = u64::from(u16_at(&header, 6)) + u64_at(&header, 8);
    if bytes > MOST_BYTES {
        return Err(Failure::new(
            code::INVALID_IMAGE,
            "the fatbin's size is damaged",
        ));
    }
    in_fatbin(Buffer::from_address(image.address()).read(bytes as usize)?)
}

/// Looks for PTX in a fatbin: a header of 16 bytes with its size, then entries, each with a header
/// that tells kind, sizes and flags. If several hold PTX, the newest target's is taken.
fn in_fatbin(bytes: &[u8]) -> Outcome<String> {
    let damaged = || Failure::new(code::INVALID_IMAGE, "the fatbin ends inside an entry");
    let mut at = usize::from(u16_at(bytes, 6));
    let end = (at + u64_at(bytes, 8) as usize).min(bytes.len());
    let (mut best, mut compressed, mut machine_code) = (None, false, false);
    while at + ENTRY_BYTES <= end {
        let entry = &bytes[at..end];
        let header = u32_at(entry, 4) as usize;
        let size = usize::try_from(u64_at(entry, 8)).map_err(|_| damaged())?;
        let next = header
            .checked_add(size)
            .filter(|&next| next > 0)
            .ok_or_else(damaged)?;
        let payload = entry.get(header..next).ok_or_else(damaged)?;
        match (u16_at(entry, 0), u64_at(entry, 40) & COMPRESSED) {
            (KIND_PTX, 0) => {
                let arch = u32_at(entry, 28);
                if best.as_ref().is_none_or(|&(newest, _)| arch > newest) {
                    best = Some((arch, payload));
                }
            }
            (KIND_PTX, _) => compressed = true,
            _ => machine_code = true,
        }
        at += next;
    }
    if let Some((_, payload)) = best {
        let text = payload.split(|&byte| byte == 0).next().unwrap_or_default();
        return String::from_utf8(text.to_vec())
            .map_err(|_| Failure::new(code::INVALID_PTX, "the PTX in the fatbin is no text"));
    }
    Err(Failure::new(
        code::NO_BINARY_FOR_GPU,
        if compressed {
            "the fatbin's PTX is compressed, which is not modelled: build with `nvcc \
             --no-compress`, or load PTX text"
        } else if machine_code {
            "a cubin cannot run on the virtual GPU: the fatbin holds machine code only; build it \
             with PTX (`-gencode arch=compute_90a,code=compute_90a`)"
        } else {
            "the fatbin holds no PTX"
        },
    ))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// Bytes of a header; zero where it ends.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at + N)
        .and_then(|field| field.try_into().ok())
        .unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u16, arch: u32, flags: u64, payload: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; ENTRY_BYTES];
        entry[..2].copy_from_slice(&kind.to_le_bytes());
        entry[4..8].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
        entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        entry[28..32].copy_from_slice(&arch.to_le_bytes());
        entry[40..48].copy_from_slice(&flags.to_le_bytes());
        entry.extend(payload);
        entry
    }

    fn fatbin_of(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut bytes = FATBIN.to_le_bytes().to_vec();
        bytes.extend([1, 0, 16, 0]);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn text_ends_with_nul_or_with_its_bytes() {
        assert_eq!(
            ptx(In::from_address(c".version 8.0".as_ptr() as usize)).unwrap(),
            ".version 8.0"
        );
        assert_eq!(ptx_in(b".version 8.0").unwrap(), ".version 8.0");
        assert_eq!(ptx(In::NULL).unwrap_err().code, code::INVALID_VALUE);
        assert_eq!(
            ptx_in(b"\xff\xfe\xfd\xfc").unwrap_err().code,
            code::INVALID_IMAGE
        );
    }

    #[test]
    fn the_newest_ptx_of_a_fatbin_is_found() {
        let code = entry(2, 90, 0, b"\x7fELF");
        let old = entry(KIND_PTX, 80, 0, b"old\0\0");
        let new = entry(KIND_PTX, 90, 0, b"new\0");
        let bytes = fatbin_of(&[code, old, new]);
        assert_eq!(ptx_in(&bytes).unwrap(), "new");
        let wrapper = [u64::from(WRAPPER) | 1 << 32, bytes.as_ptr() as u64, 0];
        assert_eq!(
            ptx(In::from_address(wrapper.as_ptr() as usize)).unwrap(),
            "new"
        );
    }

    #[test]
    fn an_image_without_ptx_says_what_it_is() {
        let cubin = ptx_in(b"\x7fELF\x02\x01\x01").unwrap_err();
        let packed = ptx_in(&fatbin_of(&[entry(KIND_PTX, 90, 0x2000, b"..")])).unwrap_err();
        let code_only = ptx_in(&fatbin_of(&[entry(2, 90, 0, b"\x7fELF")])).unwrap_err();
        for (failure, needle) in [
            (cubin, "a cubin cannot run"),
            (packed, "compressed"),
            (code_only, "machine code only"),
        ] {
            assert_eq!(failure.code, code::NO_BINARY_FOR_GPU);
            assert!(failure.message.unwrap().contains(needle));
        }
        let mut short = fatbin_of(&[entry(KIND_PTX, 90, 0, b"text")]);
        short.pop();
        short.pop();
        assert_eq!(ptx_in(&short).unwrap_err().code, code::INVALID_IMAGE);
    }
}
