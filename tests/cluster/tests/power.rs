//! Power cuts of a whole cluster lose nothing that was acknowledged.
#![allow(clippy::unwrap_used, missing_docs)]
// Figures, for whoever runs it to see them.
#![allow(clippy::print_stdout)]

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_of_all_members_lose_nothing_that_was_acknowledged() {
    let outcome = conclave_cluster_tests::power::cuts(6, 7).await.unwrap();
    println!("{outcome:?}");
    assert_eq!(outcome.lost, 0);
    assert_eq!(outcome.cuts, 6);
    assert!(outcome.acknowledged >= 100, "too little was written to lose anything");
    assert!(outcome.purged > 0, "no log was let go behind a checkpoint");
}
