//! An instance of a service, and what its znode contains.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use conclave_client::Zxid;
use serde::{Deserialize, Serialize};

/// Characters of a reason that are told.
const REASON: usize = 200;

/// May it be used?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Status {
    /// It may.
    #[default]
    Up,
    /// Its own check says that it can't serve.
    Down,
    /// It is about to go: it finishes what it has, and is to get nothing new.
    Draining,
    /// Something that this version does not know; it is not used.
    Other(String),
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        match text.as_str() {
            "up" => Self::Up,
            "down" => Self::Down,
            "draining" => Self::Draining,
            _ => Self::Other(text),
        }
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        status.to_string()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Other(text) => text,
        })
    }
}

impl Status {
    /// Who drains does so whatever its check says.
    pub(crate) const fn of(draining: bool, failing: bool) -> Self {
        match (draining, failing) {
            (true, _) => Self::Draining,
            (false, true) => Self::Down,
            (false, false) => Self::Up,
        }
    }
}

/// An instance of a service: where it is reached, and what it says of itself. Its JSON is what lies in its znode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Of which service.
    #[serde(skip)]
    pub service: String,
    /// Its name among the instances of its service: that of its znode.
    #[serde(default)]
    pub id: String,
    /// Somebody chose the id: a predecessor of the same id is replaced.
    #[serde(skip)]
    pub(crate) is_chosen: bool,
    /// Where it is reached.
    pub address: String,
    /// May it be used?
    #[serde(default)]
    pub status: Status,
    /// Why it is down, if its check says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its share of the load among the others.
    #[serde(default = "one")]
    pub weight: u64,
    /// Which version it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where in its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What else it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Further ports, by what they are for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// Whatever else is to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// It is healthy only while it has a heartbeat, which goes by itself after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

const fn one() -> u64 {
    1
}

impl Instance {
    /// An instance of this service at this address, `host:port`. Its id is a random one.
    pub fn new(service: impl Into<String>, address: impl fmt::Display) -> Self {
        Self {
            service: service.into(),
            id: format!("{:016x}", rand::random::<u64>()),
            is_chosen: false,
            address: address.to_string(),
            status: Status::Up,
            reason: None,
            weight: 1,
            version: None,
            region: None,
            zone: None,
            tags: Vec::new(),
            ports: BTreeMap::new(),
            metadata: BTreeMap::new(),
            heartbeat_ms: None,
        }
    }

    /// Its name among the instances of its service, instead of a random one. What has that name already is replaced: a
    /// predecessor whose session is not over yet. So no two programs that run may have the same.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        (self.id, self.is_chosen) = (id.into(), true);
        self
    }

    /// Its share of the load: 2 gets twice as much as 1, and 0 nothing, as long as there are others.
    #[must_use]
    pub const fn weight(mut self, weight: u64) -> Self {
        self.weight = weight;
        self
    }

    /// Which version it is.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Where in its region.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// What else it is.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// A further port, by what it is for.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.ports.insert(name.into(), port);
        self
    }

    /// Whatever else is to be known.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of texts and numbers is always JSON").into()
    }

    /// Out of a znode's data; none if it is no instance.
    pub(crate) fn decode(service: &str, id: &str, data: &[u8]) -> Option<Self> {
        let instance: Self = serde_json::from_slice(data).ok()?;
        Some(Self { service: service.to_owned(), id: id.to_owned(), ..instance })
    }
}

/// What is told of a check that failed.
pub(crate) fn reason(why: &str) -> String {
    why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect()
}

/// A time in milliseconds, as the cluster counts it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An instance as it was found in the tree. Dereferences to the [`Instance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// It.
    pub instance: Instance,
    /// It may be used: it is up, and has its heartbeat if it is to have one.
    pub is_healthy: bool,
    /// The zxid with which it was registered, or registered again.
    pub since: Zxid,
    /// The zxid of what it says of itself.
    pub modified: Zxid,
    pub(crate) beats: bool,
}

impl Found {
    pub(crate) fn new(instance: Instance, since: Zxid, modified: Zxid, beats: bool) -> Self {
        let is_healthy = instance.status == Status::Up && (beats || instance.heartbeat_ms.is_none());
        Self { instance, is_healthy, since, modified, beats }
    }
}

impl Deref for Found {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_json_that_the_query_plugin_reads_too() {
        let instance = Instance::new("api", "10.0.0.1:80").id("a").weight(5).version("1.2").region("eu").tag("blue");
        let data = instance.clone().zone("b").port("admin", 9000).metadata("team", "core").encode();
        let json: serde_json::Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "a", "address": "10.0.0.1:80", "status": "up", "weight": 5, "version": "1.2", "region": "eu",
                "zone": "b", "tags": ["blue"], "ports": {"admin": 9000}, "metadata": {"team": "core"},
            })
        );
        let read = Instance::decode("api", "a", &instance.encode()).unwrap();
        assert_eq!(Instance { is_chosen: true, ..read }, instance);
        // The least that is one; its id is its znode's name.
        let least = Instance::decode("api", "x", br#"{"address": "h:1", "id": "y"}"#).unwrap();
        assert_eq!((least.id.as_str(), least.weight, &least.status), ("x", 1, &Status::Up));
        for none in [&b""[..], b"{}", b"h:1", br#"{"address": 7}"#] {
            assert_eq!(Instance::decode("api", "x", none), None);
        }
        assert_ne!(Instance::new("api", "h:1").id, Instance::new("api", "h:1").id);
    }

    #[test]
    fn only_what_is_up_and_beats_if_it_must_is_healthy() {
        let healthy = |status: &str, heartbeat_ms, beats| {
            let instance = Instance { status: status.to_owned().into(), heartbeat_ms, ..Instance::new("api", "h:1") };
            Found::new(instance, Zxid(1), Zxid(1), beats).is_healthy
        };
        assert!(healthy("up", None, false) && healthy("up", Some(100), true));
        assert!(!healthy("up", Some(100), false), "its heartbeat is gone");
        assert!(!healthy("down", None, false) && !healthy("draining", None, true) && !healthy("on fire", None, false));
        for (draining, failing, expected) in
            [(false, false, "up"), (false, true, "down"), (true, false, "draining"), (true, true, "draining")]
        {
            assert_eq!(Status::of(draining, failing).to_string(), expected);
        }
        assert_eq!(reason("a\nb\u{1b}[2J"), "a b [2J");
        assert_eq!(reason(&"x".repeat(900)).len(), REASON);
    }
}
