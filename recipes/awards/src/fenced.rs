//! A client whose writes are refused once an award is over.

use bytes::Bytes;
use conclave_client::{
    AccessList, At, Call, Client, Create, Delete, EditData, EditNumber, Error as ClientError, Fence, Get, Multi, Path,
    Prune, Refusal, Set, SetAcl, ToPath,
};

use crate::error::Result;

/// Writes that carry an award's fence, each by itself; made by [`Held::fenced`](crate::Held::fenced). Once the award is
/// over the cluster refuses them all with [`Refusal::Fenced`], and nothing is changed: whoever writes only through it can't
/// write as a holder that it is not any more, however late its writes arrive.
///
/// ```no_run
/// # // Not run: the crate's page has the same on a cluster.
/// # async fn example(client: conclave_client::Client, held: conclave_awards::Held) -> conclave_awards::Result<()> {
/// let fenced = held.fenced(&client)?;
/// fenced.at("/app/release").set("v9").await?;
/// fenced.transaction().set("/app/release", "v10").delete("/app/draft").commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Fenced {
    client: Client,
    fence: Fence,
}

/// A place to write at under a fence; made by [`Fenced::at`]. What needs no fence (reading) is on
/// [`Client::at`](conclave_client::Client::at).
#[derive(Clone, Debug)]
#[must_use = "say what to do there"]
pub struct FencedAt {
    at: At,
    fence: Fence,
}

impl Fenced {
    pub(crate) fn new(client: &Client, home: &Path, fence: &Fence) -> Result<Self> {
        let root = client.root();
        let Some(fence) = seen_from(&root, home, fence) else {
            let why = format!("the fence {fence} of {home} lies outside of the client's namespace, {root}");
            return Err(ClientError::from(Refusal::BadPath { why }).into());
        };
        Ok(Self { client: client.clone(), fence })
    }

    /// The fence that writes carry, as this client names it.
    #[must_use]
    pub const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The client itself, for reading.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The place that writes are about. See [`Client::at`](conclave_client::Client::at).
    pub fn at(&self, path: impl ToPath) -> FencedAt {
        FencedAt { at: self.client.at(path), fence: self.fence.clone() }
    }

    /// Several steps, all or none, under the fence. See [`Client::transaction`](conclave_client::Client::transaction).
    pub fn transaction(&self) -> Multi {
        self.client.transaction().fenced(self.fence.clone())
    }

    /// Calls a plugin's procedure under the fence. See [`Client::call`](conclave_client::Client::call).
    pub fn call(&self, plugin: impl Into<String>, procedure: impl Into<String>) -> Call {
        self.client.call(plugin, procedure).fenced(self.fence.clone())
    }
}

impl FencedAt {
    /// Reads it: for reading, no fence is needed.
    pub fn get(&self) -> Get {
        self.at.get()
    }

    /// See [`At::set`].
    pub fn set(&self, data: impl Into<Bytes>) -> Set {
        self.at.set(data).fenced(self.fence.clone())
    }

    /// See [`At::create`].
    pub fn create(&self, data: impl Into<Bytes>) -> Create {
        self.at.create(data).fenced(self.fence.clone())
    }

    /// See [`At::delete`].
    pub fn delete(&self) -> Delete {
        self.at.delete().fenced(self.fence.clone())
    }

    /// See [`At::delete_all`].
    pub fn delete_all(&self) -> Prune {
        self.at.delete_all().fenced(self.fence.clone())
    }

    /// See [`At::add`].
    pub fn add(&self, number: i64) -> EditNumber {
        self.at.add(number).fenced(self.fence.clone())
    }

    /// See [`At::min`].
    pub fn min(&self, number: i64) -> EditNumber {
        self.at.min(number).fenced(self.fence.clone())
    }

    /// See [`At::max`].
    pub fn max(&self, number: i64) -> EditNumber {
        self.at.max(number).fenced(self.fence.clone())
    }

    /// See [`At::append`].
    pub fn append(&self, data: impl Into<Bytes>) -> EditData {
        self.at.append(data).fenced(self.fence.clone())
    }

    /// See [`At::swap`].
    pub fn swap(&self, expected: impl Into<Bytes>, data: impl Into<Bytes>) -> EditData {
        self.at.swap(expected, data).fenced(self.fence.clone())
    }

    /// See [`At::set_acl`].
    pub fn set_acl(&self, acl: AccessList) -> SetAcl {
        self.at.set_acl(acl).fenced(self.fence.clone())
    }
}

/// A fence of a client whose root is `home`, as a client names it whose root is `root`; none if it can't.
fn seen_from(root: &Path, home: &Path, fence: &Fence) -> Option<Fence> {
    if root == home {
        return Some(fence.clone());
    }
    let names = home.names().chain(fence.path.names());
    let whole = names.fold(String::new(), |whole, name| format!("{whole}/{name}"));
    let path = Path::parse(&whole).ok().filter(|path| path.is_within(root) && path != root)?;
    let below = if root.is_root() { path.as_str() } else { path.as_str().strip_prefix(root.as_str())? };
    Some(Fence { path: Path::parse(below).ok()?, zxid: fence.zxid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_has_another_name_in_another_namespace_and_none_outside() {
        let path = |text: &str| Path::parse(text).unwrap();
        for (root, home, fence, expected) in [
            ("/", "/", "/m/holder@7", Some("/m/holder@7")),
            ("/a", "/a", "/m/holder@7", Some("/m/holder@7")),
            ("/", "/a/b", "/m/holder@7", Some("/a/b/m/holder@7")),
            ("/a", "/a/b", "/m/holder@7", Some("/b/m/holder@7")),
            ("/a/b", "/", "/a/b/m/holder@7", Some("/m/holder@7")),
            ("/a/b", "/a", "/b/m/holder@7", Some("/m/holder@7")),
            ("/a/b", "/", "/a/bc/holder@7", None),
            ("/a/b", "/", "/m/holder@7", None),
            ("/m/holder", "/", "/m/holder@7", None),
            ("/b", "/a", "/m/holder@7", None),
        ] {
            let seen = seen_from(&path(root), &path(home), &fence.parse().unwrap());
            let expected = expected.map(|fence| fence.parse::<Fence>().unwrap());
            assert_eq!(seen, expected, "{fence} of {home} in {root}");
        }
    }
}
