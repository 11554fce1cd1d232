//! Calls through the driver: parked, ended over a broken connection, dropped at every moment.

use futures::FutureExt;

use super::*;

impl Cluster {
    /// What has to do with calls: `park` parks, `now` is done at once, and a set of `free` ends what is parked.
    pub(super) fn of_calls(&mut self, sequence: u64, op: &Op) -> Option<((Zxid, Stored), Vec<ServerMessage>)> {
        let value = match op {
            Op::Call(call) if call.procedure == "park" => {
                self.parked.push(sequence);
                Value::Parked
            }
            Op::Call(call) => Value::Called(call.args.clone()),
            Op::Cancel { sequence } => {
                self.parked.retain(|parked| parked != sequence);
                self.completed.remove(sequence);
                self.cancelled.push(*sequence);
                Value::Cancelled
            }
            Op::Set(set) if set.data == "free" => {
                let ended = (Zxid(self.zxid + 1), Ok(Value::Called(codec::encode(&"mine").into())));
                self.completed.extend(self.parked.drain(..).map(|sequence| (sequence, ended.clone())));
                self.zxid += 1;
                let stat = Stat::default();
                return Some(((Zxid(self.zxid), Ok(Value::Set { stat })), self.completions()));
            }
            _ => return None,
        };
        self.zxid += 1;
        Some(((Zxid(self.zxid), Ok(value)), Vec::new()))
    }

    /// What has ended and is not acknowledged.
    pub(super) fn completions(&self) -> Vec<ServerMessage> {
        let all = self.completed.iter();
        all.map(|(sequence, (zxid, outcome))| ServerMessage::Completed {
            sequence: *sequence,
            zxid: *zxid,
            outcome: codec::encode(outcome).into(),
        })
        .collect()
    }
}

fn park(client: &Client) -> BoxFuture<'static, Result<String>> {
    client.call("lock", "park").arg("path", "/l").typed::<String>().into_future()
}

#[tokio::test]
async fn a_parked_call_ends_when_somebody_else_writes_and_its_session_was_opened_for_it() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let mut call = park(&client);
    assert!((&mut call).now_or_never().is_none());
    until("it parks", || town.state.lock().unwrap().parked == [1]).await;
    assert!((&mut call).now_or_never().is_none());
    client.at("/l").set("free").await.unwrap();
    assert_eq!(call.await.unwrap(), "mine");
    // By one of the writes that follow.
    while !town.state.lock().unwrap().completed.is_empty() {
        client.at("/l").set("x").await.unwrap();
    }
    assert!(town.state.lock().unwrap().cancelled.is_empty());
}

#[tokio::test]
async fn a_call_that_ended_while_there_was_no_connection_ends_on_the_next_one() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let mut call = park(&client);
    assert!((&mut call).now_or_never().is_none());
    until("it parks", || town.state.lock().unwrap().parked == [1]).await;
    {
        let mut state = town.state.lock().unwrap();
        state.parked.clear();
        let zxid = Zxid(state.zxid);
        state.completed.insert(1, (zxid, Ok(Value::Called(codec::encode(&"late").into()))));
    }
    town.cut.notify_waiters();
    assert_eq!(call.await.unwrap(), "late");
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_whether_it_is_parked_or_its_value_is_on_the_way() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let mut call = park(&client);
    assert!((&mut call).now_or_never().is_none());
    until("it parks", || town.state.lock().unwrap().parked == [1]).await;
    drop(call);
    until("it is cancelled", || town.state.lock().unwrap().cancelled == [1]).await;
    let mut call = park(&client);
    assert!((&mut call).now_or_never().is_none());
    until("the other parks", || town.state.lock().unwrap().parked.len() == 1).await;
    let second = town.state.lock().unwrap().parked[0];
    // When this is answered, its end has come, and nobody has looked.
    client.at("/l").set("free").await.unwrap();
    drop(call);
    until("it is given back", || town.state.lock().unwrap().cancelled == [1, second]).await;
    assert!(town.state.lock().unwrap().completed.is_empty());
}

#[tokio::test]
async fn a_call_that_was_never_polled_or_never_sent_leaves_nothing() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    drop(park(&client));
    let mut call = park(&client);
    // The driver has not had its turn.
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    client.session().await.unwrap();
    client.at("/l").set("x").await.unwrap();
    let state = town.state.lock().unwrap();
    assert!(state.parked.is_empty() && state.cancelled.is_empty());
}

#[tokio::test]
async fn a_call_whose_time_is_over_is_cancelled_and_ends_as_timed_out() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let within = Duration::from_millis(50);
    let error = client.call("lock", "park").within(within).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { after } if after == within), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(town.state.lock().unwrap().cancelled, [1]);
}

#[tokio::test]
async fn what_a_procedure_returns_is_a_value_or_says_why_it_is_none() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    client.session().await.unwrap();
    let echo = |client: &Client| client.call("p", "now").positional("/x").positional(5);
    assert_eq!(echo(&client).typed::<(String, u8)>().await.unwrap(), ("/x".to_owned(), 5));
    assert_eq!(echo(&client).await.unwrap(), &b"\x82\x62/x\x05"[..]);
    let error = echo(&client).typed::<u8>().await.unwrap_err();
    assert!(error.to_string().starts_with("the reply of p now cannot be decoded: "), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown, "it was carried out");
    let mixed = client.call("p", "now").arg("a", 1).positional(2).await;
    assert!(matches!(mixed, Err(Error::Unencodable { .. })));
}
