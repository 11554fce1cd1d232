//! Which crate may know which: the arrows of ARCHITECTURE.md, checked on the crates' manifests.

use super::Finding;
use super::metadata::{Metadata, Package};

/// Our crates by folder, and which of ours each may name, tests included. A folder that ends in `/` stands for all in
/// it that have no line of their own; `*` is any.
const ROOMS: [(&str, &[&str]); 20] = [
    ("client/protocol", &[]),
    ("client/script", &["conclave-protocol"]),
    ("client/link", &["conclave-protocol"]),
    ("client", &["conclave-protocol", "conclave-link"]),
    (
        "client/cli",
        &[
            "conclave-protocol",
            "conclave-script",
            "conclave-link",
            "conclave-client",
            "conclave-locks",
            "conclave-election",
            "conclave-barriers",
            "conclave-counters",
            "conclave-discovery",
        ],
    ),
    ("recipes/", &["conclave-client"]),
    ("recipes/locks", &["conclave-client", "conclave-awards"]),
    ("recipes/election", &["conclave-client", "conclave-awards"]),
    ("recipes/groups", &["conclave-client", "conclave-awards"]),
    ("recipes/discovery", &["conclave-client", "conclave-groups"]),
    // The script crate: for its tests, which play scenarios.
    ("server/core", &["conclave-protocol", "conclave-script"]),
    ("server/store", &["conclave-protocol", "conclave-core", "conclave-script"]),
    ("server/log", &[]),
    // The guests: for its tests.
    ("server/plugin-host", &["conclave-protocol", "conclave-core", "conclave-guests"]),
    (
        "server",
        &[
            "conclave-protocol",
            "conclave-core",
            "conclave-link",
            "conclave-store",
            "conclave-log",
            "conclave-plugin-host",
        ],
    ),
    (
        "server/bin",
        &[
            "conclave-server",
            "conclave-cli",
            "conclave-client",
            "conclave-link",
            "conclave-protocol",
            "conclave-plugin-host",
        ],
    ),
    // Natively alone: its tree for tests reads manifests as the cluster does.
    ("plugins/sdk", &["conclave-protocol"]),
    ("plugins/", &["conclave-plugin"]),
    ("tests/", &["*"]),
    ("xtask", &[]),
];

/// Clusters for tests: what runs above the waterline may be tested on them.
const HARNESS: &str = "conclave-testing";

/// Others' crates that only one of ours may name, so that everything else can be read without knowing them.
const OWNED: [(&str, &str); 9] = [
    ("quinn", "conclave-link"),
    ("rustls", "conclave-link"),
    ("rustls-webpki", "conclave-link"),
    ("rcgen", "conclave-link"),
    ("x509-parser", "conclave-link"),
    ("heed", "conclave-store"),
    ("wasmtime", "conclave-plugin-host"),
    ("wasmparser", "conclave-plugin-host"),
    ("openraft", "conclave-server"),
];

/// Below the waterline: nothing that these link with, however far down, does IO or knows a clock, chance or a task.
const PURE: [&str; 3] = ["conclave-protocol", "conclave-script", "conclave-core"];
const IMPURE: [&str; 18] = [
    "async-std",
    "chrono",
    "fastrand",
    "futures",
    "futures-core",
    "getrandom",
    "heed",
    "libc",
    "mio",
    "openraft",
    "quinn",
    "rand",
    "rand_core",
    "rustix",
    "rustls",
    "time",
    "tokio",
    "wasmtime",
];

/// Every arrow that points where it must not.
pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let ours: Vec<&Package> = metadata.ours().collect();
    let mut findings = Vec::new();
    for package in &ours {
        let folder = package.folder.as_deref().unwrap_or_default();
        let manifest = format!("{folder}/Cargo.toml");
        let Some(allowed) = allowed(folder) else {
            findings.push(Finding::of(
                &manifest,
                "a crate without arrows: say in xtask/src/tidy/arrows.rs what it may know",
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_ours = ours.iter().any(|other| other.name == name);
            let is_for_tests = dependency.is_dev && name == HARNESS && !PURE.contains(&package.name.as_str());
            if is_ours && !is_for_tests && !allowed.contains(&name) && !allowed.contains(&"*") {
                findings.push(Finding::of(&manifest, format!("{} must not know {name}", package.name)));
            }
            let owner = OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, owner)| *owner);
            if let Some(owner) = owner.filter(|owner| *owner != package.name) {
                findings.push(Finding::of(&manifest, format!("only {owner} may use {name}")));
            }
        }
        if PURE.contains(&package.name.as_str()) {
            let linked = metadata.linked(package);
            for name in IMPURE.into_iter().filter(|name| linked.contains(name)) {
                findings.push(Finding::of(&manifest, format!("{} is pure and links with {name}", package.name)));
            }
        }
    }
    findings
}

