//! Modules: PTX loaded on a device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::machine::{Machine, Shared, lock};
use super::occupancy::{product, registers};
use super::place::Placed;
use super::{Error, Result};
use crate::machine::{Arch, SHARED_PER_BLOCK, THREADS_PER_BLOCK};
use crate::program::{EntryParam, LoadError, Program, assemble};
use crate::ptx;

/// First bytes of an ELF file: a cubin.
const ELF: &[u8] = b"\x7fELF";
/// First bytes of a fatbin, and of the wrapper that nvcc puts around one.
const FATBIN: [[u8; 4]; 2] = [0xBA55_ED50_u32.to_le_bytes(), 0x4662_43B1_u32.to_le_bytes()];

/// A module on a device. Clones are the same module.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    machine: Weak<Shared>,
    device: u32,
    arch: Arch,
    version: (u32, u32),
    target: String,
    functions: BTreeMap<String, Arc<Entry>>,
    placed: Placed,
    unloaded: AtomicBool,
}

/// A kernel of a module, and what was set about it.
struct Entry {
    program: Arc<Program>,
    settings: Mutex<Settings>,
}

#[derive(Clone, Copy)]
struct Settings {
    max_dynamic_shared: u32,
    carveout: i32,
    cluster: Option<[u32; 3]>,
    non_portable: bool,
}

/// A kernel of a module. Clones are the same kernel: what is set about one is set about all.
#[derive(Clone)]
pub struct Function {
    module: Module,
    entry: Arc<Entry>,
}

/// What is known of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Threads of a block at most.
    pub max_threads_per_block: u32,
    /// Bytes of shared memory that it declares.
    pub static_shared: u32,
    /// Bytes of constant memory of its module.
    pub const_bytes: u32,
    /// Bytes of local memory of a thread.
    pub local_bytes: u32,
    /// 32-bit registers of a thread: as declared, or estimated.
    pub registers: u32,
    /// `.version`, times 10.
    pub ptx_version: u32,
    /// Compute capability of the device that it was decoded for, times 10.
    pub binary_version: u32,
    /// Bytes of dynamic shared memory of a launch at most.
    pub max_dynamic_shared: u32,
    /// Share of shared memory that is preferred, in percent; -1: none is. Changes nothing.
    pub preferred_carveout: i32,
    /// Blocks of a cluster, as declared or set.
    pub cluster: Option<[u32; 3]>,
    /// Whether a launch must say how large its clusters are.
    pub cluster_must_be_set: bool,
    /// Whether clusters of more than 8 blocks are allowed.
    pub non_portable_cluster: bool,
}

impl Machine {
    /// Loads PTX on a device: places its variables and decodes its kernels.
    ///
    /// # Errors
    /// A text that is not PTX, uses anything that is unknown, is for another architecture, or needs more
    /// memory than there is.
    pub fn load(&self, device: u32, text: &str) -> Result<Module> {
        refuse_binary(text.as_bytes())?;
        self.shared.queues().healthy(device)?;
        let module = ptx::parse(text)?;
        let arch = self.arch();
        if !arch.runs(&module.target) {
            return Err(Error::WrongArch {
                target: module.target,
                arch: arch.name,
            });
        }
        let placed = self.place(device, &module, text)?;
        let entries = module.functions.iter().filter(|f| f.is_entry);
        let mut functions = BTreeMap::new();
        for entry in entries.filter(|entry| entry.body.is_some()) {
            let decoded = assemble(&module, text, entry, placed.globals());
            let checked = decoded.and_then(|program| check_size(program, arch, entry.line));
            let program = match checked {
                Ok(program) => program,
                Err(error) => {
                    self.unplace(&placed);
                    return Err(error.into());
                }
            };
            let settings = Settings {
                max_dynamic_shared: SHARED_PER_BLOCK.saturating_sub(program.static_shared),
                carveout: -1,
                cluster: program.directives.required_cluster,
                non_portable: false,
            };
            let entry = Entry {
                program: Arc::new(program),
                settings: Mutex::new(settings),
            };
            functions.insert(entry.program.name.to_string(), Arc::new(entry));
        }
        Ok(Module(Arc::new(Loaded {
            machine: Arc::downgrade(&self.shared),
            device,
            arch,
            version: module.version,
            target: module.target,
            functions,
            placed,
            unloaded: AtomicBool::new(false),
        })))
    }

