//! The PTX that the virtual GPU's tests run: compiled from the sources beside it, by a pinned compiler
//! that is installed when it is missing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Sources and PTX, from the workspace's root.
const KERNELS: &str = "crates/vgpu/tests/kernels";
/// The compiler's virtual environment and everything made on the way, from the workspace's root.
const WORKPLACE: &str = "target/cuda";
/// Pinned together: a lone pin of the compiler pulls newer parts, whose PTX it does not understand.
const PACKAGES: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
];
/// Sources whose name ends so use what only sm_90a has; all others are compiled for sm_80.
const HOPPER_SUFFIX: &str = "_sm90a";

/// What to do with PTX that differs from the file beside its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDifference {
    /// Write the file.
    Write,
    /// Fail, and write nothing among the sources.
    Fail,
}

/// Compiles every source, compares or writes its PTX, and assembles every PTX file, also those
/// written by hand.
///
/// # Errors
/// What could not be installed, compiled or assembled; register spills; with
/// [`OnDifference::Fail`] which files differ.
pub fn run(root: &Path, on_difference: OnDifference) -> Result<String, String> {
    let compiler = Compiler::installed(&root.join(WORKPLACE))?;
    let kernels = root.join(KERNELS);
    let sources = files_with_extension(&kernels, "cu")?;
    if sources.is_empty() {
        return Err(format!("{KERNELS} holds no .cu file"));
    }

    let mut differing = Vec::new();
    for source in &sources {
        let ptx = compiler.compile(source)?;
        let beside = source.with_extension("ptx");
        if read_if_present(&beside)?.as_deref() == Some(ptx.as_str()) {
            continue;
        }
        if on_difference == OnDifference::Write {
            fs::write(&beside, &ptx).map_err(|e| format!("{}: {e}", beside.display()))?;
        }
        differing.push(name_of(&beside));
    }
    if on_difference == OnDifference::Fail && !differing.is_empty() {
        return Err(format!(
            "not what its source compiles to: {}; run cargo xtask vgpu-kernels",
            differing.join(", ")
        ));
    }

    let modules = files_with_extension(&kernels, "ptx")?;
    for module in &modules {
        compiler.assemble(module)?;
    }
    Ok(format!(
        "{} sources compiled, {} written; {} PTX files assembled without spills",
        sources.len(),
        differing.len(),
        modules.len()
    ))
}

/// The installed programs and a folder for what they write.
struct Compiler {
    programs: PathBuf,
    output: PathBuf,
}

impl Compiler {
    /// Makes the virtual environment, unless one with the same packages is there.
    fn installed(workplace: &Path) -> Result<Self, String> {
        let environment = workplace.join("venv");
        let stamp = workplace.join("packages.txt");
        let wanted = PACKAGES.join("\n");
        if read_if_present(&stamp)?.as_deref() != Some(wanted.as_str()) {
            println!("installing the compiler into {}", workplace.display());
            fs::create_dir_all(workplace).map_err(|e| format!("{}: {e}", workplace.display()))?;
            run_program(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&environment),
            )?;
            run_program(
                Command::new(environment.join("bin/python"))
                    .args(["-m", "pip", "install", "--quiet"])
                    .args(["--disable-pip-version-check", "--no-deps"])
                    .args(PACKAGES),
            )?;
            // Last, so that an installation that broke off is made anew.
            fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
        }
        let output = workplace.join("output");
        fs::create_dir_all(&output).map_err(|e| format!("{}: {e}", output.display()))?;
        Ok(Self {
            programs: programs_of(&environment)?,
            output,
        })
    }

    /// The PTX of a source, as it is to lie beside it.
    fn compile(&self, source: &Path) -> Result<String, String> {
        let output = self.output.join(name_of(&source.with_extension("ptx")));
        let arch = if stem_of(source).ends_with(HOPPER_SUFFIX) {
            "-arch=compute_90a"
        } else {
            "-arch=compute_80"
        };
        run_program(
            Command::new(self.programs.join("nvcc"))
                .args(["-std=c++17", "-O3", "-ptx", "-lineinfo", arch])
                .args(["-Werror", "all-warnings"])
                .arg(source)
                .arg("-o")
                .arg(&output),
        )?;
        let ptx = fs::read_to_string(&output).map_err(|e| format!("{}: {e}", output.display()))?;
        Ok(without_path_hashes(&without_folders(&ptx)))
    }

    /// Fails on errors, warnings, register spills and wgmma or setmaxnreg that is not taken as written.
    fn assemble(&self, module: &Path) -> Result<(), String> {
        let ptx = fs::read_to_string(module).map_err(|e| format!("{}: {e}", module.display()))?;
        let target =
            target_of(&ptx).ok_or_else(|| format!("{}: no .target directive", module.display()))?;
        let messages = run_program(
            Command::new(self.programs.join("ptxas"))
                .arg(format!("-arch={target}"))
                .args(["-v", "-warn-spills", "-Werror"])
                .arg(module)
                .arg("-o")
                .arg(self.output.join(name_of(&module.with_extension("cubin")))),
        )?;
        match messages.lines().find(|line| line.contains("(C75")) {
            Some(line) => Err(format!("{}: {line}", module.display())),
            None => Ok(()),
        }
    }
}

/// The folder of nvcc and ptxas, whichever the version of Python.
fn programs_of(environment: &Path) -> Result<PathBuf, String> {
    let library = environment.join("lib");
    let pythons = fs::read_dir(&library).map_err(|e| format!("{}: {e}", library.display()))?;
    pythons
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/nvidia/cu13/bin")))
        .find(|programs| programs.join("nvcc").is_file())
        .ok_or_else(|| format!("no nvcc in {}", environment.display()))
}

/// What a program printed to both streams; a failure tells the command and what it printed.
fn run_program(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let text = [output.stdout, output.stderr]
        .iter()
        .map(|stream| String::from_utf8_lossy(stream))
        .collect::<String>();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?}: {}\n{text}", output.status))
    }
}

/// The text with the folders taken off the file names of its `.file` directives, so that it is the
/// same wherever it was compiled.
fn without_folders(ptx: &str) -> String {
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
fn without_path_hashes(ptx: &str) -> String {
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
fn target_of(ptx: &str) -> Option<&str> {
    ptx.lines()
        .find_map(|line| line.trim_start().strip_prefix(".target"))
        .and_then(|rest| rest.split([',', ' ', '\t']).find(|word| !word.is_empty()))
}

/// Sorted, so that messages come in the same order everywhere.
fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some(OsStr::new(extension)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_if_present(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn stem_of(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
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
    fn every_source_has_its_ptx_and_no_ptx_names_a_folder() {
        let kernels = crate::root().join(KERNELS);
        let sources = files_with_extension(&kernels, "cu").unwrap();
        assert!(!sources.is_empty());
        for source in sources {
            let beside = source.with_extension("ptx");
            let ptx = fs::read_to_string(&beside).unwrap();
            let bare = without_path_hashes(&without_folders(&ptx));
            assert_eq!(bare, ptx, "{}", beside.display());
            let hopper = stem_of(&source).ends_with(HOPPER_SUFFIX);
            let target = if hopper { "sm_90a" } else { "sm_80" };
            assert_eq!(target_of(&ptx), Some(target), "{}", beside.display());
        }
    }

    #[test]
    fn a_program_that_fails_or_is_absent_is_named() {
        let error = run_program(Command::new("cargo").arg("no-such-subcommand")).unwrap_err();
        assert!(error.contains("no-such-subcommand"), "{error}");
        let error = run_program(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.contains("no-such-program"), "{error}");
    }
}
