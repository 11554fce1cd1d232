//! Inside a component: the generated bindings, behind the types that plugins see.
//!
//! A component exports the subset of the world that its manifest names. One world with all exports could not do that: what it
//! names must be there. So each interface is a small world of its own here, and [`export!`](crate::export) puts those together
//! that it is told; the imports, which all of them share, are generated once. What a component does not use of them is left out.

use crate::context::{Caller, Level, Reason, Resumed};
use crate::tree::{Child, Create, Created, Page, Stat, Znode};
use crate::{Answer, Error, Path, Plugin, Result, answer};

/// The bindings of a world of `wit/`.
macro_rules! bindings {
    ($(#[$doc:meta])* $module:ident, $inline:literal, $name:literal, $($with:tt)*) => {
        $(#[$doc])*
        #[allow(
            unsafe_code,
            missing_docs,
            unused_qualifications,
            unreachable_pub,
            clippy::all,
            clippy::use_self,
            reason = "generated: the canonical ABI is pointers"
        )]
        pub mod $module {
            wit_bindgen::generate!({
                inline: $inline,
                path: "../../wit",
                world: $name,
                pub_export_macro: true,
                default_bindings_module: "conclave_plugin",
                $($with)*
            });
        }
    };
}

bindings!(
    /// What every plugin imports.
    imports,
    "package conclave:guest; world imports { import conclave:plugin/tree@0.1.0; import conclave:plugin/context@0.1.0; }",
    "conclave:guest/imports",
    generate_all,
);

bindings!(
    /// The world of a plugin that has procedures.
    procedures,
    "package conclave:guest; world with-procedures { export conclave:plugin/procedures@0.1.0; }",
    "conclave:guest/with-procedures",
    export_macro_name: "export",
    with: {
        "conclave:plugin/types@0.1.0": crate::component::imports::conclave::plugin::types,
        "conclave:plugin/procedures@0.1.0": generate,
    },
);

bindings!(
    /// The world of a plugin that has queries.
    queries,
    "package conclave:guest; world with-queries { export conclave:plugin/queries@0.1.0; }",
    "conclave:guest/with-queries",
    export_macro_name: "export",
    generate_all,
);

bindings!(
    /// The world of a plugin that has `before` triggers.
    before,
    "package conclave:guest; world with-before { export conclave:plugin/before@0.1.0; }",
    "conclave:guest/with-before",
    export_macro_name: "export",
    with: {
        "conclave:plugin/types@0.1.0": crate::component::imports::conclave::plugin::types,
        "conclave:plugin/before@0.1.0": generate,
    },
);

bindings!(
    /// The world of a plugin that has `after` triggers.
    after,
    "package conclave:guest; world with-after { export conclave:plugin/after@0.1.0; }",
    "conclave:guest/with-after",
    export_macro_name: "export",
    with: {
        "conclave:plugin/types@0.1.0": crate::component::imports::conclave::plugin::types,
        "conclave:plugin/after@0.1.0": generate,
    },
);

bindings!(
    /// The world of a plugin that has `session-end` triggers.
    session_end,
    "package conclave:guest; world with-session-end { export conclave:plugin/session-end@0.1.0; }",
    "conclave:guest/with-session-end",
    export_macro_name: "export",
    generate_all,
);

bindings!(
    /// The world of a plugin that has `timer` triggers.
    timer,
    "package conclave:guest; world with-timer { export conclave:plugin/timer@0.1.0; }",
    "conclave:guest/with-timer",
    export_macro_name: "export",
    generate_all,
);

use after::exports::conclave::plugin::after as after_guest;
use before::exports::conclave::plugin::before as before_guest;
use imports::conclave::plugin::{context, tree as host, types};
use procedures::exports::conclave::plugin::procedures as procedures_guest;
use queries::exports::conclave::plugin::queries as queries_guest;
use session_end::exports::conclave::plugin::session_end as session_end_guest;
use timer::exports::conclave::plugin::timer as timer_guest;

type Said<T> = std::result::Result<T, String>;

/// A plugin as the generated interfaces want it.
pub struct Component<P>(std::marker::PhantomData<P>);

/// The context of a run.
fn context_of(trigger: String, resumed: Option<Resumed>) -> crate::Context {
    crate::Context { host: Context, trigger, resumed }
}

/// What a component exports that its macro does not name: it can't be.
fn missing(what: &str, name: &str) -> Error {
    ["there is no ", what, " ", name].concat().into()
}

