//! `plugin check`, `run` and `bench`: a component looked at and tried on this machine, without a cluster.

use std::path::{Path, PathBuf};

use conclave_plugin_host::inspect::{Report, inspect};
use conclave_plugin_host::local::{Local, Planned, Told, Tree};

use super::read;
use crate::out::{self, Failure, Outcome};

/// Look at a component: what it is, what it will be able to do, whether members would take it
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The component
    file: PathBuf,
}

/// Where a component is tried.
#[derive(Debug, clap::Args)]
struct Stage {
    /// The component
    file: PathBuf,
    /// The tree to begin with: a JSON object from paths to data, such as {"/app/config": "on"}
    #[arg(long, value_name = "FILE")]
    tree: Option<PathBuf>,
    /// Its settings: a file that it understands
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What one run may spend, such as fuel=20000000; again for more. `plugin set --help` names them all
    #[arg(long, value_name = "NAME=NUMBER")]
    budget: Vec<String>,
}

/// Call a procedure on a tree in memory, and print the transaction that it would make
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Everything that the plugin asks for is allowed.

  conclave plugin run gate.wasm --tree tree.json --call take queue=/queues/q
  conclave plugin run gate.wasm --call rebuild --budget time_ms=50 --budget fuel=100000000")]
pub(crate) struct Run {
    #[command(flatten)]
    stage: Stage,
    /// The procedure
    #[arg(long, value_name = "PROCEDURE", required_unless_present = "ask", conflicts_with = "ask")]
    call: Option<String>,
    /// A query instead
    #[arg(long, value_name = "QUERY")]
    ask: Option<String>,
    #[command(flatten)]
    arguments: conclave_cli::args::Arguments,
}

/// Measure a procedure on a tree in memory: calls a second, time and fuel of one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It must not wait, and is called on one tree again and again.

  conclave plugin bench counter.wasm --call add /hits 1")]
pub(crate) struct Bench {
    #[command(flatten)]
    stage: Stage,
    /// The procedure
    #[arg(long, value_name = "PROCEDURE")]
    call: String,
    #[command(flatten)]
    arguments: conclave_cli::args::Arguments,
    /// How many calls
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,
}

pub(super) fn check(args: &Check, json: bool) -> Outcome {
    let report = inspect(&read(&args.file)?).map_err(|error| unfit(&args.file, error))?;
    if json {
        out::line(serde_json::json!(report));
    } else {
        out::line(text(&args.file, &report).trim_end());
    }
    Ok(())
}

fn unfit(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::refused("plugin-unfit", format!("{}: {why}", file.display()))
}

