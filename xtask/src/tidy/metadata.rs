//! What cargo knows of our packages and of all that they are built from.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Result;

/// The packages of the lock file that this platform builds.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
    /// By package, what it links with: dependencies that are neither for building nor for tests.
    pub(super) links: BTreeMap<String, BTreeSet<String>>,
}

/// One package.
#[derive(Debug, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) licence: Option<String>,
    /// Its folder from the root; none when it is not ours.
    pub(super) folder: Option<String>,
    /// What its Cargo.toml names, for tests too.
    pub(super) dependencies: Vec<Dependency>,
}

/// One line of a Cargo.toml.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Only for tests and examples.
    pub(super) is_dev: bool,
}

impl Metadata {
    /// Our own packages.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.folder.is_some())
    }

    /// The names of all packages that a package links with, itself among them.
    pub(super) fn linked(&self, package: &Package) -> BTreeSet<&str> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![package.id.as_str()]);
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                next.extend(self.links.get(id).into_iter().flatten().map(String::as_str));
            }
        }
        self.packages.iter().filter(|package| seen.contains(package.id.as_str())).map(|p| p.name.as_str()).collect()
    }
}

/// Asks cargo.
///
/// # Errors
/// When cargo fails, which it does when the lock file is not up to date.
pub(super) fn load(root: &Path) -> Result<Metadata> {
    let platform = output("rustc", &["-vV"], root)?;
    let platform =
        platform.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not name its host")?;
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", platform];
    let json: Value = serde_json::from_str(&output(&cargo, &args, root)?).map_err(|error| error.to_string())?;
    Ok(parse(&json))
}

fn parse(json: &Value) -> Metadata {
    let top = text(&json["workspace_root"]);
    let dependency = |of: &Value| Dependency { name: text(&of["name"]), is_dev: of["kind"].as_str() == Some("dev") };
    let packages = array(&json["packages"]).map(|package| {
        let folder = text(&package["manifest_path"]).strip_suffix("/Cargo.toml").unwrap_or_default().to_owned();
        let from_root = folder.strip_prefix(&top).map(|folder| folder.trim_start_matches('/').to_owned());
        Package {
            name: text(&package["name"]),
            id: text(&package["id"]),
            licence: package["license"].as_str().map(str::to_owned),
            // A registry below the root (a vendored one) is not ours: ours have no source.
            folder: from_root.filter(|_| package["source"].is_null()),
            dependencies: array(&package["dependencies"]).map(dependency).collect(),
        }
    });
    let links = array(&json["resolve"]["nodes"]).map(|node| {
        let is_linked = |of: &&Value| array(&of["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let of = array(&node["deps"]).filter(is_linked).map(|of| text(&of["pkg"])).collect();
        (text(&node["id"]), of)
    });
    Metadata { packages: packages.collect(), links: links.collect() }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn output(program: &str, args: &[&str], root: &Path) -> Result<String> {
    let failed = |why: &str| format!("{program} {}: {why}", args.join(" "));
    let output = Command::new(program).args(args).current_dir(root).output();
    let output = output.map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_leaves_out_tests_and_builds() {
        let node = |id: &str, of: &[(&str, Value)]| {
            let deps: Vec<Value> =
                of.iter().map(|(pkg, kind)| serde_json::json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]})).collect();
            serde_json::json!({"id": id, "deps": deps})
        };
        let package = |name: &str| serde_json::json!({"name": name, "id": name, "manifest_path": "/r/x/Cargo.toml"});
        let json = serde_json::json!({
            "workspace_root": "/r",
            "packages": [package("a"), package("b"), package("c"), package("d")],
            "resolve": {"nodes": [
                node("a", &[("b", Value::Null), ("d", "dev".into())]),
                node("b", &[("c", Value::Null), ("d", "build".into())]),
            ]},
        });
        let metadata = parse(&json);
        assert_eq!(metadata.linked(&metadata.packages[0]), BTreeSet::from(["a", "b", "c"]));
        assert_eq!(metadata.packages[0].folder.as_deref(), Some("x"));
    }
}
