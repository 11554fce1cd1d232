//! Which member is spoken to, and what is said when none can be.

use super::*;

#[tokio::test]
async fn connecting_says_at_once_why_no_endpoint_can_be_used() {
    let town = town();
    let definite =
        |why: &str, certificate| Some(Reason { why: why.into(), certificate, definite: true, foreign: None });
    town.close("a:1", definite("nobody listens", false));
    town.close("b:1", definite("the certificate has been revoked", true));
    let connecting = tokio::time::timeout(Duration::from_secs(2), town.client(&["a:1", "b:1"]));
    let Err(Error::NoConnection(none)) = connecting.await.expect("at once") else { panic!("connected") };
    let mut said: Vec<_> = none.attempts.iter().map(|a| (a.endpoint.as_str(), a.why.as_str(), a.certificate)).collect();
    said.sort_unstable();
    assert_eq!(said, [("a:1", "nobody listens", false), ("b:1", "the certificate has been revoked", true),]);
}

/// Woken when a connection is told, it looks at once how the client is.
struct Looker {
    shared: Arc<Shared>,
    seen: Mutex<Option<State>>,
}

impl std::task::Wake for Looker {
    fn wake(self: Arc<Self>) {
        *self.seen.lock().unwrap() = Some(self.shared.state());
    }
}

#[tokio::test]
async fn a_client_that_has_connected_is_connected_when_that_is_told() {
    let started = start_over(&options(&["a:1"]), town() as Arc<dyn Dial>, [3; 32]);
    let looker = Arc::new(Looker { shared: Arc::clone(&started.shared), seen: Mutex::default() });
    let waker = Arc::clone(&looker).into();
    let mut connected = started.connected;
    assert!(connected.poll_unpin(&mut std::task::Context::from_waker(&waker)).is_pending());
    until("it is told", || looker.seen.lock().unwrap().is_some()).await;
    assert_eq!(*looker.seen.lock().unwrap(), Some(State::Connected));
}

#[tokio::test]
async fn another_cluster_is_not_spoken_to() {
    let town = town();
    let error = town.client_with(options(&["a:1"]).with_cluster("city")).await.unwrap_err();
    assert!(matches!(&error, Error::NoConnection(none) if none.attempts[0].why.contains("town")), "{error}");
}

#[tokio::test]
async fn a_client_whose_cluster_was_replaced_says_so_and_ends() {
    let town = town();
    town.close("learned:1", Some(Reason::new("down")));
    let client = town.client(&["a:1", "b:1"]).await.unwrap();
    let mut watch = client.watch("/x").await.unwrap();
    let session = client.session().await.unwrap();
    for endpoint in ["a:1", "b:1"] {
        town.clusters.lock().unwrap().insert(endpoint.into(), "city".into());
    }
    town.cut.notify_waiters();
    let lost = tokio::time::timeout(Duration::from_secs(5), session.lost());
    lost.await.expect("it goes on looking for its cluster");
    let expected = Refusal::OtherCluster { expected: "town".into(), actual: "city".into() };
    assert_eq!(watch.next().await.unwrap().unwrap_err().refusal(), Some(&expected));
    assert!(watch.next().await.is_none());
    assert_eq!(client.at("/x").get().await.unwrap_err().refusal(), Some(&expected));
    assert_eq!(client.health().await.unwrap_err().refusal(), Some(&expected));
}

#[tokio::test]
async fn a_stray_endpoint_of_another_cluster_ends_nothing() {
    let town = town();
    town.clusters.lock().unwrap().insert("b:1".into(), "city".into());
    town.close("learned:1", Some(Reason::new("down")));
    let wanted = options(&["a:1", "b:1"]).with_cluster("town");
    let client = town.client_with(wanted).await.unwrap();
    town.close("a:1", Some(Reason::new("down")));
    town.cut.notify_waiters();
    until("it was tried", || town.greeted.lock().unwrap().iter().filter(|one| *one == "b:1").count() > 2).await;
    let error = client.at("/x").set("v").within(Duration::from_millis(300)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("of cluster city, not town"), "{error}");
    town.closed.lock().unwrap().remove("a:1");
    client.at("/x").set("v").await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_never_answers_does_not_keep_the_others_waiting() {
    let town = town();
    for endpoint in ["a:1", "b:1", "c:1"] {
        town.close(endpoint, None);
    }
    let begun = std::time::Instant::now();
    town.client(&["a:1", "b:1", "c:1", "d:1"]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert_eq!(*town.greeted.lock().unwrap(), ["d:1"]);
}

#[tokio::test]
async fn a_request_without_a_connection_names_the_reasons_and_endpoints_are_learned() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    town.close("a:1", Some(Reason::new("down")));
    town.close("learned:1", Some(Reason::new("down too")));
    town.cut.notify_waiters();
    let mut states = client.states();
    states.wait_for(|state| *state == State::Suspended).await.unwrap();
    let error = client.at("/x").set("v").within(Duration::from_millis(500)).await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(text.contains("a:1: down") && text.contains("learned:1: down too"), "{text}");
    town.closed.lock().unwrap().remove("learned:1");
    client.at("/x").set("v").await.unwrap();
    assert_eq!(client.peer().unwrap().endpoint, "learned:1");
}
