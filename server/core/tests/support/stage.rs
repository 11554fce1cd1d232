//! Plays scenarios on a bare tree: each request is planned, cut and applied, or answered from what is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conclave_core::apply::{Applied, Position};
use conclave_core::memory::NoPlugins;
use conclave_core::plan::{Asked, Growth, Planner, Request, Verdict, Work};
use conclave_core::query::{self, Walk};
use conclave_protocol::limits::Limits;
use conclave_protocol::{Condition, Edit, Op, Outcome, Query, Refusal, SessionId, Step, Value, codec};
use conclave_script::{Act, Ask, Body, Dialect, Play, Scenario, line, subtree};

use super::support::back::Back;
use super::support::{nonce, own};

/// The cluster's domain: client `alice` is `spiffe://test/client/alice`.
const DOMAIN: &str = "test";

/// The files of scenarios below a directory, and in its directory `core`, which are for bare trees alone.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut files: Vec<PathBuf> = list(dir).into_iter().chain(list(&dir.join("core"))).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

/// A tree on which a scenario is played.
pub(crate) struct Stage<B> {
    back: B,
    planner: Planner,
    at: Position,
    now_ms: u64,
    requests: u64,
    sessions: BTreeMap<String, (SessionId, u64)>,
    /// For which client the disk is full.
    full: Option<String>,
    /// What was asked, and how it was answered, in words.
    seen: BTreeSet<String>,
}

impl<B: Back> Stage<B> {
    /// An empty tree.
    fn new(mut back: B, text: &str) -> Self {
        let at = Position { term: 1, index: 1 };
        let planner = |back: &B| Planner::new(1, back.snapshot(), &back.kept(), Arc::new(NoPlugins)).unwrap();
        let mut first = planner(&back);
        first.plan(&own(Work::Genesis { plugins: Vec::new() }), 0).unwrap();
        back.apply(at, &first.cut().unwrap().payload).unwrap();
        let mut planner = planner(&back);
        planner.set_limits(limits(text));
        let full = directive(text, "disk: full for client/").map(str::to_owned);
        let (sessions, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { back, planner, at, now_ms: 1_000_000, requests: 0, sessions, full, seen }
    }

    /// Plays a scenario from its file; gives what was seen.
    ///
    /// # Panics
    /// With the file, the line and the difference, if anything is answered otherwise than it says.
    pub(crate) fn play(back: B, file: &Path) -> BTreeSet<String> {
        let text = std::fs::read_to_string(file).unwrap();
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut stage = Self::new(back, &text);
        let mut play = Play::new(scenario, DOMAIN);
        let mut run = || {
            while let Some(act) = play.act()? {
                match act {
                    Act::Ask { client, request } => {
                        let principal = play.principal(&client);
                        let answer = stage.ask(&client, &principal, play.dialect(&client), &request);
                        play.told(&answer)?;
                    }
                    Act::Advance(time) => stage.advance(u64::try_from(time.as_millis()).unwrap()),
                    Act::Event { .. } => panic!("{}: a bare tree tells no events", file.display()),
                }
            }
            Ok::<_, conclave_script::Mismatch>(())
        };
        run().unwrap_or_else(|mismatch| panic!("{}: {mismatch}", file.display()));
        stage.seen
    }

    /// Time passes, and the leader sweeps until nothing is due.
    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        for sweeps in 0.. {
            if self.planner.plan(&own(Work::Sweep), self.now_ms).unwrap() == Verdict::Dropped {
                break;
            }
            assert!(self.apply().is_ok() && sweeps < 100, "sweeps come to an end");
        }
    }

    fn ask(
        &mut self,
        client: &str,
        principal: &str,
        dialect: &Dialect,
        request: &conclave_script::Request,
    ) -> serde_json::Value {
        let growth = match self.full.as_deref() {
            Some(full) if full == client => Growth::Refused { free_bytes: 1 << 20, least_bytes: 1 << 28 },
            _ => Growth::Allowed,
        };
        self.planner.set_growth(growth);
        let id = request.id.as_ref();
        let zxid = || Some(self.planner.last());
        match &request.ask {
            Ask::Write(op) => {
                self.seen.extend(words(op));
                let outcome = self.write(client, principal, request, Work::Op(op.clone()));
                dialect.written(id, Some(self.planner.last()), &outcome)
            }
            Ask::Open { timeout_ms } => {
                let work = Work::Open { timeout_ms: timeout_ms.unwrap_or(10_000) };
                let outcome = self.write(client, principal, request, work);
                if let Ok(Value::Opened { session, .. }) = outcome {
                    self.sessions.insert(client.to_owned(), (session, 1));
                }
                dialect.written(id, Some(self.planner.last()), &outcome)
            }
            Ask::Read(query) => {
                self.seen.insert(asked(query).to_owned());
                let answer = query::answer(&*self.back.snapshot(), principal, query).unwrap();
                self.refused(answer.as_ref().err());
                dialect.answered(id, Some(self.planner.last()), &answer)
            }
            Ask::Subtree { path, data } => {
                let base = self.back.snapshot();
                let body = match Walk::new(&*base, principal, path, *data).unwrap() {
                    Ok(mut walk) => Body::Ok(subtree(&walk.next(&*base, usize::MAX, usize::MAX).unwrap())),
                    Err(refusal) => Body::Refused(dialect.refusal(&refusal)),
                };
                line(id, zxid(), body)
            }
            other => panic!("a bare tree knows no {other:?}"),
        }
    }

