//! `ls`: children, in one column, as a table, or with everything below as a tree.

use conclave_client::{Client, Entry, Path, Stat};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::{Out, table};
use crate::stat;

/// A child, with what is below it where that was asked for.
#[derive(Debug, Serialize)]
struct Node {
    name: String,
    stat: Stat,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<Vec<Self>>,
}

#[derive(Serialize)]
struct Listing<'a> {
    path: &'a str,
    children: Vec<Node>,
}

pub(crate) async fn run(client: &Client, args: &args::Ls, out: Out) -> Result<u8, Failure> {
    let path = Path::parse(&args.path).map_err(conclave_client::Error::from).reading()?;
    let children = if args.tree {
        below(client, path.clone()).await.reading()?
    } else {
        let listing = client.at(&path).children().await.reading()?;
        listing.children.into_iter().map(|entry| Node { name: entry.name, stat: entry.stat, children: None }).collect()
    };
    let listing = Listing { path: path.as_str(), children };
    out.show(&listing, |listing| match (args.tree, args.long) {
        (true, long) => tree(listing, long),
        (false, true) => long(&listing.children),
        (false, false) => listing.children.iter().map(|node| node.name.clone() + "\n").collect(),
    })?;
    Ok(DONE)
}

/// Everything below a znode. What goes while it is read is left out.
fn below(client: &Client, path: Path) -> BoxFuture<'_, conclave_client::Result<Vec<Node>>> {
    Box::pin(async move {
        let mut nodes = Vec::new();
        for Entry { name, stat, .. } in client.at(&path).children().await?.children {
            let children = if stat.children == 0 {
                Vec::new()
            } else {
                match below(client, path.join(&name)?).await {
                    Err(conclave_client::Error::Refused(conclave_client::Refusal::NoZnode { .. })) => continue,
                    children => children?,
                }
            };
            nodes.push(Node { name, stat, children: Some(children) });
        }
        Ok(nodes)
    })
}

fn long(children: &[Node]) -> String {
    if children.is_empty() {
        return String::new();
    }
    let row = |node: &Node| {
        let Stat { version, data_bytes, children, modified, modified_ms, .. } = node.stat;
        let numbers = [version, data_bytes, children, modified.0].map(|number| number.to_string());
        let kind = if node.stat.owner.is_some() { "ephemeral" } else { "persistent" };
        let words = [stat::utc(modified_ms), kind.to_owned(), node.name.clone()];
        numbers.into_iter().chain(words).collect()
    };
    let rows: Vec<Vec<String>> = children.iter().map(row).collect();
    let header = ["VERSION", "BYTES", "CHILDREN", "ZXID", "MODIFIED", "KIND", "NAME"];
    table(&header, &[true, true, true, true, false, false, false], &rows)
}

fn tree(listing: &Listing<'_>, long: bool) -> String {
    fn add(text: &mut String, nodes: &[Node], prefix: &str, long: bool) {
        for (n, node) in nodes.iter().enumerate() {
            let last = n + 1 == nodes.len();
            text.push_str(prefix);
            text.push_str(if last { "└─ " } else { "├─ " });
            text.push_str(&node.name);
            if long {
                let Stat { version, data_bytes, .. } = node.stat;
                text.push_str(&format!("  version {version}  {data_bytes} B"));
            }
            if node.stat.owner.is_some() {
                text.push_str("  (ephemeral)");
            }
            text.push('\n');
            let prefix = format!("{prefix}{}", if last { "   " } else { "│  " });
            add(text, node.children.as_deref().unwrap_or_default(), &prefix, long);
        }
    }
    let mut text = format!("{}\n", listing.path);
    add(&mut text, &listing.children, "", long);
    text
}

#[cfg(test)]
mod tests {
    use conclave_client::SessionId;
    use serde_json::json;

    use super::*;

    fn node(name: &str, children: Vec<Node>) -> Node {
        Node { name: name.to_owned(), stat: Stat::default(), children: Some(children) }
    }

    #[test]
    fn a_tree_is_drawn_with_its_branches() {
        let mut worker = node("w1", vec![]);
        worker.stat.owner = Some(SessionId(1));
        let children = vec![node("a", vec![node("x", vec![]), node("y", vec![])]), node("b", vec![worker])];
        let drawn = tree(&Listing { path: "/app", children }, false);
        assert_eq!(drawn, "/app\n├─ a\n│  ├─ x\n│  └─ y\n└─ b\n   └─ w1  (ephemeral)\n");
    }

    #[test]
    fn json_has_children_only_in_a_tree() {
        let plain = Node { children: None, ..node("a", vec![]) };
        let value = serde_json::to_value(Listing { path: "/", children: vec![plain] }).unwrap();
        assert_eq!(value["children"][0]["name"], "a");
        assert_eq!(value["children"][0].get("children"), None);
        let value = serde_json::to_value(Listing { path: "/", children: vec![node("a", vec![])] }).unwrap();
        assert_eq!(value["children"][0]["children"], json!([]));
    }

    #[test]
    fn a_long_listing_names_its_columns() {
        let text = long(&[node("a", vec![])]);
        assert_eq!(
            text,
            "VERSION  BYTES  CHILDREN  ZXID  MODIFIED              KIND        NAME\n      \
             0      0         0     0  1970-01-01T00:00:00Z  persistent  a\n"
        );
    }
}
