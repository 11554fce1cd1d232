//! What the run is part of: its time, its zxid, its caller, its settings; random bytes and the log.

use std::fmt::Display;

use serde::de::DeserializeOwned;

use crate::{Result, cbor};

#[cfg(target_arch = "wasm32")]
use crate::component as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing as backend;

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The URI of its certificate.
    pub principal: String,
    /// Its session, when it has one.
    pub session: Option<u64>,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what every log calls them")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Why a procedure is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One of the conditions holds, or did.
    Change,
    /// The time is over. To park again is a failure from here on.
    Deadline,
    /// The caller does not want it any more: give back what earlier runs took, also if they had answered. What is answered now
    /// nobody reads.
    Cancel,
    /// The caller's session ends. Its ephemeral znodes are there still, and go after this run by themselves.
    SessionEnd,
}

/// What a procedure is run again with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Why.
    pub reason: Reason,
    pub(crate) state: Vec<u8>,
    pub(crate) done: Option<Vec<u8>>,
}

impl Resumed {
    /// It is to end: nobody wants it any more, or can have it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.reason, Reason::Cancel | Reason::SessionEnd)
    }

    /// What it parked with last; none if it never parked, or with nothing.
    ///
    /// # Errors
    /// When it is something else than `T`.
    pub fn state<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        if self.state.is_empty() { Ok(None) } else { cbor::decode(&self.state, "the state of the call").map(Some) }
    }

    /// What it had answered, when that is being cancelled.
    ///
    /// # Errors
    /// When it is something else than `T`.
    pub fn done<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.done.as_deref().map(|done| cbor::decode(done, "the answer of the call")).transpose()
    }
}

/// The context of a run.
pub struct Context {
    pub(crate) host: backend::Context,
    pub(crate) trigger: String,
    pub(crate) resumed: Option<Resumed>,
}

impl Context {
    /// The transaction's time: cluster time in milliseconds since 1970. It stands still during a run.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.host.now_ms()
    }

    /// The zxid that this transaction will have; of a query, that of the state it reads.
    #[must_use]
    pub fn zxid(&self) -> u64 {
        self.host.zxid()
    }

    /// Who called; of a trigger, who wrote. None when the cluster itself did.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        self.host.caller()
    }

    /// The caller's session.
    ///
    /// # Errors
    /// It has none.
    pub fn session(&self) -> Result<u64> {
        let session = self.caller().and_then(|caller| caller.session);
        session.ok_or_else(|| "this needs a session: what it makes goes with the caller's".into())
    }

    /// The caller's principal; empty when there is none.
    #[must_use]
    pub fn principal(&self) -> String {
        self.caller().map(|caller| caller.principal).unwrap_or_default()
    }

    /// The number of this call of a procedure: the zxid of its first run. Calls that came earlier have lower ones.
    ///
    /// # Errors
    /// Outside of procedures there is none.
    pub fn ticket(&self) -> Result<u64> {
        self.host.ticket().ok_or_else(|| "only a procedure has a ticket".into())
    }

    /// Why this procedure is run again; none in its first run.
    #[must_use]
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// The name of the trigger that runs, as in the manifest; empty in procedures and queries.
    #[must_use]
    pub fn trigger(&self) -> &str {
        &self.trigger
    }

    /// The plugin's settings, as they were installed: JSON. The default when there are none.
    ///
    /// # Errors
    /// They are something else than `T`.
    pub fn settings<T: DeserializeOwned + Default>(&self) -> Result<T> {
        let settings = self.host.settings();
        if settings.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&settings)
            .map_err(|error| ["the plugin's settings: ", &error.to_string()].concat().into())
    }

    /// So many bytes that follow from the zxid, at most 65,536. They spread load and make names differ; they keep no secret.
    #[must_use]
    pub fn random(&self, bytes: u32) -> Vec<u8> {
        self.host.random(bytes)
    }

    /// A line in the plugin's log, on the member that runs it.
    pub fn log(&self, level: Level, line: impl Display) {
        self.host.log(level, &line.to_string());
    }
}