    /// As [`Self::load`], of bytes as a program hands them to the driver: text that may end with a zero
    /// byte. Machine code is told from it.
    ///
    /// # Errors
    /// As [`Self::load`]; a cubin or fatbin; text that is not UTF-8.
    pub fn load_bytes(&self, device: u32, bytes: &[u8]) -> Result<Module> {
        refuse_binary(bytes)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        let text = std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())])
            .map_err(|error| Error::NotPtx(format!("the module is not text: {error}")))?;
        self.load(device, text)
    }

    /// Unloads a module: its variables are gone, and its functions cannot be launched any more. Waits
    /// for the work of its device first.
    ///
    /// # Errors
    /// A module that is unloaded, or of another machine; a fault of the device.
    pub fn unload(&self, module: &Module) -> Result<()> {
        self.owns_module(module)?;
        self.synchronize_device(module.device())?;
        if module.0.unloaded.swap(true, Ordering::AcqRel) {
            return Err(Error::InvalidHandle("the module was unloaded".to_owned()));
        }
        self.unplace(&module.0.placed);
        Ok(())
    }

    fn owns_module(&self, module: &Module) -> Result<()> {
        if !self.same_as(&module.0.machine) {
            return Err(Error::InvalidHandle(
                "the module is of another machine".to_owned(),
            ));
        }
        if module.0.unloaded.load(Ordering::Acquire) {
            return Err(Error::InvalidHandle("the module was unloaded".to_owned()));
        }
        Ok(())
    }

    pub(super) fn owns(&self, function: &Function) -> Result<()> {
        self.owns_module(&function.module)
    }
}

fn refuse_binary(bytes: &[u8]) -> Result<()> {
    let what = if bytes.starts_with(ELF) {
        "a cubin"
    } else if FATBIN.iter().any(|magic| bytes.starts_with(magic)) {
        "a fatbin"
    } else if bytes
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || *byte == 0)
    {
        return Err(Error::NotPtx("the module is empty".to_owned()));
    } else {
        return Ok(());
    };
    Err(Error::NotPtx(format!(
        "the module is {what}, which holds machine code; this device runs PTX: compile with `nvcc -ptx`"
    )))
}

/// Static shared memory beyond the limit is an error of ptxas.
fn check_size(program: Program, arch: Arch, line: u32) -> Result<Program, LoadError> {
    let most = SHARED_PER_BLOCK.min(arch.shared_per_block_optin);
    if program.static_shared > most {
        return Err(LoadError {
            line,
            text: format!(".entry {}", program.name),
            message: format!(
                "{} bytes of static shared memory; {most} at most (dynamic shared memory may be more)",
                program.static_shared
            ),
        });
    }
    Ok(program)
}

impl Module {
    /// A kernel by its name.
    ///
    /// # Errors
    /// None has it; the error lists those there are.
    pub fn function(&self, name: &str) -> Result<Function> {
        match self.0.functions.get(name) {
            Some(entry) => Ok(Function {
                module: self.clone(),
                entry: Arc::clone(entry),
            }),
            None => Err(Error::NotFound {
                what: "function",
                name: name.to_owned(),
                known: self.0.functions.keys().cloned().collect(),
            }),
        }
    }

    /// All kernels, by name.
    pub fn functions(&self) -> Vec<Function> {
        let entries = self.0.functions.values();
        entries
            .map(|entry| Function {
                module: self.clone(),
                entry: Arc::clone(entry),
            })
            .collect()
    }

    /// Address and bytes of a `.global` or `.const` variable.
    ///
    /// # Errors
    /// None has the name; the error lists those there are.
    pub fn global(&self, name: &str) -> Result<(u64, u64)> {
        self.0.placed.find(name).ok_or_else(|| Error::NotFound {
            what: "variable",
            name: name.to_owned(),
            known: self.globals(),
        })
    }

    /// Names of the `.global` and `.const` variables.
    pub fn globals(&self) -> Vec<String> {
        self.0.placed.names()
    }

    /// Its device.
    pub fn device(&self) -> u32 {
        self.0.device
    }

    /// `.version`, as (major, minor).
    pub fn version(&self) -> (u32, u32) {
        self.0.version
    }

