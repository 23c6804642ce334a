//! `kernels/prebuilt/MANIFEST.toml`: what the prebuilt PTX was made from, and what it needs.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::cuda::resources::Resources;
use crate::cuda::sass::Sass;
use crate::cuda::{LocalMemory, NVCC_FLAGS, PACKAGES, PTXAS_FLAGS, ptx};

/// To be raised when other PTX or another manifest is made from the same output of the compiler.
const FORMAT: u32 = 1;

const COMMENT: &str = "\
# Written by `cargo xtask kernels`: what each file under prebuilt/ was made from, and what it needs.
#
# source_sha256 covers the source and every header of include/ that it includes; sha256 is the file's.
# Line ends do not count. Registers, stack and spills are a thread's, shared memory and barriers a
# block's; instructions are counted in the assembled code, without padding.
";

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What everything was compiled with.
    pub compiler: Toolchain,
    /// By name.
    #[serde(default, rename = "module")]
    pub modules: Vec<Module>,
}

/// The compiler and how it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    format: u32,
    packages: Vec<String>,
    nvcc: String,
    ptxas: String,
    ptx_version: String,
}

impl Toolchain {
    /// The one in use.
    pub fn current() -> Self {
        Self {
            format: FORMAT,
            packages: PACKAGES.iter().map(|&package| package.to_owned()).collect(),
            nvcc: NVCC_FLAGS.join(" "),
            ptxas: format!("{} {}", PTXAS_FLAGS.join(" "), LocalMemory::REFUSING_FLAG),
            ptx_version: ptx::VERSION.to_owned(),
        }
    }
}

/// A source with what was made from it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// `family/name`.
    pub name: String,
    /// From the package's folder.
    pub source: String,
    /// Over the source and what it includes.
    pub source_sha256: String,
    /// One file each.
    #[serde(default, rename = "image")]
    pub images: Vec<Image>,
}

/// A file of PTX.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// From `prebuilt/`.
    pub file: String,
    /// The file's.
    pub sha256: String,
    /// By name.
    #[serde(default, rename = "entry")]
    pub entries: Vec<Entry>,
}

/// An entry of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As in PTX.
    pub name: String,
    /// Threads of a block at most, where the source bounds them.
    pub max_threads: Option<u32>,
    /// By architecture.
    pub resources: Vec<ArchResources>,
    /// By architecture.
    pub sass: Vec<ArchSass>,
}

/// What an entry needs on one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchResources {
    arch: String,
    registers: u32,
    shared_bytes: u32,
    stack_bytes: u32,
    spill_bytes: u32,
    barriers: u32,
}

impl ArchResources {
    /// With the architecture's name.
    pub fn new(arch: &str, r: &Resources) -> Self {
        Self {
            arch: arch.to_owned(),
            registers: r.registers,
            shared_bytes: r.shared_bytes,
            stack_bytes: r.stack_bytes,
            spill_bytes: r.spill_bytes,
            barriers: r.barriers,
        }
    }

    /// Registers a thread.
    pub fn registers(&self) -> u32 {
        self.registers
    }
}

/// Counts of an entry's instructions on one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchSass {
    arch: String,
    instructions: u32,
    ldg_128: u32,
    stg_128: u32,
    local: u32,
    hgmma: u32,
    utmaldg: u32,
}

impl ArchSass {
    /// With the architecture's name.
    pub fn new(arch: &str, s: &Sass) -> Self {
        Self {
            arch: arch.to_owned(),
            instructions: s.instructions,
            ldg_128: s.ldg_128,
            stg_128: s.stg_128,
            local: s.local,
            hgmma: s.hgmma,
            utmaldg: s.utmaldg,
        }
    }
}

impl Manifest {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = COMMENT.to_owned();
        self.compiler.write(&mut text);
        for module in &self.modules {
            module.write(&mut text);
        }
        text
    }

    /// A module by its name.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }
}

// Writing to a String cannot fail. Names, paths, flags and digits need no escapes in TOML.

impl Toolchain {
    fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n[compiler]\nformat = {}\npackages = [\n",
            self.format
        );
        for package in &self.packages {
            let _ = writeln!(text, "    \"{package}\",");
        }
        let _ = write!(
            text,
            "]\nnvcc = \"{}\"\nptxas = \"{}\"\nptx_version = \"{}\"\n",
            self.nvcc, self.ptxas, self.ptx_version
        );
    }
}

impl Module {
    fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n[[module]]\nname = \"{}\"\nsource = \"{}\"\nsource_sha256 = \"{}\"\n",
            self.name, self.source, self.source_sha256
        );
        for image in &self.images {
            let _ = write!(
                text,
                "\n[[module.image]]\nfile = \"{}\"\nsha256 = \"{}\"\n",
                image.file, image.sha256
            );
            for entry in &image.entries {
                entry.write(text);
            }
        }
    }
}

impl Entry {
    fn write(&self, text: &mut String) {
        let _ = write!(text, "\n[[module.image.entry]]\nname = \"{}\"\n", self.name);
        if let Some(threads) = self.max_threads {
            let _ = writeln!(text, "max_threads = {threads}");
        }
        text.push_str("resources = [\n");
        for r in &self.resources {
            let _ = writeln!(
                text,
                "    {{ arch = \"{}\", registers = {}, shared_bytes = {}, stack_bytes = {}, \
                 spill_bytes = {}, barriers = {} }},",
                r.arch, r.registers, r.shared_bytes, r.stack_bytes, r.spill_bytes, r.barriers
            );
        }
        text.push_str("]\nsass = [\n");
        for s in &self.sass {
            let _ = writeln!(
                text,
                "    {{ arch = \"{}\", instructions = {}, ldg_128 = {}, stg_128 = {}, local = {}, \
                 hgmma = {}, utmaldg = {} }},",
                s.arch, s.instructions, s.ldg_128, s.stg_128, s.local, s.hgmma, s.utmaldg
            );
        }
        text.push_str("]\n");
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A module with one image and one entry.
    pub fn module(name: &str) -> Module {
        let resources = Resources {
            registers: 40,
            shared_bytes: 1024,
            barriers: 1,
            ..Resources::default()
        };
        let sass = Sass {
            instructions: 560,
            ldg_128: 4,
            ..Sass::default()
        };
        Module {
            name: name.to_owned(),
            source: format!("{name}.cu"),
            source_sha256: "00ff".to_owned(),
            images: vec![Image {
                file: format!("{name}.sm_80.ptx"),
                sha256: "ff00".to_owned(),
                entries: vec![Entry {
                    name: "tg_entry".to_owned(),
                    max_threads: Some(256),
                    resources: vec![
                        ArchResources::new("sm_80", &resources),
                        ArchResources::new("sm_90a", &resources),
                    ],
                    sass: vec![ArchSass::new("sm_80", &sass)],
                }],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut bare = module("permute/rows");
        bare.images[0].entries[0].max_threads = None;
        bare.images[0].entries[0].sass.clear();
        let manifest = Manifest {
            compiler: Toolchain::current(),
            modules: vec![module("gating/gate"), bare],
        };
        assert_eq!(Manifest::parse(&manifest.text()), Ok(manifest));
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let text = Manifest {
            compiler: Toolchain::current(),
            modules: vec![module("gating/gate")],
        }
        .text();
        assert!(Manifest::parse("").is_err());
        assert!(Manifest::parse(&text.replace("source_sha256", "sha256")).is_err());
        assert!(Manifest::parse(&text.replace("barriers", "barrier")).is_err());
    }
}
