//! Procedures inside a transaction: what they write, refuse, and break.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Growth, Install, Planner, Procedure, Procedures};
use conclave_core::view::{Stop, Tx};
use conclave_core::{Fault, Table};
use conclave_protocol::{Call, Create, Delete, Kind, Op, Refusal, Set, Value, limits};

use support::{Member, code, once, path};

/// Procedures in Rust: the name says what is done.
struct Scripted;

impl Procedures for Scripted {
    fn prepare(&mut self, _: [u8; 32], component: &[u8]) -> Result<(), String> {
        if component == b"bad" { Err("it is no component".to_owned()) } else { Ok(()) }
    }

    fn call(&mut self, mut tx: Tx, call: Procedure) -> (Tx, Result<Bytes, Refusal>) {
        let done = run(&mut tx, &call);
        (tx, done)
    }
}

fn run(tx: &mut Tx, call: &Procedure) -> Result<Bytes, Refusal> {
    let refused = |message: &str| Refusal::PluginRefused { plugin: call.plugin.clone(), message: message.to_owned() };
    let create = Create { path: path("/made"), data: call.args.clone(), kind: Kind::default(), parents: true };
    let (made, stat) = tx.create(&create).map_err(|_| refused("create"))?;
    assert_eq!(tx.get(&made).unwrap(), Some((call.args.clone(), stat)), "it sees what it wrote");
    match call.procedure.as_str() {
        "make" => Ok(Bytes::from(tx.rows_written().to_string())),
        "swap" => {
            tx.delete(&Delete { path: path("/old"), if_version: None, recursive: false })
                .map_err(|_| refused("swap"))?;
            Ok(Bytes::new())
        }
        "refuse" => Err(refused("no")),
        "fault" => {
            tx.fail(Fault::Storage("first".to_owned()));
            tx.fail(Fault::Storage("second".to_owned()));
            Ok(Bytes::new())
        }
        "long" => Ok(vec![0; limits::CALL_BYTES + 1].into()),
        // A refused operation has written nothing, and the procedure may go on.
        "go-on" => {
            let written = (tx.rows_written(), tx.bytes_written(), tx.changes().len());
            let too_large = Bytes::from(vec![0; limits::DATA_BYTES + 1]);
            let deep = Create { path: path("/x/y/z"), data: too_large, ..create };
            assert!(matches!(tx.create(&deep), Err(Stop::Refused(Refusal::Limit { .. }))));
            let kind = Kind { ephemeral: true, sequential: false };
            let nobodys = Create { path: path("/x/y/z"), data: Bytes::new(), kind, parents: true };
            assert!(matches!(tx.create(&nobodys), Err(Stop::Refused(Refusal::NoSession { .. }))));
            let set = Set { path: made.clone(), data: Bytes::new(), if_version: Some(9) };
            assert!(matches!(tx.set(&set), Err(Stop::Refused(Refusal::BadVersion { .. }))));
            let delete = Delete { path: path("/"), if_version: None, recursive: true };
            assert!(tx.delete(&delete).is_err());
            assert_eq!((tx.rows_written(), tx.bytes_written(), tx.changes().len()), written);
            assert_eq!(tx.children(&path("/"), None, 10, true).unwrap().children.len(), 1);
            Ok(Bytes::new())
        }
        other => Err(Refusal::NoProcedure { plugin: call.plugin.clone(), procedure: other.to_owned() }),
    }
}

fn member() -> Member {
    let install = |name: &str, digest, component: &'static [u8]| Install {
        name: name.to_owned(),
        digest: [digest; 32],
        component: Bytes::from_static(component),
    };
    let mut member = Member::new();
    member.tables = MemTables::with_root("test", vec![install("good", 1, b"good"), install("bad", 2, b"bad")]).unwrap();
    let (tables, term) = (&member.tables, member.term);
    member.planner = Planner::new(term, tables.snapshot(), tables.kept(), Box::new(Scripted)).unwrap();
    member
}

fn call(plugin: &str, procedure: &str) -> Op {
    let args = Bytes::from_static(b"args");
    Op::Call(Call { plugin: plugin.to_owned(), procedure: procedure.to_owned(), args })
}

#[test]
fn a_procedure_writes_in_the_callers_transaction() {
    let mut member = member();
    assert_eq!(member.run(&once(1, 2_000, call("good", "make"))), Ok(Value::Called(Bytes::from_static(b"4"))));
    assert_eq!(member.tables.count(Table::Znode), 2);
    assert_eq!(code(&member.run(&once(2, 2_000, call("good", "make")))), "plugin-refused");
}

#[test]
fn what_a_procedure_that_refuses_wrote_is_undone() {
    let mut member = member();
    for (number, procedure) in (1..).zip(["refuse", "unknown", "long"]) {
        let outcome = member.run(&once(number, 2_000, call("good", procedure)));
        assert_ne!(code(&outcome), "done");
        assert_eq!(member.tables.count(Table::Znode), 1, "{procedure}");
    }
    assert_eq!(code(&member.run(&once(9, 2_000, call("good", "go-on")))), "done");
}

#[test]
fn a_plugin_that_is_not_there_or_cannot_be_run_is_refused() {
    let mut member = member();
    assert_eq!(code(&member.run(&once(1, 2_000, call("none", "make")))), "no-plugin");
    assert_eq!(code(&member.run(&once(2, 2_000, call("bad", "make")))), "plugin-failed");
}

#[test]
fn a_procedure_may_create_on_a_full_disk_as_much_as_it_deletes_and_no_more() {
    let mut member = member();
    let old = Create { path: path("/old"), data: Bytes::from_static(b"1234"), kind: Kind::default(), parents: false };
    member.done(&once(1, 2_000, Op::Create(old)));
    member.planner.set_growth(Growth::Refused { free_bytes: 0, least_bytes: 1 });
    assert_eq!(code(&member.run(&once(2, 2_000, call("good", "make")))), "disk-full");
    assert_eq!(member.tables.count(Table::Znode), 2, "what it wrote is undone");
    assert_eq!(code(&member.run(&once(3, 2_000, call("good", "refuse")))), "plugin-refused");
    member.planner.set_growth(Growth::Allowed);
    member.done(&once(
        4,
        2_000,
        Op::Set(Set { path: path("/old"), data: Bytes::from_static(b"12345"), if_version: None }),
    ));
    member.planner.set_growth(Growth::Refused { free_bytes: 0, least_bytes: 1 });
    assert_eq!(code(&member.run(&once(5, 2_000, call("good", "swap")))), "done");
    assert_eq!(member.tables.count(Table::Znode), 2);
}

#[test]
fn a_fault_below_a_procedure_is_this_members_whatever_the_procedure_answers() {
    let mut member = member();
    let fault = member.planner.plan(&once(1, 2_000, call("good", "fault")), 1_000);
    assert_eq!(fault, Err(Fault::Storage("first".to_owned())));
}