impl<P: Plugin> procedures_guest::Guest for Component<P> {
    fn call(name: String, args: Vec<u8>, resumed: Option<procedures_guest::Resumed>) -> Said<procedures_guest::Answer> {
        let resumed = resumed.map(|resumed| {
            let reason = match resumed.reason {
                procedures_guest::Reason::Change => Reason::Change,
                procedures_guest::Reason::Deadline => Reason::Deadline,
                procedures_guest::Reason::Cancel => Reason::Cancel,
                procedures_guest::Reason::SessionEnd => Reason::SessionEnd,
            };
            Resumed { reason, state: resumed.state, done: resumed.done }
        });
        let procedure = P::exports().procedures.and_then(|named| named(&name.replace('-', "_")));
        let run = || {
            procedure.ok_or_else(|| missing("procedure", &name))?(
                &crate::Tree(Tree),
                &context_of(String::new(), resumed),
                &args,
            )
        };
        match run().map_err(|error| error.to_string())? {
            Answer::Done(bytes) => Ok(procedures_guest::Answer::Done(bytes)),
            Answer::Park(park) => Ok(procedures_guest::Answer::Park(parked(park)?)),
        }
    }
}

fn parked(park: crate::Park) -> Said<procedures_guest::Park> {
    let condition = |condition: crate::Condition| {
        let test = match condition.test {
            answer::Test::Exists => procedures_guest::Test::Exists,
            answer::Test::Absent => procedures_guest::Test::Absent,
            answer::Test::VersionAbove(version) => procedures_guest::Test::VersionAbove(version),
            answer::Test::ChildrenAtLeast(count) => procedures_guest::Test::ChildrenAtLeast(count),
            answer::Test::ChildrenAtMost(count) => procedures_guest::Test::ChildrenAtMost(count),
        };
        procedures_guest::Condition { path: condition.path, test }
    };
    let wake = match park.wake {
        answer::Wake::One => procedures_guest::Wake::One,
        answer::Wake::All => procedures_guest::Wake::All,
    };
    let state = park.state.map_err(|error| error.to_string())?;
    let any_of = park.any_of.into_iter().map(condition).collect();
    Ok(procedures_guest::Park { any_of, wake, until_ms: park.until_ms, state })
}

