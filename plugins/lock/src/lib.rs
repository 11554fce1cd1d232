//! Fair locks: a mutex, a read-write lock and a semaphore. See the README for what each promises.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod layout;
mod semaphore;
#[cfg(test)]
mod tests;
mod turn;
mod view;

use conclave_plugin::{Answer, Context, Result, Tree};

use layout::Mode;
pub use layout::{Held, Who};
use semaphore::{acquire, release, set_capacity};
use turn::{Lock, downgrade, try_upgrade, unlock};
use view::show;
pub use view::{Entry, View};

/// The plugin.
pub struct Locks;

conclave_plugin::export!(
    Locks: procedures(
        lock, try_lock, unlock, lock_exclusive, lock_shared, downgrade, try_upgrade, acquire, release, set_capacity
    ),
    queries(show)
);

fn lock(tree: &Tree, context: &Context, args: Lock) -> Result<Answer<Option<Held>>> {
    turn::take(tree, context, args, Mode::Exclusive)
}

fn try_lock(tree: &Tree, context: &Context, args: Lock) -> Result<Answer<Option<Held>>> {
    turn::try_take(tree, context, args, Mode::Exclusive)
}

fn lock_exclusive(tree: &Tree, context: &Context, args: Lock) -> Result<Answer<Option<Held>>> {
    turn::take(tree, context, args, Mode::Exclusive)
}

fn lock_shared(tree: &Tree, context: &Context, args: Lock) -> Result<Answer<Option<Held>>> {
    turn::take(tree, context, args, Mode::Shared)
}