    fn write(&mut self, client: &str, principal: &str, request: &conclave_script::Request, work: Work) -> Outcome {
        self.requests += 1;
        let in_session = self.sessions.get_mut(client).filter(|_| matches!(work, Work::Op(_)));
        let asked = match in_session {
            Some((session, sequence)) => {
                let (session, floor) = (*session, *sequence);
                *sequence += 1;
                Asked::Session { session, sequence: floor, floor, completed: Vec::new() }
            }
            None => Asked::Once { nonce: nonce(self.requests), until_ms: self.now_ms + 1_000 },
        };
        let (principal, fence) = (principal.to_owned(), request.fence.clone());
        let verdict = self.planner.plan(&Request { principal, asked, fence, work }, self.now_ms).unwrap();
        assert!(matches!(verdict, Verdict::Planned(_)), "{verdict:?}");
        let outcome = self.apply();
        if matches!(outcome, Ok(Value::Closed)) {
            self.sessions.remove(client);
        }
        // Whose session another has ended: as a client would learn.
        let base = self.back.snapshot();
        self.sessions.retain(|_, (session, _)| query::session(&*base, *session).unwrap().is_some());
        self.refused(outcome.as_ref().err());
        outcome
    }

    fn refused(&mut self, refusal: Option<&Refusal>) {
        self.seen.extend(refusal.map(|refusal| format!("refused {}", refusal.code())));
    }

    /// Applies what is planned; the last transaction's outcome, which the leader's own has not.
    fn apply(&mut self) -> Outcome {
        self.at.index += 1;
        let applied = self.back.apply(self.at, &self.planner.cut().unwrap().payload).unwrap();
        let Applied::Done(entry) = applied else { panic!("it is void") };
        self.planner.rebase(self.back.snapshot()).unwrap();
        let bytes = &entry.transactions.last().unwrap().outcome;
        if bytes.is_empty() { Ok(Value::Checked) } else { codec::decode(bytes).unwrap() }
    }
}

/// What follows `# <name>` on a line of its own.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)).map(str::trim)
}

/// The limits that a scenario is played with: `# limits: name=value ...`.
fn limits(text: &str) -> Limits {
    let mut limits = Limits::default();
    for one in directive(text, "limits:").unwrap_or_default().split_whitespace() {
        let (name, value) = one.split_once('=').unwrap();
        let value = value.parse().unwrap();
        *match name {
            "data_bytes" => &mut limits.data_bytes,
            "multi_steps" => &mut limits.multi_steps,
            "subtree_znodes" => &mut limits.subtree_znodes,
            "prune_znodes" => &mut limits.prune_znodes,
            "session_ephemerals" => &mut limits.session_ephemerals,
            "acl_grants" => &mut limits.acl_grants,
            "access_lists" => &mut limits.access_lists,
            other => panic!("no scenario sets {other} yet"),
        } = value;
    }
    limits
}

/// What an operation is, in words: itself, and what is in it.
fn words(op: &Op) -> Vec<String> {
    let (word, more) = match op {
        Op::Create(_) => ("create", Vec::new()),
        Op::Set(_) => ("set", Vec::new()),
        Op::Delete(_) => ("delete", Vec::new()),
        Op::Multi(steps) => ("multi", steps.iter().flat_map(step).collect()),
        Op::Update(update) => ("update", vec![edit(&update.edit).to_owned()]),
        Op::Prune(_) => ("prune", Vec::new()),
        Op::Acl(_) => ("acl", Vec::new()),
        Op::Call(_) => ("call", Vec::new()),
        Op::End(_) => ("end", Vec::new()),
        Op::Close => ("close", Vec::new()),
        Op::Cancel { .. } => ("cancel", Vec::new()),
        Op::Upload(_) => ("upload", Vec::new()),
        Op::Install(_) => ("install", Vec::new()),
        Op::Manage(_) => ("manage", Vec::new()),
    };
    more.into_iter().chain([format!("op {word}")]).collect()
}

fn step(step: &Step) -> Vec<String> {
    let (word, more) = match step {
        Step::Check(check) => ("check", Some(condition(&check.condition))),
        Step::Create(_) => ("create", None),
        Step::Set(_) => ("set", None),
        Step::Delete(_) => ("delete", None),
        Step::Update(update) => ("update", Some(edit(&update.edit))),
        Step::Acl(_) => ("acl", None),
    };
    more.map(str::to_owned).into_iter().chain([format!("step {word}")]).collect()
}

fn condition(condition: &Condition) -> &'static str {
    match condition {
        Condition::Exists => "check exists",
        Condition::Absent => "check absent",
        Condition::Version(_) => "check version",
        Condition::Owner(_) => "check owner",
        Condition::Children { .. } => "check children",
        Condition::Data(_) => "check data",
        Condition::Created(_) => "check created",
    }
}

fn edit(edit: &Edit) -> &'static str {
    match edit {
        Edit::Add(_) => "edit add",
        Edit::Min(_) => "edit min",
        Edit::Max(_) => "edit max",
        Edit::Append(_) => "edit append",
        Edit::Swap { .. } => "edit swap",
    }
}

fn asked(query: &Query) -> &'static str {
    match query {
        Query::Get { .. } => "query get",
        Query::Exists { .. } => "query exists",
        Query::Children { .. } => "query children",
        Query::Many { .. } => "query many",
        Query::Count { .. } => "query count",
        Query::Acl { .. } => "query acl",
        Query::Owned { .. } => "query owned",
        Query::Sessions { .. } => "query sessions",
        Query::Call(_) => "query call",
        Query::Plugins { .. } => "query plugins",
        Query::Calls { .. } => "query calls",
        Query::Status => "query status",
    }
}
