//! How many runs of queries there are at a time: so many that the planner always finds an instance for a trigger.

use std::sync::{Condvar, Mutex, PoisonError};

/// A number of places, taken and given back.
pub(crate) struct Slots {
    free: Mutex<u32>,
    given_back: Condvar,
}

/// A place; given back when it is dropped.
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(free: u32) -> Self {
        Self { free: Mutex::new(free), given_back: Condvar::new() }
    }

    /// Takes a place, and waits for one if there is none: runs end, as each has a time.
    pub(crate) fn take(&self) -> Slot<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}
