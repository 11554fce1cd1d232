//! Where a lock keeps what in the tree, and what its znodes contain: as the recipe on plain znodes has it
//! (`recipes/locks/src/layout.rs`).

use conclave_plugin::{Child, Context, Create, Error, Path, Result, Stat, Tree};
use serde::{Deserialize, Serialize};

/// Characters of a note that are shown of data that is not ours.
const SHOWN: usize = 120;

/// A lock's paths.
pub(crate) struct Layout {
    /// The exclusive holder: ephemeral, and the zxid of its creation is the fence.
    pub(crate) holder: Path,
    /// Shared holders, and those of permits: ephemeral and numbered, each with its own fence.
    pub(crate) shared: Path,
    /// The parent of the places.
    pub(crate) line: Path,
}

/// Who stands at a place: `w-` wants it alone (or permits), `r-` shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
}

/// What places and holders contain, as JSON: who it is, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its principal.
    #[serde(default)]
    pub principal: String,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many permits it holds or wants; of semaphores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u64>,
}

/// A znode of one's own: its path, and the zxid of its creation, which no other znode of that path has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Of which znode.
    pub path: Path,
    /// When it was created: the fence.
    pub zxid: u64,
}

impl Layout {
    pub(crate) fn new(lock: &Path) -> Result<Self> {
        Ok(Self { holder: lock.join("holder")?, shared: lock.join("shared")?, line: lock.join("line")? })
    }

    /// All that stand in line, by number.
    pub(crate) fn places(&self, tree: &Tree) -> Result<Vec<Child>> {
        let mut places = tree.children(&self.line).all()?;
        places.retain(|place| order(place.name()).is_some());
        places.sort_by(|a, b| order(a.name()).cmp(&order(b.name())));
        Ok(places)
    }

    /// The first in line, without reading the whole of it.
    pub(crate) fn first(&self, tree: &Tree) -> Result<Option<Path>> {
        let mut first: Option<Path> = None;
        for prefix in [Mode::Exclusive.prefix(), Mode::Shared.prefix()] {
            let Some(place) = tree.children(&self.line).prefix(prefix).first()? else { continue };
            if first.as_ref().is_none_or(|first| order(place.name()) < order(first.name())) {
                first = Some(place.path);
            }
        }
        Ok(first)
    }

    /// Takes a place at the end of the line; and the one right before it, none when it is the first.
    pub(crate) fn queue(&self, tree: &Tree, mode: Mode, who: &Who) -> Result<(Held, Option<Path>)> {
        let last = self.last(tree)?;
        let place = tree.create(self.line.join(mode.prefix())?, who.encode()?, Create::ephemeral().numbered())?;
        // Raises the line's version: a client that takes a free lock without a place counts on it.
        tree.set(&self.line, place.path.name())?;
        let before = match last {
            Some(last) => Some(last),
            None => self.before(tree, &place.path)?,
        };
        Ok((Held { path: place.path, zxid: place.stat.created }, before))
    }

    /// The place that was taken last, if the line's data says which, and it is there still: numbers rise, so none is behind
    /// it. The recipe on plain znodes does not say.
    fn last(&self, tree: &Tree) -> Result<Option<Path>> {
        let Some(line) = tree.get(&self.line)? else { return Ok(None) };
        let Ok(name) = std::str::from_utf8(&line.data) else { return Ok(None) };
        if order(name).is_none() {
            return Ok(None);
        }
        let last = self.line.join(name)?;
        Ok(tree.exists(&last)?.map(|_| last))
    }

    /// The place right before this one; none when it is the first.
    pub(crate) fn before(&self, tree: &Tree, place: &Path) -> Result<Option<Path>> {
        if self.first(tree)?.as_ref() == Some(place) {
            return Ok(None);
        }
        let mine = order(place.name());
        let places = self.places(tree)?;
        Ok(places.into_iter().rev().find(|other| order(other.name()) < mine).map(|other| other.path))
    }
}

impl Mode {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Exclusive => "w-",
            Self::Shared => "r-",
        }
    }
}

/// A place's rank in line, lowest first: by number and not by name, as after ten digits come eleven. None if it is no place.
pub(crate) fn order(name: &str) -> Option<(u64, &str)> {
    let (_, digits) = name.rsplit_once('-')?;
    let all = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten().map(|number| (number, name))
}

impl Who {
    pub(crate) fn of(context: &Context, note: Option<String>) -> Self {
        Self { principal: context.principal(), note, permits: None }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Into::into)
    }

    /// Out of a znode's data. Anything can lie there, if somebody made it by hand: what is not JSON is the note.
    pub(crate) fn decode(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(data).chars().take(SHOWN).collect();
            let text = text.replace(char::is_control, " ").trim().to_owned();
            Self { note: Some(text).filter(|text| !text.is_empty()), ..Self::default() }
        })
    }

    /// In a few words.
    pub(crate) fn words(&self) -> String {
        match (self.principal.as_str(), &self.note) {
            ("", None) => "somebody who does not say".to_owned(),
            ("", Some(note)) => note.clone(),
            (principal, None) => principal.to_owned(),
            (principal, Some(note)) => format!("{principal} ({note})"),
        }
    }
}

/// Deletes a znode of one's own, with what may lie below it, if it is there still.
pub(crate) fn give_back(tree: &Tree, own: &Held) -> Result<()> {
    if tree.exists(&own.path)?.is_some_and(|stat| stat.created == own.zxid) {
        tree.delete_tree(&own.path)?;
    }
    Ok(())
}

/// Refuses a fence that is not this znode's.
pub(crate) fn check_fence(path: &Path, stat: &Stat, zxid: Option<u64>) -> Result<()> {
    match zxid.filter(|zxid| *zxid != stat.created) {
        None => Ok(()),
        Some(zxid) => {
            let actual = stat.created;
            Err(Error::Said(format!("{path} is held by this session since zxid {actual}, you said {zxid}")))
        }
    }
}
