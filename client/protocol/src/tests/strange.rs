//! Random messages come back as they were; random and damaged bytes are refused or read, and never a panic.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::random::{
    access_list, client_message, kinds, outcome, path, path_pattern, pattern, permissions, server_message,
    side_message, side_request,
};
use crate::plugin::Param;
use crate::{
    AccessList, ChangeKind, ClientMessage, Fence, Kinds, Op, Outcome, Path, PathPattern, Pattern, Permission,
    Permissions, Query, ServerMessage, SideMessage, SideRequest, Zxid, codec, limits,
};

/// What bytes decode to is itself again when it is written and read once more; whether they decode does not matter.
fn stands<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(one) = codec::decode::<T>(bytes) {
        assert_eq!(codec::decode::<T>(&codec::encode(&one)).unwrap(), one);
    }
}

/// Reads bytes as everything that travels.
fn read(bytes: &[u8]) {
    stands::<ClientMessage>(bytes);
    stands::<ServerMessage>(bytes);
    stands::<Outcome>(bytes);
    stands::<SideRequest>(bytes);
    stands::<SideMessage>(bytes);
    stands::<AccessList>(bytes);
    stands::<Permissions>(bytes);
    stands::<Pattern>(bytes);
    stands::<Kinds>(bytes);
    stands::<PathPattern>(bytes);
    stands::<Param>(bytes);
    stands::<crate::plugin::Manifest>(bytes);
    stands::<limits::Limits>(bytes);
}

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(one: T) {
    assert_eq!(codec::decode::<T>(&codec::encode(&one)).unwrap(), one);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_message_comes_back_as_it_was(message in client_message()) {
        comes_back(message);
    }

    #[test]
    fn a_members_message_comes_back_as_it_was(message in server_message()) {
        comes_back(message);
    }

    #[test]
    fn an_outcome_comes_back_as_it_was(outcome in outcome()) {
        comes_back(outcome);
    }

    #[test]
    fn what_travels_on_a_side_stream_comes_back_as_it_was(request in side_request(), message in side_message()) {
        comes_back(request);
        comes_back(message);
    }

    #[test]
    fn sets_and_patterns_come_back_as_they_were(
        list in access_list(), permissions in permissions(), kinds in kinds(), pattern in pattern(),
    ) {
        prop_assert_eq!(permissions.to_string().parse::<Permissions>().unwrap(), permissions);
        comes_back(list);
        comes_back(permissions);
        comes_back(kinds);
        comes_back(pattern);
    }

    #[test]
    fn random_bytes_are_never_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn damaged_messages_are_never_a_panic(
        message in client_message(),
        other in server_message(),
        (request, aside) in (side_request(), side_message()),
        list in access_list(),
        at in any::<usize>(),
        bits in 1..=255_u8,
        cut in any::<usize>(),
    ) {
        let all = [&message as &dyn Bytes, &other, &request, &aside, &list].map(Bytes::encoded);
        for mut bytes in all {
            let at = at % bytes.len();
            prop_assert!(codec::decode::<ClientMessage>(&bytes[..at]).is_err());
            bytes[at] ^= bits;
            read(&bytes);
            bytes.truncate(cut % bytes.len());
            read(&bytes);
        }
    }

    #[test]
    fn any_text_is_permissions_that_read_back_or_is_refused(text in "([crwda]|\\PC){0,9}") {
        let letters = text.chars().all(|letter| "crwda".contains(letter));
        match codec::decode::<Permissions>(&codec::encode(&text)) {
            Ok(permissions) => {
                prop_assert!(letters);
                for one in Permission::ALL {
                    prop_assert_eq!(permissions.has(one), text.contains(one.letter()));
                }
            }
            Err(_) => prop_assert!(!letters),
        }
    }

    #[test]
    fn any_text_is_a_pattern_that_reads_back_or_is_refused(text in "(/|[*?a]|\\PC){0,130}", name in "[a*é]{0,130}") {
        let allowed = !text.is_empty() && text.len() <= limits::NAME_BYTES && !text.contains('/');
        match codec::decode::<Pattern>(&codec::encode(&text)) {
            Ok(pattern) => {
                prop_assert!(allowed);
                prop_assert_eq!(pattern.as_str(), &text);
                let (slow, chars): (Vec<char>, Vec<char>) = (text.chars().collect(), name.chars().collect());
                prop_assert_eq!(pattern.matches(&name), matches_slowly(&slow, &chars));
            }
            Err(_) => prop_assert!(!allowed),
        }
    }

    #[test]
    fn any_text_is_a_pattern_of_paths_that_reads_back_or_is_refused(text in "(/|[*?a]|\\PC){0,60}", path in path()) {
        if let Ok(pattern) = codec::decode::<PathPattern>(&codec::encode(&text)) {
            prop_assert_eq!(pattern.as_str(), &text);
            prop_assert!(!pattern.matches(&path) || pattern.names().count() <= path.depth() + text.matches("**").count());
        }
    }

    #[test]
    fn a_pattern_of_paths_comes_back_as_it_was(pattern in path_pattern()) {
        comes_back(pattern);
    }

    #[test]
    fn any_text_is_a_parameter_that_reads_back_or_is_refused(text in "[a-z]{0,3}[?]?:? ?(path|duration|json|x)( = .{0,4})?") {
        if let Ok(param) = codec::decode::<Param>(&codec::encode(&text)) {
            comes_back(param);
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

/// The meaning of a pattern, as plainly as can be: for each part of the pattern, which beginnings of the name it matches.
fn matches_slowly(pattern: &[char], name: &[char]) -> bool {
    let mut matched: Vec<bool> = (0..=name.len()).map(|length| length == 0).collect();
    for wanted in pattern {
        matched = (0..=name.len())
            .map(|length| match wanted {
                '*' => matched[..=length].contains(&true),
                one => length > 0 && matched[length - 1] && (*one == '?' || *one == name[length - 1]),
            })
            .collect();
    }
    matched[name.len()]
}

/// What can be written, whatever it is.
trait Bytes {
    fn encoded(&self) -> Vec<u8>;
}

impl<T: Serialize> Bytes for T {
    fn encoded(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

#[test]
fn a_length_that_lies_is_refused_and_nothing_like_it_is_allocated() {
    // A text, bytes, a list and a map that claim 2^60 items, where a message's path or list is due.
    for major in [0x5b, 0x7b, 0x9b, 0xbb_u8] {
        let good = codec::encode(&Query::Get { path: Path::parse("/abc").unwrap() });
        let at = good.windows(4).position(|part| part == b"/abc").unwrap() - 1;
        let mut bytes = good[..at].to_vec();
        bytes.extend(claim(major));
        bytes.extend_from_slice(b"/abc");
        assert!(codec::decode::<Query>(&bytes).is_err());
    }
    let mut list = codec::encode(&Op::Multi(Vec::new()));
    assert_eq!(list.pop(), Some(0x80));
    list.extend(claim(0x9b));
    assert!(codec::decode::<Op>(&list).is_err());
}

/// The head of 2^60 items.
fn claim(major: u8) -> Vec<u8> {
    let mut head = vec![major];
    head.extend_from_slice(&(1_u64 << 60).to_be_bytes());
    head
}

#[test]
fn lists_sets_and_patterns_that_claim_too_much_are_refused() {
    for major in [0x5b, 0x7b, 0x9b, 0xbb_u8] {
        let mut bytes = claim(major);
        bytes.extend_from_slice(&codec::encode(&"data"));
        assert!(codec::decode::<AccessList>(&bytes).is_err());
        assert!(codec::decode::<Permissions>(&bytes).is_err());
        assert!(codec::decode::<Pattern>(&bytes).is_err());
        assert!(codec::decode::<Kinds>(&bytes).is_err());
        assert!(codec::decode::<limits::Limits>(&bytes).is_err());
    }
}

#[test]
fn kinds_that_are_named_twice_count_once_and_unknown_ones_are_refused() {
    let read = |kinds: &[&str]| codec::decode::<Kinds>(&codec::encode(&kinds));
    let twice = read(&["data", "created", "data"]).unwrap();
    assert_eq!(twice, Kinds::of(&[ChangeKind::Created, ChangeKind::Data]));
    assert_eq!(read(&["data"; 100_000]).unwrap(), Kinds::of(&[ChangeKind::Data]));
    assert_eq!(read(&[]).unwrap().iter().next(), None);
    for unknown in [&["children"][..], &["data", "Data"], &["data", ""]] {
        assert!(read(unknown).is_err(), "{unknown:?}");
    }
    assert!(codec::decode::<Kinds>(&codec::encode(&0b11_u8)).is_err());
}

#[test]
fn a_pattern_that_is_longer_than_a_name_is_refused_as_it_arrives() {
    let read = |text: &str| codec::decode::<Pattern>(&codec::encode(&text));
    assert_eq!(read(&"é".repeat(127)).unwrap().as_str().len(), 254);
    assert_eq!(read(&"*".repeat(255)).unwrap().as_str().len(), 255);
    let refused = read(&"*".repeat(256)).unwrap_err().to_string();
    assert!(refused.contains("256 bytes long, 255 are allowed"), "{refused}");
    assert!(read("").is_err() && read("a/b").is_err());
    // The same inside a watch: the whole message is refused.
    let mut watch = crate::WatchRequest::new(crate::WatchId(1), Path::root(), crate::Scope::Subtree);
    watch.names = Some("x".repeat(255).parse().unwrap());
    let message = ClientMessage::Watch { id: 1, watch };
    let mut bytes = codec::encode(&message);
    let at = bytes.windows(3).position(|part| part == b"\x78\xffx").unwrap();
    bytes.splice(at..at + 2, [0x79, 0x01, 0x00]);
    bytes.insert(at + 3, b'x');
    assert!(codec::decode::<ClientMessage>(&bytes).unwrap_err().to_string().contains("255 are allowed"));
}

#[test]
fn permissions_are_letters_and_no_bits() {
    for bad in [codec::encode(&0xff_u8), codec::encode(&["c", "r"]), codec::encode(&"crwdax"), codec::encode(&"C")] {
        assert!(codec::decode::<Permissions>(&bad).is_err());
    }
    let long = codec::decode::<Permissions>(&codec::encode(&"crwda".repeat(100_000))).unwrap();
    assert_eq!(long, Permissions::ALL);
}

#[test]
fn limits_with_an_unknown_key_are_refused_and_missing_ones_are_the_defaults() {
    use std::collections::BTreeMap;
    let read = |keys: &[(&str, u64)]| {
        let map: BTreeMap<_, _> = keys.iter().copied().collect();
        codec::decode::<limits::Limits>(&codec::encode(&map))
    };
    assert_eq!(read(&[]).unwrap(), limits::Limits::default());
    assert_eq!(read(&[("watches", 7)]).unwrap(), limits::Limits { watches: 7, ..limits::Limits::default() });
    assert!(read(&[("watch", 7)]).unwrap_err().to_string().contains("watch"));
    for (name, _, least, most) in limits::Limits::default().all() {
        let checked = |value| read(&[(name, value)]).unwrap().check();
        assert!(checked(most + 1).unwrap_err().contains(name));
        assert!(least == 0 || checked(least - 1).unwrap_err().contains(name));
    }
}

#[test]
fn the_deepest_message_of_ours_is_read_and_one_as_deep_as_is_allowed_is_no_panic() {
    let list = AccessList::open();
    let create = crate::Create { acl: Some(list), ..crate::Create::new(Path::root(), "") };
    let op = Op::Multi(vec![crate::Step::Create(create)]);
    comes_back(ClientMessage::Write { id: 1, sequence: 1, floor: 1, completed: Vec::new(), fence: None, op });
    for depth in limits::NESTING - 2..=limits::NESTING + 2 {
        read(&[&vec![0x81; depth][..], &[0xf6]].concat());
        read(&[&vec![0xa1; depth][..], &[0xf6]].concat());
    }
}
