//! Campaigning: from becoming a candidate to leading, by the procedure or on plain znodes.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use conclave_awards::line::{Turn, Wanted, queue, take_free, take_turn};
use conclave_awards::wait::{changed, while_open};
use conclave_awards::{Guard, Owned, WHILE_OPEN, place_gone, refused_by};
use conclave_client::{Error as ClientError, Fence, Path, Refusal, Session, Zxid};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;

use crate::candidate::{Decision, Leader, Place, decide};
use crate::election::{Election, none_if_missing};
use crate::error::{Error, Result};
use crate::leadership::{Leadership, Term};

/// The plugin that has the procedures.
pub(crate) const PLUGIN: &str = "election";
/// How much longer one waits whose time is over, to be told who leads.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Becomes a candidate, and waits until it leads; made by [`Election::campaign`]. Awaited it gives a [`Leadership`].
///
/// # Errors
/// [`Error::AlreadyLeads`] or [`Error::AlreadyCandidate`] at once when the client's own session leads or waits,
/// [`Error::TimedOut`] when it was given a time, [`Error::SessionOver`] when the session was lost meanwhile,
/// [`Error::PlaceGone`] when somebody deleted the candidate's place, [`Error::Client`] when a request failed. After each of
/// them it is no candidate any more.
///
/// # Cancellation
/// Dropping the future withdraws the candidacy; leadership that was just being given is given back, without anybody
/// waiting for it, and the next candidate leads. A campaign of the same client right afterwards is not refused for that.
#[derive(Clone, Debug)]
#[must_use = "nobody is a candidate until it is awaited"]
pub struct Campaign {
    election: Election,
    within: Option<Duration>,
}

/// What the procedure gives.
#[derive(Debug, Deserialize)]
struct Given {
    path: Path,
    zxid: u64,
}

impl Campaign {
    pub(crate) const fn new(election: Election) -> Self {
        Self { election, within: None }
    }

    /// Waits so long at most; no time at all: leads only if nobody does and nobody waits, and is no candidate meanwhile;
    /// what that takes has the client's request timeout. Without it: as long as the session lives. Half a second more may pass until it is known who leads, for the error to
    /// say.
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// Waits until it leads, does the work, and resigns. See [`Election::lead`].
    ///
    /// # Errors
    /// As [`Election::lead`].
    pub async fn lead<W: Future>(self, work: impl FnOnce(Term) -> W) -> Result<W::Output> {
        Ok(self.award().await?.run(|held| work(Term::new(held))).await?)
    }

    async fn award(self) -> Result<Guard> {
        let Self { election, within } = self;
        let Some(after) = within else { return election.take().await };
        let taken = if after.is_zero() {
            election.take_now().await?
        } else {
            tokio::time::timeout(after, election.take()).await.ok().transpose()?
        };
        match taken {
            Some(guard) => Ok(guard),
            None => {
                let leader = tokio::time::timeout(LAST_LOOK, election.leader()).await;
                let leader = leader.ok().and_then(Result::ok).flatten();
                Err(Error::TimedOut { after, leader: leader.map(Box::new) })
            }
        }
    }
}

impl IntoFuture for Campaign {
    type Output = Result<Leadership>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let election = self.election.clone();
            Ok(Leadership::new(self.award().await?, election))
        })
    }
}

/// What is seen of an election by one who stands in line, or is about to.
struct Look {
    leader: Option<Leader>,
    line: Vec<Place>,
    /// The version at which the line was empty; none when it was not, or is not there.
    empty_at: Option<u64>,
    has_line: bool,
    /// Nothing that has happened since this is missed by who watches from it on.
    since: Zxid,
}

impl Election {
    /// Waits until it leads. Everything that it takes on the way gives itself back when it is dropped.
    async fn take(&self) -> Result<Guard> {
        let session = self.client.session().await?;
        if self.is_plain {
            return self.stand(&session).await;
        }
        // It gives nothing only to those who say how long they wait.
        let none = || Error::Client(ClientError::Mismatch { question: "campaign" });
        self.take_by_procedure(session, None).await?.ok_or_else(none)
    }

    /// Leads if nobody does and nobody waits.
    async fn take_now(&self) -> Result<Option<Guard>> {
        let session = self.client.session().await?;
        if !self.is_plain {
            return self.take_by_procedure(session, Some(0)).await;
        }
        let award = self.take_free(&self.look_first(&session).await?).await?;
        Ok(award.map(|award| Guard::new(award, session)))
    }

    /// Waits for so many milliseconds, or until it leads.
    async fn take_by_procedure(&self, session: Session, wait_ms: Option<u64>) -> Result<Option<Guard>> {
        let mut is_again = false;
        loop {
            let error = match self.given(self.call(wait_ms).await) {
                Ok(award) => return Ok(award.map(|award| Guard::new(award, session))),
                Err(error) => error,
            };
            match refused_by(PLUGIN, &error).map(place_gone) {
                Some(Some(place)) => return Err(Error::PlaceGone { place }),
                Some(None) => self.refuse_twice(&session, &self.look().await?)?,
                None => return Err(error.into()),
            }
            // It was refused for something that is not so any more: a candidacy that was just withdrawn.
            if std::mem::replace(&mut is_again, true) {
                return Err(error.into());
            }
        }
    }

