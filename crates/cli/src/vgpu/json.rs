//! The report for programs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tollgate_vgpu::counters::{Counters, Traffic};
use tollgate_vgpu::host::LaunchRecord;
use tollgate_vgpu::program::Class;
use tollgate_vgpu::report::{Kind, Site};

use super::counters::class_name;
use super::element::Element;
use super::plan::check_names;
use super::run::Runs;

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    arch: &'static str,
    devices: u32,
    checks: Vec<&'static str>,
    /// Whether anything was found: the exit code is 3.
    fired: bool,
    seeds: Seeds<'a>,
    findings: Vec<Found<'a>>,
    differences: Vec<Differs<'a>>,
    launches: Vec<Value>,
    buffers: Vec<BufferOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traces: Vec<Value>,
}

#[derive(Serialize)]
struct Seeds<'a> {
    first: u64,
    count: u32,
    fired: &'a [u64],
}

#[derive(Serialize)]
struct Found<'a> {
    kind: Kind,
    message: &'a str,
    kernel: &'a str,
    device: u32,
    site: &'a Site,
    other: Option<&'a Site>,
    seeds: &'a [u64],
}

#[derive(Serialize)]
struct Differs<'a> {
    buffer: &'a str,
    index: usize,
    first_seed: u64,
    first_value: Value,
    seed: u64,
    value: Value,
    seeds: usize,
}

#[derive(Serialize)]
struct BufferOut<'a> {
    name: &'a str,
    r#type: &'static str,
    device: u32,
    elements: usize,
    /// Whether a fault took it.
    lost: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<Value>>,
}

/// Pretty-printed, with a line end.
pub fn pretty(value: &impl Serialize) -> String {
    // Maps with string keys and numbers: there is nothing that could fail to serialise.
    let text = serde_json::to_string_pretty(value);
    text.unwrap_or_else(|e| format!("{{ \"error\": {:?} }}", e.to_string())) + "\n"
}

/// The report of `tollgate vgpu run`.
pub fn runs(runs: &Runs<'_>) -> String {
    let (args, config) = (runs.args, &runs.plan.config);
    let findings = runs.findings.iter().map(|finding| Found {
        kind: finding.report.kind,
        message: &finding.report.message,
        kernel: &finding.report.kernel,
        device: finding.report.device,
        site: &finding.report.site,
        other: finding.report.other.as_ref(),
        seeds: &finding.seeds,
    });
    let differences = runs.differences.iter().map(|difference| {
        let buffer = &runs.plan.buffers[difference.buffer].buffer;
        Differs {
            buffer: &buffer.name,
            index: difference.element,
            first_seed: args.seed,
            first_value: value(buffer.element, difference.before),
            seed: difference.seed,
            value: value(buffer.element, difference.after),
            seeds: difference.seeds,
        }
    });
    pretty(&Report {
        file: args.file.display().to_string(),
        arch: config.arch.name,
        devices: config.devices,
        checks: check_names(config.checks),
        fired: !runs.findings.is_empty(),
        seeds: Seeds {
            first: args.seed,
            count: args.seeds,
            fired: &runs.fired,
        },
        findings: findings.collect(),
        differences: differences.collect(),
        launches: runs.first.launches.iter().map(launch).collect(),
        buffers: buffers(runs),
        traces: traces(runs),
    })
}

fn buffers<'a>(runs: &'a Runs<'_>) -> Vec<BufferOut<'a>> {
    let counts: BTreeMap<&str, usize> = runs
        .args
        .prints
        .iter()
        .map(|(name, count)| (&**name, *count))
        .collect();
    let both = runs.plan.buffers.iter().zip(&runs.first.buffers);
    both.map(|(placed, bytes)| {
        let element = placed.buffer.element;
        let count = counts.get(&*placed.buffer.name);
        let values = bytes.as_ref().zip(count).map(|(bytes, &count)| {
            element
                .bits_of(bytes)
                .take(count)
                .map(|bits| value(element, bits))
                .collect()
        });
        BufferOut {
            name: &placed.buffer.name,
            r#type: element.name(),
            device: placed.device,
            elements: placed.contents.size() / element.bytes(),
            lost: bytes.is_none(),
            values,
        }
    })
    .collect()
}

fn traces(runs: &Runs<'_>) -> Vec<Value> {
    let traces = runs.first.traces.iter().map(|trace| {
        let steps = trace.steps.iter().map(|step| {
            json!({
                "block": step.block, "warp": step.warp, "lanes": step.lanes,
                "ptx_line": step.line, "ptx": step.text,
            })
        });
        json!({ "launch": trace.launch, "steps": steps.collect::<Vec<_>>() })
    });
    traces.collect()
}

/// A number; null where JSON has none.
fn value(element: Element, bits: u64) -> Value {
    let text = element.show(bits);
    match element.is_float() {
        // Through text: 0.1 as f32 is to be 0.1, not the f64 nearest to it.
        true => text.parse::<f64>().map_or(Value::Null, Value::from),
        false => serde_json::from_str(&text).unwrap_or(Value::Null),
    }
}

/// A record, its counters with the names of the classes and the bytes moved.
fn launch(record: &LaunchRecord) -> Value {
    let mut launch = serde_json::to_value(record).unwrap_or_default();
    if let Some(object) = launch.as_object_mut() {
        object.insert("counters".to_owned(), counters(&record.counters));
    }
    launch
}

fn counters(counters: &Counters) -> Value {
    let mut all = serde_json::to_value(counters).unwrap_or_default();
    let classes: Map<String, Value> = Class::ALL
        .into_iter()
        .map(|class| (class_name(class), counters.instructions(class).into()))
        .collect();
    all["warp_instructions"] = classes.into();
    for (name, traffic) in global(counters) {
        all[name]["moved_bytes"] = traffic.moved_bytes().into();
    }
    all
}

fn global(counters: &Counters) -> [(&'static str, &Traffic); 3] {
    [
        ("global_read", &counters.global_read),
        ("global_write", &counters.global_write),
        ("global_atomic", &counters.global_atomic),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_names() {
        let mut some = Counters::default();
        some.global_read.sectors = 3;
        some.warp_instructions[Class::Warp as usize] = 7;
        let json = counters(&some);
        assert_eq!(json["global_read"]["moved_bytes"], 96);
        assert_eq!(json["warp_instructions"]["warp"], 7);
        assert_eq!(
            json["warp_instructions"].as_object().map(Map::len),
            Some(Class::ALL.len())
        );
    }

    #[test]
    fn values_are_numbers_or_null() {
        assert_eq!(value(Element::F32, 0.1_f32.to_bits().into()), 0.1);
        assert_eq!(value(Element::F32, 2.0_f32.to_bits().into()), 2.0);
        assert_eq!(value(Element::U64, u64::MAX), u64::MAX);
        assert!(value(Element::F32, f32::NAN.to_bits().into()).is_null());
    }
}