/// Every crate takes the workspace's lints, or they would hold nowhere.
pub(super) fn lints(name: &str, text: &str) -> Vec<Finding> {
    let Ok(table) = text.parse::<toml::Table>() else {
        return vec![Finding::of(name, "it is not TOML")];
    };
    let has_lints = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if table.contains_key("package") && has_lints != Some(true) {
        return vec![Finding::of(name, "`[lints] workspace = true` is missing")];
    }
    Vec::new()
}

fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    let exact = ROOMS.iter().find(|(room, _)| *room == folder);
    let parent = || ROOMS.iter().find(|(room, _)| room.ends_with('/') && folder.starts_with(room));
    exact.or_else(parent).map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::metadata::Dependency;
    use super::*;

    fn package(folder: &str, name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            id: name.to_owned(),
            licence: None,
            folder: Some(folder.to_owned()),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).to_owned(), is_dev: false })
                .collect(),
        }
    }

    fn found(packages: Vec<Package>) -> Vec<String> {
        let metadata = Metadata { packages, links: BTreeMap::new() };
        check(&metadata).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn arrows_point_down_only() {
        let core = || package("server/core", "conclave-core", &["conclave-protocol"]);
        let protocol = package("client/protocol", "conclave-protocol", &["serde"]);
        assert!(found(vec![core(), protocol]).is_empty());
        let protocol = package("client/protocol", "conclave-protocol", &["conclave-core"]);
        assert_eq!(found(vec![core(), protocol]).len(), 1);
    }

    #[test]
    fn a_crate_of_others_has_one_user() {
        assert!(found(vec![package("client/link", "conclave-link", &["quinn"])]).is_empty());
        assert_eq!(found(vec![package("server", "conclave-server", &["quinn"])]).len(), 1);
        assert_eq!(found(vec![package("tests/cluster", "tests", &["heed"])]).len(), 1);
    }

    #[test]
    fn the_harness_is_for_tests_of_what_runs_above_the_waterline() {
        let harness = || package("tests/harness", HARNESS, &[]);
        let with = |folder: &str, name: &str, is_dev: bool| {
            let dependencies = vec![Dependency { name: HARNESS.to_owned(), is_dev }];
            vec![Package { dependencies, ..package(folder, name, &[]) }, harness()]
        };
        assert!(found(with("recipes/locks", "conclave-locks", true)).is_empty());
        assert_eq!(found(with("recipes/locks", "conclave-locks", false)).len(), 1);
        assert_eq!(found(with("server/core", "conclave-core", true)).len(), 1);
    }

    #[test]
    fn recipes_and_plugins_go_by_their_folder_and_a_new_room_must_be_named() {
        assert!(found(vec![package("recipes/queues", "conclave-queues", &[])]).is_empty());
        assert_eq!(found(vec![package("extras/x", "conclave-x", &[])]).len(), 1);
    }

    #[test]
    fn what_is_pure_links_with_nothing_that_is_not_however_far_down() {
        let other = |name: &str| Package { folder: None, ..package("", name, &[]) };
        let packages = vec![package("server/core", "conclave-core", &["helper"]), other("helper"), other("tokio")];
        let link = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
        let links = BTreeMap::from([link("conclave-core", "helper"), link("helper", "tokio")]);
        assert_eq!(check(&Metadata { packages, links }).len(), 1);
    }

    #[test]
    fn every_crate_takes_the_lints() {
        assert!(lints("Cargo.toml", "[workspace]\n").is_empty());
        assert!(lints("a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").is_empty());
        assert_eq!(lints("a/Cargo.toml", "[package]\n").len(), 1);
        assert_eq!(lints("a/Cargo.toml", "[package]\n[lints]\nworkspace = false\n").len(), 1);
    }
}
