//! The engine over a backend that answers when it is told to.

use std::sync::{Arc, Mutex};

use conclave_client::Refusal;
use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::future::LocalBoxFuture;

use super::*;

/// What was asked, in order, and how to answer it.
#[derive(Default)]
struct Asked {
    requests: Vec<(Request, Option<oneshot::Sender<Value>>)>,
    events: Vec<mpsc::UnboundedSender<Value>>,
    closed: bool,
}

#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Asked>>,
    /// Close fails so.
    doubt: Option<String>,
}

impl Backend for Fake {
    fn dialect(&self) -> Dialect {
        Dialect::of("spiffe://example/client/ci")
    }

    fn ask(&self, request: Request, _: Dialect) -> BoxFuture<'static, Value> {
        let asked = Arc::clone(&self.asked);
        async move {
            let (send, answer) = oneshot::channel();
            let id = request.id.clone();
            asked.lock().unwrap().requests.push((request, Some(send)));
            let value = answer.await.unwrap();
            conclave_script::line(id.as_ref(), None, Body::Ok(value))
        }
        .boxed()
    }

    fn subtree(&self, request: Request, _: Dialect) -> BoxStream<'static, Value> {
        let part = conclave_script::part(request.id.as_ref(), Zxid(5), &[]);
        let end = conclave_script::line(request.id.as_ref(), Some(Zxid(5)), Body::Ok(json!({ "count": 0 })));
        stream::iter([part.clone(), part, end]).boxed()
    }

    fn watch(&self, request: Request, watch: WatchId, dialect: Dialect) -> Begun {
        let Ask::Watch(asked) = &request.ask else { panic!("a watch") };
        if asked.path.as_str() == "/refused" {
            let refusal = Refusal::BadRequest { why: "no".into() };
            return std::future::ready(Err(Body::Refused(dialect.refusal(&refusal)))).boxed();
        }
        let (send, events) = mpsc::unbounded();
        self.asked.lock().unwrap().events.push(send);
        let events = events.chain(stream::once(std::future::ready(conclave_script::ended(watch, None))));
        std::future::ready(Ok((Zxid(3), events.boxed()))).boxed()
    }

    fn states(&self) -> BoxStream<'static, State> {
        stream::iter([State::Suspended, State::Connected]).chain(stream::pending()).boxed()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), String>> {
        self.asked.lock().unwrap().closed = true;
        std::future::ready(self.doubt.clone().map_or(Ok(()), Err)).boxed()
    }
}

/// A shell that is fed line by line.
struct Shell {
    fake: Fake,
    lines: Option<mpsc::UnboundedSender<Line>>,
    said: Arc<Mutex<Vec<Value>>>,
    run: LocalBoxFuture<'static, io::Result<()>>,
    ended: bool,
}

impl Shell {
    fn new(fake: Fake) -> Self {
        let (lines, input) = mpsc::unbounded();
        let said = Arc::<Mutex<Vec<Value>>>::default();
        let say = {
            let said = Arc::clone(&said);
            async move |line: &Value| {
                said.lock().unwrap().push(line.clone());
                Ok(())
            }
        };
        let mut engine = Engine::new(fake.clone(), say);
        let run = async move {
            engine.serve(input.fuse()).await?;
            let clean = engine.close().await;
            (engine.say)(&conclave_script::closed(clean)).await
        };
        Self { fake, lines: Some(lines), said, run: run.boxed_local(), ended: false }
    }

    /// Lets it go on as far as it can; what it said since, without the states at the beginning.
    fn go(&mut self) -> Vec<Value> {
        for _ in 0..10 {
            if !self.ended {
                self.ended = (&mut self.run).now_or_never().is_some();
            }
        }
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        said.into_iter().filter(|line| !matches!(line["state"].as_str(), Some("suspended" | "connected"))).collect()
    }

    fn line(&mut self, line: &str) {
        self.lines.as_ref().unwrap().unbounded_send(Line::Text(line.to_owned())).unwrap();
    }

    /// The end of the input, and all that is said then.
    fn end(mut self) -> (Vec<Value>, Fake) {
        self.lines = None;
        self.run.as_mut().now_or_never().expect("it ends").unwrap();
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        (said, self.fake)
    }

    fn answer(&self, n: usize, value: Value) {
        let mut asked = self.fake.asked.lock().unwrap();
        asked.requests[n].1.take().unwrap().send(value).unwrap();
    }

    fn event(&self, n: usize, value: Value) {
        self.fake.asked.lock().unwrap().events[n].unbounded_send(value).unwrap();
    }

    fn asked(&self) -> Vec<Option<Value>> {
        self.fake.asked.lock().unwrap().requests.iter().map(|(request, _)| request.id.clone()).collect()
    }
}