    async fn call(&self, wait_ms: Option<u64>) -> Result<Option<Given>, ClientError> {
        let mut call = self.client.call(PLUGIN, "campaign").in_session();
        if wait_ms.is_none() {
            call = call.within(WHILE_OPEN);
        }
        call = call.arg("path", self.layout.election().as_str()).arg("priority", self.priority);
        if let Some(name) = &self.name {
            call = call.arg("name", name);
        }
        if let Some(data) = &self.data {
            call = call.arg("data", data);
        }
        if let Some(wait_ms) = wait_ms {
            call = call.arg("wait", wait_ms);
        }
        call.typed().await
    }

    /// The award that the call gave, if any.
    fn given(&self, given: Result<Option<Given>, ClientError>) -> Result<Option<Owned>, ClientError> {
        if let Err(ClientError::UndecodableReply { .. }) = &given {
            // It leads, and does not know its term: give it up.
            let call = self.client.call(PLUGIN, "resign").arg("path", self.layout.election().as_str());
            drop(call.in_session().within(WHILE_OPEN).into_future().now_or_never());
        }
        Ok(given?.map(|Given { path, zxid }| Owned::new(&self.client, Fence { path, zxid: Zxid(zxid) })))
    }

    /// Leads if nobody does and nobody waits, or stands in line on plain znodes until it leads.
    async fn stand(&self, session: &Session) -> Result<Guard> {
        let look = self.look_first(session).await?;
        if let Some(award) = self.take_free(&look).await? {
            return Ok(Guard::new(award, session.clone()));
        }
        let (line, place) = (self.layout.line(), self.layout.place());
        let mut place = queue(&self.client, line, place, self.who(), &self.under_way).await?;
        loop {
            let look = self.while_open(session).await?;
            let Fence { path, zxid } = place.fence().clone();
            match decide(&self.layout, &look.line, &path, zxid, look.leader.is_some()) {
                Decision::Gone => return Err(Error::PlaceGone { place: path }),
                Decision::Mine => match take_turn(place, self.wanted(), &self.under_way).await? {
                    Turn::Award(award) => return Ok(Guard::new(award, session.clone())),
                    Turn::NotNow(again) => place = again,
                },
                Decision::Watch(on) => while_open(session, || changed(&self.client, &on, look.since)).await?,
            }
        }
    }

    /// What there is, for who is about to stand.
    async fn look_first(&self, session: &Session) -> Result<Look> {
        let mut look = self.look().await?;
        if self.refuse_twice(session, &look).is_err() {
            // Leadership that was just being given when its caller went away is given back as soon as it is known.
            self.under_way.settled().await;
            look = self.look().await?;
            self.refuse_twice(session, &look)?;
        }
        Ok(look)
    }

    /// A session leads once, and is a candidate once.
    fn refuse_twice(&self, session: &Session, look: &Look) -> Result<()> {
        let own = Some(session.id());
        if let Some(leader) = look.leader.as_ref().filter(|leader| leader.session == own) {
            return Err(Error::AlreadyLeads { fence: leader.fence.clone() });
        }
        match look.line.iter().find(|place| place.stat.owner == own) {
            Some(place) => Err(Error::AlreadyCandidate { place: place.path.clone() }),
            None => Ok(()),
        }
    }

    /// Leads if nobody seems to, and nobody comes in between.
    async fn take_free(&self, look: &Look) -> Result<Option<Owned>> {
        if look.leader.is_some() || !look.line.is_empty() {
            return Ok(None);
        }
        let version = match look.empty_at {
            Some(version) => version,
            // Not empty of other things.
            None if look.has_line => return Ok(None),
            None => self.make().await?,
        };
        Ok(take_free(&self.client, self.layout.line(), version, self.wanted(), &self.under_way).await?)
    }

    fn wanted(&self) -> Wanted {
        Wanted { holder: self.layout.holder().clone(), is_numbered: false, data: self.who(), only_if: Vec::new() }
    }

    /// Makes the persistent znodes; gives the version at which the line is surely empty.
    async fn make(&self) -> Result<u64> {
        match self.client.at(self.layout.line()).create("").parents().in_session().await {
            // Somebody else was faster. A place that was taken meanwhile has raised the version.
            Ok(_) | Err(ClientError::Refused(Refusal::ZnodeExists { .. })) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the leader, and then the line: who was chosen when the leader left is seen to be.
    async fn look(&self) -> Result<Look> {
        let leader = none_if_missing(self.client.at(self.layout.holder()).get().await)?;
        let at = self.client.at(self.layout.line());
        let (stat, line) = futures::join!(at.stat().into_future(), at.children().with_data().into_future());
        let (stat, line) = (stat?, none_if_missing(line)?);
        let moments = [leader.as_ref().map(|znode| znode.zxid), line.as_ref().map(|line| line.zxid)];
        let line = line.map(|line| line.children).unwrap_or_default();
        Ok(Look {
            leader: leader.map(|znode| Leader::new(self.layout.holder(), &znode.data, &znode.stat)),
            line: line.into_iter().filter_map(|entry| Place::new(self.layout.line(), entry)).collect(),
            empty_at: stat.filter(|stat| stat.children == 0).map(|stat| stat.version),
            has_line: stat.is_some(),
            since: moments.into_iter().flatten().min().unwrap_or(Zxid(0)),
        })
    }

    /// Looks, and looks again when there was no answer, for as long as the session lives.
    async fn while_open(&self, session: &Session) -> Result<Look> {
        let look = while_open(session, || async {
            match self.look().await {
                Err(Error::Client(error)) => Err(conclave_awards::Error::Client(error)),
                done => Ok(done),
            }
        });
        look.await?
    }
}
