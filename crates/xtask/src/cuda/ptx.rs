//! PTX as text: what makes it the same wherever it was compiled, and what is read from it.

/// What `.version` is set to: the compiler writes its own newest, which older drivers refuse,
/// although the instructions need no more than this.
pub const VERSION: &str = "8.0";

/// A note to the assembler which bytes of a vector load are used. It is newer than [`VERSION`], changes
/// no result, and stands on a line of its own.
const NEWER_PRAGMA: &str = ".pragma \"used_bytes_mask";

/// The text with [`VERSION`] in its `.version` directive, and without what is newer.
pub fn with_version(ptx: &str) -> String {
    ptx.split_inclusive('\n')
        .filter(|line| !line.trim_start().starts_with(NEWER_PRAGMA))
        .map(|line| match line.strip_prefix(".version ") {
            Some(rest) => {
                let number = rest.trim_end();
                format!(".version {VERSION}{}", &rest[number.len()..])
            }
            None => line.to_owned(),
        })
        .collect()
}

/// The text with the folders taken off the file names of its `.file` directives, so that it is the
/// same wherever it was compiled.
pub fn without_folders(ptx: &str) -> String {
    ptx.split_inclusive('\n')
        .flat_map(|line| {
            let path_at = match line.trim_start().starts_with(".file") {
                true => line.find('"').map(|quote| quote + 1),
                false => None,
            };
            let (head, rest) = line.split_at(path_at.unwrap_or(0));
            let folders = match path_at {
                Some(_) => rest.rfind(['/', '\\']).map_or(0, |slash| slash + 1),
                None => 0,
            };
            [head, &rest[folders..]]
        })
        .collect()
}

/// The text with zeros for the hash of the source's path that the compiler puts into the names of the
/// CUDA headers' static functions, `_INTERNAL_` and 8 digits. In PTX these names stand in the strings
/// of inlined functions alone, which are lists of bytes over several lines.
pub fn without_path_hashes(ptx: &str) -> String {
    const MARK: &[u8] = b"_INTERNAL_";
    const DIGITS: usize = 8;

    // Each byte of a string with the place of its number in the text.
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    let mut line_at = 0;
    for line in ptx.split_inclusive('\n') {
        if let Some(numbers) = line.strip_prefix(".b8 ") {
            let mut at = line_at + line.len() - numbers.len();
            for number in numbers.split(',') {
                if let Ok(byte) = number.trim_end().parse::<u8>() {
                    bytes.push(byte);
                    places.push(at..at + number.trim_end().len());
                }
                at += number.len() + 1;
            }
        }
        line_at += line.len();
    }

    let mut result = String::with_capacity(ptx.len());
    let mut copied = 0;
    for i in 0..bytes.len() {
        if !bytes[i..].starts_with(MARK) {
            continue;
        }
        for place in places.iter().skip(i + MARK.len()).take(DIGITS) {
            result.push_str(&ptx[copied..place.start]);
            result.push_str("48");
            copied = place.end;
        }
    }
    result.push_str(&ptx[copied..]);
    result
}

/// The architecture of the `.target` directive.
pub fn target_of(ptx: &str) -> Option<&str> {
    ptx.lines()
        .find_map(|line| line.trim_start().strip_prefix(".target"))
        .and_then(|rest| rest.split([',', ' ', '\t']).find(|word| !word.is_empty()))
}

/// An `.entry` of a module.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Threads of a block at most, where the source bounds them.
    pub max_threads: Option<u32>,
}

/// The entries of a module, in its order.
pub fn entries(ptx: &str) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in ptx.lines() {
        let words: Vec<&str> = line
            .split([' ', '\t', ',', '(', ')'])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [".visible" | ".weak", ".entry", name, ..] | [".entry", name, ..] => {
                entries.push(Entry {
                    name,
                    max_threads: None,
                });
            }
            [".maxntid", extents @ ..] => {
                if let Some(entry) = entries.last_mut() {
                    entry.max_threads = extents.iter().map(|n| n.parse::<u32>().ok()).product();
                }
            }
            _ => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_directives_lose_their_folders() {
        let ptx = "\t.file\t1 \"/a/b/x.cu\"\n.file 2 \"y.cuh\"\n.loc\t1 2 3\n// \"/a/b\"\n";
        assert_eq!(
            without_folders(ptx),
            "\t.file\t1 \"x.cu\"\n.file 2 \"y.cuh\"\n.loc\t1 2 3\n// \"/a/b\"\n"
        );
        assert_eq!(without_folders("\t.file"), "\t.file");
        assert_eq!(without_folders(""), "");
    }

    #[test]
    fn hashes_of_paths_become_zeros_also_across_lines() {
        let string = |text: &str| {
            let numbers: Vec<String> = text.bytes().map(|b| b.to_string()).collect();
            let (head, tail) = numbers.split_at(numbers.len() / 2);
            format!("$L:\n.b8 {}\n.b8 {},0\n", head.join(","), tail.join(","))
        };
        assert_eq!(
            without_path_hashes(&string("_ZN44_INTERNAL_b610a19e_13_gemm")),
            string("_ZN44_INTERNAL_00000000_13_gemm")
        );
        let other = string("_ZN3ptx7lane_idEv") + "\tmov.u32 %r1, 5;\n.b8 x[4];\n";
        assert_eq!(without_path_hashes(&other), other);
        assert_eq!(without_path_hashes(".b8 "), ".b8 ");
    }

    #[test]
    fn the_target_is_the_first_word_of_its_directive() {
        assert_eq!(target_of(".version 9.0\n.target sm_90a\n"), Some("sm_90a"));
        assert_eq!(target_of("\t.target\tsm_80, debug\n"), Some("sm_80"));
        assert_eq!(target_of("ret;\n"), None);
    }

    #[test]
    fn the_version_is_lowered_and_what_is_newer_left_out() {
        assert_eq!(
            with_version(
                "// .version 9.0\n.version 9.0\r\n.target sm_80\n\t.pragma \"used_bytes_mask 15\";\n"
            ),
            "// .version 9.0\n.version 8.0\r\n.target sm_80\n"
        );
    }

    #[test]
    fn entries_come_with_the_bound_of_their_blocks() {
        let ptx = ".visible .entry a(\n\t.param .u64 a_param_0\n)\n.maxntid 32, 8, 1\n{\n}\n\
                   .visible .entry b()\n{\n}\n.entry c(\n)\n.maxntid 256\n{\n}\n";
        let expected = [("a", Some(256)), ("b", None), ("c", Some(256))];
        let expected = expected.map(|(name, max_threads)| Entry { name, max_threads });
        assert_eq!(entries(ptx), expected);
    }
}
