//! Finds healthy instances of a service, filtered where they are stored. See the README for what an instance's data says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use conclave_plugin::{Child, Context, Path, Result, Tree, Value};
use serde::{Deserialize, Serialize};

/// The plugin.
pub struct Discovery;

conclave_plugin::export!(Discovery: queries(instances, services));

#[derive(Deserialize)]
struct Instances {
    service: Path,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    region: Option<String>,
    limit: usize,
    unhealthy: bool,
}

#[derive(Deserialize)]
struct Services {
    below: Path,
}

/// An instance, as its znode's JSON says. What else is there is passed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name: that of its znode.
    #[serde(default)]
    pub id: String,
    /// Where it is reached.
    pub address: String,
    /// `up` if it can be used; anything else means that it can't.
    #[serde(default = "up")]
    pub status: String,
    /// Its share of the load.
    #[serde(default = "one")]
    pub weight: u64,
    /// Which version it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What else it is.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whatever else its JSON has.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// A service.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its path.
    pub path: Path,
    /// How many instances it has, healthy or not.
    pub instances: u64,
}

fn up() -> String {
    "up".to_owned()
}

fn one() -> u64 {
    1
}

/// The instances that fit, in order of their names.
fn instances(tree: &Tree, _: &Context, args: Instances) -> Result<Vec<Instance>> {
    let children = tree.children(&args.service).with_data().all()?;
    let found = children.iter().filter_map(read).filter(|instance| fits(instance, &args));
    Ok(found.take(args.limit).collect())
}

/// What is no instance is none: anybody's mistake in one znode must not hide the others.
fn read(child: &Child) -> Option<Instance> {
    let instance: Instance = child.json().ok()?;
    Some(Instance { id: child.name().to_owned(), ..instance })
}

fn fits(instance: &Instance, args: &Instances) -> bool {
    (args.unhealthy || instance.status == "up")
        && args.tag.as_ref().is_none_or(|tag| instance.tags.contains(tag))
        && args.region.as_ref().is_none_or(|region| instance.region.as_ref() == Some(region))
        && args.version.as_ref().is_none_or(|wanted| instance.version.as_ref().is_some_and(|it| is_version(it, wanted)))
}

/// `1.2` is itself, `1.*` whatever begins with `1.`.
fn is_version(version: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(begins) => version.starts_with(begins),
        None => version == wanted,
    }
}

/// The services below a path.
fn services(tree: &Tree, _: &Context, args: Services) -> Result<Vec<Service>> {
    let children = tree.children(&args.below).all()?;
    Ok(children.into_iter().map(|child| Service { instances: child.stat.children, path: child.path }).collect())
}

#[cfg(test)]
mod tests {
    use conclave_plugin::{Create, TestTree, json};

    use super::*;

    fn tree() -> TestTree {
        let t = TestTree::new::<Discovery>();
        for (name, data) in [
            ("a", r#"{"address": "10.0.0.1:80", "version": "1.2", "region": "eu", "tags": ["blue"], "weight": 5}"#),
            (
                "b",
                r#"{"address": "10.0.0.2:80", "version": "1.3", "region": "us", "tags": ["blue", "canary"], "rack": 7}"#,
            ),
            ("c", r#"{"address": "10.0.0.3:80", "version": "2.0", "region": "eu", "status": "draining"}"#),
            ("d", "no JSON"),
            ("e", r#"{"version": "no address"}"#),
        ] {
            t.client(name).create(&format!("/services/api/{name}"), data, Create::ephemeral()).unwrap();
        }
        t
    }

    fn ids(t: &TestTree, args: Value) -> String {
        let mut args = args;
        args["service"] = json!("/services/api");
        let found: Vec<Instance> = t.without_session("x").query("instances", args).unwrap();
        found.into_iter().map(|instance| instance.id).collect()
    }

    #[test]
    fn healthy_instances_are_found_by_what_they_are() {
        let t = tree();
        for (args, expected) in [
            (json!({}), "ab"),
            (json!({"unhealthy": true}), "abc"),
            (json!({"tag": "blue"}), "ab"),
            (json!({"tag": "canary"}), "b"),
            (json!({"version": "1.2"}), "a"),
            (json!({"version": "1.*"}), "ab"),
            (json!({"region": "eu"}), "a"),
            (json!({"region": "eu", "version": "2.*"}), ""),
            (json!({"limit": 1}), "a"),
        ] {
            assert_eq!(ids(&t, args.clone()), expected, "{args}");
        }
        t.client("a").expire();
        assert_eq!(ids(&t, json!({})), "b");
    }

    #[test]
    fn an_instance_comes_with_all_that_it_says() {
        let found: Vec<Instance> = tree().client("x").query("instances", json!(["/services/api", "canary"])).unwrap();
        assert_eq!((found[0].weight, found[0].status.as_str(), &found[0].more["rack"]), (1, "up", &json!(7)));
        let none: Vec<Instance> = tree().client("x").query("instances", json!(["/services/none"])).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn services_are_listed_with_their_number_of_instances() {
        let found: Vec<Service> = tree().client("x").query("services", json!(["/services"])).unwrap();
        assert_eq!(found, [Service { path: Path::parse("/services/api").unwrap(), instances: 5 }]);
    }
}
