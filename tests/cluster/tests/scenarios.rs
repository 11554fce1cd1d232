//! The golden scenarios of `server/core/tests/scenarios`, through clients on a cluster of three: the same answers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conclave_client::{Client, Error, Refusal, TreeEntry};
use conclave_protocol::{Op, Value};
use conclave_script::{Act, Ask, Body, Dialect, Play, Request, Scenario, line, subtree};
use conclave_testing::Cluster;
use futures::TryStreamExt;

/// The session timeout that scenarios name.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A scenario's clients, connected when they first ask.
struct Stage<'a> {
    cluster: &'a Cluster,
    clients: BTreeMap<String, Client>,
}

impl Stage<'_> {
    async fn client(&mut self, name: &str) -> Client {
        if let Some(client) = self.clients.get(name) {
            return client.clone();
        }
        let options = self.cluster.options(name).unwrap().with_session_timeout(TIMEOUT);
        let client = Client::connect(options).await.unwrap();
        self.clients.insert(name.to_owned(), client.clone());
        client
    }

    async fn ask(&mut self, name: &str, dialect: &Dialect, request: &Request) -> serde_json::Value {
        let client = self.client(name).await;
        let id = request.id.as_ref();
        let refusal = |error: Error| match error {
            Error::Refused(refusal) => refusal,
            other => panic!("{other}"),
        };
        match &request.ask {
            Ask::Open { .. } => {
                let session = client.session().await.unwrap();
                let timeout_ms = u64::try_from(session.timeout().as_millis()).unwrap();
                dialect.written(id, None, &Ok(Value::Opened { session: session.id(), timeout_ms }))
            }
            Ask::Write(Op::Close) => {
                client.close().await.unwrap();
                self.clients.remove(name);
                dialect.written(id, None, &Ok(Value::Closed))
            }
            Ask::Write(op) => {
                let mut submit = client.submit(op.clone());
                if let Some(fence) = &request.fence {
                    submit = submit.fenced(fence.clone());
                }
                match submit.await {
                    Ok((zxid, value)) => dialect.written(id, Some(zxid), &Ok(value)),
                    Err(error) => dialect.written(id, None, &Err(refusal(error))),
                }
            }
            Ask::Read(query) => match client.query(query.clone()).linearizable().await {
                Ok((zxid, answer)) => dialect.answered(id, Some(zxid), &Ok(answer)),
                Err(error) => dialect.answered(id, None, &Err(refusal(error))),
            },
            Ask::Subtree { path, data } => {
                let reading = client.at(path.clone()).subtree();
                let reading = if *data { reading.with_data() } else { reading };
                let entries: Result<Vec<TreeEntry>, Error> = match reading.linearizable().await {
                    Ok(stream) => stream.try_collect().await,
                    Err(error) => Err(error),
                };
                let body = match entries {
                    Ok(entries) => Body::Ok(subtree(&entries)),
                    Err(error) => Body::Refused(dialect.refusal(&refusal(error))),
                };
                line(id, None, body)
            }
            other => panic!("no scenario has {other:?} yet"),
        }
    }
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../server/core/tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_is_answered_by_a_cluster_as_it_says() {
    let cluster = Cluster::start(3).await.unwrap();
    let principal = cluster.client("one").await.unwrap().peer().unwrap().principal;
    let domain = principal.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let files = files();
    assert!(files.len() >= 10, "{files:?}");
    let mut asked = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut play = Play::new(Scenario::parse(&text).unwrap(), &domain);
        let mut stage = Stage { cluster: &cluster, clients: BTreeMap::new() };
        loop {
            let act = play.act().unwrap_or_else(|mismatch| panic!("{}: {mismatch}", file.display()));
            let Some(Act::Ask { client, request }) = act else {
                assert_eq!(act, None, "{}: it needs what a cluster does not let one do", file.display());
                break;
            };
            let answer = stage.ask(&client, play.dialect(&client), &request).await;
            play.told(&answer).unwrap_or_else(|mismatch| panic!("{}: {mismatch}", file.display()));
            asked += 1;
        }
        for client in stage.clients.into_values() {
            // One whose session was killed can't close it.
            match client.close().await {
                Ok(()) | Err(Error::Refused(Refusal::SessionOver { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(asked > 200, "{asked} requests");
}
