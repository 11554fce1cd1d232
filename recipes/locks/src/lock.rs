//! What all locks are: a path, a client, and the two ways to an award: the cluster's procedure, and plain znodes.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use bytes::Bytes;
use conclave_awards::line::{Turn, Wanted, queue, take_free, take_turn};
use conclave_awards::wait::{changed, while_open};
use conclave_awards::{Guard, Owned, UnderWay, WHILE_OPEN, place_gone, refused_by};
use conclave_client::{
    Call, Check, Client, Condition, Error as ClientError, Fence, Path, Refusal, Session, Step, Zxid,
};
use futures::FutureExt;
use serde::Deserialize;

use crate::decide::Decision;
use crate::error::{Error, Result};
use crate::layout::{Layout, Settings, Who};
use crate::look::Look;
use crate::view::Waiting;
use crate::want::Want;

/// The plugin that has the procedures.
pub(crate) const PLUGIN: &str = "lock";

/// A lock of any kind at a path of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) client: Client,
    pub(crate) layout: Layout,
    pub(crate) under_way: UnderWay,
    pub(crate) note: Option<String>,
    /// Of a semaphore: the capacity that it was said to have.
    pub(crate) capacity: Option<u64>,
    pub(crate) is_plain: bool,
}

/// Who is told whom one waits for.
pub(crate) type Tell<'t> = dyn FnMut(Waiting) + Send + 't;

/// What the procedures give.
#[derive(Debug, Deserialize)]
struct Given {
    path: Path,
    zxid: u64,
}

impl Lock {
    pub(crate) fn new(client: &Client, path: impl conclave_client::ToPath) -> Result<Self> {
        Ok(Self {
            client: client.clone(),
            layout: Layout::new(path)?,
            under_way: UnderWay::default(),
            note: None,
            capacity: None,
            is_plain: false,
        })
    }

    /// Waits for it. Everything that it takes on the way gives itself back when it is dropped.
    pub(crate) async fn take(&self, want: Want, mut tell: Option<&mut Tell<'_>>) -> Result<Guard> {
        let session = self.client.session().await?;
        if self.is_plain {
            return self.stand(want, &session, tell).await;
        }
        let call = self.call(want, false).within(WHILE_OPEN).typed().into_future();
        let done = self.tell_meanwhile(call, want, &session, tell.as_deref_mut()).await;
        match self.given(done, want) {
            Ok(Some(award)) => Ok(Guard::new(award, session)),
            // It answers so only to those who say how long they wait.
            Ok(None) => Err(ClientError::Mismatch { question: "lock" }.into()),
            Err(error) => match refused_by(PLUGIN, &error).map(place_gone) {
                Some(Some(place)) => Err(Error::PlaceGone { place }),
                // It gives a session nothing twice, and each of a client's tasks may read, or hold permits. Plain znodes
                // tell why, too.
                Some(None) => self.stand(want, &session, tell).await,
                None => Err(error.into()),
            },
        }
    }

