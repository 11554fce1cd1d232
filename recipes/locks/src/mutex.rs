//! The mutex: a path, a client, and what can be done with both.

use std::future::Future;

use bytes::Bytes;
use conclave_client::{Client, Path, Refusal, Session, ToPath};

use crate::acquire::Acquire;
use crate::error::{Error, Result};
use crate::guard::{Guard, Held};
use crate::layout::{Layout, Who};
use crate::place::{self, Awards, Taken};
use crate::view::{self, Holder, View};

/// A fair lock at a path of the tree. Clones are the same mutex. The [crate's page](crate) says what it promises.
#[derive(Clone, Debug)]
pub struct Mutex {
    pub(crate) client: Client,
    pub(crate) layout: Layout,
    pub(crate) awards: Awards,
    note: Option<String>,
}

/// A mutex as one sees it who wants it at once.
pub(crate) struct Look {
    /// The line's version and length.
    line: Option<(u64, usize)>,
    holder: Option<Holder>,
}

impl Mutex {
    /// The mutex at a path. Nothing is asked of the cluster yet; its znodes are made when they are needed.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { client: client.clone(), layout: Layout::new(path)?, awards: Awards::default(), note: None })
    }

    /// A text for people, shown to those who wait: what the lock is wanted for.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        self.layout.mutex()
    }

    /// Waits in line until the lock is ours. Opens the client's session.
    ///
    /// See [`Acquire`] for what can be said about waiting, and for errors and cancellation.
    pub fn acquire(&self) -> Acquire {
        Acquire::new(self.clone())
    }

    /// Takes the lock if it is free and nobody waits for it. It never stands in line. Opens the client's session.
    ///
    /// Dropping the future gives back what it may have taken.
    ///
    /// # Errors
    /// [`Error::NotFree`], [`Error::AlreadyHeld`]; [`Error::TimedOut`] after the client's request timeout,
    /// [`Error::SessionOver`], [`Error::Client`].
    pub async fn try_acquire(&self) -> Result<Guard> {
        let within = self.client.options().request_timeout();
        let mut seen = None;
        let done = tokio::time::timeout(within, async {
            let session = self.client.session().await?;
            let look = self.look(&session).await?;
            if let Some(guard) = self.take_free(&session, &look).await? {
                return Ok(guard);
            }
            seen = Some(look);
            // Somebody else may have been faster: what there is to say is newer then.
            let Look { line, holder } = self.look(&session).await?;
            Err(Error::NotFree { ahead: line.map_or(0, |(_, ahead)| ahead), holder: holder.map(Box::new) })
        })
        .await;
        done.unwrap_or_else(|_| {
            let (ahead, holder) = seen.map_or((0, None), |look| (look.line.map_or(0, |(_, n)| n), look.holder));
            Err(Error::TimedOut { after: within, ahead, holder: holder.map(Box::new) })
        })
    }

    /// Waits in line for the lock, does the work under it, and releases it. The work is dropped where it stands when
    /// the lock is lost. For a time limit and the like see [`Acquire::run`].
    ///
    /// ```no_run
    /// # async fn example(client: conclave_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mutex = conclave_locks::Mutex::new(&client, "/locks/deploy")?;
    /// let release = client.at("/app/release");
    /// let stat = mutex.run(|held| release.set("v9").fenced(held.fence()).into_future()).await??;
    /// println!("version {}", stat.version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Acquire::run`].
    pub async fn run<W: Future>(&self, work: impl FnOnce(Held) -> W) -> Result<W::Output> {
        self.acquire().run(work).await
    }

    /// Who holds it, and who waits. Needs no session.
    ///
    /// # Errors
    /// As every read.
    pub async fn view(&self) -> Result<View> {
        view::view(&self.client, &self.layout).await
    }

    /// What lies in the znodes that it makes.
    pub(crate) fn who(&self) -> Bytes {
        let principal = self.client.peer().map_or_else(String::new, |peer| peer.principal);
        Who { principal, note: self.note.clone() }.encode()
    }

    /// Sees whether it is free, and makes sure that it is not the session's own already.
    pub(crate) async fn look(&self, session: &Session) -> Result<Look> {
        let look = self.read().await?;
        if look.held_by(session).is_none() {
            return Ok(look);
        }
        // An award that was just being made when its caller went away is given back as soon as it is known.
        self.awards.settled().await;
        let look = self.read().await?;
        match look.held_by(session) {
            None => Ok(look),
            Some(holder) => Err(Error::AlreadyHeld { fence: holder.fence.clone() }),
        }
    }

    async fn read(&self) -> Result<Look> {
        let line = async { Ok(self.client.at(self.layout.line()).stat().await?) };
        let (line, holder) = futures::try_join!(line, view::holder(&self.client, &self.layout))?;
        let line = line.map(|stat| (stat.version, usize::try_from(stat.children).unwrap_or(usize::MAX)));
        Ok(Look { line, holder: holder.map(|(holder, _)| holder) })
    }

    /// Takes the lock if it looks free, and nobody comes in between.
    pub(crate) async fn take_free(&self, session: &Session, look: &Look) -> Result<Option<Guard>> {
        if look.holder.is_some() || look.line.is_some_and(|(_, waiting)| waiting > 0) {
            return Ok(None);
        }
        let version = match look.line {
            Some((version, _)) => version,
            None => self.make().await?,
        };
        match place::take_free(&self.client, &self.layout, self.who(), version, &self.awards).await? {
            Taken::Award(award) => Ok(Some(Guard::new(award, session.clone()))),
            Taken::NotNow => Ok(None),
        }
    }

    /// Makes the mutex's persistent znodes; gives the version at which the line is surely empty.
    async fn make(&self) -> Result<u64> {
        match self.client.at(self.layout.line()).create("").parents().in_session().await {
            // Somebody else was faster. A place that was taken meanwhile has raised the version.
            Ok(_) | Err(conclave_client::Error::Refused(Refusal::ZnodeExists { .. })) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl Look {
    fn held_by(&self, session: &Session) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| holder.session == Some(session.id()))
    }
}
