//! Asking whoever holds a lock to release it, and hearing of that.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use conclave_client::{Client, Error as ClientError, Path, Stat, WatchEvent, Zxid};

use crate::error::Result;
use crate::layout::Who;
use crate::lock::Lock;
use crate::look::none_if_missing;
use crate::view::time;

/// Before requests that could not be listened to are listened to again.
const PAUSE: Duration = Duration::from_secs(1);

/// That a lock be released: who asks for it, and why. `Display` says so in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// The principal of whoever asks, as it says.
    pub principal: String,
    /// Why.
    pub note: Option<String>,
    /// When it was asked for, in cluster time.
    pub since: SystemTime,
}

impl ReleaseRequest {
    fn new(data: &[u8], stat: &Stat) -> Self {
        let Who { principal, note, .. } = Who::decode(data);
        Self { principal, note, since: time(stat.modified_ms) }
    }
}

impl fmt::Display for ReleaseRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.principal.as_str(), &self.note) {
            ("", None) => f.write_str("somebody who does not say"),
            ("", Some(note)) => f.write_str(note),
            (principal, None) => f.write_str(principal),
            (principal, Some(note)) => write!(f, "{principal} ({note})"),
        }
    }
}

impl Lock {
    /// See [`Mutex::request_release`](crate::Mutex::request_release).
    pub(crate) async fn request_release(&self, note: String) -> Result<()> {
        let principal = self.client.peer().map_or_else(String::new, |peer| peer.principal);
        let data: Bytes = Who { principal, note: Some(note), permits: None }.encode();
        self.client.at(self.layout.requests()).create(data).parents().or_set().await?;
        Ok(())
    }
}

/// Waits for a request that was made after this zxid.
pub(crate) async fn requested(client: &Client, requests: &Path, since: Zxid) -> ReleaseRequest {
    loop {
        match listen(client, requests, since).await {
            Ok(request) => return request,
            Err(error) => tracing::debug!(%requests, %error, "requests can't be listened to"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(client: &Client, requests: &Path, since: Zxid) -> Result<ReleaseRequest, ClientError> {
    let mut watch = client.watch(requests).data().with_data().since(since).await?;
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Changes { present, .. } => {
                if let Some(present) = present.into_iter().flatten().last() {
                    return Ok(ReleaseRequest::new(&present.data, &present.stat));
                }
            }
            // Requests may be untold.
            _ => {
                let now = none_if_missing(client.at(requests).get().await)?;
                if let Some(znode) = now.filter(|znode| znode.stat.modified > since) {
                    return Ok(ReleaseRequest::new(&znode.data, &znode.stat));
                }
            }
        }
    }
    // The client is closed, and the lock lost with it.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_in_a_few_words() {
        for (data, expected) in [
            (r#"{"principal":"ann","note":"deploy"}"#, "ann (deploy)"),
            (r#"{"principal":"ann"}"#, "ann"),
            ("by hand", "by hand"),
            ("", "somebody who does not say"),
        ] {
            assert_eq!(ReleaseRequest::new(data.as_bytes(), &Stat::default()).to_string(), expected);
        }
    }
}
