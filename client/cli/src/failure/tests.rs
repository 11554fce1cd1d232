//! Messages, JSON and exit codes, word by word.

use conclave_client::{Attempt, Doubt, Fence, MemberId, Path, SessionId, Zxid};

use super::*;

fn refused(refusal: Refusal) -> Failure {
    Error::Refused(refusal).writing()
}

fn bad_version() -> Refusal {
    Refusal::BadVersion { path: Path::parse("/app/config").unwrap(), actual: 1, expected: 0 }
}

fn none(why: &str, certificate: bool) -> Error {
    let attempt = Attempt { endpoint: "127.0.0.1:7101".into(), why: why.into(), certificate };
    Error::NoConnection(NoConnection { attempts: vec![attempt] })
}

#[test]
fn a_refusal_says_what_what_happened_and_what_to_do() {
    assert_eq!(
        refused(bad_version()).message(),
        "refused: bad-version: /app/config is at version 1, you said 0. Nothing was changed. \
         Read it again, or leave out --if-version."
    );
    let said = Refusal::PluginRefused { plugin: "gate".into(), message: "release needs approved_by".into() };
    assert_eq!(
        refused(said).message(),
        "refused: plugin-refused: gate: release needs approved_by. Nothing was changed."
    );
    let fence: Fence = "/locks/a/holder@7".parse().unwrap();
    assert_eq!(
        refused(Refusal::Fenced { fence, actual: Some(Zxid(9)) }).message(),
        "refused: fenced: fence /locks/a/holder@7 does not hold: the holder is now 9. Nothing was changed. \
         The lock was lost or given back: take it again, then write."
    );
}

#[test]
fn a_read_does_not_say_that_nothing_was_changed() {
    let missing = Refusal::NoZnode { path: Path::parse("/nope").unwrap() };
    assert_eq!(
        Error::Refused(missing).reading().message(),
        "refused: no-znode: /nope does not exist. `conclave ls` shows what there is; `create --parents` creates what is \
         missing above."
    );
}

#[test]
fn a_subtree_that_is_too_large_says_how_to_delete_it() {
    let limit = |what: &str| Refusal::Limit { what: what.into(), limit: 10_000, actual: 10_001 };
    assert_eq!(
        refused(limit("znodes of the subtree")).message(),
        "refused: limit: znodes of the subtree is 10001, 10000 is the limit. Nothing was changed. \
         `conclave delete --in-parts` deletes it piece by piece."
    );
    assert!(refused(limit("data bytes")).message().ends_with("Make it smaller, or split it."));
}

#[test]
fn no_connection_names_the_reason() {
    assert_eq!(
        none("connection refused: nobody listens on 127.0.0.1:7101", false).writing().message(),
        "no connection: 127.0.0.1:7101: connection refused: nobody listens on it. Nothing was sent. \
         Is the cluster running? `conclave dev` starts one; --endpoints or CONCLAVE_ENDPOINTS names another."
    );
    let expired = none("the certificate has expired", true).writing();
    assert!(expired.message().contains("The certificate is at fault"), "{}", expired.message());
    assert_eq!((expired.code(), expired.exit()), ("certificate", NO_CONNECTION));
}

#[test]
fn members_that_failed_alike_are_told_of_together() {
    let attempt =
        |endpoint: &str, why: &str| Attempt { endpoint: endpoint.into(), why: why.into(), certificate: false };
    let attempts = vec![
        attempt("b:2", "nobody listens on b:2"),
        attempt("c:3", "no answer from c:3 within 300 ms"),
        attempt("a:1", "nobody listens on a:1"),
    ];
    let message = Error::NoConnection(NoConnection { attempts }).reading().message();
    let says = "no connection: c:3: no answer from it within 300 ms; a:1, b:2: nobody listens on it. Nothing";
    assert!(message.starts_with(says), "{message}");
}

