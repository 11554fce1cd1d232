//! Ticks the engine's epoch once a millisecond while something runs, so that wall clock can end a run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

const TICK: Duration = Duration::from_millis(1);
/// Ticks without a run before the thread sleeps: waking it costs more than a few ticks.
const IDLE_TICKS: u32 = 100;

/// A thread that ticks; it ends with the last handle.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Runs now.
    runs: u32,
    /// The thread waits to be woken.
    asleep: bool,
    /// The ticker was dropped.
    over: bool,
}

/// While it lives the engine's epoch moves.
pub(crate) struct Running<'a>(&'a Shared);

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), wake: Condvar::new() });
        let (engine, theirs) = (engine.clone(), Arc::clone(&shared));
        std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || tick(&engine, &theirs))?;
        Ok(Self { shared })
    }

    pub(crate) fn running(&self) -> Running<'_> {
        let mut state = self.shared.lock();
        state.runs += 1;
        if state.asleep {
            self.shared.wake.notify_one();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().runs -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is three plain values: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let mut idle = 0;
    loop {
        {
            let mut state = shared.lock();
            idle = if state.runs > 0 { 0 } else { idle + 1 };
            while idle > IDLE_TICKS && state.runs == 0 && !state.over {
                state.asleep = true;
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
            }
            if state.over {
                return;
            }
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}