impl<P: Plugin> queries_guest::Guest for Component<P> {
    fn query(name: String, args: Vec<u8>) -> Said<Vec<u8>> {
        let query = P::exports().queries.and_then(|named| named(&name.replace('-', "_")));
        let run = || {
            query.ok_or_else(|| missing("query", &name))?(&crate::Tree(Tree), &context_of(String::new(), None), &args)
        };
        match run() {
            Ok(Answer::Done(bytes)) => Ok(bytes),
            Ok(Answer::Park(_)) => Err("a query can't park".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<P: Plugin> before_guest::Guest for Component<P> {
    fn check(trigger: String, change: types::Change) -> before_guest::Verdict {
        let verdict = match (P::exports().before, change_of(change)) {
            (Some(check), Ok(change)) => check(&crate::Tree(Tree), &context_of(trigger, None), &change),
            (_, Err(error)) => crate::Verdict::refuse(error),
            (None, _) => crate::Verdict::Refuse("there is no trigger".to_owned()),
        };
        match verdict {
            crate::Verdict::Allow => before_guest::Verdict::Allow,
            crate::Verdict::Refuse(why) => before_guest::Verdict::Refuse(why),
            crate::Verdict::Rewrite(data) => before_guest::Verdict::Rewrite(data),
        }
    }
}

impl<P: Plugin> after_guest::Guest for Component<P> {
    fn react(trigger: String, changes: Vec<types::Change>) -> Said<()> {
        let run = || {
            let changes = changes.into_iter().map(change_of).collect::<Result<Vec<_>>>()?;
            let react = P::exports().after.ok_or_else(|| missing("trigger", &trigger))?;
            react(&crate::Tree(Tree), &context_of(trigger, None), &changes)
        };
        run().map_err(|error| error.to_string())
    }
}

impl<P: Plugin> session_end_guest::Guest for Component<P> {
    fn ended(session: session_end_guest::Session) -> Said<()> {
        let session_end_guest::Session { id, principal, expired } = session;
        let Some(ended) = P::exports().session_end else { return Ok(()) };
        let ended = ended(
            &crate::Tree(Tree),
            &context_of("session-end".to_owned(), None),
            &crate::Ended { session: id, principal, expired },
        );
        ended.map_err(|error| error.to_string())
    }
}

impl<P: Plugin> timer_guest::Guest for Component<P> {
    fn tick(name: String) -> Said<()> {
        let Some(tick) = P::exports().timer else { return Ok(()) };
        tick(&crate::Tree(Tree), &context_of(name, None)).map_err(|error| error.to_string())
    }
}

fn change_of(change: types::Change) -> Result<crate::Change> {
    let kind = match change.kind {
        types::ChangeKind::Created => crate::ChangeKind::Created,
        types::ChangeKind::Data => crate::ChangeKind::Data,
        types::ChangeKind::Deleted => crate::ChangeKind::Deleted,
        types::ChangeKind::Acl => crate::ChangeKind::Acl,
    };
    let types::Change { path, version, data, previous, .. } = change;
    Ok(crate::Change { kind, path: Path::try_from(path)?, version, data, previous })
}

/// The host's tree.
pub(crate) struct Tree;

impl Tree {
    pub(crate) fn get(&self, path: &str) -> Result<Option<Znode>> {
        let znode = host::get(path)?;
        Ok(znode.map(|znode| Znode { data: znode.data, stat: znode.stat.into() }))
    }

    pub(crate) fn exists(&self, path: &str) -> Result<Option<Stat>> {
        Ok(host::exists(path)?.map(Into::into))
    }

    pub(crate) fn children(
        &self,
        path: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
        data: bool,
    ) -> Result<Page> {
        let parent = Path::parse(path)?;
        let page = host::children(path, prefix, after, limit, data)?;
        let child = |child: types::Child| {
            let data = child.data.unwrap_or_default();
            Ok(Child { path: parent.join(&child.name)?, stat: child.stat.into(), data })
        };
        Ok(Page { children: page.children.into_iter().map(child).collect::<Result<_>>()?, more: page.more })
    }

    pub(crate) fn create(&self, path: &str, data: &[u8], how: Create) -> Result<Created> {
        let Create { ephemeral, sequential, container, ttl_ms, parents, or_set } = how;
        let how = types::CreateOptions { ephemeral, sequential, container, ttl_ms, parents, or_set };
        let created = host::create(path, data, how)?;
        Ok(Created { path: Path::try_from(created.path)?, stat: created.stat.into() })
    }

    pub(crate) fn set(&self, path: &str, data: &[u8], if_version: Option<u64>) -> Result<Stat> {
        Ok(host::set(path, data, if_version)?.into())
    }

    pub(crate) fn delete(&self, path: &str, if_version: Option<u64>) -> Result<()> {
        Ok(host::delete(path, if_version)?)
    }

    pub(crate) fn delete_tree(&self, path: &str) -> Result<u64> {
        Ok(host::delete_tree(path)?)
    }
}

/// The host's context.
pub(crate) struct Context;

impl Context {
    pub(crate) fn now_ms(&self) -> u64 {
        context::now_ms()
    }

    pub(crate) fn zxid(&self) -> u64 {
        context::zxid()
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        context::caller().map(|caller| Caller { principal: caller.principal, session: caller.session })
    }

    pub(crate) fn ticket(&self) -> Option<u64> {
        context::ticket()
    }

    pub(crate) fn settings(&self) -> Vec<u8> {
        context::settings()
    }

    pub(crate) fn random(&self, bytes: u32) -> Vec<u8> {
        context::random(bytes)
    }

    pub(crate) fn log(&self, level: Level, line: &str) {
        let level = match level {
            Level::Debug => context::Level::Debug,
            Level::Info => context::Level::Info,
            Level::Warn => context::Level::Warn,
            Level::Error => context::Level::Error,
        };
        context::log(level, line);
    }
}

impl From<types::Stat> for Stat {
    fn from(stat: types::Stat) -> Self {
        Self {
            created: stat.created,
            modified: stat.modified,
            children_modified: stat.children_modified,
            version: stat.version,
            children_version: stat.children_version,
            created_ms: stat.created_ms,
            modified_ms: stat.modified_ms,
            children_modified_ms: stat.children_modified_ms,
            owner: stat.owner,
            data_bytes: stat.data_bytes,
            children: stat.children,
            acl_version: stat.acl_version,
            container: stat.container,
            ttl_ms: stat.ttl_ms,
        }
    }
}

impl From<types::Refusal> for Error {
    fn from(refusal: types::Refusal) -> Self {
        Self::refused(refusal.code, refusal.message)
    }
}
