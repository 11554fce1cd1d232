//! What is found in a cluster's health, and how it is told.

use conclave_client::{MemberId, MemberReport, Role, Zxid};
use serde_json::json;

use super::judge::Own;
use super::*;

const NOW_S: u64 = 1_800_000_000;

fn report() -> MemberReport {
    MemberReport {
        term: 3,
        zxid: Zxid(57),
        digest: "ab".into(),
        version: "0.1.0".into(),
        clock_offset_ms: 0,
        round_trip_ms: 2,
        log_last_sync_us: 700,
        log_longest_sync_us: 9_300,
        free_bytes: 20 << 30,
        checkpoint_zxid: Some(Zxid(40)),
        certificate_end_s: Some(NOW_S + 100 * 86_400),
        note: None,
    }
}

fn member(id: u64, role: Role, report: Option<MemberReport>) -> MemberHealth {
    MemberHealth { id: MemberId(id), voter: true, client: format!("h{id}:1"), peer: format!("h{id}:2"), role, report }
}

fn healthy() -> Health {
    let members = vec![
        member(1, Role::Leader, Some(report())),
        member(2, Role::Follower, Some(report())),
        member(3, Role::Follower, Some(report())),
    ];
    Health { cluster: "6f1c".into(), member: MemberId(1), leader: Some(MemberId(1)), wall_ms: 0, members }
}

fn own() -> Own {
    Own { now_s: NOW_S, offset_ms: 3, certificate_end_s: Some(NOW_S + 90 * 86_400), version: "0.1.0" }
}

/// The codes and members of what is found when the third member says this.
fn found(change: impl FnOnce(&mut MemberReport)) -> Vec<(&'static str, Option<u64>)> {
    let mut health = healthy();
    change(health.members[2].report.as_mut().unwrap());
    judge(&health, &own()).into_iter().map(|finding| (finding.code, finding.member)).collect()
}

#[test]
fn a_sound_cluster_gives_no_finding() {
    let examined = examine(healthy(), &own());
    assert!(examined.sound && examined.findings.is_empty());
    let text = text(&examined);
    assert!(text.ends_with("sound: 3 members answered, digests equal at zxid 57\n"), "{text}");
    assert!(text.contains("     1  leader      57  +3 ms  700 µs  9.3 ms  20.0 GiB          40  2027-04-25"), "{text}");
}

#[test]
fn each_thing_that_is_wrong_with_a_member_is_found() {
    assert_eq!(found(|it| it.clock_offset_ms = -800), [("clock", None)]);
    assert_eq!(found(|it| (it.clock_offset_ms, it.round_trip_ms) = (-800, 900)), []);
    assert_eq!(found(|it| it.log_longest_sync_us = 2_000_000), [("slow-disk", Some(3))]);
    assert_eq!(found(|it| it.free_bytes = 100 << 20), [("disk-space", Some(3))]);
    assert_eq!(found(|it| it.certificate_end_s = Some(NOW_S + 86_400)), [("certificate", Some(3))]);
    assert_eq!(found(|it| it.version = "0.2.0".into()), [("version", Some(3))]);
    assert_eq!(found(|it| it.note = Some("full".into())), [("note", Some(3))]);
    assert_eq!(found(|it| it.digest = "cd".into()), [("digests", None), ("digests", None)]);
    assert_eq!(found(|it| it.zxid = Zxid(56)), [("busy", None)], "worth a note: they could not be compared");
    assert_eq!(
        found(|it| it.zxid = Zxid(9_000_000)),
        [("behind", Some(1)), ("behind", Some(2)), ("old-checkpoint", Some(3)), ("busy", None)]
    );
}

#[test]
fn members_that_are_gone_quarantined_or_leaderless_are_errors() {
    let mut health = healthy();
    health.leader = None;
    health.members[1] = member(2, Role::Quarantined, Some(report()));
    health.members[2] = member(3, Role::Unreachable, None);
    let examined = examine(health, &own());
    let codes: Vec<_> = examined.findings.iter().map(|finding| (finding.severity, finding.code)).collect();
    let error = Severity::Error;
    assert_eq!(codes, [(error, "no-leader"), (error, "quarantined"), (error, "unreachable")]);
    assert!(!examined.sound && text(&examined).ends_with("3 findings\n"));
}

#[test]
fn ones_own_clock_and_certificate_count_too() {
    let own = Own { offset_ms: -5_000, certificate_end_s: Some(NOW_S - 1), ..own() };
    let codes: Vec<_> = judge(&healthy(), &own).into_iter().map(|it| (it.severity, it.code)).collect();
    assert_eq!(codes, [(Severity::Warning, "own-clock"), (Severity::Error, "certificate")]);
}

#[test]
fn programs_get_every_field_by_its_name() {
    let mut health = healthy();
    health.members[1] = member(2, Role::Unreachable, None);
    let value = serde_json::to_value(examine(health, &own())).unwrap();
    assert_eq!(
        value["members"][0],
        json!({
            "id": 1, "voter": true, "role": "leader", "client": "h1:1", "peer": "h1:2", "term": 3, "zxid": 57,
            "digest": "ab", "version": "0.1.0", "clock_offset_ms": 3, "round_trip_ms": 2, "log_last_sync_us": 700,
            "log_longest_sync_us": 9300, "free_bytes": 21_474_836_480_u64, "checkpoint_zxid": 40,
            "certificate_end_s": NOW_S + 100 * 86_400, "note": null,
        })
    );
    assert_eq!(
        value["members"][1],
        json!({ "id": 2, "voter": true, "role": "unreachable", "client": "h2:1", "peer": "h2:2" })
    );
    assert_eq!(
        value["findings"][0],
        json!({
            "severity": "error", "code": "unreachable", "member": 2,
            "text": "it does not answer at h2:2. See that it runs, and what its log says.",
        })
    );
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "clock_offset_ms",
            "cluster",
            "compared_at",
            "findings",
            "leader",
            "member",
            "members",
            "own_certificate_end_s",
            "sound"
        ]
    );
}