#[test]
fn requests_are_sent_in_order_at_once_and_answered_as_answers_come() {
    let mut shell = Shell::new(Fake::default());
    for n in 0..3 {
        shell.line(&format!(r#"{{"id":{n},"get":"/a"}}"#));
    }
    assert_eq!(shell.go(), [] as [Value; 0]);
    assert_eq!(shell.asked(), [Some(json!(0)), Some(json!(1)), Some(json!(2))]);
    shell.answer(2, json!("c"));
    shell.answer(0, json!("a"));
    let said = shell.go();
    assert!(said.contains(&json!({ "id": 0, "ok": "a" })) && said.contains(&json!({ "id": 2, "ok": "c" })));
    shell.answer(1, json!("b"));
    let (said, fake) = shell.end();
    assert_eq!(said, [json!({ "id": 1, "ok": "b" }), json!({ "state": "closed", "clean": true })]);
    assert!(fake.asked.lock().unwrap().closed);
}

#[test]
fn a_bad_line_is_answered_and_takes_nothing_with_it() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":1,"get":"/a"}"#);
    shell.line("nonsense");
    shell.line(r#"{"id":"x","gett":"/a"}"#);
    shell.line("  ");
    shell.lines.as_ref().unwrap().unbounded_send(Line::Bad("the line is not UTF-8".into())).unwrap();
    shell.line(r#"{"id":2,"get":"/a"}"#);
    let said = shell.go();
    assert_eq!(said.len(), 3);
    assert_eq!(said[0]["refused"]["code"], "bad-line");
    assert_eq!(said[1]["id"], "x");
    assert_eq!(said[2]["refused"]["message"], "the line is not UTF-8");
    assert_eq!(shell.asked(), [Some(json!(1)), Some(json!(2))]);
}

#[test]
fn events_come_before_a_reply_that_is_newer_and_after_the_reply_that_says_that_the_watch_stands() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":"w","watch":"/a"}"#);
    shell.line(r#"{"id":"r","get":"/a"}"#);
    assert_eq!(shell.go(), [json!({ "id": "w", "zxid": 3, "ok": { "watching": 1 } })]);
    shell.event(0, json!({ "watch": 1, "zxid": 4 }));
    shell.event(0, json!({ "watch": 1, "zxid": 5 }));
    shell.answer(0, json!("new"));
    assert_eq!(
        shell.go(),
        [json!({ "watch": 1, "zxid": 4 }), json!({ "watch": 1, "zxid": 5 }), json!({ "id": "r", "ok": "new" })]
    );
}

#[test]
fn a_watch_that_was_ended_tells_nothing_more_and_its_number_is_not_used_again() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"watch":"/a"}"#);
    shell.line(r#"{"watch":"/refused"}"#);
    assert_eq!(shell.go().len(), 2);
    shell.event(0, json!({ "watch": 1, "zxid": 4 }));
    shell.line(r#"{"id":1,"unwatch":1}"#);
    shell.line(r#"{"id":2,"unwatch":1}"#);
    shell.line(r#"{"watch":"/b"}"#);
    let said = shell.go();
    assert!(said.contains(&json!({ "id": 1, "ok": { "unwatched": true } })));
    let second = said.iter().find(|line| line["id"] == 2).unwrap();
    assert_eq!(second["refused"]["code"], "no-watch");
    assert!(said.contains(&json!({ "zxid": 3, "ok": { "watching": 3 } })), "{said:?}");
    assert!(shell.fake.asked.lock().unwrap().events[0].is_closed(), "the watch is gone");
    assert!(said.iter().all(|line| line.get("ended").is_none()));
}

#[test]
fn a_watch_can_be_ended_in_the_line_behind_it_and_one_that_was_refused_cannot() {
    let mut shell = Shell::new(Fake::default());
    for line in [r#"{"watch":"/a"}"#, r#"{"unwatch":1}"#, r#"{"watch":"/refused"}"#, r#"{"unwatch":2}"#] {
        shell.line(line);
    }
    let said = shell.go();
    assert!(said.contains(&json!({ "ok": { "unwatched": true } })), "{said:?}");
    assert_eq!(said.iter().filter(|line| line["refused"]["code"] == "no-watch").count(), 1, "{said:?}");
    assert!(shell.fake.asked.lock().unwrap().events[0].is_closed(), "the watch is gone");
}

#[test]
fn a_watch_that_ends_by_itself_says_so() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"watch":"/a","once":true}"#);
    shell.go();
    shell.event(0, json!({ "watch": 1, "zxid": 4 }));
    shell.fake.asked.lock().unwrap().events.clear();
    assert_eq!(shell.go(), [json!({ "watch": 1, "zxid": 4 }), json!({ "watch": 1, "ended": true })]);
    shell.line(r#"{"id":1,"get":"/a"}"#);
    shell.line(r#"{"unwatch":1}"#);
    assert_eq!(shell.go()[0]["refused"]["code"], "no-watch");
    assert_eq!(shell.asked().len(), 1, "it goes on");
}

#[test]
fn a_subtree_is_parts_and_then_its_reply() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":1,"subtree":"/"}"#);
    let said = shell.go();
    assert_eq!(said.len(), 3);
    assert!(said[0].get("part").is_some() && said[1].get("part").is_some());
    assert_eq!(said[2], json!({ "id": 1, "zxid": 5, "ok": { "count": 0 } }));
}

#[test]
fn closing_the_session_waits_for_what_is_on_its_way_and_reads_no_further() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":1,"get":"/a"}"#);
    shell.line(r#"{"id":2,"session":"close"}"#);
    shell.line(r#"{"id":3,"get":"/a"}"#);
    assert_eq!(shell.go(), [] as [Value; 0]);
    shell.answer(0, json!("a"));
    let (said, fake) = shell.end();
    assert_eq!(
        said,
        [
            json!({ "id": 1, "ok": "a" }),
            json!({ "id": 2, "ok": { "closed": true } }),
            json!({ "state": "closed", "clean": true }),
        ]
    );
    assert_eq!(fake.asked.lock().unwrap().requests.len(), 1);
}

#[test]
fn a_session_that_may_not_be_closed_is_no_clean_end() {
    let mut shell = Shell::new(Fake { doubt: Some("no answer".into()), ..Fake::default() });
    shell.line(r#"{"id":2,"session":"close"}"#);
    assert_eq!(
        shell.go(),
        [json!({ "id": 2, "unknown": { "message": "no answer" } }), json!({ "state": "closed", "clean": false }),]
    );
}

#[test]
fn only_so_many_requests_are_on_their_way() {
    let mut shell = Shell::new(Fake::default());
    for n in 0..2 * IN_FLIGHT {
        shell.line(&format!(r#"{{"id":{n},"get":"/a"}}"#));
    }
    for _ in 0..20 {
        shell.go();
    }
    assert_eq!(shell.asked().len(), IN_FLIGHT);
    shell.answer(7, json!("x"));
    assert_eq!(shell.go(), [json!({ "id": 7, "ok": "x" })]);
    assert_eq!(shell.asked().len(), IN_FLIGHT + 1);
}

#[test]
fn only_so_many_bytes_of_lines_are_on_their_way() {
    let mut shell = Shell::new(Fake::default());
    let data = "x".repeat(IN_FLIGHT_BYTES / 2);
    for n in 0..4 {
        shell.line(&format!(r#"{{"id":{n},"set":"/a","data":"{data}"}}"#));
    }
    shell.go();
    assert_eq!(shell.asked(), [Some(json!(0)), Some(json!(1))]);
    shell.answer(1, json!("x"));
    assert_eq!(shell.go(), [json!({ "id": 1, "ok": "x" })]);
    assert_eq!(shell.asked().len(), 3);
    shell.answer(0, json!("x"));
    shell.answer(2, json!("x"));
    shell.go();
    assert_eq!(shell.asked().len(), 4, "what was answered still counts");
}

#[test]
fn states_are_told() {
    let mut shell = Shell::new(Fake::default());
    let _ = (&mut shell.run).now_or_never();
    let said = shell.said.lock().unwrap().clone();
    assert_eq!(said, [json!({ "state": "suspended" }), json!({ "state": "connected" })]);
}

#[test]
fn a_call_that_waits_is_cancelled_by_its_id_and_answered_once() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":"l","call":"lock.acquire","args":{"path":"/l"}}"#);
    shell.line(r#"{"id":1,"get":"/a"}"#);
    shell.go();
    shell.line(r#"{"id":2,"cancel":1}"#);
    shell.line(r#"{"id":3,"cancel":"l"}"#);
    shell.line(r#"{"id":4,"cancel":"l"}"#);
    let said = shell.go();
    let of = |id: Value| said.iter().filter(|line| line["id"] == id).cloned().collect::<Vec<_>>();
    assert_eq!(of(json!(3)), [json!({ "id": 3, "ok": { "cancelled": true } })]);
    assert_eq!(of(json!(2))[0]["refused"]["code"], "already-done", "a read is no call");
    assert_eq!(of(json!(4))[0]["refused"]["code"], "already-done", "it is cancelled already");
    assert_eq!(of(json!("l")).len(), 1);
    assert_eq!(of(json!("l"))[0]["failed"]["code"], "cancelled");
    shell.answer(1, json!("x"));
    assert!(shell.end().0.contains(&json!({ "id": 1, "ok": "x" })));
}

#[test]
fn a_call_that_was_answered_cannot_be_cancelled() {
    let mut shell = Shell::new(Fake::default());
    shell.line(r#"{"id":1,"call":"queue.take"}"#);
    shell.go();
    shell.answer(0, json!({ "result": 5 }));
    assert_eq!(shell.go(), [json!({ "id": 1, "ok": { "result": 5 } })]);
    shell.line(r#"{"id":2,"cancel":1}"#);
    assert_eq!(shell.go()[0]["refused"]["code"], "already-done");
}
