//! Where an election keeps what in the tree, and what its znodes contain.

use bytes::Bytes;
use conclave_client::{Path, PathError, ToPath};
use serde::{Deserialize, Serialize};

/// What a candidate's place begins with.
const PLACE: &str = "w-";

/// An election's paths. The [crate's page](crate) says what each is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    election: Path,
    line: Path,
    place: Path,
    holder: Path,
}

impl Layout {
    /// Of the election at this path.
    ///
    /// # Errors
    /// When it is no path, or too deep for what lies below it.
    pub fn new(election: impl ToPath) -> Result<Self, PathError> {
        let election = election.to_path()?;
        let line = election.join("line")?;
        // With a number, so that a path that only its places would make too long is refused here.
        line.join(&format!("{PLACE}{}", u64::MAX))?;
        Ok(Self { place: line.join(PLACE)?, holder: election.join("holder")?, line, election })
    }

    /// The election itself.
    #[must_use]
    pub const fn election(&self) -> &Path {
        &self.election
    }

    /// The parent of the candidates' places.
    #[must_use]
    pub const fn line(&self) -> &Path {
        &self.line
    }

    /// What a place's path begins with; its number follows.
    #[must_use]
    pub const fn place(&self) -> &Path {
        &self.place
    }

    /// The leader's znode: its creation is the term.
    #[must_use]
    pub const fn holder(&self) -> &Path {
        &self.holder
    }
}

/// What places and the leader's znode contain, as JSON. It is what that client says of itself.
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

impl Who {
    /// As it lies in a znode.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of texts and numbers is always JSON").into()
    }

    /// Out of a znode's data. What is no such JSON says nothing: its priority is 0.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_default()
    }

    /// What it is called.
    #[must_use]
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_below_the_election() {
        let layout = Layout::new("/election/billing").unwrap();
        assert_eq!(layout.election().as_str(), "/election/billing");
        assert_eq!(layout.line().as_str(), "/election/billing/line");
        assert_eq!(layout.place().as_str(), "/election/billing/line/w-");
        assert_eq!(layout.holder().as_str(), "/election/billing/holder");
        assert!(Layout::new("election").is_err());
        assert!(Layout::new("/a".repeat(62)).is_ok());
        assert!(Layout::new("/a".repeat(63)).is_err());
    }

    #[test]
    fn who_it_is_can_be_read_whatever_lies_there() {
        let who = Who {
            principal: "client/ann".into(),
            name: Some("a".into()),
            priority: -3,
            data: Some("h:1".into()),
            chosen: true,
        };
        assert_eq!(Who::decode(&who.encode()), who);
        assert_eq!(who.called(), "a");
        let silent = Who { principal: "client/ann".into(), ..Who::default() };
        assert_eq!(&silent.encode()[..], br#"{"principal":"client/ann","priority":0}"#);
        assert_eq!(silent.called(), "client/ann");
        // Of a client that knows only of locks.
        assert_eq!(Who::decode(br#"{"principal":"client/ann","note":"x"}"#), silent);
        assert_eq!(Who::decode(b"by hand"), Who::default());
    }
}