    /// `.target`, such as `sm_90a`.
    pub fn target(&self) -> &str {
        &self.0.target
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("device", &self.0.device)
            .field("functions", &self.0.functions.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Function({} on device {})", self.name(), self.device())
    }
}

impl Function {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.entry.program.name
    }

    /// Its device.
    pub fn device(&self) -> u32 {
        self.module.0.device
    }

    /// Its module.
    pub fn module(&self) -> Module {
        self.module.clone()
    }

    /// The decoded kernel.
    pub fn program(&self) -> &Arc<Program> {
        &self.entry.program
    }

    pub(super) fn arch(&self) -> Arch {
        self.module.0.arch
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[EntryParam] {
        &self.entry.program.params
    }

    /// What is known of it.
    pub fn attributes(&self) -> Attributes {
        let program = &self.entry.program;
        let settings = *lock(&self.entry.settings);
        let directives = &program.directives;
        let declared = directives.required_threads.or(directives.max_threads);
        let most = declared.map_or(u64::from(THREADS_PER_BLOCK), product);
        let most = most.min(u64::from(THREADS_PER_BLOCK)) as u32;
        let (major, minor) = self.module.0.version;
        let arch = self.module.0.arch;
        Attributes {
            max_threads_per_block: match directives.max_registers {
                Some(count) if count > 0 => {
                    most.min(arch.registers_per_sm / count.next_multiple_of(8) / 32 * 32)
                }
                _ => most,
            },
            static_shared: program.static_shared,
            const_bytes: self.module.0.placed.const_bytes(),
            local_bytes: program.local_bytes,
            registers: registers(program, arch, most),
            ptx_version: major * 10 + minor,
            binary_version: arch.capability.0 * 10 + arch.capability.1,
            max_dynamic_shared: settings.max_dynamic_shared,
            preferred_carveout: settings.carveout,
            cluster: settings.cluster,
            cluster_must_be_set: directives.explicit_cluster,
            non_portable_cluster: settings.non_portable,
        }
    }

    /// Allows launches with up to `bytes` bytes of dynamic shared memory: the opt-in above 48 KiB.
    ///
    /// # Errors
    /// More than the architecture has for a block.
    pub fn set_max_dynamic_shared(&self, bytes: u32) -> Result<()> {
        let arch = self.module.0.arch;
        let most = arch.shared_per_block_optin;
        let fixed = self.entry.program.static_shared;
        if u64::from(bytes) + u64::from(fixed) > u64::from(most) {
            return Err(Error::InvalidValue(format!(
                "{bytes} bytes of dynamic shared memory with {fixed} static ones; {} allows {most} \
                 together",
                arch.name
            )));
        }
        lock(&self.entry.settings).max_dynamic_shared = bytes;
        Ok(())
    }

    /// Sets how large its clusters are when a launch does not say so.
    ///
    /// # Errors
    /// A size of 0, or another one than the kernel requires.
    pub fn set_cluster_dims(&self, cluster: [u32; 3]) -> Result<()> {
        let required = self.entry.program.directives.required_cluster;
        if cluster.contains(&0) || required.is_some_and(|required| required != cluster) {
            return Err(Error::InvalidValue(format!(
                "a cluster of {cluster:?} blocks for {}",
                self.name()
            )));
        }
        lock(&self.entry.settings).cluster = Some(cluster);
        Ok(())
    }

    /// Allows clusters of more than 8 blocks, which not every device has.
    ///
    /// # Errors
    /// An architecture without clusters.
    pub fn allow_non_portable_cluster(&self, allow: bool) -> Result<()> {
        let arch = self.module.0.arch;
        if allow && arch.cluster_blocks == 0 {
            return Err(Error::InvalidValue(format!(
                "{} has no clusters",
                arch.name
            )));
        }
        lock(&self.entry.settings).non_portable = allow;
        Ok(())
    }

    /// Keeps the share of shared memory that is preferred, in percent, or -1. It changes nothing.
    ///
    /// # Errors
    /// A share that is not -1 to 100.
    pub fn set_preferred_carveout(&self, percent: i32) -> Result<()> {
        if !(-1..=100).contains(&percent) {
            return Err(Error::InvalidValue(format!(
                "a carveout of {percent} percent; -1 to 100 are possible"
            )));
        }
        lock(&self.entry.settings).carveout = percent;
        Ok(())
    }
}
