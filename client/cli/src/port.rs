//! `import` and `export`: a tree from a file, and into one.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path as FilePath;

use conclave_client::{Client, CreateStep, Error, Outcome, Path, Refusal, SetStep, Step, Zxid};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::args;
use crate::data::Json;
use crate::document::{Document, LEVELS, Node, Wanted};
use crate::failure::{DONE, Failure, While};
use crate::nest::{Branch, Nest};
use crate::out::{Out, plural};

/// Data of one transaction: well below what one frame may hold, with room for what stands around it.
const CHUNK_BYTES: usize = 3 << 20;
/// Steps of one transaction: others get their turn in between.
const CHUNK_STEPS: usize = 1_000;
/// What a step has beside path and data, at most.
const AROUND: usize = 64;
/// Reads that are on their way at a time.
const READS: usize = 64;

/// `import --json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Imported {
    path: Path,
    created: usize,
    replaced: usize,
    unchanged: usize,
}

/// `export --json`, when it goes to a file.
#[derive(Serialize)]
struct Exported<'a> {
    path: &'a Path,
    /// The state that all of it is from.
    zxid: Zxid,
    znodes: usize,
    file: &'a FilePath,
}

pub(crate) async fn import(client: &Client, args: &args::Import, out: Out) -> Result<u8, Failure> {
    let piped = args.file.as_os_str() == "-";
    let name = if piped { "stdin".to_owned() } else { args.file.display().to_string() };
    let bytes = if piped {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(&args.file)
    };
    let bytes = bytes.map_err(|error| Failure::file(&args.file, error))?;
    let bad = |why: String| Failure::Refused {
        code: "bad-file",
        text: format!("{name}: {why}. Nothing was changed. `conclave import --help` shows what it looks like."),
    };
    let document = Document::parse(&bytes).map_err(bad)?;
    let top = document.path.clone();
    let wanted = document.wanted().map_err(bad)?;
    let there = there(client, &wanted).await.reading()?;
    if !args.replace {
        refuse_existing(&wanted, &there)?;
    }
    let (steps, imported) = plan(top, wanted, &there);
    let all = steps.len();
    let mut done = 0;
    for chunk in chunks(steps) {
        let count = chunk.len();
        client.multi(chunk).await.map_err(|error| stopped(error, done, all))?;
        done += count;
    }
    out.show(&imported, |done| {
        let Imported { path, created, replaced, unchanged } = done;
        format!("imported {path}  {created} created, {replaced} replaced, {unchanged} unchanged")
    })?;
    Ok(DONE)
}

