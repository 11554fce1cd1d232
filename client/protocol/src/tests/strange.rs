//! Random messages come back as they were; random and damaged bytes are refused or read, and never a panic.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::samples;
use crate::{
    Answer, Call, Change, ChangeKind, Check, ClientMessage, Consistency, Create, Delete, Entry, Fence, Kind, Nonce, Op,
    Outcome, Page, Path, Query, Scope, ServerMessage, SessionId, Set, Stat, Step, Value, WatchId, WatchRequest, Zxid,
    codec, limits,
};

fn path() -> impl Strategy<Value = Path> {
    vec("[a-zäß@ .-]{1,9}", 0..6)
        .prop_map(|names| Path::parse(&format!("/{}", names.join("/"))))
        .prop_filter_map("a name is . or ..", Result::ok)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn version() -> impl Strategy<Value = Option<u64>> {
    option::of(any::<u64>())
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[u64; 9]>(), option::of(any::<u64>())).prop_map(|(n, owner)| Stat {
        created: Zxid(n[0]),
        modified: Zxid(n[1]),
        children_modified: Zxid(n[2]),
        version: n[3],
        children_version: n[4],
        created_ms: n[5],
        modified_ms: n[6],
        owner: owner.map(SessionId),
        data_bytes: n[7],
        children: n[8],
    })
}

fn create() -> impl Strategy<Value = Create> {
    (path(), data(), any::<[bool; 3]>()).prop_map(|(path, data, [ephemeral, sequential, parents])| Create {
        path,
        data,
        kind: Kind { ephemeral, sequential },
        parents,
    })
}

fn set() -> impl Strategy<Value = Set> {
    (path(), data(), version()).prop_map(|(path, data, if_version)| Set { path, data, if_version })
}

