//! `ls` and `tree`: children, in one column or as a table; and everything below, drawn.

use bytes::Bytes;
use conclave_client::{Client, Entry, Path, Stat, TreeEntry, Zxid, limits};
use serde_json::{Map, Value, json};

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::nest::{Branch, Nest};
use crate::out::{Out, table};
use crate::read::fresh;
use crate::stat;

/// Children as they were asked for.
#[derive(Debug, Default)]
struct Listing {
    children: Vec<Entry>,
    /// Of the state that the first page was read from.
    zxid: Zxid,
    /// There are more after the last of these.
    more: bool,
}

pub(crate) async fn run(client: &Client, args: &args::Ls, out: Out) -> Result<u8, Failure> {
    if args.tree {
        let args = args::Tree { path: args.path.clone(), long: args.long, fresh: args.fresh };
        return tree(client, &args, out).await;
    }
    let listing = list(client, args, out.json).await?;
    out.show(&json(&args.path, &listing), |_| match (args.long, args.data) {
        (true, _) => long(&listing.children),
        (_, true) => listing.children.iter().map(with_data).collect(),
        _ => listing.children.iter().map(|entry| entry.name.clone() + "\n").collect(),
    })?;
    if let (true, Some(last)) = (listing.more, listing.children.last()) {
        out.note(format_args!("there are more: --after {}", last.name));
    }
    Ok(DONE)
}

/// Pages, until there are as many as were asked for; with stats where these are wanted.
async fn list(client: &Client, args: &args::Ls, stats: bool) -> Result<Listing, Failure> {
    let wanted = args.limit.unwrap_or(u64::MAX);
    let mut listing = Listing { more: true, ..Listing::default() };
    let mut after = args.after.clone();
    while listing.more && (listing.children.len() as u64) < wanted {
        let left = wanted - listing.children.len() as u64;
        let size = u32::try_from(left).unwrap_or(u32::MAX).min(limits::PAGE_CHILDREN);
        let mut children = client.at(&args.path).children().prefix(&args.prefix).page_size(size);
        if let Some(name) = &after {
            children = children.after(name);
        }
        if args.names || !(args.long || args.data || stats) {
            children = children.names_only();
        }
        if args.data {
            children = children.with_data();
        }
        let (zxid, page) = fresh!(children, args.fresh).page().await.reading()?;
        if listing.children.is_empty() {
            listing.zxid = zxid;
        }
        // An empty page has nothing to go on after.
        listing.more = page.more && !page.children.is_empty();
        after = page.children.last().map(|entry| entry.name.clone()).or(after);
        listing.children.extend(page.children);
    }
    Ok(listing)
}

fn json(path: &str, listing: &Listing) -> Value {
    let children: Vec<Value> = listing.children.iter().map(child).collect();
    json!({ "path": path, "zxid": listing.zxid, "children": children, "more": listing.more })
}

fn child(entry: &Entry) -> Value {
    let mut child = Map::from_iter([("name".to_owned(), json!(entry.name))]);
    if let Some(stat) = &entry.stat {
        child.insert("stat".to_owned(), conclave_script::stat(stat));
    }
    if let Some(data) = &entry.data {
        child.insert("data".to_owned(), json!(crate::data::Json::of(data)));
    }
    child.into()
}

/// A child and its data in one line: of data that is not text, or that has several lines, only how much it is.
fn with_data(entry: &Entry) -> String {
    let data = entry.data.as_ref().map_or(&[][..], Bytes::as_ref);
    match std::str::from_utf8(data) {
        Ok(text) if !text.contains(char::is_control) => format!("{}  {text}", entry.name).trim_end().to_owned() + "\n",
        _ => format!("{}  ({} bytes)\n", entry.name, data.len()),
    }
}

fn long(children: &[Entry]) -> String {
    if children.is_empty() {
        return String::new();
    }
    let row = |entry: &Entry| {
        let found = entry.stat.unwrap_or_default();
        let Stat { version, data_bytes, children, modified, modified_ms, .. } = found;
        let numbers = [version, data_bytes, children, modified.0].map(|number| number.to_string());
        let words = [stat::utc(modified_ms), stat::word(&found), entry.name.clone()];
        numbers.into_iter().chain(words).collect()
    };
    let rows: Vec<Vec<String>> = children.iter().map(row).collect();
    let header = ["VERSION", "BYTES", "CHILDREN", "ZXID", "MODIFIED", "KIND", "NAME"];
    table(&header, &[true, true, true, true, false, false, false], &rows)
}

