//! The client plane's door: each connection gets a task of its own.

use std::sync::Arc;

use conclave_link::{Listener, Principal};

use crate::bulk::Desk;
use crate::connection;
use crate::member::Shared;

/// Accepts clients until the listener is closed.
pub(crate) async fn run(shared: Arc<Shared>, listener: Arc<Listener>) {
    let desk = Arc::<Desk>::default();
    let mut refusals = listener.refusals();
    let refused = tokio::spawn(async move {
        while let Ok(refused) = refusals.recv().await {
            tracing::warn!(?refused, "a client was refused");
        }
    });
    while let Some(connection) = listener.accept().await {
        if matches!(connection.principal(), Principal::Client { .. }) {
            tokio::spawn(connection::serve(Arc::clone(&shared), Arc::clone(&desk), connection));
        } else {
            connection.close(0, "only clients are served here");
        }
    }
    refused.abort();
}
