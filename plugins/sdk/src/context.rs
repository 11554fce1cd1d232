//! What the run is part of: its time, its zxid, its caller, its settings; random bytes and the log.

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

/// The context of a run.
pub struct Context(pub(crate) backend::Context);

impl Context {
    /// The transaction's time: cluster time in milliseconds since 1970. It stands still during a run.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// The zxid that this transaction will have.
    #[must_use]
    pub fn zxid(&self) -> u64 {
        self.0.zxid()
    }

    /// Who called; none when the cluster itself did.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        self.0.caller()
    }

    /// The plugin's settings, as they were installed.
    #[must_use]
    pub fn settings(&self) -> Vec<u8> {
        self.0.settings()
    }

    /// So many bytes that follow from the zxid, at most 65,536. They keep no secret.
    #[must_use]
    pub fn random(&self, bytes: u32) -> Vec<u8> {
        self.0.random(bytes)
    }

    /// A line in the leader's log.
    pub fn log(&self, level: Level, line: &str) {
        self.0.log(level, line);
    }
}
