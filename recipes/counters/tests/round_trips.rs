//! The round trips of counters, counted: what the table of the crate's page states.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::Sent::{Read, Write};
use conclave_counters::{Counter, Sequence};
use conclave_testing::Tally;

#[tokio::test(flavor = "multi_thread")]
async fn counters_take_the_stated_round_trips() {
    let cluster = Tally::cluster(Some("counter")).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    let mut tally = Tally::new(&client);
    let counter = |path| Counter::new(&client, path).unwrap();
    for path in ["/add/n", "/increment/n", "/raise/n"] {
        let (counter, which) = (counter(path), &path[1..path.len() - 2]);
        for (when, expected) in [("when the parent is not there: 3", &[Write; 3][..]), ("1", &[Write])] {
            let number = match which {
                "add" => counter.add(2).await,
                "increment" => counter.increment().await,
                _ => counter.raise_to(7).await,
            };
            assert!(number.unwrap() > 0);
            tally.row(&format!("{which}: {when}"), expected).await;
        }
    }
    let counter = counter("/add/n");
    assert_eq!(counter.compare_and_set(4, 9).await.unwrap(), Ok(()));
    tally.row("compare_and_set: 1", &[Write]).await;
    assert_eq!(counter.compare_and_set(4, 9).await.unwrap(), Err(9));
    tally.row("compare_and_set of another value: 1", &[Write]).await;
    assert_eq!(counter.get().await.unwrap(), 9);
    tally.row("get: 1", &[Read]).await;

    let sequence = Sequence::new(&client, "/sequences/ids").unwrap().block(3);
    for (number, expected) in [(1, &[Write; 3][..]), (2, &[]), (3, &[]), (4, &[Write]), (5, &[])] {
        assert_eq!(sequence.next().await.unwrap(), number);
        tally.row("next: 1 for each block, 2 more when the parent is not there, 0 within one", expected).await;
    }
    assert_eq!(sequence.take(10).await.unwrap(), 7..17);
    tally.row("take: 1", &[Write]).await;
    assert_eq!(Sequence::new(&client, "/others/ids").unwrap().take(10).await.unwrap(), 1..11);
    tally.row("take: 2 more when the parent is not there", &[Write; 3]).await;
}
