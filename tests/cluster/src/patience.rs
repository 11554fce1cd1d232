//! Waiting for conditions, longer than in-process members need: a member that was killed twice builds its tables again.

use std::time::Duration;

use conclave_testing::Error;
use tokio::time::Instant;

/// How long a condition may take to come true.
pub(crate) const LONG: Duration = Duration::from_secs(180);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    until_async(what, async || holds()).await
}

/// Waits until a condition holds that has to be asked for.
pub(crate) async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", LONG.as_secs()).into());
        }
        // tidy: allow sleep, this is how others wait for a condition
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
