//! Who may depend on whom, as one table, and the check of `cargo metadata` against it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What one crate of the workspace may depend on.
struct Row {
    /// Package name.
    package: &'static str,
    /// Workspace crates it may name under `[dependencies]` and `[build-dependencies]`.
    may_use: &'static [&'static str],
    /// Why the line is drawn there; printed with a violation.
    because: &'static str,
}

/// The house plan. A crate without a row is an error: whoever adds a crate says where it stands.
const TABLE: &[Row] = &[
    Row {
        package: "tollgate-kernels",
        may_use: &[],
        because: "device code and its interface serve anyone who launches kernels",
    },
    Row {
        package: "tollgate-device",
        may_use: &["tollgate-core", "tollgate-kernels", "tollgate-vgpu"],
        because: "where buffers live and kernels run; it knows no operation",
    },
    Row {
        package: "tollgate-core",
        may_use: &[],
        because: "core is the words of the project; everything stands on it, it stands on nothing",
    },
    Row {
        package: "tollgate-gating",
        may_use: &["tollgate-core", "tollgate-device", "tollgate-kernels"],
        because: "an operation depends on core and never on another operation",
    },
    Row {
        package: "tollgate-permute",
        may_use: &["tollgate-core", "tollgate-device", "tollgate-kernels"],
        because: "an operation depends on core and never on another operation",
    },
    Row {
        package: "tollgate-gemm",
        may_use: &["tollgate-core", "tollgate-device", "tollgate-kernels"],
        because: "an operation depends on core and never on another operation",
    },
    Row {
        package: "tollgate",
        may_use: &[
            "tollgate-core",
            "tollgate-device",
            "tollgate-gating",
            "tollgate-permute",
            "tollgate-gemm",
        ],
        because: "the layer composes the operations and is below every front end",
    },
    Row {
        package: "tollgate-vgpu",
        may_use: &[],
        because: "the virtual GPU runs anybody's PTX and knows nothing of this project",
    },
    Row {
        package: "tollgate-vgpu-driver",
        may_use: &["tollgate-vgpu"],
        because: "the driver library is the virtual GPU under another interface",
    },
    Row {
        package: "tollgate-cli",
        may_use: &["tollgate", "tollgate-vgpu"],
        because: "a front end sees what a user of the library sees: the layer with its re-exports, and \
                  the virtual GPU for `tollgate vgpu`",
    },
    Row {
        package: "tollgate-benches",
        may_use: &["tollgate", "tollgate-testkit"],
        because: "benchmarks measure the public interface with the tests' data and tolerances",
    },
    Row {
        package: "tollgate-testkit",
        may_use: &["tollgate-core"],
        because: "what tests every operation must not know one of them",
    },
    Row {
        package: "xtask",
        may_use: &[],
        because: "chores must build when the rest does not",
    },
];

/// Workspace crates that any crate may add under `[dev-dependencies]`.
const TESTS_MAY_ADD: &[&str] = &["tollgate-testkit", "tollgate-vgpu-driver"];

/// A package from outside that only some crates may name, under any kind of dependency.
struct Reserved {
    /// The outside package.
    package: &'static str,
    /// The crates that may name it.
    homes: &'static [&'static str],
    /// Why.
    because: &'static str,
}

const RESERVED: &[Reserved] = &[Reserved {
    package: "cudarc",
    homes: &["tollgate-device"],
    because: "one crate talks to the driver, so that one place decides whether there is a GPU",
}];

/// A crate of the workspace with what it names as dependencies.
#[derive(Debug, PartialEq)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, PartialEq)]
struct Dependency {
    name: String,
    /// Under `[dev-dependencies]`: not part of what users build.
    dev: bool,
}

/// Checks the workspace at `root`.
///
/// # Errors
/// One line per violation, or why `cargo metadata` could not be read.
pub fn run(root: &Path) -> Result<String, String> {
    // Without --no-deps cargo would resolve, and perhaps download, the whole tree; the direct
    // dependencies of every member are all that the table speaks of.
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let metadata = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata printed no JSON: {e}"))?;
    let packages = parse(&metadata)?;
    let violations = violations(&packages);
    if violations.is_empty() {
        Ok(format!(
            "dependency directions: {} crates keep them",
            packages.len()
        ))
    } else {
        Err(format!(
            "{} dependency direction(s) broken\n  {}",
            violations.len(),
            violations.join("\n  ")
        ))
    }
}

/// The members of the workspace, from `cargo metadata --format-version 1`.
fn parse(metadata: &Value) -> Result<Vec<Package>, String> {
    let missing = |what: &str| format!("cargo metadata has no {what}");
    let members = metadata["workspace_members"]
        .as_array()
        .ok_or_else(|| missing("workspace_members"))?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or_else(|| missing("packages"))?;
    let text = |value: &Value, what: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| missing(what))
    };
    packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .ok_or_else(|| missing("dependencies"))?;
            Ok(Package {
                name: text(&package["name"], "package name")?,
                dependencies: dependencies
                    .iter()
                    .map(|dependency| {
                        Ok(Dependency {
                            // The package's own name, also where the manifest renames it.
                            name: text(&dependency["name"], "dependency name")?,
                            dev: dependency["kind"] == "dev",
                        })
                    })
                    .collect::<Result<_, String>>()?,
            })
        })
        .collect()
}