fn delete() -> impl Strategy<Value = Delete> {
    (path(), version(), any::<bool>()).prop_map(|(path, if_version, recursive)| Delete { path, if_version, recursive })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (path(), version()).prop_map(|(path, if_version)| Step::Check(Check { path, if_version })),
        create().prop_map(Step::Create),
        set().prop_map(Step::Set),
        delete().prop_map(Step::Delete),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        create().prop_map(Op::Create),
        set().prop_map(Op::Set),
        delete().prop_map(Op::Delete),
        vec(step(), 0..5).prop_map(Op::Multi),
        (any::<String>(), any::<String>(), data()).prop_map(|(plugin, procedure, args)| Op::Call(Call {
            plugin,
            procedure,
            args
        })),
        Just(Op::Close),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        path().prop_map(|path| Query::Get { path }),
        path().prop_map(|path| Query::Exists { path }),
        (path(), option::of(any::<String>()), any::<u32>(), any::<bool>())
            .prop_map(|(path, after, limit, data)| Query::Children { path, after, limit, data }),
        Just(Query::Status),
    ]
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let consistency = select(&[Consistency::Session, Consistency::Linearizable, Consistency::Stale][..]);
    let fence = || option::of((path(), any::<u64>()).prop_map(|(path, zxid)| Fence { path, zxid: Zxid(zxid) }));
    let scope = select(&[Scope::Data, Scope::Children, Scope::Subtree][..]);
    prop_oneof![
        (any::<[u64; 3]>(), fence(), op()).prop_map(|([id, sequence, floor], fence, op)| ClientMessage::Write {
            id,
            sequence,
            floor,
            fence,
            op
        }),
        (any::<[u64; 2]>(), any::<[u8; 16]>(), fence(), op()).prop_map(|([id, until_ms], nonce, fence, op)| {
            ClientMessage::Once { id, nonce: Nonce::new(nonce), until_ms, fence, op }
        }),
        (any::<[u64; 2]>(), consistency, query()).prop_map(|([id, within_ms], consistency, query)| {
            ClientMessage::Read { id, consistency, within_ms, query }
        }),
        (any::<[u64; 2]>(), path(), scope, any::<bool>(), version()).prop_map(
            |([id, watch], path, scope, once, since)| {
                let since = since.map(Zxid);
                let watch = WatchRequest { watch: WatchId(watch), path, scope, once, since };
                ClientMessage::Watch { id, watch }
            }
        ),
        select(samples::client_messages()).prop_map(|(_, message)| message),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let kind = select(&[ChangeKind::Created, ChangeKind::Data, ChangeKind::Deleted][..]);
    let change = (kind, path(), any::<u64>()).prop_map(|(kind, path, version)| Change { kind, path, version });
    let child = (any::<String>(), stat(), option::of(data())).prop_map(|(name, stat, data)| Entry { name, stat, data });
    let answer = prop_oneof![
        (data(), stat()).prop_map(|(data, stat)| Answer::Znode { data, stat }),
        (vec(child, 0..5), any::<bool>()).prop_map(|(children, more)| Answer::Page(Page { children, more })),
        option::of(stat()).prop_map(Answer::Exists),
    ];
    let answer = prop_oneof![answer.prop_map(Ok), select(samples::refusals()).prop_map(Err)];
    prop_oneof![
        (any::<[u64; 2]>(), answer).prop_map(|([id, zxid], answer)| ServerMessage::Answer {
            id,
            zxid: Zxid(zxid),
            answer
        }),
        (any::<[u64; 2]>(), vec(change, 0..5)).prop_map(|([watch, zxid], changes)| ServerMessage::Event {
            watch: WatchId(watch),
            zxid: Zxid(zxid),
            changes
        }),
        (any::<[u64; 2]>(), data()).prop_map(|([id, zxid], outcome)| ServerMessage::Reply {
            id,
            zxid: Zxid(zxid),
            outcome
        }),
        select(samples::server_messages()).prop_map(|(_, message)| message),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let created = (path(), stat()).prop_map(|(path, stat)| Value::Created { path, stat });
    let one = prop_oneof![created, stat().prop_map(|stat| Value::Set { stat }), Just(Value::Checked)].boxed();
    prop_oneof![
        one.clone().prop_map(Ok),
        vec(one, 0..5).prop_map(|values| Ok(Value::Multi(values))),
        data().prop_map(|bytes| Ok(Value::Called(bytes))),
        select(samples::outcomes()).prop_map(|(_, outcome)| outcome),
    ]
}

/// Reads bytes as everything that travels; what comes of it does not matter.
fn read(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<ClientMessage>(bytes) {
        assert_eq!(codec::decode::<ClientMessage>(&codec::encode(&message)).unwrap(), message);
    }
    if let Ok(message) = codec::decode::<ServerMessage>(bytes) {
        assert_eq!(codec::decode::<ServerMessage>(&codec::encode(&message)).unwrap(), message);
    }
    if let Ok(outcome) = codec::decode::<Outcome>(bytes) {
        assert_eq!(codec::decode::<Outcome>(&codec::encode(&outcome)).unwrap(), outcome);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_message_comes_back_as_it_was(message in client_message()) {
        prop_assert_eq!(codec::decode::<ClientMessage>(&codec::encode(&message)).unwrap(), message);
    }

    #[test]
    fn a_members_message_comes_back_as_it_was(message in server_message()) {
        prop_assert_eq!(codec::decode::<ServerMessage>(&codec::encode(&message)).unwrap(), message);
    }

    #[test]
    fn an_outcome_comes_back_as_it_was(outcome in outcome()) {
        prop_assert_eq!(codec::decode::<Outcome>(&codec::encode(&outcome)).unwrap(), outcome);
    }

    #[test]
    fn random_bytes_are_never_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn damaged_messages_are_never_a_panic(
        message in client_message(),
        other in server_message(),
        at in any::<usize>(),
        bits in 1..=255_u8,
        cut in any::<usize>(),
    ) {
        for mut bytes in [codec::encode(&message), codec::encode(&other)] {
            let at = at % bytes.len();
            prop_assert!(codec::decode::<ClientMessage>(&bytes[..at]).is_err());
            bytes[at] ^= bits;
            read(&bytes);
            bytes.truncate(cut % bytes.len());
            read(&bytes);
        }
    }

    #[test]
    fn any_text_is_a_path_that_reads_back_or_is_refused(text in "(/|[a-c.]|\\PC|\\p{Cc}){0,40}") {
        if let Ok(path) = Path::parse(&text) {
            prop_assert_eq!(path.as_str(), &text);
            prop_assert!(path.depth() <= limits::DEPTH);
            let joined = path.names().try_fold(Path::root(), |above, name| above.join(name)).unwrap();
            prop_assert_eq!(&joined, &path);
            prop_assert!(path.parent().is_none_or(|parent| path.is_within(&parent) && !parent.is_within(&path)));
        }
    }

    #[test]
    fn a_written_fence_reads_back(path in path(), zxid in any::<u64>()) {
        let fence = Fence { path, zxid: Zxid(zxid) };
        prop_assert_eq!(fence.to_string().parse::<Fence>().unwrap(), fence);
    }
}

#[test]
fn a_length_that_lies_is_refused_and_nothing_like_it_is_allocated() {
    // A text, bytes, a list and a map that claim 2^60 items, where a message's path or list is due.
    for major in [0x5b, 0x7b, 0x9b, 0xbb_u8] {
        let good = codec::encode(&Query::Get { path: Path::parse("/abc").unwrap() });
        let at = good.windows(4).position(|part| part == b"/abc").unwrap() - 1;
        let mut bytes = good[..at].to_vec();
        bytes.push(major);
        bytes.extend_from_slice(&(1_u64 << 60).to_be_bytes());
        bytes.extend_from_slice(b"/abc");
        assert!(codec::decode::<Query>(&bytes).is_err());
    }
    let mut list = codec::encode(&Op::Multi(Vec::new()));
    assert_eq!(list.pop(), Some(0x80));
    list.push(0x9b);
    list.extend_from_slice(&(1_u64 << 60).to_be_bytes());
    assert!(codec::decode::<Op>(&list).is_err());
}
