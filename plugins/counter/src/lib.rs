//! A counter: the data of a znode as decimal text, read and written in one transaction.

use conclave_plugin::{Context, Create, Path, Result, Tree, Znode};
use serde::{Deserialize, Serialize};

/// The procedures `increment`, `read` and `set-if`, and the query `read`.
pub struct Counter;

conclave_plugin::export!(Counter: procedures(increment, read, set_if), queries(read));

#[derive(Deserialize)]
struct Increment {
    path: Path,
    amount: i64,
}

#[derive(Deserialize)]
struct Read {
    path: Path,
}

#[derive(Deserialize)]
struct SetIf {
    path: Path,
    expected: i64,
    value: i64,
}

/// What `set-if` answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The counter had the value that was expected, and has the new one.
    pub set: bool,
    /// The value that it has now.
    pub value: i64,
}

/// Adds the amount, which may be negative; the new value. A znode that is not there counts from 0 and is created.
fn increment(tree: &Tree, _: &Context, args: Increment) -> Result<i64> {
    let znode = tree.get(&args.path)?;
    let value = value(&args.path, znode.as_ref())?;
    let sum = value
        .checked_add(args.amount)
        .ok_or_else(|| format!("{}: {value} and {} are more than a counter can hold", args.path, args.amount))?;
    write(tree, &args.path, znode.as_ref(), sum)?;
    Ok(sum)
}

/// The value; 0 for a znode that is not there.
fn read(tree: &Tree, _: &Context, args: Read) -> Result<i64> {
    value(&args.path, tree.get(&args.path)?.as_ref())
}

/// Sets the value if it is the expected one.
fn set_if(tree: &Tree, _: &Context, args: SetIf) -> Result<Set> {
    let znode = tree.get(&args.path)?;
    let value = value(&args.path, znode.as_ref())?;
    if value != args.expected {
        return Ok(Set { set: false, value });
    }
    write(tree, &args.path, znode.as_ref(), args.value)?;
    Ok(Set { set: true, value: args.value })
}

fn write(tree: &Tree, path: &Path, znode: Option<&Znode>, value: i64) -> Result<()> {
    let text = value.to_string();
    match znode {
        Some(_) => tree.set(path, text).map(drop),
        None => tree.create(path, text, Create::with_parents()).map(drop),
    }
}

/// Empty data counts as 0, so that a znode made as somebody's parent can become a counter.
fn value(path: &Path, znode: Option<&Znode>) -> Result<i64> {
    let Some(znode) = znode.filter(|znode| !znode.data.is_empty()) else { return Ok(0) };
    let number = znode.text().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{path}: its data is not a number between {} and {}", i64::MIN, i64::MAX).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_plugin::{TestTree, json};

    use super::*;

    fn call(t: &TestTree, procedure: &str, args: &[conclave_plugin::Value]) -> std::result::Result<i64, String> {
        t.client("ci").call(procedure, args).reply().map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_missing_znode_counts_from_nothing() {
        let t = TestTree::new::<Counter>();
        assert_eq!(call(&t, "read", &[json!("/a/hits")]), Ok(0));
        assert_eq!(t.text("/a"), None);
        assert_eq!(call(&t, "increment", &[json!("/a/hits")]), Ok(1));
        assert_eq!(call(&t, "increment", &[json!("/a/hits"), json!(41)]), Ok(42));
        assert_eq!(call(&t, "increment", &[json!("/a/hits"), json!("-50")]), Ok(-8));
        assert_eq!(call(&t, "read", &[json!("/a/hits")]), Ok(-8));
        assert_eq!(t.client("ci").query::<i64>("read", json!({"path": "/a/hits"})), Ok(-8));
        assert_eq!(call(&t, "increment", &[json!("/a")]), Ok(1));
        assert_eq!(t.text("/a/hits").unwrap(), "-8");
    }

    #[test]
    fn a_value_is_set_only_if_it_is_the_expected_one() {
        let t = TestTree::new::<Counter>();
        let set = |expected, value| {
            let args = json!({"path": "/hits", "expected": expected, "value": value});
            t.client("ci").call("set-if", args).reply::<Set>().unwrap()
        };
        assert_eq!(set(1, 5), Set { set: false, value: 0 });
        assert_eq!(t.text("/hits"), None);
        assert_eq!(set(0, 5), Set { set: true, value: 5 });
        assert_eq!(set(0, 6), Set { set: false, value: 5 });
        assert_eq!(t.text("/hits").unwrap(), "5");
    }

    #[test]
    fn what_is_no_number_is_refused_and_left_alone() {
        let t = TestTree::new::<Counter>();
        t.create("/text", "x1");
        assert!(call(&t, "increment", &[json!("/text")]).unwrap_err().contains("/text: its data is not a number"));
        assert_eq!(t.text("/text").unwrap(), "x1");
        assert!(call(&t, "increment", &[json!("/hits"), json!("some")]).unwrap_err().contains("integer"));
        assert_eq!(t.text("/hits"), None);
        assert!(call(&t, "increment", &[]).unwrap_err().contains("path"));
        assert!(call(&t, "increment", &[json!("/hits"), json!(1), json!(2)]).is_err());
    }

    #[test]
    fn the_greatest_number_is_not_wrapped() {
        let t = TestTree::new::<Counter>();
        t.create("/hits", "9223372036854775807");
        assert!(call(&t, "increment", &[json!("/hits")]).unwrap_err().contains("more than a counter can hold"));
        assert_eq!(t.text("/hits").unwrap(), "9223372036854775807");
    }

    #[test]
    fn a_cancelled_increment_is_not_done_twice() {
        let t = TestTree::new::<Counter>();
        let call = t.client("ci").call("increment", json!(["/hits"]));
        call.cancel().unwrap();
        assert_eq!(t.text("/hits").unwrap(), "1");
    }
}