/// Every broken rule, in one readable line each.
fn violations(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let name = &package.name;
        let row = TABLE.iter().find(|row| row.package == name);
        if row.is_none() {
            found.push(format!(
                "{name}: unknown crate; add a row for it to {}",
                file!()
            ));
        }
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let in_workspace = packages.iter().any(|other| other.name == used);
            if let Some(row) = row.filter(|_| in_workspace) {
                let allowed =
                    row.may_use.contains(&used) || dependency.dev && TESTS_MAY_ADD.contains(&used);
                if !allowed {
                    found.push(format!(
                        "{name} -> {used}{}: it may use {}; {}",
                        if dependency.dev { " (tests)" } else { "" },
                        list(row.may_use),
                        row.because
                    ));
                }
            }
            if let Some(reserved) = RESERVED.iter().find(|reserved| reserved.package == used)
                && !reserved.homes.contains(&name.as_str())
            {
                found.push(format!(
                    "{name} -> {used}: only {} may use it; {}",
                    list(reserved.homes),
                    reserved.because
                ));
            }
        }
    }
    for row in TABLE {
        if !packages.iter().any(|package| package.name == row.package) {
            found.push(format!(
                "{}: the workspace has no such crate; remove its row from {}",
                row.package,
                file!()
            ));
        }
    }
    found
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "no workspace crate".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Metadata of a workspace that keeps every rule, with one outside package in the list.
    fn keeping() -> Value {
        let mut packages: Vec<Value> = TABLE
            .iter()
            .map(|row| {
                let uses = row
                    .may_use
                    .iter()
                    .map(|name| json!({"name": name, "kind": null}));
                let outside = [json!({"name": "rayon", "kind": null})];
                json!({
                    "id": format!("path#{}", row.package),
                    "name": row.package,
                    "dependencies": uses.chain(outside).collect::<Vec<_>>(),
                })
            })
            .collect();
        let members: Vec<Value> = packages.iter().map(|p| p["id"].clone()).collect();
        packages.push(json!({
            "id": "registry#rayon", "name": "rayon",
            "dependencies": [{"name": "cudarc", "kind": null}],
        }));
        json!({"packages": packages, "workspace_members": members})
    }

    fn package<'a>(metadata: &'a mut Value, name: &str) -> &'a mut Value {
        let packages = metadata["packages"].as_array_mut().unwrap();
        packages.iter_mut().find(|p| p["name"] == name).unwrap()
    }

    /// The violations after `package` gained a dependency.
    fn after_adding(to: &str, dependency: Value) -> Vec<String> {
        let mut metadata = keeping();
        let dependencies = &mut package(&mut metadata, to)["dependencies"];
        dependencies.as_array_mut().unwrap().push(dependency);
        violations(&parse(&metadata).unwrap())
    }

    #[test]
    fn a_workspace_that_keeps_the_rules_passes() {
        let packages = parse(&keeping()).unwrap();
        assert_eq!(
            packages.len(),
            TABLE.len(),
            "outside packages are not members"
        );
        assert_eq!(violations(&packages), [""; 0]);
    }

    #[test]
    fn every_forbidden_direction_is_named_with_its_rule() {
        for row in TABLE {
            for other in TABLE {
                if row.package == other.package || row.may_use.contains(&other.package) {
                    continue;
                }
                for kind in [Value::Null, json!("build"), json!("dev")] {
                    let found = after_adding(
                        row.package,
                        json!({"name": other.package, "kind": kind, "rename": "innocent"}),
                    );
                    if kind == "dev" && TESTS_MAY_ADD.contains(&other.package) {
                        assert_eq!(found, [""; 0]);
                        continue;
                    }
                    assert_eq!(found.len(), 1, "{} -> {}", row.package, other.package);
                    let arrow = format!("{} -> {}", row.package, other.package);
                    assert!(found[0].starts_with(&arrow), "{}", found[0]);
                    assert!(found[0].ends_with(row.because), "{}", found[0]);
                }
            }
        }
    }

    #[test]
    fn operations_never_see_each_other() {
        assert_eq!(
            after_adding(
                "tollgate-gemm",
                json!({"name": "tollgate-gating", "kind": null})
            ),
            [
                "tollgate-gemm -> tollgate-gating: it may use tollgate-core, tollgate-device, \
              tollgate-kernels; \
              an operation depends on core and never on another operation"
            ]
        );
    }

    #[test]
    fn the_driver_has_one_home() {
        for kind in [Value::Null, json!("dev"), json!("build")] {
            let found = after_adding("tollgate-gemm", json!({"name": "cudarc", "kind": kind}));
            assert_eq!(found.len(), 1);
            assert!(
                found[0].starts_with("tollgate-gemm -> cudarc: only tollgate-device may use it"),
                "{}",
                found[0]
            );
        }
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_errors() {
        let mut metadata = keeping();
        package(&mut metadata, "xtask")["name"] = json!("tollgate-newcomer");
        let found = violations(&parse(&metadata).unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("tollgate-newcomer: unknown crate; add a row"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("xtask: the workspace has no such crate"),
            "{found:?}"
        );
    }

    #[test]
    fn metadata_of_another_shape_is_an_error_not_a_pass() {
        for (key, expected) in [("packages", "packages"), ("workspace_members", "members")] {
            let mut metadata = keeping();
            metadata[key] = Value::Null;
            assert!(parse(&metadata).unwrap_err().contains(expected));
        }
        let mut metadata = keeping();
        package(&mut metadata, "tollgate")["dependencies"] = json!([{"kind": null}]);
        assert!(parse(&metadata).unwrap_err().contains("dependency name"));
    }

    #[test]
    fn this_workspace_keeps_the_rules() {
        let message = run(&crate::root()).unwrap();
        assert!(
            message.contains(&format!("{} crates", TABLE.len())),
            "{message}"
        );
    }
}
