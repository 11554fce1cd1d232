//! The handle on leading: it knows whether it still does, and gives it up, or hands it over.

use std::ops::Deref;

use conclave_awards::{Guard, refused_by};
use conclave_client::{Error as ClientError, Refusal};

pub use conclave_awards::{Held, State};

use crate::campaign::PLUGIN;
use crate::candidate::sort;
use crate::election::Election;
use crate::error::{Error, Lost, Result};
use crate::layout::Who;

/// A term of leading, for those who work in it. Clones of it lead nobody: the [`Leadership`] does. It dereferences to
/// [`Held`], for whatever can be asked: [`Held::fence`], [`Held::state`], [`Held::lost`], [`Held::deadline`],
/// [`Held::fenced`].
#[derive(Clone, Debug)]
pub struct Term {
    held: Held,
}

impl Term {
    pub(crate) const fn new(held: Held) -> Self {
        Self { held }
    }

    /// Its number: the zxid of the transaction that made it. Later terms have greater ones.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.held.token()
    }
}

impl Deref for Term {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

/// Leading: from an election to its loss, or until it is given up. Dropping it resigns, without waiting and without a
/// report; see [`Leadership::resign`]. (What Curator's `LeaderLatch` is while it has leadership.)
///
/// It dereferences to its [`Term`].
#[derive(Debug)]
#[must_use = "dropping it resigns at once"]
pub struct Leadership {
    award: Guard,
    term: Term,
    election: Election,
}

impl Leadership {
    pub(crate) fn new(award: Guard, election: Election) -> Self {
        Self { term: Term::new(award.held()), award, election }
    }

    /// What can be asked of it, for tasks that work in this term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term.clone()
    }

    /// Gives it up, and waits until the cluster has done it: the next candidate leads. What was issued in the session before
    /// is carried out before. Dropping the future does not take it back.
    ///
    /// # Errors
    /// [`Error::Lost`] when it was lost already. [`Error::Client`] when there was no answer in the client's request
    /// timeout: it goes on resigning, and does not lead after the session's end at the latest.
    pub async fn resign(self) -> Result<()> {
        Ok(self.award.release().await?)
    }

    /// Gives it up for this candidate, which leads at once, before all others: a name, or the principal of one that has no
    /// name. Of several of that name, the next one. When it has happened, this leads no more: [`Held::lost`] says
    /// [`Lost::Released`]. Dropping the future leaves open whether it happens.
    ///
    /// # Errors
    /// [`Error::NoCandidate`], and it leads on. [`Error::Lost`] when it was lost already. [`Error::Client`] when a request
    /// failed; after [`Outcome::Unknown`](conclave_client::Outcome::Unknown) see [`Held::state`], a moment later.
    pub async fn hand_over(&mut self, to: &str) -> Result<()> {
        if self.award.state() == State::Lost {
            return Err(self.award.lost().await.into());
        }
        self.award.set_leaving(true);
        let done =
            if self.election.is_plain { self.hand_over_plain(to).await } else { self.hand_over_by_call(to).await };
        match done {
            Ok(()) => self.award.over(),
            Err(_) => self.award.set_leaving(false),
        }
        done
    }

    async fn hand_over_by_call(&self, to: &str) -> Result<()> {
        let Election { client, layout, .. } = &self.election;
        let call = client.call(PLUGIN, "hand-over").in_session().arg("path", layout.election().as_str());
        let call = call.arg("to", to).arg("zxid", self.number());
        let Err(error) = call.await else { return Ok(()) };
        if refused_by(PLUGIN, &error).is_none() {
            return Err(error.into());
        }
        let leads = self.election.leader().await?.is_some_and(|leader| leader.fence == self.fence());
        if !leads {
            return Err(Lost::HolderGone.into());
        }
        let names: Vec<String> = self.election.candidates().await?.into_iter().map(|other| other.name).collect();
        if names.iter().any(|name| name == to) {
            return Err(error.into());
        }
        Err(Error::NoCandidate { to: to.to_owned(), candidates: names })
    }

    /// By one transaction: the place is chosen, and the leader gone.
    async fn hand_over_plain(&self, to: &str) -> Result<()> {
        let fence = self.fence();
        loop {
            let mut line = self.election.places().await?;
            sort(&mut line);
            let Some(chosen) = line.iter().find(|place| place.who.called() == to) else {
                let candidates = line.iter().map(|place| place.who.called().to_owned()).collect();
                return Err(Error::NoCandidate { to: to.to_owned(), candidates });
            };
            let mut transaction = self.election.client.transaction();
            for place in &line {
                let is_it = place.path == chosen.path;
                if is_it || place.who.chosen {
                    // Who was chosen before, and did not come to lead, is one of many again.
                    let who = Who { chosen: is_it, ..place.who.clone() };
                    transaction = transaction.check_created(&place.path, place.stat.created).set_if_version(
                        &place.path,
                        who.encode(),
                        place.stat.version,
                    );
                }
            }
            match transaction.delete_recursive(&fence.path).fenced(fence.clone()).in_session().await {
                Ok(_) => return Ok(()),
                Err(ClientError::Refused(Refusal::Fenced { .. })) => return Err(Lost::HolderGone.into()),
                // The line is another by now.
                Err(ClientError::Refused(Refusal::Step { cause, .. }))
                    if matches!(
                        *cause,
                        Refusal::BadVersion { .. } | Refusal::NoZnode { .. } | Refusal::Fenced { .. }
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Deref for Leadership {
    type Target = Term;

    fn deref(&self) -> &Term {
        &self.term
    }
}
