//! What the pages on wire and disk tell of a running member.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use conclave_link::Plane;
use conclave_testing::{Cluster, eventually, small_storage};

const WIRE: &str = include_str!("../../../client/protocol/WIRE.md");
const DISK: &str = include_str!("../../../server/DISK.md");

/// Every file below a directory, as the page writes them: relative, numbers by what they stand for.
fn files(dir: &Path, below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let generic = match name.split_once('-') {
            Some(("log", _)) => "log-N".to_owned(),
            Some(("env", _)) => "env-N".to_owned(),
            Some(("checkpoint", _)) => "checkpoint-INDEX-TERM".to_owned(),
            _ => name,
        };
        let path = format!("{below}{generic}");
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path(), &format!("{path}/")));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_disk_tells_of_every_file_that_a_member_leaves() {
    let storage = |config: &mut conclave_testing::Config| config.storage = small_storage();
    let mut cluster = Cluster::start_with(1, storage).await.unwrap();
    let client = cluster.client("ann").await.unwrap().pipelined();
    client.at("/a").create("").await.unwrap();
    let data = cluster.config(1).data.clone();
    let is_kept = || std::fs::read_dir(data.join("checkpoints")).is_ok_and(|mut files| files.next().is_some());
    for _ in 0..20 {
        client.at("/a").set(vec![7; 64 << 10]).await.unwrap();
    }
    eventually("there is a checkpoint", is_kept).await.unwrap();
    cluster.stop(1).await.unwrap();
    let found = files(&data, "");
    for part in ["log/log-N", "checkpoints/", "env-N/data.mdb", "marker", "log/vote-b"] {
        assert!(found.iter().any(|file| file.starts_with(part)), "{part} is not among {found:?}");
    }
    for file in found {
        assert!(DISK.contains(&format!("`{file}`")), "DISK.md does not tell of {file}");
    }
}

#[test]
fn the_page_of_the_wire_tells_the_names_of_both_planes() {
    for plane in [Plane::Client, Plane::Peer] {
        let name = std::str::from_utf8(plane.alpn()).unwrap();
        assert!(WIRE.contains(&format!("`{name}`")), "WIRE.md does not tell of {name}");
    }
}
