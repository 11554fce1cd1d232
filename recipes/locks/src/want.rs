//! What can be wanted of a lock, and how each kind is held.

use std::fmt::Debug;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A mutex.
    Mutex,
    /// A read-write lock, alone.
    Write,
    /// A read-write lock, with others.
    Read,
    /// So many permits of a semaphore.
    Permits(u64),
}

/// How something is held: what kind of [`Guard`](crate::Guard) it is.
pub trait Kind: Debug + Send + Sync + 'static + sealed::Sealed {}

/// Held alone, as a mutex is.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

/// Held alone, as a read-write lock is by who writes.
#[derive(Clone, Copy, Debug)]
pub struct Exclusive;

/// Held with others, as a read-write lock is by those who read.
#[derive(Clone, Copy, Debug)]
pub struct Shared;

/// Permits of a semaphore.
#[derive(Clone, Copy, Debug)]
pub struct Permits;

impl Kind for Alone {}
impl Kind for Exclusive {}
impl Kind for Shared {}
impl Kind for Permits {}

mod sealed {
    /// These four, and no others.
    pub trait Sealed {}
    impl Sealed for super::Alone {}
    impl Sealed for super::Exclusive {}
    impl Sealed for super::Shared {}
    impl Sealed for super::Permits {}
}

impl Want {
    /// Permits that it takes.
    pub(crate) const fn permits(self) -> Option<u64> {
        match self {
            Self::Permits(permits) => Some(permits),
            Self::Mutex | Self::Write | Self::Read => None,
        }
    }

    /// Several can hold it at a time.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::Read | Self::Permits(_))
    }
}