fn text(file: &Path, report: &Report) -> String {
    let Report { digest, bytes, manifest, imports, exports, functions, code_bytes, memory_bytes, may, warnings } =
        report;
    let mut text = format!(
        "{} {}  {} KB  sha256:{digest}\n{}: {functions} functions, {} KB of code, {} KB of memory to begin with\n",
        manifest.name,
        manifest.version,
        bytes.div_ceil(1024),
        file.display(),
        code_bytes.div_ceil(1024),
        memory_bytes.div_ceil(1024),
    );
    for (what, list) in [("imports", imports), ("exports", exports)] {
        text.push_str(&format!("{what}  {}\n", if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }));
    }
    for sentence in may {
        text.push_str(&format!("it {sentence}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

impl Stage {
    fn tree(&self) -> Outcome<Tree> {
        let Some(file) = &self.tree else { return Ok(Tree(std::collections::BTreeMap::new())) };
        let text = String::from_utf8_lossy(&read(file)?).into_owned();
        Tree::parse(&text).map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))
    }

    fn local(&self, tree: &Tree) -> Outcome<Local> {
        let component = read(&self.file)?;
        let settings = self.settings.as_deref().map(read).transpose()?.unwrap_or_default();
        let budgets = conclave_cli::budgets(&self.budget).map_err(Failure::Usage)?;
        Local::new(&component, tree, &settings, budgets).map_err(|why| unfit(&self.file, why))
    }
}

pub(super) fn run(args: &Run, json: bool) -> Outcome {
    let tree = args.stage.tree()?;
    let mut local = args.stage.local(&tree)?;
    let arguments = arguments(&args.arguments)?.into();
    let told = if let Some(query) = &args.ask {
        let told = local.query(&tree, query, arguments).map_err(Failure::Broken)?;
        if json {
            out::line(serde_json::json!({ "outcome": told }));
        } else {
            out::line(outcome(&told));
        }
        told
    } else {
        let procedure = args.call.as_deref().unwrap_or_default();
        let planned = local.call(procedure, arguments).map_err(Failure::Broken)?;
        if json {
            out::line(serde_json::json!(planned));
        } else {
            out::line(transaction(&planned).trim_end());
        }
        planned.outcome
    };
    match told {
        Told::Refused { code, message } => Err(Failure::refused(code, message)),
        _ => Ok(()),
    }
}

fn arguments(given: &conclave_cli::args::Arguments) -> Outcome<Vec<u8>> {
    conclave_cli::encode_arguments(given).map_err(Failure::Usage)
}

fn outcome(told: &Told) -> String {
    match told {
        Told::Answer { json: Some(value), .. } => format!("answers  {value}"),
        Told::Answer { json: None, cbor } => format!("answers  {cbor} (CBOR, hexadecimal)"),
        Told::Parked => "parks: it waits, and answers later".to_owned(),
        Told::Done => "done".to_owned(),
        Told::Refused { .. } => "nothing would be changed".to_owned(),
    }
}

/// What a leader would have made of it.
fn transaction(planned: &Planned) -> String {
    let mut text = outcome(&planned.outcome);
    text.push('\n');
    for change in &planned.changes {
        text.push_str(&format!("{:<8} {}  version {}\n", change.kind, change.path, change.version));
    }
    text.push_str(&format!("rows     {}\n", planned.rows.len()));
    for one in &planned.stats {
        text.push_str(&format!("fuel     {}\ntime     {} µs\n", one.fuel[2], one.time_us[2]));
    }
    for line in &planned.log {
        text.push_str(&format!("log      {} {}\n", line.level, line.line));
    }
    text
}

pub(super) fn bench(args: &Bench, json: bool) -> Outcome {
    let tree = args.stage.tree()?;
    let local = args.stage.local(&tree)?;
    let arguments = arguments(&args.arguments)?.into();
    let bench = local.bench(&tree, &args.call, &arguments, args.calls);
    let bench = bench.map_err(|why| Failure::refused("not-measured", format!("{}: {why}", args.call)))?;
    if json {
        out::line(serde_json::json!(bench));
        return Ok(());
    }
    let [median, most, longest] = bench.time_us;
    out::line(format!("{} calls  {:.0} calls/s  fuel {}", bench.calls, bench.calls_per_s, bench.fuel));
    out::line(format!("time p50 {median:.1} µs  p99 {most:.1} µs  longest {longest:.1} µs"));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_client::plugin::BudgetSettings;

    use super::*;

    const COUNTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/prebuilt/counter.wasm");

    #[test]
    fn a_component_that_is_none_is_refused_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.wasm");
        std::fs::write(&file, b"nothing").unwrap();
        let failed = check(&Check { file: file.clone() }, false).unwrap_err().to_string();
        assert!(failed.starts_with("refused: plugin-unfit: ") && failed.contains("x.wasm"), "{failed}");
        let missing = check(&Check { file: folder.path().join("y.wasm") }, false).unwrap_err().to_string();
        assert!(missing.contains("y.wasm"), "{missing}");
    }

    #[test]
    fn what_a_component_may_do_is_a_page() {
        let report = inspect(&std::fs::read(COUNTER).unwrap()).unwrap();
        let page = text(Path::new("counter.wasm"), &report);
        assert!(page.starts_with("counter "), "{page}");
        assert!(page.contains("can be called: "), "{page}");
    }

    #[test]
    fn a_procedure_is_run_on_a_tree_in_memory_and_its_transaction_shown() {
        let component = std::fs::read(COUNTER).unwrap();
        let tree = Tree::parse(r#"{"/hits": "41"}"#).unwrap();
        let mut local = Local::new(&component, &tree, b"", BudgetSettings::default()).unwrap();
        let procedure = local.manifest().procedures[0].name.clone();
        let given = conclave_cli::args::Arguments { args: vec!["/hits".to_owned()], json_args: None };
        let planned = local.call(&procedure, arguments(&given).unwrap().into()).unwrap();
        let shown = transaction(&planned);
        assert!(shown.starts_with("answers  42\n"), "{shown}");
        assert!(shown.contains("data     /hits  version 1\n"), "{shown}");
    }
}
