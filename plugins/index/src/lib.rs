//! Secondary indexes over fields of JSON data, kept in the transactions that change the data. See the README.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod entry;
#[cfg(test)]
mod tests;

use conclave_plugin::{After, Change, Context, Path, Result, Tree, Value};
use serde::{Deserialize, Serialize};

use entry::{add, below, name, remove, text, values};

/// The plugin.
pub struct Index;

conclave_plugin::export!(Index: after, procedures(rebuild), queries(find));

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    indexes: Vec<Rule>,
}

/// One index.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// A pattern of paths: which znodes.
    of: String,
    /// A field's name, or a JSON pointer to it.
    field: String,
    /// Below which znode the index lies.
    at: Path,
    /// No two znodes may have the same value.
    #[serde(default)]
    unique: bool,
}

#[derive(Deserialize)]
struct Rebuild {
    at: Path,
    #[serde(default)]
    after: Option<String>,
    limit: u32,
}

/// What `rebuild` answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// How many znodes were looked at.
    pub seen: usize,
    /// What to say as `after` to go on; none when that was all.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Find {
    at: Path,
    value: Value,
    limit: u32,
    #[serde(default)]
    after: Option<Path>,
}

impl After for Index {
    fn react(&self, tree: &Tree, context: &Context, changes: &[Change]) -> Result<()> {
        let settings: Settings = context.settings()?;
        for rule in &settings.indexes {
            keep(tree, rule, &whole(changes.iter().filter(|change| change.path.matches(&rule.of))))?;
        }
        Ok(())
    }
}

/// A znode over the whole run: before its first change, and after its last.
struct Whole<'a> {
    path: &'a Path,
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
}

fn whole<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<Whole<'a>> {
    let mut all: Vec<Whole<'a>> = Vec::new();
    for change in changes {
        let after = change.data.as_deref();
        match all.iter_mut().find(|other| *other.path == change.path) {
            Some(other) => other.after = after,
            None => all.push(Whole { path: &change.path, before: change.previous.as_deref(), after }),
        }
    }
    all
}

/// What goes first, then what comes: so that two znodes can swap values that are unique.
fn keep(tree: &Tree, rule: &Rule, changes: &[Whole<'_>]) -> Result<()> {
    for Whole { path, before, after } in changes {
        let stays = values(*after, &rule.field);
        for value in values(*before, &rule.field).iter().filter(|value| !stays.contains(value)) {
            remove(tree, &rule.at, value, path)?;
        }
    }
    for Whole { path, before, after } in changes {
        let was = values(*before, &rule.field);
        for value in values(*after, &rule.field).iter().filter(|value| !was.contains(value)) {
            add(tree, &rule.at, value, path, rule.unique)?;
        }
    }
    Ok(())
}

/// Puts what is there already into an index, part by part: for data that is older than the index.
fn rebuild(tree: &Tree, context: &Context, args: Rebuild) -> Result<Rebuilt> {
    let settings: Settings = context.settings()?;
    let Some(rule) = settings.indexes.iter().find(|rule| rule.at == args.at) else {
        return Err(format!("the settings have no index at {}", args.at).into());
    };
    let above = rule.of.strip_suffix("/*").filter(|above| !above.contains(['*', '?']));
    let Some(above) = above else {
        return Err(format!("{} names more than the children of one znode: it can't be rebuilt", rule.of).into());
    };
    let above = if above.is_empty() { "/" } else { above };
    let children = tree.children(above).limit(args.limit).with_data();
    let children = match &args.after {
        Some(after) => children.after(after),
        None => children,
    };
    let page = match children.page() {
        Err(error) if error.is("no-znode") => return Ok(Rebuilt { seen: 0, next: None }),
        page => page?,
    };
    for child in &page.children {
        for value in values(Some(&child.data), &rule.field) {
            add(tree, &rule.at, &value, &child.path, rule.unique)?;
        }
    }
    let last = page.children.last().map(|child| child.name().to_owned());
    Ok(Rebuilt { seen: page.children.len(), next: last.filter(|_| page.more) })
}

/// The paths that have a value, in order of their names in the index.
fn find(tree: &Tree, _: &Context, args: Find) -> Result<Vec<Path>> {
    let value = text(&args.value).ok_or("only texts, numbers and truths are indexed")?;
    let children = tree.children(below(&args.at, &value)?).limit(args.limit).with_data();
    let children = match &args.after {
        Some(after) => children.after(&name(after)),
        None => children,
    };
    children.all()?.iter().map(|child| Path::parse(&String::from_utf8_lossy(&child.data))).collect()
}
