//! Procedures inside a transaction: what they write, refuse, and break.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use conclave_core::plan::Growth;
use conclave_core::plugin::{Ended, Run, What};
use conclave_core::view::{Stop, Tx};
use conclave_core::{Fault, Table};
use conclave_protocol::{Call, Create, Delete, Detail, Kind, Op, Refusal, Set, Value, limits};

use support::scripts::{self, Scripts};
use support::{Member, code, once, path};

/// Procedures in Rust: the name says what is done.
fn run(tx: &mut Tx, run: &Run) -> Result<Ended, Refusal> {
    let What::Procedure { name, args, .. } = &run.what else { panic!("{:?}", run.what) };
    let refused = |message: &str| scripts::refused(run, message);
    let create = Create { parents: true, ..Create::new(path("/made"), args.clone()) };
    let (made, stat) = tx.create(&create).map_err(|_| refused("create"))?;
    assert_eq!(tx.get(&made).unwrap(), Some((args.clone(), stat)), "it sees what it wrote");
    let bytes = match name.as_str() {
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
            let kind = Kind { ephemeral: true, ..Kind::default() };
            let nobodys = Create { kind, parents: true, ..Create::new(path("/x/y/z"), Bytes::new()) };
            assert!(matches!(tx.create(&nobodys), Err(Stop::Refused(Refusal::NoSession { .. }))));
            let set = Set { path: made.clone(), data: Bytes::new(), if_version: Some(9) };
            assert!(matches!(tx.set(&set), Err(Stop::Refused(Refusal::BadVersion { .. }))));
            let delete = Delete { path: path("/"), if_version: None, recursive: true };
            assert!(tx.delete(&delete).is_err());
            assert_eq!((tx.rows_written(), tx.bytes_written(), tx.changes().len()), written);
            assert_eq!(tx.children(&path("/"), "", None, 10, Detail::Data).unwrap().children.len(), 1);
            Ok(Bytes::new())
        }
        other => panic!("{other} is not in the manifest"),
    }?;
    Ok(Ended::Done(bytes))
}

fn member() -> Member {
    let manifest = scripts::procedures(&["make", "swap", "refuse", "fault", "long", "go-on"], false);
    let scripts = scripts::shared(Scripts::default().with(1, manifest, run));
    Member::with_plugins(vec![scripts::built_in("good", 1), scripts::built_in("bad", 2)], &scripts)
}

fn call(plugin: &str, procedure: &str) -> Op {
    let args = Bytes::from_static(b"args");
    Op::Call(Call { plugin: plugin.to_owned(), procedure: procedure.to_owned(), args, root: path("/") })
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
    assert_eq!(code(&member.run(&once(2, 2_000, call("bad", "make")))), "plugin-disabled");
}

#[test]
fn a_procedure_may_create_on_a_full_disk_as_much_as_it_deletes_and_no_more() {
    let mut member = member();
    let old = Create::new(path("/old"), Bytes::from_static(b"1234"));
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
