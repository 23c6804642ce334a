//! What the JSON report of `tollgate run --router adaptive:0.1 --json` must say about the stored
//! input, whatever the machine.

use serde_json::Value;

/// Facts of `data/minilm-layer3.safetensors` at τ = 0.1 (see `data/README.md`).
const TOKENS: u64 = 2048;
const EXPERTS: usize = 16;
const TWO_EXPERT_TOKENS: u64 = 410;
const ASSIGNMENTS: u64 = TOKENS + TWO_EXPERT_TOKENS;

/// f32 against the f64 reference: sums of 384 and 1536 terms, each term's rounding at most 2^-24 of
/// it, give about 1e-4 in the worst case.
const MAX_RELATIVE_ERROR: f64 = 1e-4;

/// Checks a report.
///
/// # Errors
/// The first key that is missing or has another value than the stored input implies.
pub fn check(text: &str) -> Result<String, String> {
    let report: Value = serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))?;
    let whole = |pointer: &str| at(&report, pointer, Value::as_u64, "a whole number");
    let real = |pointer: &str| at(&report, pointer, Value::as_f64, "a number");
    let word = |pointer: &str| at(&report, pointer, Value::as_str, "a string");

    equal("router", word("/router")?, "adaptive:0.1")?;
    equal("dtype", word("/dtype")?, "f32")?;
    equal("tokens", whole("/tokens")?, TOKENS)?;
    equal("experts", whole("/experts")?, EXPERTS as u64)?;
    equal("assignments", whole("/assignments")?, ASSIGNMENTS)?;

    let loads = at(&report, "/tokens_per_expert", Value::as_array, "an array")?;
    equal("number of tokens_per_expert", loads.len(), EXPERTS)?;
    let sum: u64 = loads.iter().filter_map(Value::as_u64).sum();
    equal("sum of tokens_per_expert", sum, ASSIGNMENTS)?;

    // Shares of 2048 are exact in binary: no tolerance.
    let two = TWO_EXPERT_TOKENS as f64 / TOKENS as f64;
    equal(
        "routing.two_expert_share",
        real("/routing/two_expert_share")?,
        two,
    )?;
    equal(
        "routing.one_expert_share",
        real("/routing/one_expert_share")?,
        1.0 - two,
    )?;

    for loss in ["/losses/balance", "/losses/z"] {
        within(loss, real(loss)?, f64::MIN_POSITIVE, 1.0)?;
    }
    let error = "/max_rel_error_vs_reference";
    within(error, real(error)?, 0.0, MAX_RELATIVE_ERROR)?;
    within("/total_ms", real("/total_ms")?, f64::MIN_POSITIVE, f64::MAX)?;

    let stages = at(&report, "/stages", Value::as_array, "an array")?;
    within("number of stages", stages.len() as f64, 1.0, f64::MAX)?;
    for i in 0..stages.len() {
        word(&format!("/stages/{i}/name"))?;
        let ms = format!("/stages/{i}/ms");
        within(&ms, real(&ms)?, 0.0, f64::MAX)?;
        for rate in ["gflops", "gbytes_per_s"] {
            // A stage without arithmetic has no rate; the key is there all the same.
            let pointer = format!("/stages/{i}/{rate}");
            if !report.pointer(&pointer).is_some_and(Value::is_null) {
                within(&pointer, real(&pointer)?, 0.0, f64::MAX)?;
            }
        }
    }
    Ok(format!(
        "report: {TWO_EXPERT_TOKENS} two-expert tokens, {ASSIGNMENTS} assignments"
    ))
}

/// The value at a JSON pointer, read as one type.
fn at<'a, T>(
    report: &'a Value,
    pointer: &str,
    read: impl Fn(&'a Value) -> Option<T>,
    kind: &str,
) -> Result<T, String> {
    let value = report
        .pointer(pointer)
        .ok_or_else(|| format!("report has no {pointer}"))?;
    read(value).ok_or_else(|| format!("report: {pointer} is {value}, must be {kind}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, actual: T, expected: T) -> Result<(), String> {
    if actual == expected {
        Ok(())
    } else {
        Err(format!(
            "report: {what} is {actual:?}, must be {expected:?}"
        ))
    }
}

fn within(what: &str, value: f64, min: f64, max: f64) -> Result<(), String> {
    // Written so that a NaN fails.
    if value >= min && value <= max {
        Ok(())
    } else {
        Err(format!(
            "report: {what} is {value}, must be in [{min:e}, {max:e}]"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        let mut loads = [153u64; EXPERTS];
        loads[0] = ASSIGNMENTS - 15 * 153;
        json!({
            "router": "adaptive:0.1", "dtype": "f32", "tokens": 2048, "experts": 16,
            "assignments": 2458, "tokens_per_expert": loads,
            "routing": {"one_expert_share": 0.7998046875, "two_expert_share": 0.2001953125},
            "losses": {"balance": 0.0102, "z": 0.0112},
            "stages": [{"name": "gate", "ms": 0.2, "gflops": null, "gbytes_per_s": 3.0}],
            "max_rel_error_vs_reference": 2e-6, "total_ms": 80.5,
        })
    }

    #[test]
    fn a_right_report_passes() {
        check(&good().to_string()).unwrap();
    }

    #[test]
    fn each_wrong_or_missing_value_is_named() {
        let cases = [
            ("/router", json!("top2")),
            ("/dtype", json!("bf16")),
            ("/tokens", json!(2047)),
            ("/experts", json!("16")),
            ("/assignments", json!(2459)),
            ("/tokens_per_expert", json!([2458])),
            ("/tokens_per_expert/3", json!(154)),
            ("/routing/two_expert_share", json!(0.2)),
            ("/routing/one_expert_share", json!(null)),
            ("/losses/balance", json!(0)),
            ("/losses/z", json!(-0.01)),
            ("/stages", json!([])),
            ("/stages/0/name", json!(1)),
            ("/stages/0/ms", json!(-1)),
            ("/stages/0/gflops", json!("fast")),
            ("/max_rel_error_vs_reference", json!(1.5e-4)),
            ("/total_ms", json!(0)),
        ];
        for (pointer, wrong) in cases {
            let mut report = good();
            *report.pointer_mut(pointer).unwrap() = wrong.clone();
            let error = check(&report.to_string()).unwrap_err();
            let key = pointer.split('/').find(|part| !part.is_empty()).unwrap();
            assert!(error.contains(key), "{pointer} = {wrong}: {error}");
        }
        for key in good().as_object().unwrap().keys() {
            let mut report = good();
            report.as_object_mut().unwrap().remove(key);
            let error = check(&report.to_string()).unwrap_err();
            assert!(error.contains(key), "without {key}: {error}");
        }
        assert!(check("{").unwrap_err().starts_with("not valid JSON"));
    }
}
