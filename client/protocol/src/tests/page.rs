//! Tests that WIRE.md tells of every message, every field and every limit as the code has them, and of nothing else.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use serde::Serialize;

use super::{names, plugins, samples, side};
use crate::plugin::{Action, Manage};
use crate::{
    CHUNK_BYTES, ClientMessage, ClusterRequest, Op, PROTOCOL_VERSION, Query, SIDE_FRAME_BYTES, ServerMessage,
    SideMessage, SideRequest, Stat, codec, limits,
};

const PAGE: &str = include_str!("../../WIRE.md");

/// By a table's first column, the words in backticks in its second.
type Table = BTreeMap<String, BTreeSet<String>>;

/// The rows of the table below a heading: their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let below = PAGE.split_once(&format!("\n### {heading}\n"));
    let (_, below) = below.unwrap_or_else(|| panic!("WIRE.md has no section {heading}"));
    let lines = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    // The first two are the columns' names and a line.
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn words(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn told(heading: &str) -> Table {
    let rows = rows(heading);
    let table: Table = rows.iter().map(|cells| (cells[0].trim_matches('`').to_owned(), words(cells[1]))).collect();
    assert_eq!(table.len(), rows.len(), "{heading} has a row twice");
    table
}

fn fields(content: &Value) -> BTreeSet<String> {
    let pairs = content.as_map().map_or(&[][..], Vec::as_slice);
    pairs.iter().filter_map(|(key, _)| key.as_text()).map(str::to_owned).collect()
}

fn value(of: &impl Serialize) -> Value {
    codec::decode(&codec::encode(of)).unwrap()
}

/// The variants of these samples, by their names on the wire, with the fields that are in them.
fn sent<T: Serialize>(samples: impl IntoIterator<Item = T>) -> Table {
    let mut table = Table::new();
    for sample in samples {
        let (name, fields) = match value(&sample) {
            Value::Text(name) => (name, BTreeSet::new()),
            Value::Map(mut pair) if pair.len() == 1 => {
                let (name, content) = pair.remove(0);
                (name.into_text().unwrap(), fields(&content))
            }
            other => panic!("{other:?} is no variant"),
        };
        table.entry(name).or_default().extend(fields);
    }
    table
}

/// The page's table is that of the samples, and the samples are of all variants.
fn agree<T: Serialize>(heading: &str, all: &[&str], samples: impl IntoIterator<Item = T>) {
    let sent = sent(samples);
    assert_eq!(sent.keys().map(String::as_str).collect::<BTreeSet<_>>(), all.iter().copied().collect(), "{heading}");
    assert_eq!(told(heading), sent, "{heading} in WIRE.md, and as it is sent");
}

/// As [`agree`], of variants that have no fields at all, or no sample each.
fn are_named(heading: &str, all: &[&str]) {
    let told: BTreeSet<String> = told(heading).into_keys().collect();
    assert_eq!(told, all.iter().map(|name| (*name).to_owned()).collect(), "{heading}");
}

fn second<T>(named: Vec<(String, T)>) -> impl Iterator<Item = T> {
    named.into_iter().map(|(_, one)| one)
}

#[test]
fn the_page_tells_of_every_message_with_its_fields() {
    agree("ClientMessage", names::CLIENT, second(samples::client_messages()));
    agree("Op", names::OP, second(samples::ops()).map(without_action));
    agree("Action", names::ACTION, plugins::actions());
    agree("PluginState", names::STATE, plugins::states());
    agree("Step", names::STEP, samples::steps());
    agree("Edit", names::EDIT, samples::edits());
    agree("Condition", names::CONDITION, samples::conditions());
    agree("Query", names::QUERY, samples::queries());
    agree("ServerMessage", names::SERVER, second(samples::server_messages()));
    agree("Value", names::VALUE, samples::values());
    agree("Answer", names::ANSWER, samples::answers());
    agree("Refusal", names::REFUSAL, samples::refusals());
    agree("SideRequest", names::SIDE_REQUEST, second(side::side_requests()).map(without_content));
    agree("SideMessage", names::SIDE_MESSAGE, second(side::side_messages()).map(without_reason));
    agree("ClusterRefusal", names::CLUSTER_REFUSAL, side::cluster_refusals());
    are_named("Detail", names::DETAIL);
    are_named("Consistency", names::CONSISTENCY);
    are_named("Scope", names::SCOPE);
    are_named("Who", names::WHO);
    are_named("ChangeKind", names::KIND);
    are_named("Role", names::ROLE);
}

/// So has what is done to a plugin.
fn without_action(op: Op) -> Op {
    match op {
        Op::Manage(manage) => Op::Manage(Manage { what: Action::Disable, ..manage }),
        other => other,
    }
}

/// What a change of the cluster consists of has a table of its own.
fn without_content(request: SideRequest) -> SideRequest {
    match request {
        SideRequest::Cluster(_) => SideRequest::Cluster(ClusterRequest::StepDown),
        other => other,
    }
}

fn without_reason(message: SideMessage) -> SideMessage {
    match message {
        SideMessage::Declined(_) => SideMessage::Declined(crate::ClusterRefusal::Changing),
        other => other,
    }
}

#[test]
fn the_page_tells_of_push_backs_and_changes_of_the_cluster() {
    let push_backs = second(samples::server_messages()).filter_map(|message| match message {
        ServerMessage::PushBack { why, .. } => Some(why),
        _ => None,
    });
    agree("PushBack", names::PUSH_BACK, push_backs);
    let changes = second(side::side_requests()).filter_map(|request| match request {
        SideRequest::Cluster(change) => Some(change),
        _ => None,
    });
    agree("ClusterRequest", names::CLUSTER_REQUEST, changes);
}

/// Every record inside a value, with its fields: the values of these fields are records of this name.
fn gather(value: &Value, named: &[(&str, &str)], found: &mut Table) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, named, found)),
        Value::Map(pairs) => {
            for (key, content) in pairs {
                let key = key.as_text().unwrap();
                if let Some((_, record)) = named.iter().find(|(field, _)| *field == key) {
                    let items = content.as_array().map_or(std::slice::from_ref(content), Vec::as_slice);
                    let all = items.iter().flat_map(fields);
                    found.entry((*record).to_owned()).or_default().extend(all);
                }
                gather(content, named, found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_tells_of_every_record_inside_a_message() {
    let mut found = Table::new();
    let requests: Vec<ClientMessage> = second(samples::client_messages()).collect();
    let (watches, others): (Vec<_>, Vec<_>) =
        requests.iter().partition(|message| matches!(message, ClientMessage::Watch { .. }));
    let inside = [("attach", "Attach"), ("fence", "Fence"), ("kind", "Kind"), ("acl", "Grant")];
    let creates = samples::ops().into_iter().filter(|(_, op)| matches!(op, Op::Create(_)));
    second(creates.collect()).for_each(|op| gather(&value(&op), &inside, &mut found));
    others.iter().filter(|message| !matches!(message, ClientMessage::Read { .. })).for_each(|message| {
        gather(&value(message), &inside[..2], &mut found);
    });
    let inside = [("watch", "WatchRequest")];
    for message in watches {
        let Value::Map(outer) = value(message) else { panic!("a watch is no map") };
        gather(&outer[0].1, &inside, &mut found);
    }
    let inside = [("attached", "Attached"), ("endpoints", "Endpoint"), ("changes", "Change"), ("present", "Present")];
    second(samples::server_messages()).for_each(|message| gather(&value(&message), &inside, &mut found));
    let inside = [("many", "Present"), ("sessions", "SessionInfo"), ("members", "MemberStatus")];
    let of_plugins = [
        ("plugins", "PluginInfo"),
        ("version", "Version"),
        ("previous", "Version"),
        ("next", "Next"),
        ("manifest", "Manifest"),
        ("needs", "Need"),
        ("allowed", "Need"),
        ("trigger", "Trigger"),
        ("procedure", "Procedure"),
        ("query", "Procedure"),
        ("calls", "ParkedCall"),
        ("waits_for", "Awaited"),
        ("pluginstats", "PluginStats"),
        ("lines", "LogLine"),
    ];
    for answer in samples::answers() {
        let Value::Map(pairs) = value(&answer) else { continue };
        match answer {
            crate::Answer::Plugins(_) => gather(&Value::Map(pairs), &of_plugins, &mut found),
            crate::Answer::Calls { .. } => gather(&pairs[0].1, &of_plugins, &mut found),
            crate::Answer::Sessions { .. } => gather(&pairs[0].1, &inside, &mut found),
            _ => gather(&Value::Map(pairs), &inside, &mut found),
        }
    }
    let inside = [("znodes", "TreeEntry"), ("members", "MemberHealth"), ("report", "MemberReport")];
    second(side::side_messages()).for_each(|message| match message {
        SideMessage::PluginStats(_) => gather(&value(&message), &of_plugins[12..], &mut found),
        SideMessage::PluginLog { .. } => gather(&value(&message), &of_plugins[13..], &mut found),
        _ => gather(&value(&message), &inside, &mut found),
    });
    assert_eq!(told("Records"), found, "in WIRE.md, and as they are sent");
}

#[test]
fn the_page_tells_of_a_stats_fields_in_their_order() {
    let text = format!("{:?}", Stat::default());
    let (_, inside) = text.split_once('{').unwrap();
    let fields = inside.split(", ").map(|field| field.split_once(':').unwrap().0.trim());
    let (_, told) = PAGE.split_once("**stat**").unwrap();
    let mut rest = told.split("\n- ").next().unwrap();
    for field in fields {
        let at = rest.find(&format!("`{field}`")).unwrap_or_else(|| panic!("{field} is not there, or too early"));
        rest = &rest[at + 1..];
    }
    assert_eq!(value(&Stat::default()).as_array().unwrap().len(), 14);
    assert!(told.contains("an array of 14"));
}

#[test]
fn the_page_tells_the_limits_and_the_version() {
    assert!(PAGE.contains(&format!("This is version {PROTOCOL_VERSION}.")));
    let fixed: [(&str, u64); 38] = [
        ("FRAME_BYTES", limits::FRAME_BYTES as u64),
        ("SIDE_FRAME_BYTES", SIDE_FRAME_BYTES as u64),
        ("CHUNK_BYTES", CHUNK_BYTES as u64),
        ("NESTING", limits::NESTING as u64),
        ("NAME_BYTES", limits::NAME_BYTES as u64),
        ("DEPTH", limits::DEPTH as u64),
        ("PRINCIPAL_BYTES", limits::PRINCIPAL_BYTES as u64),
        ("PAGE_CHILDREN", u64::from(limits::PAGE_CHILDREN)),
        ("PAGE_BYTES", limits::PAGE_BYTES as u64),
        ("READ_PATHS", limits::READ_PATHS as u64),
        ("READ_BYTES", limits::READ_BYTES as u64),
        ("CALL_BYTES", limits::CALL_BYTES as u64),
        ("PATTERN_BYTES", limits::PATTERN_BYTES as u64),
        ("COMPONENT_BYTES", limits::COMPONENT_BYTES as u64),
        ("COMPONENT_CHUNK", limits::COMPONENT_CHUNK as u64),
        ("UPLOAD_KEPT_MS", limits::UPLOAD_KEPT_MS),
        ("UPLOAD_BYTES", limits::UPLOAD_BYTES as u64),
        ("PLUGINS", limits::PLUGINS as u64),
        ("SETTINGS_BYTES", limits::SETTINGS_BYTES as u64),
        ("MANIFEST_BYTES", limits::MANIFEST_BYTES as u64),
        ("TRIGGERS", limits::TRIGGERS as u64),
        ("SESSION_PARKED", limits::SESSION_PARKED as u64),
        ("PARKED", limits::PARKED as u64),
        ("PARK_CONDITIONS", limits::PARK_CONDITIONS as u64),
        ("PARK_STATE_BYTES", limits::PARK_STATE_BYTES as u64),
        ("CASCADE", limits::CASCADE as u64),
        ("TRANSACTION_FUEL", limits::TRANSACTION_FUEL),
        ("TRANSACTION_BYTES", limits::TRANSACTION_BYTES as u64),
        ("EDITED_BYTES", limits::EDITED_BYTES as u64),
        ("TRANSACTION_LISTS", limits::TRANSACTION_LISTS as u64),
        ("SESSION_REPLIES", limits::SESSION_REPLIES as u64),
        ("SESSION_REPLY_BYTES", limits::SESSION_REPLY_BYTES as u64),
        ("ONCE_AHEAD_MS", limits::ONCE_AHEAD_MS),
        ("ONCE_REPLY_BYTES", limits::ONCE_REPLY_BYTES as u64),
        ("PATTERN_WATCHES", limits::PATTERN_WATCHES as u64),
        ("IN_FLIGHT", limits::IN_FLIGHT as u64),
        ("HISTORY_TRANSACTIONS", limits::HISTORY_TRANSACTIONS),
        ("HISTORY_BYTES", limits::HISTORY_BYTES as u64),
    ];
    let fixed: Vec<Vec<String>> =
        fixed.iter().map(|(name, value)| vec![format!("`{name}`"), value.to_string()]).collect();
    assert_eq!(rows("Fixed"), fixed);
    let all = limits::Limits::default().all();
    let configurable = all.iter().map(|(name, default, least, most)| {
        vec![format!("`{name}`"), default.to_string(), least.to_string(), most.to_string()]
    });
    assert_eq!(rows("Configurable"), configurable.collect::<Vec<_>>());
}

#[test]
fn no_limit_is_left_out() {
    // What members keep to themselves.
    let private = ["PEER_FRAME_BYTES", "PACKED_REPLY_BYTES"];
    let told: Vec<String> =
        ["Fixed", "Configurable"].into_iter().flat_map(told).map(|(name, _)| name.to_uppercase()).collect();
    let consts = include_str!("../limits.rs").lines().filter_map(|line| line.strip_prefix("pub const "));
    for name in consts.map(|line| line.split(':').next().unwrap()) {
        assert!(told.iter().any(|one| one == name) || private.contains(&name), "WIRE.md does not tell of {name}");
    }
}

#[test]
fn what_a_later_version_adds_to_a_record_is_ignored_and_what_may_be_null_may_be_left_out() {
    let mut hello = value(&samples::client_messages()[1].1);
    let Value::Map(outer) = &mut hello else { panic!("a hello is no map") };
    let Value::Map(inside) = &mut outer[0].1 else { panic!("what is in a hello is no map") };
    inside.retain(|(key, _)| !["attach", "cluster"].contains(&key.as_text().unwrap()));
    inside.push((Value::from("from-the-future"), Value::from(vec![Value::from(1)])));
    let ClientMessage::Hello(read) = codec::decode(&codec::encode(&hello)).unwrap() else { panic!("{hello:?}") };
    assert_eq!((read.attach, read.cluster, read.versions), (None, None, vec![1, 2]));
    // A variant of the future can't be read.
    assert!(codec::decode::<Query>(&codec::encode(&"from-the-future")).is_err());
}

#[test]
fn the_hello_of_the_first_version_is_read_so_that_it_can_be_refused_by_name() {
    let bytes = b"\xa1\x65hello\xa3\x68versions\x81\x01\x66attach\xf6\x64seen\x05";
    let ClientMessage::Hello(hello) = codec::decode(bytes).unwrap() else { panic!("it is no hello") };
    assert_eq!((hello.versions, hello.cluster), (vec![1], None));
}
