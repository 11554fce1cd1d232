//! Candidates: where they stand in the tree, as in the recipe for locks on plain znodes, and who comes before whom.

use std::cmp::{Ordering, Reverse};

use conclave_plugin::{Create, Path, Result, Stat, Tree};
use serde::{Deserialize, Serialize};

use crate::Term;

/// An election's paths.
pub(crate) struct Layout {
    pub(crate) election: Path,
    /// The leader: ephemeral, and the zxid of its creation is the term.
    pub(crate) holder: Path,
    line: Path,
}

/// What places and leaders contain, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// Its principal.
    pub principal: String,
    /// What it is called; none: its principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Greater ones lead first.
    pub priority: i64,
    /// For those who look for the leader: its address, perhaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// A leader handed over to it: it comes before all others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub chosen: bool,
}

/// A leader, or one who waits to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its znode.
    pub path: Path,
    /// Of its creation: of a leader, the term.
    pub zxid: u64,
    /// How often its data changed.
    pub version: u64,
    /// Since when, cluster time in milliseconds.
    pub since_ms: u64,
    /// Its session; none when somebody made it by hand.
    pub session: Option<u64>,
    /// Who it is, as it says.
    #[serde(flatten)]
    pub who: Who,
}

impl Layout {
    pub(crate) fn new(election: &Path) -> Result<Self> {
        Ok(Self { election: election.clone(), holder: election.join("holder")?, line: election.join("line")? })
    }

    /// All who wait, in the order of their names.
    pub(crate) fn candidates(&self, tree: &Tree) -> Result<Vec<Candidate>> {
        let places = tree.children(&self.line).with_data().all()?.into_iter();
        let places = places.filter(|place| number(place.name()).is_some());
        Ok(places.map(|place| Candidate::new(place.path, &place.data, &place.stat)).collect())
    }

    /// Takes a place at the end of the line.
    pub(crate) fn queue(&self, tree: &Tree, who: &Who) -> Result<Term> {
        let place = tree.create(self.line.join("w-")?, who.encode()?, Create::ephemeral().numbered())?;
        // Raises the line's version: a client that takes a free lock without a place counts on it.
        tree.set(&self.line, "")?;
        Ok(Term { path: place.path, zxid: place.stat.created })
    }
}

impl Candidate {
    pub(crate) fn new(path: Path, data: &[u8], stat: &Stat) -> Self {
        let who = serde_json::from_slice(data).unwrap_or_default();
        let (zxid, version, since_ms, session) = (stat.created, stat.version, stat.created_ms, stat.owner);
        Self { path, zxid, version, since_ms, session, who }
    }
}

impl Who {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Into::into)
    }

    pub(crate) fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.principal)
    }
}

/// Who comes first: the one that was chosen, then by priority, then by age.
pub(crate) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let rank = |candidate: &Candidate| {
        (Reverse(candidate.who.chosen), Reverse(candidate.who.priority), number(candidate.path.name()))
    };
    rank(a).cmp(&rank(b)).then_with(|| a.path.cmp(&b.path))
}

/// The one right before this one.
pub(crate) fn before<'a>(line: &'a [Candidate], me: &Candidate) -> Option<&'a Candidate> {
    line.iter().filter(|other| order(other, me) == Ordering::Less).max_by(|a, b| order(a, b))
}

/// Deletes a znode of one's own, if it is there still.
pub(crate) fn give_back(tree: &Tree, own: &Term) -> Result<()> {
    if tree.exists(&own.path)?.is_some_and(|stat| stat.created == own.zxid) {
        tree.delete_tree(&own.path)?;
    }
    Ok(())
}

/// The number in a place's name; none if it is no place.
fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('-')?;
    let all = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}