/// The data of those that exist already. Level by level: nothing is below what is not there.
async fn there(client: &Client, wanted: &[Wanted]) -> conclave_client::Result<HashMap<Path, Vec<u8>>> {
    let mut there = HashMap::new();
    let top = wanted.first().map_or(0, |top| top.path.depth());
    let deepest = wanted.iter().map(|one| one.path.depth()).max().unwrap_or(0);
    for depth in top..=deepest {
        let parent_is_there = |path: &Path| depth == top || path.parent().is_some_and(|up| there.contains_key(&up));
        let level: Vec<Path> = wanted
            .iter()
            .map(|one| &one.path)
            .filter(|path| path.depth() == depth && parent_is_there(path))
            .cloned()
            .collect();
        let reads = stream::iter(level).map(|path| async move {
            match client.at(&path).get().await {
                Ok(znode) => Ok(Some((path, znode.data.to_vec()))),
                Err(Error::Refused(Refusal::NoZnode { .. })) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found: Vec<_> = reads.buffer_unordered(READS).try_collect().await?;
        there.extend(found.into_iter().flatten());
    }
    Ok(there)
}

/// Without `--replace` nothing may exist; the root apart, which always does.
fn refuse_existing(wanted: &[Wanted], there: &HashMap<Path, Vec<u8>>) -> Result<(), Failure> {
    const NAMED: usize = 3;
    let same_root = |one: &Wanted| one.path.is_root() && there.get(&one.path) == Some(&one.data);
    let existing: Vec<&Path> =
        wanted.iter().filter(|one| there.contains_key(&one.path) && !same_root(one)).map(|one| &one.path).collect();
    let Some(first) = existing.first() else { return Ok(()) };
    let what = if existing.len() == 1 {
        format!("{first} exists already")
    } else {
        let named: Vec<&str> = existing.iter().take(NAMED).map(|path| path.as_str()).collect();
        let more = match existing.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} of {} znodes exist already: {}{more}", existing.len(), wanted.len(), named.join(", "))
    };
    let text = format!("{what}. Nothing was changed. --replace replaces data.");
    Err(Failure::Refused { code: "znode-exists", text })
}

/// What must be done so that all that is wanted is there.
fn plan(top: Path, wanted: Vec<Wanted>, there: &HashMap<Path, Vec<u8>>) -> (Vec<Step>, Imported) {
    let mut imported = Imported { path: top.clone(), created: 0, replaced: 0, unchanged: 0 };
    let mut steps = Vec::new();
    for Wanted { path, data } in wanted {
        match there.get(&path) {
            Some(present) if *present == data => imported.unchanged += 1,
            Some(_) => {
                imported.replaced += 1;
                steps.push(Step::Set(SetStep { path, data: data.into(), if_version: None }));
            }
            None => {
                imported.created += 1;
                // Only what is above the topmost is not in the file.
                let parents = path == top;
                steps.push(Step::Create(CreateStep { parents, ..CreateStep::new(path, data) }));
            }
        }
    }
    (steps, imported)
}

/// Cuts steps into transactions.
fn chunks(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut chunks: Vec<Vec<Step>> = Vec::new();
    let mut room = 0;
    for step in steps {
        let bytes = AROUND
            + match &step {
                Step::Create(create) => create.path.as_str().len() + create.data.len(),
                Step::Set(set) => set.path.as_str().len() + set.data.len(),
                // An import has no others.
                Step::Check(_) | Step::Delete(_) | Step::Update(_) | Step::Acl(_) => 0,
            };
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_STEPS && bytes <= room => {
                room -= bytes;
                chunk.push(step);
            }
            _ => {
                room = CHUNK_BYTES.saturating_sub(bytes);
                chunks.push(vec![step]);
            }
        }
    }
    chunks
}

/// A transaction failed after others had been carried out.
fn stopped(error: Error, done: usize, all: usize) -> Failure {
    let failure = error.writing();
    if done == 0 {
        return failure;
    }
    let why = match &failure {
        Failure::Client { error, .. } => error.to_string(),
        other => other.message(),
    };
    Failure::Exact {
        code: failure.code(),
        exit: failure.exit(),
        outcome: Outcome::Unknown,
        text: format!("stopped after {done} of {all} znodes, which are there: {why}. Run it again with --replace."),
    }
}

pub(crate) async fn export(client: &Client, args: &args::Export, out: Out) -> Result<u8, Failure> {
    let path = Path::parse(&args.path).map_err(Error::from).reading()?;
    let mut subtree = client.at(&path).subtree().with_data().await.reading()?;
    let zxid = subtree.zxid();
    let (mut nest, mut znodes) = (Nest::default(), 0);
    while let Some(entry) = subtree.next().await {
        let entry = entry.reading()?;
        let is_top = entry.path == path;
        if entry.stat.owner.is_some() && is_top {
            let text = format!("{path} is ephemeral: it goes with its session. Export what is above it.");
            return Err(Failure::Refused { code: "ephemeral", text });
        }
        if entry.path.depth() - path.depth() > LEVELS {
            let text = format!("{path} has znodes more than {LEVELS} levels below it. Export it in parts.");
            return Err(Failure::Refused { code: "limit", text });
        }
        // What is below an ephemeral znode is ephemeral too.
        if entry.stat.owner.is_none() {
            znodes += 1;
            nest.add(entry);
        }
    }
    let Some(top) = nest.end() else {
        return Err(Error::Refused(Refusal::NoZnode { path }).reading());
    };
    let Node { data, children, .. } = node(top);
    let document = Document { path, data, children };
    if args.file.as_os_str() == "-" {
        out.bytes(&document.write())?;
        return Ok(DONE);
    }
    std::fs::write(&args.file, document.write()).map_err(|error| Failure::file(&args.file, error))?;
    let exported = Exported { path: &document.path, zxid, znodes, file: &args.file };
    out.show(&exported, |done| {
        let Exported { path, zxid, znodes, file } = done;
        let plural = plural(*znodes as u64);
        format!("exported {path}  {znodes} znode{plural} as of zxid {zxid} to {}", file.display())
    })?;
    Ok(DONE)
}

fn node(branch: Branch) -> Node {
    Node {
        name: branch.entry.path.name().unwrap_or_default().to_owned(),
        data: Json::of(&branch.entry.data.unwrap_or_default()),
        children: branch.below.into_iter().map(node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::{Stat, TreeEntry};

    use super::*;

    fn wanted(path: &str, data: &str) -> Wanted {
        Wanted { path: Path::parse(path).unwrap(), data: data.into() }
    }

    fn there(znodes: &[(&str, &str)]) -> HashMap<Path, Vec<u8>> {
        znodes.iter().map(|(path, data)| (Path::parse(path).unwrap(), (*data).into())).collect()
    }

    #[test]
    fn what_exists_is_refused_by_name_unless_it_is_the_root() {
        let all = ["/", "/a", "/a/b", "/a/c", "/a/d"].map(|path| wanted(path, ""));
        assert!(refuse_existing(&all, &there(&[("/", "")])).is_ok());
        let one = refuse_existing(&all, &there(&[("/", ""), ("/a", "")])).unwrap_err();
        assert_eq!(
            one.message(),
            "refused: znode-exists: /a exists already. Nothing was changed. --replace replaces data."
        );
        let four = there(&[("/", ""), ("/a", ""), ("/a/b", ""), ("/a/c", ""), ("/a/d", "")]);
        let message = refuse_existing(&all, &four).unwrap_err().message();
        assert!(message.contains("4 of 5 znodes exist already: /a, /a/b, /a/c and 1 more. Nothing"), "{message}");
        // The root's data would be replaced: that must be wanted.
        assert!(refuse_existing(&all, &there(&[("/", "mine")])).is_err());
    }

    #[test]
    fn only_what_is_missing_or_different_is_written() {
        let all = vec![wanted("/x/a", "1"), wanted("/x/a/b", "2"), wanted("/x/a/c", "3")];
        let present = there(&[("/x/a", "1"), ("/x/a/b", "old")]);
        let (steps, imported) = plan(Path::parse("/x/a").unwrap(), all.clone(), &present);
        assert_eq!((imported.created, imported.replaced, imported.unchanged), (1, 1, 1));
        assert!(matches!(&steps[0], Step::Set(set) if set.path.as_str() == "/x/a/b" && set.data == "2"));
        assert!(matches!(&steps[1], Step::Create(create) if create.path.as_str() == "/x/a/c" && !create.parents));
        let (steps, _) = plan(Path::parse("/x/a").unwrap(), all.clone(), &there(&[]));
        let parents: Vec<bool> =
            steps.iter().map(|step| matches!(step, Step::Create(create) if create.parents)).collect();
        assert_eq!(parents, [true, false, false]);
        let same = there(&[("/x/a", "1"), ("/x/a/b", "2"), ("/x/a/c", "3")]);
        assert!(plan(Path::parse("/x/a").unwrap(), all, &same).0.is_empty());
    }

    #[test]
    fn transactions_hold_so_many_steps_and_so_many_bytes() {
        let create = |bytes: usize| {
            let path = Path::parse("/a").unwrap();
            Step::Create(CreateStep::new(path, vec![0; bytes]))
        };
        let lengths = |steps| chunks(steps).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(vec![create(0); 2_500]), [1_000, 1_000, 500]);
        assert_eq!(lengths(vec![create(1 << 20); 5]), [2, 2, 1]);
        assert!(chunks(Vec::new()).is_empty());
    }

    #[test]
    fn an_import_that_stops_half_way_says_how_far_it_came() {
        let exists = || Error::Refused(Refusal::ZnodeExists { path: Path::parse("/a").unwrap() });
        assert!(stopped(exists(), 0, 10).message().contains("Nothing was changed."));
        let half = stopped(exists(), 1_000, 2_500);
        assert_eq!((half.exit(), half.code(), half.outcome()), (1, "znode-exists", Outcome::Unknown));
        assert!(half.message().starts_with("stopped after 1000 of 2500 znodes, which are there:"));
    }

    #[test]
    fn a_subtree_becomes_a_document() {
        let entry = |path: &str, data: &'static [u8]| TreeEntry {
            path: path.parse().unwrap(),
            stat: Stat::default(),
            data: Some(data.into()),
        };
        let mut nest = Nest::default();
        for (path, data) in [("/app", &b"1"[..]), ("/app/a", b"\xff"), ("/app/a/b", b""), ("/app/c", b"4")] {
            nest.add(entry(path, data));
        }
        let Node { name, data, children } = node(nest.end().unwrap());
        assert_eq!((name.as_str(), data), ("app", Json::of(b"1")));
        let names: Vec<&str> = children.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(children[0].data, Json::Bytes { base64: vec![0xff] });
        assert_eq!(children[0].children[0].name, "b");
    }

    #[test]
    fn programs_get_the_counts_by_their_names() {
        let imported = Imported { path: Path::root(), created: 1, replaced: 2, unchanged: 3 };
        let value = serde_json::to_value(imported).unwrap();
        assert_eq!(value, serde_json::json!({ "path": "/", "created": 1, "replaced": 2, "unchanged": 3 }));
    }
}
