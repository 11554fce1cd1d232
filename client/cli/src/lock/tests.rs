//! What `lock` says, and with which codes it ends.

use conclave_client::{Attempt, NoConnection};
use serde_json::json;

use super::*;

fn sample(held: bool) -> Shown<'static> {
    let holder = ShownHolder {
        principal: "client/ci-7".into(),
        note: Some("deploy".into()),
        since_ms: 1_000,
        held_ms: 12_345,
        fence: "/locks/deploy/holder@17".into(),
        token: 17,
        session: Some(SessionId(9)),
    };
    let waiter = ShownWaiter {
        principal: "client/ci-8".into(),
        note: None,
        since_ms: 2_000,
        waited_ms: 3_999,
        place: "/locks/deploy/line/w-0000000001".into(),
        session: Some(SessionId(10)),
    };
    Shown { path: "/locks/deploy", holder: held.then_some(holder), waiters: vec![waiter] }
}

#[test]
fn people_see_who_holds_it_and_who_waits() {
    assert_eq!(
        text(&sample(true)),
        "/locks/deploy is held by client/ci-7 (deploy)\n\
         since   1970-01-01T00:00:01Z  (12 s)\n\
         fence   /locks/deploy/holder@17\n\
         \n   WAITS  WHO\n\
         1    3 s  client/ci-8\n"
    );
    assert!(text(&sample(false)).starts_with("/locks/deploy is being handed over\n"));
    assert_eq!(text(&Shown { path: "/m", holder: None, waiters: vec![] }), "/m is free\n");
}

#[test]
fn programs_get_every_field_by_its_name() {
    assert_eq!(
        serde_json::to_value(sample(true)).unwrap(),
        json!({
            "path": "/locks/deploy",
            "holder": {
                "principal": "client/ci-7", "note": "deploy", "since_ms": 1000, "held_ms": 12345,
                "fence": "/locks/deploy/holder@17", "token": 17, "session": 9,
            },
            "waiters": [{
                "principal": "client/ci-8", "note": null, "since_ms": 2000, "waited_ms": 3999,
                "place": "/locks/deploy/line/w-0000000001", "session": 10,
            }],
        })
    );
}

#[test]
fn who_waits_is_told_for_whom() {
    let waiting = |ahead| waiting_line(&Waiting { ahead, holder: None });
    assert_eq!(waiting(2), "waiting: 2 ahead of you …");
    let holder = Holder {
        principal: "client/ci-7".into(),
        note: None,
        since: SystemTime::now() + Duration::from_secs(60),
        fence: "/m/holder@7".parse().unwrap(),
        session: None,
    };
    let line = |ahead| waiting_line(&Waiting { ahead, holder: Some(holder.clone()) });
    assert_eq!(line(0), "waiting: held by client/ci-7 for 0 s, you are next …");
    assert_eq!(line(1), "waiting: held by client/ci-7 for 0 s, 1 ahead of you …");
}

#[test]
fn the_exit_codes_leave_those_of_the_command_free() {
    let attempt = Attempt { endpoint: "a:1".into(), why: "asleep".into(), certificate: false };
    let none = conclave_client::Error::NoConnection(NoConnection { attempts: vec![attempt] });
    let command = ["x".into()];
    let not_found = std::io::ErrorKind::NotFound.into();
    let denied = std::io::ErrorKind::PermissionDenied.into();
    let place = Path::parse("/m/line/w-1").unwrap();
    for (failure, exit) in [
        (lost("/m", "the session is over", "COMMAND was ended"), 123),
        (lock_failure(Error::Client(none.clone())), 125),
        (lock_failure(Error::PlaceGone { place }), 125),
        (as_ours(none.reading()), 125),
        (as_ours(lost("/m", "x", "y")), 123),
        (cannot_run(&command, &denied), 126),
        (cannot_run(&command, &not_found), 127),
    ] {
        assert_eq!(failure.exit(), exit, "{failure:?}");
        assert_eq!(failure.json()["error"]["exit"], exit);
    }
}

#[test]
fn arguments_are_not_shown_to_others() {
    let command = ["/usr/bin/deploy".into(), "--password".into(), "secret".into()];
    assert_eq!(title(&command), "deploy");
}

#[test]
fn the_variables_name_the_award_for_us_and_for_others() {
    let fence: Fence = "/locks/deploy/holder@17".parse().unwrap();
    let [one, two] = variables(&fence);
    assert_eq!(one, ("CONCLAVE_FENCE", "/locks/deploy/holder@17".to_owned()));
    assert_eq!(two, ("CONCLAVE_FENCE_TOKEN", "17".to_owned()));
}