#[test]
fn errors_are_json_for_programs() {
    assert_eq!(
        refused(bad_version()).json(),
        json!({ "error": {
            "code": "bad-version",
            "message": "refused: bad-version: /app/config is at version 1, you said 0. Nothing was changed. \
                        Read it again, or leave out --if-version.",
            "outcome": "not-applied",
            "exit": 1,
            "detail": { "path": "/app/config", "actual": 1, "expected": 0 },
        }})
    );
    let unknown = Error::Unknown { why: Doubt::Deadline }.writing().json();
    assert_eq!(unknown["error"]["outcome"], "unknown");
    assert_eq!(unknown["error"]["code"], "outcome-unknown");
    let attempts = &none("w", true).reading().json()["error"]["attempts"];
    assert_eq!(*attempts, json!([{ "endpoint": "127.0.0.1:7101", "why": "w", "certificate": true }]));
}

#[test]
fn every_kind_of_failure_has_its_exit_code() {
    let bad = ConfigError::Bad { what: "x", why: "y".into() };
    for (failure, exit, code) in [
        (refused(bad_version()), 1, "bad-version"),
        (refused(Refusal::SessionOver { session: SessionId(3) }), 1, "session-over"),
        (Error::SessionOver { outcome: Outcome::NotApplied }.writing(), 1, "session-over"),
        (Error::SessionOver { outcome: Outcome::Unknown }.writing(), 4, "outcome-unknown"),
        (Error::Unknown { why: Doubt::Forgotten }.writing(), 4, "outcome-unknown"),
        (Error::TimedOut { after: Duration::from_secs(10) }.reading(), 5, "timed-out"),
        (none("w", false).reading(), 3, "no-connection"),
        (Error::Config(bad).reading(), 2, "config"),
        (Failure::Usage("u".into()), 2, "usage"),
        (Failure::Refused { code: "file", text: "t".into() }, 1, "file"),
    ] {
        assert_eq!((failure.exit(), failure.code()), (exit, code), "{failure:?}");
    }
}

#[test]
fn only_a_broken_pipe_is_passed_over_in_silence() {
    assert!(Failure::Output(io::ErrorKind::BrokenPipe.into()).is_broken_pipe());
    assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).is_broken_pipe());
    assert!(!refused(bad_version()).is_broken_pipe());
}

#[test]
fn every_refusal_code_that_a_user_can_do_something_about_has_a_hint() {
    let path = Path::parse("/a").unwrap();
    let text = || "x".to_owned();
    for refusal in [
        Refusal::NoZnode { path: path.clone() },
        Refusal::ZnodeExists { path: path.clone() },
        Refusal::NotEmpty { path: path.clone(), children: 2 },
        Refusal::EphemeralParent { path: path.clone() },
        Refusal::NoSession { what: text() },
        Refusal::NotAllowed { principal: text(), action: text(), path },
        Refusal::Limit { what: text(), limit: 1, actual: MemberId(2).0 },
        Refusal::DiskFull { free_bytes: 1, least_bytes: 2 },
        Refusal::BadPath { why: text() },
        Refusal::NoPlugin { plugin: text() },
        Refusal::NoProcedure { plugin: text(), procedure: text() },
        Refusal::PluginFailed { plugin: text(), why: text() },
        Refusal::NoQuery { plugin: text(), query: text() },
        Refusal::PluginExists { plugin: text(), version: text() },
        Refusal::BadArguments { plugin: text(), procedure: text(), why: text() },
        Refusal::PluginDisabled { plugin: text(), state: text() },
        Refusal::PluginLoop { plugin: text(), why: text() },
        Refusal::PluginUnfit { plugin: text(), why: text() },
        Refusal::PluginNotAllowed { plugin: text(), action: text(), path: Path::root() },
        Refusal::ReadOnly { what: text() },
        Refusal::Cancelled,
        Refusal::AlreadyDone { sequence: 3 },
    ] {
        assert!(!hint(&refusal).is_empty(), "{}", refusal.code());
    }
}

#[test]
fn times_are_written_for_people() {
    let ms = Duration::from_millis;
    let written = [ms(50), ms(1_000), ms(2_500), ms(12_345)].map(span);
    assert_eq!(written, ["50 ms", "1 s", "2.5 s", "12 s"]);
}
