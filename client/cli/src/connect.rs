//! From the command line's options to a connected client.

use std::time::Duration;

use conclave_client::{Client, ConfigError, Options, Path};

use crate::args::Globals;
use crate::failure::{Failure, While};

/// Saying goodbye may take this long: a one-shot command is done, and has nothing to lose.
const GOODBYE: Duration = Duration::from_millis(500);

/// The options that the command line, the environment and the directory give.
pub(crate) fn options(globals: &Globals) -> Result<Options, ConfigError> {
    let mut options = match (&globals.certificate, &globals.key, &globals.ca) {
        (Some(certificate), Some(key), Some(ca)) => {
            if globals.endpoints.is_empty() {
                let found = Options::find(globals.dir.as_deref())?;
                let named = Options::new(found.endpoints(), certificate, key, ca);
                match found.cluster() {
                    Some(cluster) => named.with_cluster(cluster),
                    None => named,
                }
            } else {
                Options::new(&globals.endpoints, certificate, key, ca)
            }
        }
        _ => Options::find(globals.dir.as_deref())?,
    };
    if !globals.endpoints.is_empty() {
        options = options.with_endpoints(&globals.endpoints);
    }
    if let Some(timeout) = globals.timeout {
        options = options.with_request_timeout(timeout);
        // Who is in a hurry does not wait for the connection either.
        options = options.with_connect_timeout(timeout.min(Duration::from_secs(5)));
    }
    Ok(options)
}

/// Connects; in a namespace, if one is named.
pub(crate) async fn connect(globals: &Globals, options: Options) -> Result<Client, Failure> {
    let namespace = globals.namespace.as_deref().unwrap_or("/");
    // Told before anybody is called.
    Path::parse(namespace).map_err(|error| Failure::Usage(format!("--namespace: {error}")))?;
    Client::connect(options).await.and_then(|client| client.namespace(namespace)).reading()
}

/// Closes a client whose work is done: ends its session, if it has one.
pub(crate) async fn goodbye(client: &Client) {
    // What was asked for is done and told; a session that cannot be closed ends by itself.
    let _ = tokio::time::timeout(GOODBYE, client.close()).await;
}

#[cfg(test)]
mod tests {
    use conclave_client::Source;

    use super::*;

    #[test]
    fn flags_alone_are_enough_and_come_before_all_else() {
        let globals = Globals {
            endpoints: vec!["a:1".into(), "b:2".into()],
            certificate: Some("c.pem".into()),
            key: Some("k.pem".into()),
            ca: Some("ca.pem".into()),
            timeout: Some(Duration::from_secs(1)),
            ..Globals::default()
        };
        let options = options(&globals).unwrap();
        assert_eq!(options.endpoints(), ["a:1", "b:2"]);
        assert_eq!(options.request_timeout(), Duration::from_secs(1));
        assert_eq!(*options.source(), Source::Program);
    }

    #[test]
    fn a_directory_that_is_named_must_be_there() {
        let globals = Globals { dir: Some("/nonexistent".into()), ..Globals::default() };
        assert!(matches!(options(&globals), Err(ConfigError::File { .. })));
    }
}
