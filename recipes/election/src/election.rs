//! The election: a path, a client, and what it says of itself as a candidate.

use std::future::Future;

use bytes::Bytes;
use conclave_awards::UnderWay;
use conclave_client::{Client, Error as ClientError, Path, Refusal, ToPath};

use crate::campaign::Campaign;
use crate::candidate::{Candidate, Leader, Place, sort};
use crate::error::{Error, Lost, Result};
use crate::layout::{Layout, Who};
use crate::leadership::Term;
use crate::observe::Observe;

/// An election at a path of the tree. Clones are the same candidate. The [crate's page](crate) says what it promises.
#[derive(Clone, Debug)]
pub struct Election {
    pub(crate) client: Client,
    pub(crate) layout: Layout,
    pub(crate) under_way: UnderWay,
    pub(crate) name: Option<String>,
    pub(crate) priority: i64,
    pub(crate) data: Option<String>,
    pub(crate) is_plain: bool,
}

impl Election {
    /// The election at a path. Nothing is asked of the cluster yet; its znodes are made when they are needed.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self {
            client: client.clone(),
            layout: Layout::new(path)?,
            under_way: UnderWay::default(),
            name: None,
            priority: 0,
            data: None,
            is_plain: false,
        })
    }

    /// What the candidate is called: for people, and for those who hand over to it. Without: its principal.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Candidates with a greater priority lead first; of the same, the older one. 0, unless it is said. A leader is not
    /// replaced because a greater priority comes.
    #[must_use]
    pub const fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// What it says, as the leader, to those who look for it: its address, perhaps.
    #[must_use]
    pub fn data(mut self, data: impl Into<String>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Without the plugin `election`: on znodes alone, with more round trips. Both kinds stand in one line, and its order is
    /// the same; only who becomes a candidate in the very moment in which the next leader is decided may be passed.
    #[must_use]
    pub const fn plain(mut self) -> Self {
        self.is_plain = true;
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        self.layout.election()
    }

    /// Becomes a candidate, and waits until it leads. Opens the client's session.
    ///
    /// See [`Campaign`] for what can be said about waiting, and for errors and cancellation.
    pub fn campaign(&self) -> Campaign {
        Campaign::new(self.clone())
    }

    /// Waits until it leads, does the work, and resigns. The work is dropped where it stands when leadership is lost; while
    /// its state is [`State::Uncertain`](crate::State::Uncertain) it goes on, and it is the work's to look. (Curator's
    /// `LeaderSelector`.)
    ///
    /// # Errors
    /// [`Error::Lost`] when the work was dropped, or ended too late. All others: it was never begun. See
    /// [`Error::outcome`].
    pub async fn lead<W: Future>(&self, work: impl FnOnce(Term) -> W) -> Result<W::Output> {
        self.campaign().lead(work).await
    }

    /// As [`Election::lead`], again and again: when leadership is lost because somebody deleted the leader's znode, or the
    /// candidate's place, it becomes a candidate again, at the end of the line. It ends when the work does. (Curator's
    /// `LeaderSelector` with `autoRequeue`.)
    ///
    /// # Errors
    /// [`Error::SessionOver`], or [`Error::Lost`] with [`Lost::SessionOver`]: then only a new client helps. Otherwise as
    /// [`Election::lead`].
    pub async fn keep_leading<W: Future>(&self, mut work: impl FnMut(Term) -> W) -> Result<W::Output> {
        loop {
            match self.campaign().lead(&mut work).await {
                Err(Error::Lost(Lost::HolderGone) | Error::PlaceGone { .. }) => {
                    tracing::info!(election = %self.path(), "leadership was lost, and is sought again");
                }
                done => return done,
            }
        }
    }

    /// Who leads, if anybody does. Needs no session.
    ///
    /// # Errors
    /// As every read.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let znode = none_if_missing(self.client.at(self.layout.holder()).get().await)?;
        Ok(znode.map(|znode| Leader::new(self.layout.holder(), &znode.data, &znode.stat)))
    }

    /// Who waits to lead, the next one first. Needs no session.
    ///
    /// # Errors
    /// As every read.
    pub async fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut line = self.places().await?;
        sort(&mut line);
        Ok(line.into_iter().map(Place::candidate).collect())
    }

    /// Who leads now, and from now on: whenever that has changed, who leads then. Needs no session. See [`Observe`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn observe(&self) -> Result<Observe> {
        let watch = self.client.watch(self.layout.holder()).data().with_data().snapshot().await?;
        Ok(Observe::new(watch, self.layout.holder().clone()))
    }

    /// The candidates' places, in no order.
    pub(crate) async fn places(&self) -> Result<Vec<Place>> {
        let line = none_if_missing(self.client.at(self.layout.line()).children().with_data().await)?;
        let line = line.map(|line| line.children).unwrap_or_default();
        Ok(line.into_iter().filter_map(|entry| Place::new(self.layout.line(), entry)).collect())
    }

    /// What lies in the znodes that it makes.
    pub(crate) fn who(&self) -> Bytes {
        let principal = self.client.peer().map_or_else(String::new, |peer| peer.principal);
        let (name, data) = (self.name.clone(), self.data.clone());
        Who { principal, name, priority: self.priority, data, chosen: false }.encode()
    }
}

/// What was read, or that it is not there.
pub(crate) fn none_if_missing<T>(read: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Refused(Refusal::NoZnode { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}