    /// Takes it if it is free and nobody waits.
    pub(crate) async fn try_take(&self, want: Want) -> Result<Guard> {
        let session = self.client.session().await?;
        if !self.is_plain {
            // A call that is dropped is given back.
            let done = self.call(want, true).within(WHILE_OPEN).typed().await;
            match self.given(done, want) {
                Ok(Some(award)) => return Ok(Guard::new(award, session)),
                Ok(None) => return Err(self.not_free(want).await?),
                Err(error) if refused_by(PLUGIN, &error).is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let look = self.look(want, &session).await?;
        if let Some(award) = self.take_free(want, &look, &session).await? {
            return Ok(Guard::new(award, session));
        }
        if matches!(want, Want::Permits(_)) {
            // Only the first in line may count on permits not becoming fewer: for a moment it is.
            let place = self.queue(want).await?;
            let look = Look::read(&self.client, &self.layout, want).await?;
            if look.decide(&self.layout, want, name(&place)) == Decision::Mine
                && let Turn::Award(award) = take_turn(place, self.wanted(want, &look), &self.under_way).await?
            {
                return Ok(Guard::new(award, session));
            }
        }
        Err(self.not_free(want).await?)
    }

    /// Why it could not be had at once, as of now.
    async fn not_free(&self, want: Want) -> Result<Error> {
        let look = Look::read(&self.client, &self.layout, want).await?;
        Ok(Error::NotFree { ahead: look.waiting(), holder: look.holder().cloned().map(Box::new) })
    }

    fn call(&self, want: Want, at_once: bool) -> Call {
        let procedure = match (want, at_once) {
            (Want::Mutex, false) => "lock",
            (Want::Mutex, true) => "try-lock",
            (Want::Write, _) => "lock-exclusive",
            (Want::Read, _) => "lock-shared",
            (Want::Permits(_), _) => "acquire",
        };
        let mut call = self.client.call(PLUGIN, procedure).in_session().arg("path", self.layout.lock().as_str());
        if let Some(permits) = want.permits() {
            call = call.arg("permits", permits);
            if let Some(capacity) = self.capacity {
                call = call.arg("capacity", capacity);
            }
        }
        if let Some(note) = &self.note {
            call = call.arg("note", note);
        }
        // `try-lock` has no such parameter.
        if at_once && want != Want::Mutex { call.arg("wait", 0) } else { call }
    }

    /// The award that a call gave.
    fn given(&self, given: Result<Option<Given>, ClientError>, want: Want) -> Result<Option<Owned>, ClientError> {
        if let Err(ClientError::UndecodableReply { .. }) = &given {
            // Something was taken, and it does not say what: give back whatever it is.
            let procedure = if want.permits().is_some() { "release" } else { "unlock" };
            let call = self.client.call(PLUGIN, procedure).arg("path", self.layout.lock().as_str());
            drop(call.in_session().within(WHILE_OPEN).into_future().now_or_never());
        }
        let fence = given?.map(|Given { path, zxid }| Fence { path, zxid: Zxid(zxid) });
        Ok(fence.map(|fence| Owned::new(&self.client, fence)))
    }

    /// Waits for a call, and tells meanwhile whom it waits for, if somebody wants to know: by reads that are sent behind it.
    async fn tell_meanwhile<T>(
        &self,
        call: impl Future<Output = T>,
        want: Want,
        session: &Session,
        tell: Option<&mut Tell<'_>>,
    ) -> T {
        let mut call = std::pin::pin!(call);
        if let Some(tell) = tell {
            let telling = async {
                let told = self.tell(want, session, tell).await;
                told.unwrap_or_else(|error| tracing::debug!(%error, "what is waited for can't be told"));
            };
            tokio::select! {
                // It is sent first, and its end is seen first.
                biased;
                done = &mut call => return done,
                () = telling => {}
            }
        }
        call.await
    }

    /// Tells whom its own place waits for, and again when that changes, for as long as it waits for somebody.
    async fn tell(&self, want: Want, session: &Session, tell: &mut Tell<'_>) -> Result<()> {
        loop {
            let look = self.while_open(session, || Look::read(&self.client, &self.layout, want)).await?;
            let Some(me) = look.place_of(session.id()) else { return Ok(()) };
            let Decision::Watch { on, ahead } = look.decide(&self.layout, want, me) else { return Ok(()) };
            tell(Waiting { ahead, holder: look.holder().cloned() });
            while_open(session, || changed(&self.client, &on, look.since())).await?;
        }
    }

    /// Takes it, or stands in line on plain znodes until it has it.
    async fn stand(&self, want: Want, session: &Session, mut tell: Option<&mut Tell<'_>>) -> Result<Guard> {
        let look = self.look(want, session).await?;
        if let Some(award) = self.take_free(want, &look, session).await? {
            return Ok(Guard::new(award, session.clone()));
        }
        let mut place = self.queue(want).await?;
        loop {
            let look = self.while_open(session, || Look::read(&self.client, &self.layout, want)).await?;
            match look.decide(&self.layout, want, name(&place)) {
                Decision::Gone => return Err(Error::PlaceGone { place: place.fence().path.clone() }),
                Decision::Mine => match take_turn(place, self.wanted(want, &look), &self.under_way).await? {
                    Turn::Award(award) => return Ok(Guard::new(award, session.clone())),
                    Turn::NotNow(again) => place = again,
                },
                Decision::Watch { on, ahead } => {
                    if let Some(tell) = &mut tell {
                        tell(Waiting { ahead, holder: look.holder().cloned() });
                    }
                    while_open(session, || changed(&self.client, &on, look.since())).await?;
                }
            }
        }
    }

    /// As [`while_open`], with this crate's errors.
    async fn while_open<T, A: Future<Output = Result<T>>>(&self, session: &Session, ask: impl Fn() -> A) -> Result<T> {
        let asked = while_open(session, || async {
            match ask().await {
                Ok(value) => Ok(Ok(value)),
                Err(Error::Client(error)) => Err(conclave_awards::Error::Client(error)),
                Err(other) => Ok(Err(other)),
            }
        });
        asked.await?
    }

    /// Sees how it is, and makes sure that the session would not wait for itself; of a semaphore, that it is one, and can
    /// give what is wanted.
    async fn look(&self, want: Want, session: &Session) -> Result<Look> {
        let mut look = Look::read(&self.client, &self.layout, want).await?;
        if look.own(session, want).is_some() {
            // An award that was just being made when its caller went away is given back as soon as it is known.
            self.under_way.settled().await;
            look = Look::read(&self.client, &self.layout, want).await?;
            if let Some(fence) = look.own(session, want) {
                return Err(Error::AlreadyHeld { fence });
            }
        }
        let Want::Permits(permits) = want else { return Ok(look) };
        if look.semaphore().is_err()
            && let Some(capacity) = self.capacity
        {
            self.make_semaphore(capacity).await?;
            look = Look::read(&self.client, &self.layout, want).await?;
        }
        let path = || self.layout.lock().clone();
        let (_, actual) = look.semaphore().map_err(|why| Error::NoSemaphore { path: path(), why })?;
        match self.capacity.filter(|said| *said != actual) {
            Some(said) => Err(Error::OtherCapacity { path: path(), actual, said }),
            None if permits == 0 || permits > actual => {
                Err(Error::BadPermits { path: path(), permits, capacity: actual })
            }
            None => Ok(look),
        }
    }

    /// Takes it if it looks free, and nobody comes in between.
    async fn take_free(&self, want: Want, look: &Look, session: &Session) -> Result<Option<Owned>> {
        if let Want::Permits(_) = want {
            return Ok(None);
        }
        let is_empty = look.waiting() == 0 && (look.empty_at().is_some() || !look.has_line());
        let mut taken = None;
        if is_empty && look.keeps_out(&self.layout, want).is_empty() {
            let version = match look.empty_at() {
                Some(version) => version,
                None => self.make().await?,
            };
            let wanted = self.wanted(want, look);
            taken = take_free(&self.client, self.layout.line(), version, wanted, &self.under_way).await?;
        }
        if taken.is_none()
            && want == Want::Read
            && look.shares(session)
            && let Some(fence) = Look::read(&self.client, &self.layout, want).await?.own(session, want)
        {
            // Somebody has come in between: it would wait for one who waits for it.
            return Err(Error::AlreadyHeld { fence });
        }
        Ok(taken)
    }

    /// The award, and on which conditions it may be made by who sees this.
    pub(crate) fn wanted(&self, want: Want, look: &Look) -> Wanted {
        let check = |path: &Path, condition| Step::Check(Check { path: path.clone(), condition });
        let only_if = match want {
            Want::Mutex => Vec::new(),
            Want::Read => vec![check(self.layout.holder(), Condition::Absent)],
            Want::Write if look.has_shared() => {
                vec![check(self.layout.shared(), Condition::Children { least: 0, most: 0 })]
            }
            Want::Write => vec![check(self.layout.shared(), Condition::Absent)],
            Want::Permits(_) => match look.semaphore() {
                Ok((version, _)) => vec![check(self.layout.lock(), Condition::Version(version))],
                Err(_) => vec![check(self.layout.lock(), Condition::Exists)],
            },
        };
        self.award(want, only_if)
    }

    /// The award, on these conditions.
    pub(crate) fn award(&self, want: Want, only_if: Vec<Step>) -> Wanted {
        let holder = if want.is_shared() { self.layout.sharer() } else { self.layout.holder() };
        Wanted { holder: holder.clone(), is_numbered: want.is_shared(), data: self.who(want.permits()), only_if }
    }

    async fn queue(&self, want: Want) -> Result<Owned> {
        let (line, place) = (self.layout.line(), self.layout.place_of(want));
        Ok(queue(&self.client, line, place, self.who(want.permits()), &self.under_way).await?)
    }

    /// What lies in the znodes that it makes.
    pub(crate) fn who(&self, permits: Option<u64>) -> Bytes {
        let principal = self.client.peer().map_or_else(String::new, |peer| peer.principal);
        Who { principal, note: self.note.clone(), permits }.encode()
    }

    /// Makes the persistent znodes; gives the version at which the line is surely empty.
    async fn make(&self) -> Result<u64> {
        match self.client.at(self.layout.line()).create("").parents().in_session().await {
            // Somebody else was faster. A place that was taken meanwhile has raised the version.
            Ok(_) | Err(ClientError::Refused(Refusal::ZnodeExists { .. })) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the semaphore, unless somebody has just made it.
    async fn make_semaphore(&self, capacity: u64) -> Result<()> {
        if capacity == 0 {
            return Err(Error::BadPermits { path: self.layout.lock().clone(), permits: 0, capacity });
        }
        let at = self.client.at(self.layout.lock());
        let data = Settings { capacity }.encode();
        match at.create(data.clone()).parents().in_session().await {
            Err(ClientError::Refused(Refusal::ZnodeExists { .. })) => {}
            done => return Ok(done.map(drop)?),
        }
        // It may have been made as somebody's parent.
        match at.swap("", data).in_session().await {
            Err(ClientError::Refused(Refusal::CheckFailed { .. })) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// As it is at last, for who has waited too long; none if that is not quickly told. Its own place, which is being given
    /// up, does not count.
    pub(crate) async fn last_look(&self, want: Want, within: Duration) -> Option<Waiting> {
        let look = async {
            let session = self.client.session().await?;
            let look = Look::read(&self.client, &self.layout, want).await?;
            Ok::<_, Error>(Waiting { ahead: look.waiting_besides(session.id()), holder: look.holder().cloned() })
        };
        tokio::time::timeout(within, look).await.ok()?.ok()
    }
}

fn name(place: &Owned) -> &str {
    place.fence().path.name().unwrap_or_default()
}
