//! A counter: the data of a znode as decimal text, read and written in one transaction.

use conclave_plugin::{Args, Context, Create, Result, Tree, Znode};

/// The procedures `increment` and `read`.
pub struct Counter;

conclave_plugin::export!(Counter: procedures(increment, read));

/// `increment PATH [AMOUNT]`: adds the amount (1), which may be negative, and returns the new value. A znode that is
/// not there counts from 0 and is created, parents too.
fn increment(tree: &Tree, _: &Context, args: &Args) -> Result<String> {
    let path = args.text(0, "path")?;
    args.at_most(2)?;
    let amount = match args.optional(1) {
        Some(text) => number(text)?,
        None => 1,
    };
    let znode = tree.get(path)?;
    let value = match &znode {
        Some(znode) => value(path, znode)?,
        None => 0,
    };
    let sum = value.checked_add(amount).ok_or("the counter would overflow")?.to_string();
    match znode {
        Some(_) => drop(tree.set(path, sum.as_bytes())?),
        None => drop(tree.create(path, sum.as_bytes(), Create { parents: true, ..Create::default() })?),
    }
    Ok(sum)
}

/// `read PATH`: the value; 0 for a znode that is not there.
fn read(tree: &Tree, _: &Context, args: &Args) -> Result<String> {
    let path = args.text(0, "path")?;
    args.at_most(1)?;
    match tree.get(path)? {
        Some(znode) => Ok(value(path, &znode)?.to_string()),
        None => Ok("0".to_owned()),
    }
}

/// Empty data counts as 0, so that a znode made as somebody's parent can become a counter.
fn value(path: &str, znode: &Znode) -> Result<i64> {
    match znode.data.as_slice() {
        [] => Ok(0),
        _ => znode.text().and_then(number).map_err(|_| [path, ": its data is not a number"].concat().into()),
    }
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| [text, " is not a number"].concat().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_plugin::TestTree;

    use super::*;

    fn call(tree: &TestTree, procedure: &str, args: &[&str]) -> std::result::Result<String, String> {
        let called = tree.call::<Counter>(procedure, args);
        called.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_missing_znode_counts_from_nothing() {
        let tree = TestTree::new();
        assert_eq!(call(&tree, "read", &["/a/hits"]).unwrap(), "0");
        assert_eq!(call(&tree, "increment", &["/a/hits"]).unwrap(), "1");
        assert_eq!(call(&tree, "increment", &["/a/hits", "41"]).unwrap(), "42");
        assert_eq!(call(&tree, "increment", &["/a/hits", "-50"]).unwrap(), "-8");
        assert_eq!(call(&tree, "read", &["/a/hits"]).unwrap(), "-8");
        assert_eq!(call(&tree, "increment", &["/a"]).unwrap(), "1");
    }

    #[test]
    fn what_is_no_number_is_refused_and_left_alone() {
        let tree = TestTree::new();
        tree.create("/text", "x1").unwrap();
        assert_eq!(call(&tree, "increment", &["/text"]).unwrap_err(), "/text: its data is not a number");
        assert_eq!(tree.text("/text").unwrap(), "x1");
        assert_eq!(call(&tree, "increment", &["/hits", "some"]).unwrap_err(), "some is not a number");
        assert_eq!(tree.text("/hits"), None);
        assert!(call(&tree, "increment", &[]).unwrap_err().contains("path is missing"));
        assert!(call(&tree, "increment", &["/hits", "1", "2"]).is_err());
    }

    #[test]
    fn the_greatest_number_is_not_wrapped() {
        let tree = TestTree::new();
        tree.create("/hits", "9223372036854775807").unwrap();
        assert_eq!(call(&tree, "increment", &["/hits"]).unwrap_err(), "the counter would overflow");
    }

    #[test]
    fn the_manifest_names_every_procedure() {
        let manifest = include_str!("../plugin.toml");
        for procedure in ["increment", "read"] {
            assert!(manifest.contains(&format!("name = \"{procedure}\"")));
        }
    }
}
