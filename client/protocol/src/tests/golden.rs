//! The messages' bytes as they were released: `testdata/messages.golden` has a name and the bytes in hexadecimal a line.
//!
//! A difference means that members and clients of the last version no longer understand this one. When that is wanted
//! (a new version of the protocol, or a message that is new), write the file anew and read its diff:
//! `CONCLAVE_GOLDEN=write cargo test -p conclave-protocol golden`

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{samples, side};
use crate::codec;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/messages.golden");

const HOW: &str = "if that is on purpose: CONCLAVE_GOLDEN=write cargo test -p conclave-protocol golden";

fn lines<T: Serialize>(what: &str, samples: &[(String, T)]) -> Vec<(String, String)> {
    let hex = |bytes: Vec<u8>| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    samples.iter().map(|(name, one)| (format!("{what}.{name}"), hex(codec::encode(one)))).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn now() -> Vec<(String, String)> {
    let mut all = lines("client", &samples::client_messages());
    all.extend(lines("member", &samples::server_messages()));
    all.extend(lines("outcome", &samples::outcomes()));
    all.extend(lines("side-request", &side::side_requests()));
    all.extend(lines("side-message", &side::side_messages()));
    all
}

fn golden() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}; {HOW}"));
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(name, hex)| (name.to_owned(), hex.to_owned())).collect()
}

#[test]
fn golden_bytes_of_every_message_are_written_and_read_as_they_were() {
    let now = now();
    if std::env::var("CONCLAVE_GOLDEN").is_ok_and(|wanted| wanted == "write") {
        let text: String = now.iter().map(|(name, hex)| format!("{name} {hex}\n")).collect();
        std::fs::write(FILE, text).unwrap();
    }
    let mut golden = golden();
    all_are_read(&golden);
    for (name, hex) in now {
        let was = golden.remove(&name).unwrap_or_else(|| panic!("{name} is not in the golden file; {HOW}"));
        assert_eq!(hex, was, "{name} has other bytes than before; {HOW}");
    }
    assert!(golden.is_empty(), "these are no longer sent: {:?}; {HOW}", golden.keys());
}

fn are_read<T: DeserializeOwned + PartialEq + Debug>(
    golden: &BTreeMap<String, String>,
    what: &str,
    samples: Vec<(String, T)>,
) {
    for (name, one) in samples {
        // One that is new or gone is told below.
        if let Some(hex) = golden.get(&format!("{what}.{name}")) {
            assert_eq!(codec::decode::<T>(&bytes(hex)).unwrap(), one, "{what}.{name}; {HOW}");
        }
    }
}

/// In the same test, so that the file is never read while it is written.
fn all_are_read(golden: &BTreeMap<String, String>) {
    are_read(golden, "client", samples::client_messages());
    are_read(golden, "member", samples::server_messages());
    are_read(golden, "outcome", samples::outcomes());
    are_read(golden, "side-request", side::side_requests());
    are_read(golden, "side-message", side::side_messages());
}
