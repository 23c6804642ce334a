//! A pinned compiler from the Python package index, installed when it is missing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ptx;
use super::resources::{self, Resources};
use crate::{files, program};

/// The compiler's virtual environment and everything made on the way, from the workspace's root.
const WORKPLACE: &str = "target/cuda";

/// Pinned together: a lone pin of the compiler pulls newer parts, whose PTX it does not understand.
/// The disassembler exists from 13.2 on, and reads what earlier compilers write.
pub const PACKAGES: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-cuobjdump==13.2.78",
    "nvidia-cuda-nvdisasm==13.2.78",
];

/// How sources are compiled, without the architecture and the folders.
pub const NVCC_FLAGS: &[&str] = &[
    "-std=c++17",
    "-O3",
    "-ptx",
    "-lineinfo",
    "-Werror",
    "all-warnings",
];

/// How PTX is assembled, without the architecture.
pub const PTXAS_FLAGS: &[&str] = &["-v", "-warn-spills", "-Werror"];

/// Whether kernels may hold arrays in local memory. Register spills are refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalMemory {
    /// They may.
    Accept,
    /// They may not.
    Refuse,
}

impl LocalMemory {
    /// The flag for it.
    pub const REFUSING_FLAG: &str = "-warn-lmem-usage";
}

/// The installed programs and a folder for what they write. While one exists, every other command
/// that wants the compiler of this workspace waits.
pub struct Compiler {
    programs: PathBuf,
    output: PathBuf,
    _lock: File,
}

impl Compiler {
    /// Makes the virtual environment in the workspace at `root`, unless one with the same packages is
    /// there.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn installed(root: &Path) -> Result<Self, String> {
        let workplace = root.join(WORKPLACE);
        files::create_folder(&workplace)?;
        let lock = lock(&workplace)?;
        let environment = workplace.join("venv");
        let stamp = workplace.join("packages.txt");
        let wanted = PACKAGES.join("\n");
        if files::read_if_present(&stamp)?.as_deref() != Some(wanted.as_str()) {
            println!("installing the compiler into {WORKPLACE}");
            // First, so that an installation that breaks off is made anew.
            if stamp.exists() {
                fs::remove_file(&stamp).map_err(|e| format!("{}: {e}", stamp.display()))?;
            }
            install(&environment).map_err(|e| {
                format!(
                    "the compiler could not be installed into {WORKPLACE}; this needs python3 with \
                     its venv module, and the Python package index\n{e}"
                )
            })?;
            files::write(&stamp, wanted)?;
        }
        let output = workplace.join("output");
        files::create_folder(&output)?;
        Ok(Self {
            programs: programs_of(&environment)?,
            output,
            _lock: lock,
        })
    }

    /// A place for a file made on the way.
    pub fn output(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// The PTX of a source for a virtual architecture such as `compute_80`, the same wherever it is
    /// compiled. Includes are looked for in `include` too.
    ///
    /// # Errors
    /// The compiler's errors and warnings.
    pub fn compile(
        &self,
        source: &Path,
        arch: &str,
        include: Option<&Path>,
    ) -> Result<String, String> {
        let family = source.parent().map(files::name_of).unwrap_or_default();
        let stem = files::stem_of(source);
        let output = self.output(&format!("{family}.{stem}.{arch}.ptx"));
        let mut command = Command::new(self.programs.join("nvcc"));
        command.args(NVCC_FLAGS).arg(format!("-arch={arch}"));
        if let Some(include) = include {
            command.arg("-I").arg(include);
        }
        words(command.arg(source).arg("-o").arg(&output))?;
        let text = files::read(&output)?;
        Ok(ptx::without_path_hashes(&ptx::without_folders(&text)))
    }

    /// Assembles PTX for a real architecture such as `sm_80` and says what each entry needs.
    ///
    /// # Errors
    /// Errors and warnings; register spills, and local memory where it is refused; wgmma or setmaxnreg
    /// that is not taken as written.
    pub fn assemble(
        &self,
        module: &Path,
        arch: &str,
        cubin: &Path,
        local_memory: LocalMemory,
    ) -> Result<Vec<Resources>, String> {
        let mut command = Command::new(self.programs.join("ptxas"));
        command.args(PTXAS_FLAGS).arg(format!("-arch={arch}"));
        if local_memory == LocalMemory::Refuse {
            command.arg(LocalMemory::REFUSING_FLAG);
        }
        words(command.arg(module).arg("-o").arg(cubin))
            .and_then(|messages| resources::parse(&messages, local_memory))
            .map_err(|e| format!("{} for {arch}: {e}", module.display()))
    }

    /// The instructions of an assembled module, as text.
    ///
    /// # Errors
    /// The disassembler's.
    pub fn disassemble(&self, cubin: &Path) -> Result<String, String> {
        words(
            Command::new(self.programs.join("cuobjdump"))
                // It runs nvdisasm by its name.
                .env("PATH", &self.programs)
                .arg("-sass")
                .arg(cubin),
        )
    }
}

/// What a program of the compiler printed. Its own words tell what is wrong; the command would hide them.
fn words(command: &mut Command) -> Result<String, String> {
    let (status, text) = program::output(command)?;
    match (status.success(), text.trim()) {
        (true, _) => Ok(text),
        (false, "") => Err(format!("{command:?}: {status}")),
        (false, words) => Err(format!("\n{words}")),
    }
}

/// Waits for other commands that use the workplace.
fn lock(workplace: &Path) -> Result<File, String> {
    let path = workplace.join("lock");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = File::create(&path).map_err(failed)?;
    if file.try_lock().is_err() {
        println!("waiting for another command that uses {WORKPLACE}");
        file.lock().map_err(failed)?;
    }
    Ok(file)
}

fn install(environment: &Path) -> Result<(), String> {
    program::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )?;
    program::run(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--no-deps"])
            .args(PACKAGES),
    )?;
    Ok(())
}

/// The folder of nvcc and ptxas, whichever the version of Python.
fn programs_of(environment: &Path) -> Result<PathBuf, String> {
    files::children(&environment.join("lib"))?
        .into_iter()
        .map(|python| python.join("site-packages/nvidia/cu13/bin"))
        .find(|programs| programs.join("nvcc").is_file())
        .ok_or_else(|| {
            format!(
                "no nvcc in {}; remove the folder and run again",
                environment.display()
            )
        })
}
