//! What `ptxas -v` says of each entry.

use super::LocalMemory;

/// What an entry needs on one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The entry's name.
    pub entry: String,
    /// Registers a thread.
    pub registers: u32,
    /// Static shared memory a block, in bytes.
    pub shared_bytes: u32,
    /// Stack a thread, in bytes.
    pub stack_bytes: u32,
    /// Spilled registers a thread, stores and loads, in bytes.
    pub spill_bytes: u32,
    /// Barriers a block.
    pub barriers: u32,
}

/// Reads the messages of one module. Entries come sorted by name.
///
/// # Errors
/// Spills, refused local memory, notes that wgmma or setmaxnreg is not taken as written, and messages
/// that are not understood.
pub fn parse(messages: &str, local_memory: LocalMemory) -> Result<Vec<Resources>, String> {
    if let Some(line) = messages.lines().find(|line| line.contains("(C75")) {
        return Err(format!(
            "an instruction is not taken as written: {}",
            line.trim()
        ));
    }
    let mut found: Vec<Resources> = Vec::new();
    // Functions that were not inlined have lines of their own, which speak of no entry.
    let mut of_entry = false;
    for line in messages.lines() {
        if let Some(rest) = after(line, "Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources {
                entry,
                ..Resources::default()
            });
            of_entry = true;
        } else if let Some(name) = after(line, "Function properties for ") {
            of_entry = found.last().is_some_and(|last| last.entry == name.trim());
        } else if line.contains("bytes stack frame") {
            let stack_bytes = number_before(line, " bytes stack frame")?;
            let spill_bytes = number_before(line, " bytes spill stores")?
                + number_before(line, " bytes spill loads")?;
            refuse(&found, stack_bytes, spill_bytes, local_memory)?;
            if let Some(last) = found.last_mut().filter(|_| of_entry) {
                (last.stack_bytes, last.spill_bytes) = (stack_bytes, spill_bytes);
            }
        } else if let (Some(rest), Some(last)) = (after(line, "Used "), found.last_mut()) {
            for part in rest.split(',').map(str::trim) {
                // Others, such as the size of the constant banks, differ by driver and not by kernel.
                if part.ends_with(" registers") {
                    last.registers = number_before(part, " registers")?;
                } else if part.ends_with(" barriers") {
                    last.barriers = number_before(part, " barriers")?;
                } else if part.ends_with(" bytes smem") {
                    last.shared_bytes = number_before(part, " bytes smem")?;
                } else if part.ends_with(" bytes lmem") && local_memory == LocalMemory::Refuse {
                    return Err(format!("{}: local memory: {part}", last.entry));
                }
            }
        }
    }
    if let Some(unknown) = found.iter().find(|r| r.registers == 0) {
        return Err(format!("ptxas told no registers of {}", unknown.entry));
    }
    found.sort_by(|a, b| a.entry.cmp(&b.entry));
    Ok(found)
}

fn refuse(
    found: &[Resources],
    stack_bytes: u32,
    spill_bytes: u32,
    local_memory: LocalMemory,
) -> Result<(), String> {
    let entry = found.last().map_or("", |last| &last.entry);
    if spill_bytes > 0 {
        return Err(format!("{entry}: {spill_bytes} bytes of register spills"));
    }
    if stack_bytes > 0 && local_memory == LocalMemory::Refuse {
        return Err(format!("{entry}: a stack of {stack_bytes} bytes"));
    }
    Ok(())
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest)
}

/// The number that ends where `mark` begins.
fn number_before(line: &str, mark: &str) -> Result<u32, String> {
    line.split_once(mark)
        .and_then(|(head, _)| head.rsplit([' ', ',']).next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("no number before '{}' in '{}'", mark.trim(), line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'zeta' for 'sm_80'
ptxas info    : Function properties for zeta
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 256 bytes smem, 360 bytes cmem[0]
ptxas info    : Compile time = 2.328 ms
ptxas info    : Function properties for _Z1ff
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'alpha' for 'sm_80'
ptxas info    : Function properties for alpha
    80 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers, 80 bytes cumulative stack size
";

    #[test]
    fn entries_come_sorted_with_what_they_need() {
        let found = parse(MESSAGES, LocalMemory::Accept).unwrap();
        let alpha = Resources {
            entry: "alpha".into(),
            registers: 168,
            shared_bytes: 0,
            stack_bytes: 80,
            spill_bytes: 0,
            barriers: 16,
        };
        let zeta = Resources {
            entry: "zeta".into(),
            registers: 14,
            shared_bytes: 256,
            stack_bytes: 0,
            spill_bytes: 0,
            barriers: 1,
        };
        assert_eq!(found, [alpha, zeta]);
    }

    #[test]
    fn local_memory_spills_and_ignored_instructions_are_refused() {
        let error = parse(MESSAGES, LocalMemory::Refuse).unwrap_err();
        assert_eq!(error, "alpha: a stack of 80 bytes");
        let spilling = MESSAGES.replace("0 bytes spill loads", "8 bytes spill loads");
        let error = parse(&spilling, LocalMemory::Accept).unwrap_err();
        assert_eq!(error, "zeta: 8 bytes of register spills");
        let note = "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored\n";
        let error = parse(note, LocalMemory::Accept).unwrap_err();
        assert!(error.contains("(C7508)"), "{error}");
    }

    #[test]
    fn messages_of_another_form_are_errors_not_zeros() {
        let cut = MESSAGES.replace("Used 14 registers, used", "Uses");
        assert!(parse(&cut, LocalMemory::Accept).is_err());
        let odd = MESSAGES.replace("0 bytes stack frame", "no bytes stack frame");
        assert!(parse(&odd, LocalMemory::Accept).is_err());
        assert_eq!(parse("", LocalMemory::Refuse), Ok(Vec::new()));
    }
}
