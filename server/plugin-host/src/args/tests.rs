//! Arguments, given in every way.

use super::*;

fn procedure(params: &[&str]) -> Procedure {
    let params = params.iter().map(|param| param.parse().unwrap()).collect();
    Procedure { name: "go".to_owned(), params, parks: false }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one argument of this type becomes.
fn one(kind: &str, item: &[u8]) -> Result<Vec<u8>, String> {
    let args = [b"\x81", item].concat();
    let done = normalise(&procedure(&[&format!("x: {kind}")]), &args)?;
    assert!(done.starts_with(b"\xa1\x61x"), "{}", hex(&done));
    Ok(done[3..].to_vec())
}

fn text(text: &str) -> Vec<u8> {
    let mut item = Vec::new();
    cbor::put_text(&mut item, text);
    item
}

#[test]
fn each_type_takes_its_own_values_and_texts_of_them() {
    for (kind, given, wanted) in [
        ("path", text("/a/b"), text("/a/b")),
        ("text", text(""), text("")),
        ("integer", vec![0x18, 100], vec![0x18, 100]),
        ("integer", text("100"), vec![0x18, 100]),
        ("integer", text("-1"), vec![0x20]),
        ("integer", text("18446744073709551615"), b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("number", vec![0x01], b"\xfb\x3f\xf0\0\0\0\0\0\0".to_vec()),
        ("number", vec![0x20], b"\xfb\xbf\xf0\0\0\0\0\0\0".to_vec()),
        ("number", vec![0xf9, 0x3c, 0], b"\xfb\x3f\xf0\0\0\0\0\0\0".to_vec()),
        ("number", text("1.0"), b"\xfb\x3f\xf0\0\0\0\0\0\0".to_vec()),
        ("boolean", vec![0xf5], vec![0xf5]),
        ("boolean", text("false"), vec![0xf4]),
        ("bytes", b"\x42ab".to_vec(), b"\x42ab".to_vec()),
        ("bytes", text("ab"), b"\x42ab".to_vec()),
        ("duration", vec![0x05], vec![0x05]),
        ("duration", text("5"), vec![0x05]),
        ("duration", text("500ms"), vec![0x19, 1, 0xf4]),
        ("duration", text("10s"), vec![0x19, 0x27, 0x10]),
        ("duration", text("2m"), b"\x1a\0\x01\xd4\xc0".to_vec()),
        ("duration", text("1h"), b"\x1a\0\x36\xee\x80".to_vec()),
        ("json", text("{\"a\": [1]}"), b"\xa1\x61a\x81\x01".to_vec()),
        ("json", b"\xa1\x61a\x81\x01".to_vec(), b"\xa1\x61a\x81\x01".to_vec()),
        ("json", vec![0xf6], vec![0xf6]),
        ("json", b"\xc0\x61x".to_vec(), b"\xc0\x61x".to_vec()),
    ] {
        assert_eq!(one(kind, &given).map(|done| hex(&done)), Ok(hex(&wanted)), "{kind} {}", hex(&given));
    }
}

#[test]
fn a_value_of_another_type_is_named_with_what_it_should_be() {
    for (kind, given, why) in [
        ("path", text("a"), "x: path \"a\" does not begin with /"),
        ("path", vec![0x01], "x: 1 is not a path"),
        ("text", vec![0x01], "x: 1 is not a text"),
        ("integer", text("x"), "x: \"x\" is not an integer"),
        ("integer", text("1.5"), "is not an integer"),
        ("integer", vec![0xf9, 0x3c, 0], "x: 1 is not an integer"),
        ("integer", b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "-18446744073709551616 is not an integer"),
        ("integer", vec![0xf6], "x: null is not an integer"),
        ("integer", b"\xc2\x41\x01".to_vec(), "a value with the tag 2"),
        ("number", text("NaN"), "is not a number"),
        ("number", vec![0xf9, 0x7c, 0], "x: inf is not a number"),
        ("boolean", text("yes"), "true or false"),
        ("boolean", vec![0x80], "an array is not true or false"),
        ("bytes", vec![0xa0], "a map is not bytes"),
        ("duration", text("10 s"), "a time such as 500ms"),
        ("duration", text("s"), "a time such as"),
        ("duration", text("99999999999999999999h"), "a time such as"),
        ("duration", text("18446744073709551615h"), "a time such as"),
        ("duration", vec![0x20], "x: -1 is not a time"),
        ("json", text("hello"), "is not JSON"),
    ] {
        let error = one(kind, &given).unwrap_err();
        assert!(error.contains(why), "{kind} {}: {error}", hex(&given));
    }
    let error = one("integer", &text(&"\u{fc}".repeat(10_000))).unwrap_err();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn names_and_positions_come_to_the_same_in_the_manifests_order() {
    let procedure = procedure(&["queue: path", "amount: integer = 1", "note?: text"]);
    let whole = b"\xa3\x65queue\x62/q\x66amount\x02\x64note\x61n";
    let short = b"\xa3\x65queue\x62/q\x66amount\x01\x64note\xf6";
    for (given, wanted) in [
        (&b"\x83\x62/q\x02\x61n"[..], &whole[..]),
        (b"\xa3\x64note\x61n\x66amount\x612\x65queue\x62/q", whole),
        (b"\xbf\x64note\x61n\x66amount\x02\x65queue\x62/q\xff", whole),
        (b"\x9f\x62/q\x02\x61n\xff", whole),
        (b"\x81\x62/q", short),
        (b"\xa1\x65queue\x62/q", short),
        (b"\x83\x62/q\xf6\xf6", short),
    ] {
        assert_eq!(normalise(&procedure, given).map(|done| hex(&done)), Ok(hex(wanted)), "{}", hex(given));
    }
}

#[test]
fn what_is_wrong_with_the_whole_is_said() {
    let procedure = procedure(&["queue: path", "amount: integer = 1"]);
    for (given, why) in [
        (&b""[..], "queue is missing: go takes queue: path, amount: integer = 1"),
        (b"\xf6", "queue is missing"),
        (b"\x80", "queue is missing"),
        (b"\x81\xf6", "queue: null is not a path"),
        (b"\x83\x62/q\x01\x02", "3 arguments are too many: go takes"),
        (b"\xa1\x65quene\x62/q", "there is no parameter \"quene\", did you mean queue?"),
        (b"\xa1\x61z\x01", "there is no parameter \"z\": go takes"),
        (b"\xa2\x66amount\x01\x66amount\x01", "amount is given twice"),
        (b"\xa2\x66amount\xf6\x66amount\x01", "amount is given twice"),
        (b"\xa1\x01\x01", "a name that is no text"),
        (b"\x01", "neither a map"),
        (b"\xc1\x80", "neither a map"),
        (b"\x80\x80", "bytes follow"),
        (b"garbage", "no CBOR"),
    ] {
        let error = normalise(&procedure, given).unwrap_err();
        assert!(error.contains(why), "{}: {error}", hex(given));
    }
    let none = Procedure { name: "go".to_owned(), params: Vec::new(), parks: false };
    assert_eq!(normalise(&none, b"").unwrap(), &b"\xa0"[..]);
    assert_eq!(normalise(&none, b"\x81\x01").unwrap_err(), "1 arguments are too many: go takes none");
}

#[test]
fn defaults_are_checked_by_their_type() {
    for (param, is_good) in [
        ("a: integer = 5", true),
        ("a: integer = five", false),
        ("a: duration = 10s", true),
        ("a: json = [1, 2]", true),
        ("a: json = [1,", false),
        ("a: path = queue", false),
        ("a: text =", true),
        ("a: text", true),
    ] {
        assert_eq!(check_default(&param.parse().unwrap()).is_ok(), is_good, "{param}");
    }
}

#[test]
fn no_bytes_make_it_panic_or_grow() {
    let procedure = procedure(&["a: path", "b?: json", "c?: number", "d?: duration"]);
    // A cheap generator: the same bytes every time.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    for _ in 0..50_000 {
        let mut bytes: Vec<u8> = vec![if next() & 1 == 0 { 0x84 } else { 0xa2 }, 0x61, b'/'];
        bytes.extend((0..next() & 31).map(|_| next()));
        if let Ok(done) = normalise(&procedure, &bytes) {
            assert!(done.len() < 200, "{}", hex(&bytes));
        }
    }
    for byte in 0..=255 {
        assert!(normalise(&procedure, &vec![byte; limits::CALL_BYTES]).is_err());
    }
    assert!(normalise(&procedure, &vec![0; limits::CALL_BYTES + 1]).unwrap_err().contains("1048576 are allowed"));
}
