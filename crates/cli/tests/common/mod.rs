//! Running the real binary, and writing safetensors files byte by byte.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;

use clap::Parser;
use half::{bf16, f16};
use serde_json::Value;
use tollgate::{DType, Element};
use tollgate_cli::args::{self, Cli, RunArgs};
use tollgate_testkit::Data;

/// What the command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `tollgate` with these arguments, split at spaces.
pub fn tollgate(arguments: &str) -> Said {
    let split: Vec<&str> = arguments.split(' ').filter(|a| !a.is_empty()).collect();
    tollgate_with(&split)
}

/// Runs `tollgate` with these arguments.
pub fn tollgate_with(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it and demands success and silence on standard error.
#[track_caller]
pub fn succeeds(arguments: &str) -> String {
    let said = tollgate(arguments);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, ""),
        "tollgate {arguments}"
    );
    said.out
}

/// Runs it and reads its JSON.
#[track_caller]
pub fn json(arguments: &str) -> Value {
    serde_json::from_str(&succeeds(&format!("{arguments} --json"))).unwrap()
}

/// Runs it and demands exit code 2 and one line of error that holds these words.
#[track_caller]
pub fn refuses(arguments: &[&str], words: &[&str]) {
    let said = tollgate_with(arguments);
    let context = format!("tollgate {arguments:?}\n{said:?}");
    assert_eq!(said.code, 2, "{context}");
    assert_eq!(said.out, "", "{context}");
    assert!(said.err.starts_with("error: "), "{context}");
    assert_eq!(said.err.lines().count(), 1, "{context}");
    for word in words {
        assert!(said.err.contains(word), "no '{word}' in {context}");
    }
}

/// The options of a `tollgate run` with these arguments.
pub fn run_args(arguments: &str) -> RunArgs {
    let words = ["tollgate", "run"]
        .into_iter()
        .chain(arguments.split(' ').filter(|a| !a.is_empty()));
    match Cli::try_parse_from(words).unwrap().command {
        Some(args::Command::Run(run)) => run,
        other => panic!("{other:?}"),
    }
}

/// A safetensors file in the making.
#[derive(Debug, Clone, Default)]
pub struct File {
    header: serde_json::Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    /// Appends a tensor.
    pub fn raw(mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> Self {
        let begin = self.data.len();
        self.data.extend_from_slice(bytes);
        let entry = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [begin, self.data.len()],
        });
        self.header.insert(name.to_owned(), entry);
        self
    }

    /// Appends real numbers, rounded to a type.
    pub fn reals(self, name: &str, dtype: DType, shape: &[usize], values: &[f32]) -> Self {
        let (name_of_type, bytes) = encode(dtype, values);
        self.raw(name, name_of_type, shape, &bytes)
    }

    /// Appends whole numbers.
    pub fn whole(self, name: &str, values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.raw(name, "I32", &[values.len()], &bytes)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = Value::Object(self.header.clone()).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&self.data);
        bytes
    }

    pub fn write(&self, path: &Path) -> String {
        std::fs::write(path, self.bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The stored bytes of values in a type, and its name.
pub fn encode(dtype: DType, values: &[f32]) -> (&'static str, Vec<u8>) {
    match dtype {
        DType::F32 => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => {
            let round = <f16 as Element>::from_f32;
            (
                "F16",
                values
                    .iter()
                    .flat_map(|&v| round(v).to_le_bytes())
                    .collect(),
            )
        }
        DType::Bf16 => {
            let round = <bf16 as Element>::from_f32;
            (
                "BF16",
                values
                    .iter()
                    .flat_map(|&v| round(v).to_le_bytes())
                    .collect(),
            )
        }
    }
}

/// A small layer with its tokens: T 40, H 12, E 8, dense I 16.
#[derive(Debug, Clone)]
pub struct Small {
    pub x: Vec<f32>,
    pub router: Vec<f32>,
    pub up: Vec<f32>,
    pub up_bias: Vec<f32>,
    pub down: Vec<f32>,
    pub down_bias: Vec<f32>,
}

impl Small {
    pub const T: usize = 40;
    pub const H: usize = 12;
    pub const E: usize = 8;
    pub const I: usize = 16;

    pub fn new() -> Self {
        let mut data = Data::new(5);
        let (t, h, e, i) = (Self::T, Self::H, Self::E, Self::I);
        Self {
            x: data.normals(t * h, 1.0),
            router: data.normals(e * h, 0.4),
            up: data.normals(i * h, 0.3),
            up_bias: data.normals(i, 0.1),
            down: data.normals(h * i, 0.3),
            down_bias: data.normals(h, 0.1),
        }
    }

    /// The tokens as a file: 4 sequences, one of them empty.
    pub fn tokens(&self, dtype: DType) -> File {
        let ids: Vec<i32> = (0..Self::T as i32).map(|t| t * 7 % 31).collect();
        File::default()
            .reals("hidden", dtype, &[Self::T, Self::H], &self.x)
            .whole("token_ids", &ids)
            .whole("sequence_offsets", &[0, 10, 10, 25, 40])
    }

    /// The dense layer and the tokens in one file.
    pub fn dense(&self, dtype: DType) -> File {
        let owner: Vec<i32> = (0..Self::I as i32)
            .map(|n| n * 5 % Self::E as i32)
            .collect();
        self.tokens(dtype)
            .reals("w_up", dtype, &[Self::I, Self::H], &self.up)
            .reals("b_up", dtype, &[Self::I], &self.up_bias)
            .reals("w_down", dtype, &[Self::H, Self::I], &self.down)
            .reals("b_down", dtype, &[Self::H], &self.down_bias)
            .reals(
                "router_weight",
                DType::F32,
                &[Self::E, Self::H],
                &self.router,
            )
            .whole("neuron_expert", &owner)
    }
}
