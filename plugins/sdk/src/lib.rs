//! The guest's side of a plugin: the tree, the context, procedures, triggers, and the macro that makes a crate a component.
//!
//! A procedure is a function with typed arguments, a trigger is a trait:
//!
//! ```
//! use conclave_plugin::{Answer, Before, Bytes, Change, Context, Park, Path, Result, Tree, Verdict};
//! use serde::Deserialize;
//!
//! /// What this plugin is called with.
//! pub struct Gate;
//!
//! #[derive(Deserialize)]
//! struct Take {
//!     queue: Path,
//! }
//!
//! /// Takes the first item, or waits for one.
//! fn take(tree: &Tree, _: &Context, args: Take) -> Result<Answer<Bytes>> {
//!     let items = args.queue.join("items")?;
//!     let Some(first) = tree.children(&items).with_data().first()? else {
//!         return Ok(Park::children(&items).wake_one().into());
//!     };
//!     tree.delete(&first.path)?;
//!     Ok(Answer::Done(first.data.into()))
//! }
//!
//! impl Before for Gate {
//!     fn check(&self, _: &Tree, _: &Context, change: &Change) -> Verdict {
//!         match change.text() {
//!             Ok("") => Verdict::refuse("an item has something in it"),
//!             _ => Verdict::Allow,
//!         }
//!     }
//! }
//!
//! # const MANIFEST: &str = r#"
//! # name = "gate"
//! # version = "0.1.0"
//! # world = "conclave:plugin@0.1"
//! # [[trigger]]
//! # on = "before"
//! # kinds = ["created"]
//! # paths = ["/queues/*/items/*"]
//! # [[procedure]]
//! # name = "take"
//! # params = ["queue: path"]
//! # parks = true
//! # [[needs]]
//! # paths = ["/queues/**"]
//! # ops = ["read", "delete"]
//! # "#;
//! # macro_rules! export { ($($t:tt)*) => { conclave_plugin::export!(Gate: manifest(MANIFEST), before, procedures(take)); } }
//! // Beside src/ lies plugin.toml: its manifest.
//! export!(Gate: before, procedures(take));
//!
//! # fn main() {
//! use conclave_plugin::{TestTree, json};
//!
//! let t = TestTree::new::<Gate>();
//! let call = t.client("ci").call("take", json!({"queue": "/queues/q"}));
//! assert!(call.is_parked());
//! t.create("/queues/q/items/1", "x");
//! assert_eq!(call.reply::<Bytes>().unwrap(), b"x");
//! # }
//! ```
//!
//! The same code is compiled to a component for the cluster, and natively for tests: there [`TestTree`] is the tree.
//!
//! **A run is a transaction.** A procedure that returns an error undoes all that it wrote, and its caller is told the text.
//! One that parks keeps what it wrote, and runs again from its beginning later: [`Context::resumed`] says why. What it needs to
//! know from its last run it takes along as [`Park::state`]. A run may find that its condition holds no more, or was woken for
//! nothing: look, then decide. A procedure that returns an [`Answer`] is also run again to *give back*: see [`Reason::Cancel`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod bytes;
mod cbor;
#[cfg(target_arch = "wasm32")]
mod component;
mod context;
mod error;
mod export;
mod path;
#[cfg(not(target_arch = "wasm32"))]
mod testing;
mod tree;
mod trigger;

pub use answer::{Answer, Condition, Park, Reply, Test, Wake};
pub use bytes::Bytes;
pub use context::{Caller, Context, Level, Reason, Resumed};
pub use error::{Error, Result};
pub use path::Path;
pub use serde_json::{self, Value, json};
#[cfg(not(target_arch = "wasm32"))]
pub use testing::{TestCall, TestClient, TestTree};
pub use tree::{Child, Children, Create, Created, Page, Stat, Tree, Znode};
pub use trigger::{After, Before, Change, ChangeKind, Ended, SessionEnd, Timer, Verdict};

#[doc(hidden)]
pub use export::{Exports, NoArgs, Plugin, Procedure, procedure, query};

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use component::{Component, after, before, procedures, queries, session_end, timer};
