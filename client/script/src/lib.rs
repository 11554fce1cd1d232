//! Requests, replies and events as lines of JSON: what `conclave shell --json` and `conclave txn` speak, and scenarios
//! that say what must be answered.
//!
//! Pure: text in, words of the protocol out, and back. `client/script/SHELL.md` is the page for people who write such
//! lines.
//!
//! ```
//! use conclave_script::{Ask, Dialect};
//! use conclave_protocol::{Op, Refusal, Value};
//!
//! let dialect = Dialect::of("spiffe://example/client/ci");
//! let request = dialect.request(r#"{"id": 7, "set": "/a", "data": "v2", "if_version": 3}"#)?;
//! assert!(matches!(&request.ask, Ask::Write(Op::Set(set)) if set.if_version == Some(3)));
//!
//! let refused = Err(Refusal::NoZnode { path: "/a".parse().unwrap() });
//! assert_eq!(
//!     dialect.written(request.id.as_ref(), None, &refused).to_string(),
//!     r#"{"id":7,"refused":{"code":"no-znode","message":"/a does not exist","path":"/a"}}"#,
//! );
//! # Ok::<(), conclave_script::LineError>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
pub mod base64;
pub mod cbor;
mod event;
mod expect;
mod fields;
mod nearest;
mod op;
mod play;
pub mod plugins;
mod query;
mod reply;
mod request;
mod scenario;
mod strict;
mod txn;

pub use access::Dialect;
pub use event::{changes, closed, ended, resync, snapshot, state};
pub use expect::{Bindings, Expected};
pub use play::{Act, Mismatch, Play};
pub use reply::{Body, data, line, part, stat, subtree};
pub use request::{Ask, LineError, Request, Watch};
pub use scenario::{Moment, Scenario, ScenarioError, What};
pub use txn::{Script, ScriptError};
