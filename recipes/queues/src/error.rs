//! Why an item was not pushed, taken or settled.

use std::time::Duration;

use bytes::Bytes;
use conclave_client::{Error as ClientError, Outcome, Path, Refusal};

use crate::claim::Lost;

/// What comes back from the methods of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The queue has as many items as it may have. Nothing was pushed.
    #[error("{said}. Nothing was pushed. Take items from it, wait with .wait_for_room(..), or raise its bound")]
    Full {
        /// Which queue.
        queue: Path,
        /// Its items and its bound, in words.
        said: String,
    },
    /// Nothing was to be had in time.
    #[error("nothing could be taken from {queue} within {} ms", after.as_millis())]
    Empty {
        /// Which queue.
        queue: Path,
        /// The time that it had.
        after: Duration,
    },
    /// The item is too large to be given to anybody. Nothing was pushed. Keep large things elsewhere, and push where.
    #[error("an item of {bytes} bytes is too large, {limit} are allowed. Nothing was pushed")]
    TooLarge {
        /// Its bytes, encoded.
        bytes: usize,
        /// How many it may have: [`ITEM_BYTES`](crate::ITEM_BYTES).
        limit: usize,
    },
    /// There are priorities from 0 to 9, the greatest first. Nothing was pushed.
    #[error("the priority {priority} is none of 0 to 9, the greatest first. Nothing was pushed")]
    BadPriority {
        /// What was said.
        priority: u8,
    },
    /// The key can't be one: it becomes the name of a znode. Nothing was pushed.
    #[error("{key:?} can't be a key: {why}. Nothing was pushed")]
    BadKey {
        /// It.
        key: String,
        /// Why not.
        why: String,
    },
    /// What was taken is no such item. It is given back, a second later, and is a dead letter after as many deliveries as
    /// the queue allows; [`Queue::dead_letters`](crate::Queue::dead_letters) has it then.
    #[error(transparent)]
    Undecodable(Box<Undecodable>),
    /// The claim is over, and the item may be another's by now. What was to be done with it was not done.
    #[error("the claim on item {id} of {queue} is over: {why}")]
    ClaimOver {
        /// Which queue.
        queue: Path,
        /// Which item.
        id: String,
        /// Why.
        why: Lost,
    },
    /// The queue is configured otherwise than this program says. Nothing was done: see
    /// [`Queue::configure`](crate::Queue::configure).
    #[error(
        "{queue} is configured with {there}, this program says {wanted}. Nothing was changed. Say the same, leave it out, or \
         change the queue with configure()"
    )]
    OtherSettings {
        /// Which queue.
        queue: Path,
        /// What it has, as far as that differs.
        there: String,
        /// What this program says.
        wanted: String,
    },
    /// There is a znode at the queue's path that is something else.
    #[error("{path} is no queue: {why}")]
    NoQueue {
        /// The path.
        path: Path,
        /// What is wrong with its data.
        why: String,
    },
    /// There is no such dead letter.
    #[error("{queue} has no dead letter {id}")]
    NoLetter {
        /// Which queue.
        queue: Path,
        /// What was asked for.
        id: String,
    },
    /// The client's session is over, for good, or the client was closed. Connect a new one. Items that it had claimed come
    /// back when their time is over.
    #[error("the session is over: connect a new client")]
    SessionOver {
        /// What is known of this request.
        outcome: Outcome,
    },
    /// A request failed.
    #[error(transparent)]
    Client(ClientError),
}

/// An item that is none of the queue's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("item {id} of {queue} can't be decoded: {why} (delivery {deliveries}; it is given back)")]
pub struct Undecodable {
    /// Which queue.
    pub queue: Path,
    /// Which item.
    pub id: String,
    /// How often it was given to somebody, this time included.
    pub deliveries: u64,
    /// Its bytes.
    pub data: Bytes,
    /// What is wrong with them.
    pub why: String,
}

impl Error {
    /// Did it happen? `NotApplied`: nothing was changed, or what was taken is given back. `Unknown`: it may have happened;
    /// a push with a [key](crate::Push::dedup) can be repeated all the same.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Full { .. }
            | Self::Empty { .. }
            | Self::TooLarge { .. }
            | Self::BadPriority { .. }
            | Self::BadKey { .. }
            | Self::Undecodable(_)
            | Self::ClaimOver { .. }
            | Self::OtherSettings { .. }
            | Self::NoQueue { .. }
            | Self::NoLetter { .. } => Outcome::NotApplied,
            Self::SessionOver { outcome } => *outcome,
            Self::Client(error) => error.outcome(),
        }
    }

    /// Is the session over, so that only a new client helps?
    #[must_use]
    pub const fn is_session_over(&self) -> bool {
        matches!(self, Self::SessionOver { .. })
    }

    /// May the same be asked again, with the same client: did it surely not happen, and can it succeed later?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Empty { .. } | Self::Undecodable(_) => true,
            // It exceeded its budget, most likely: on a machine that has too much to do.
            Self::Client(ClientError::Refused(Refusal::PluginFailed { .. })) => true,
            Self::Client(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::SessionOver { outcome } | ClientError::Closed { outcome } => Self::SessionOver { outcome },
            error => Self::Client(error),
        }
    }
}

impl From<conclave_client::PathError> for Error {
    fn from(error: conclave_client::PathError) -> Self {
        Self::Client(error.into())
    }
}

/// What the plugin said no to, if that is what happened. Its words have no codes: they are told apart by what they say.
pub(crate) fn said(error: &ClientError) -> Option<&str> {
    match error {
        ClientError::Refused(Refusal::PluginRefused { message, .. }) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::Doubt;

    use super::*;

    #[test]
    fn each_error_says_whether_it_happened_and_whether_to_ask_again() {
        let queue = Path::root;
        let gone = Error::ClaimOver { queue: queue(), id: "i".into(), why: Lost::RanOut };
        let undecodable =
            Undecodable { queue: queue(), id: "i".into(), deliveries: 1, data: Bytes::new(), why: "w".into() };
        let failed = Refusal::PluginFailed { plugin: "queue".into(), why: "time".into() };
        for (error, outcome, over, retry) in [
            (Error::Full { queue: queue(), said: "full".into() }, Outcome::NotApplied, false, true),
            (Error::Empty { queue: queue(), after: Duration::ZERO }, Outcome::NotApplied, false, true),
            (Error::TooLarge { bytes: 2, limit: 1 }, Outcome::NotApplied, false, false),
            (Error::Undecodable(Box::new(undecodable)), Outcome::NotApplied, false, true),
            (gone, Outcome::NotApplied, false, false),
            (ClientError::SessionOver { outcome: Outcome::Unknown }.into(), Outcome::Unknown, true, false),
            (ClientError::Closed { outcome: Outcome::NotApplied }.into(), Outcome::NotApplied, true, false),
            (ClientError::Unknown { why: Doubt::Deadline }.into(), Outcome::Unknown, false, false),
            (ClientError::TimedOut { after: Duration::ZERO }.into(), Outcome::NotApplied, false, true),
            (ClientError::from(failed).into(), Outcome::NotApplied, false, true),
        ] {
            assert_eq!(
                (error.outcome(), error.is_session_over(), error.is_retryable()),
                (outcome, over, retry),
                "{error}"
            );
        }
    }
}
