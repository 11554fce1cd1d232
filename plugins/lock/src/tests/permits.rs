//! Permits: in order, and none is lost.

use conclave_plugin::{TestCall, TestTree, json};

use super::is_awarded;
use crate::Locks;

fn acquire(t: &TestTree, name: &str, permits: u64) -> TestCall {
    t.client(name).call("acquire", json!({"path": "/sem", "permits": permits, "capacity": 5}))
}

fn release(t: &TestTree, name: &str) {
    t.client(name).call("release", json!(["/sem"])).reply::<()>().unwrap();
}

#[test]
fn permits_are_given_in_order_whatever_each_wants() {
    let t = TestTree::new::<Locks>();
    assert!(is_awarded(&acquire(&t, "a", 2)) && is_awarded(&acquire(&t, "b", 2)));
    let big = acquire(&t, "big", 4);
    let small = acquire(&t, "small", 1);
    assert!(big.is_parked() && small.is_parked(), "the small one would fit, and waits behind the big one");
    release(&t, "a");
    assert!(big.is_parked());
    t.client("b").expire();
    assert!(is_awarded(&big) && is_awarded(&small));
    let next = acquire(&t, "next", 1);
    assert!(next.is_parked());
    big.cancel().unwrap();
    assert!(is_awarded(&next));
}

#[test]
fn more_capacity_wakes_who_waits_and_nonsense_is_refused() {
    let t = TestTree::new::<Locks>();
    assert!(t.client("a").call("acquire", json!(["/sem"])).refusal().unwrap().message().contains("no semaphore yet"));
    acquire(&t, "a", 5);
    let b = acquire(&t, "b", 3);
    assert!(acquire(&t, "c", 6).refusal().unwrap().message().contains("none would ever be enough"));
    assert!(acquire(&t, "c", 0).refusal().is_some() && acquire(&t, "a", 1).refusal().is_some());
    assert!(t.client("c").call("acquire", json!({"path": "/sem", "capacity": 6})).refusal().is_some());
    t.client("x").call("set-capacity", json!(["/sem", 8])).reply::<()>().unwrap();
    assert!(is_awarded(&b));
}

#[test]
fn of_a_hundred_holders_none_goes_unnoticed() {
    let t = TestTree::new::<Locks>();
    let take = |n: u32, permits: u64| {
        t.client(&format!("c{n}")).call("acquire", json!({"path": "/sem", "capacity": 100, "permits": permits}))
    };
    assert!((0..100).all(|n| is_awarded(&take(n, 1))));
    let (first, second) = (take(100, 3), take(101, 1));
    for n in [99, 0] {
        t.client(&format!("c{n}")).expire();
        assert!(first.is_parked(), "two permits are not three");
    }
    t.client("c50").expire();
    assert!(is_awarded(&first) && second.is_parked());
    t.client("c1").expire();
    assert!(is_awarded(&second));
}