pub(crate) async fn tree(client: &Client, args: &args::Tree, out: Out) -> Result<u8, Failure> {
    let path = Path::parse(&args.path).map_err(conclave_client::Error::from).reading()?;
    let mut subtree = fresh!(client.at(&path).subtree(), args.fresh).await.reading()?;
    let zxid = subtree.zxid();
    let mut nest = Nest::default();
    while let Some(entry) = subtree.next().await {
        nest.add(entry.reading()?);
    }
    let entry = TreeEntry { path: path.clone(), stat: Stat::default(), data: None };
    let top = nest.end().unwrap_or(Branch { entry, below: Vec::new() });
    let mut shown = branch(&top);
    shown["path"] = json!(path);
    shown["zxid"] = json!(zxid);
    out.show(&shown, |_| drawn(&top, args.long))?;
    Ok(DONE)
}

/// `{"name", "stat", "children": [...]}`; the topmost one has its path instead of its name.
fn branch(branch: &Branch) -> Value {
    let children: Vec<Value> = branch.below.iter().map(self::branch).collect();
    let mut value = json!({ "stat": conclave_script::stat(&branch.entry.stat), "children": children });
    if let Some(name) = branch.entry.path.name() {
        value["name"] = name.into();
    }
    value
}

fn drawn(top: &Branch, long: bool) -> String {
    fn add(text: &mut String, below: &[Branch], prefix: &str, long: bool) {
        for (n, branch) in below.iter().enumerate() {
            let last = n + 1 == below.len();
            text.push_str(prefix);
            text.push_str(if last { "└─ " } else { "├─ " });
            text.push_str(branch.entry.path.name().unwrap_or("/"));
            about(text, &branch.entry.stat, long);
            let prefix = format!("{prefix}{}", if last { "   " } else { "│  " });
            add(text, &branch.below, &prefix, long);
        }
    }
    fn about(text: &mut String, stat: &Stat, long: bool) {
        if long {
            let Stat { version, data_bytes, .. } = stat;
            text.push_str(&format!("  version {version}  {data_bytes} B"));
        }
        let word = stat::word(stat);
        if word != "persistent" {
            text.push_str(&format!("  ({word})"));
        }
        text.push('\n');
    }
    let mut text = top.entry.path.to_string();
    about(&mut text, &top.entry.stat, long);
    add(&mut text, &top.below, "", long);
    text
}

#[cfg(test)]
mod tests {
    use conclave_client::SessionId;

    use super::*;

    fn at(path: &str, below: Vec<Branch>) -> Branch {
        let entry = TreeEntry { path: path.parse().unwrap(), stat: Stat::default(), data: None };
        Branch { entry, below }
    }

    fn entry(name: &str, data: Option<&'static [u8]>) -> Entry {
        Entry { name: name.to_owned(), stat: Some(Stat::default()), data: data.map(Bytes::from_static) }
    }

    #[test]
    fn a_tree_is_drawn_with_its_branches() {
        let mut worker = at("/app/b/w1", vec![]);
        worker.entry.stat.owner = Some(SessionId(1));
        let a = at("/app/a", vec![at("/app/a/x", vec![]), at("/app/a/y", vec![])]);
        let top = at("/app", vec![a, at("/app/b", vec![worker])]);
        assert_eq!(drawn(&top, false), "/app\n├─ a\n│  ├─ x\n│  └─ y\n└─ b\n   └─ w1  (ephemeral)\n");
        assert_eq!(drawn(&at("/", vec![]), true), "/  version 0  0 B\n");
        let value = branch(&top);
        assert_eq!(value["children"][1]["children"][0]["name"], "w1");
        assert_eq!(value["children"][0]["children"][0]["children"], json!([]));
    }

    #[test]
    fn a_listing_says_its_zxid_and_whether_there_is_more() {
        let names = Entry { name: "b".into(), stat: None, data: None };
        let listing = Listing { children: vec![entry("a", Some(b"x")), names], zxid: Zxid(9), more: true };
        let value = json("/p", &listing);
        assert_eq!((&value["path"], &value["zxid"], &value["more"]), (&json!("/p"), &json!(9), &json!(true)));
        assert_eq!(value["children"][0]["data"], "x");
        assert_eq!(value["children"][0]["stat"]["version"], 0);
        assert_eq!(value["children"][1], json!({ "name": "b" }));
    }

    #[test]
    fn data_stands_beside_the_name_where_it_fits_a_line() {
        assert_eq!(with_data(&entry("a", Some(b"v 1"))), "a  v 1\n");
        assert_eq!(with_data(&entry("a", Some(b""))), "a\n");
        assert_eq!(with_data(&entry("a", Some(b"1\n2"))), "a  (3 bytes)\n");
        assert_eq!(with_data(&entry("a", Some(b"\xff"))), "a  (1 bytes)\n");
    }

    #[test]
    fn a_long_listing_names_its_columns() {
        let text = long(&[entry("a", None)]);
        assert_eq!(
            text,
            "VERSION  BYTES  CHILDREN  ZXID  MODIFIED              KIND        NAME\n      \
             0      0         0     0  1970-01-01T00:00:00Z  persistent  a\n"
        );
    }
}
