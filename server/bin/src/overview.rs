//! `conclave --help`: the commands, grouped by what people do.

use std::fmt::Write;

use clap::Command;

/// Who wants what. A command that is in no group is shown under "more".
const GROUPS: [(&str, &[&str]); 6] = [
    ("Try it and run it", &["dev", "server", "pki"]),
    (
        "The tree",
        &[
            "create", "get", "set", "update", "delete", "ls", "tree", "stat", "exists", "count", "txn", "watch",
            "import", "export", "acl", "policy",
        ],
    ),
    ("Recipes", &["lock", "semaphore", "elect", "service", "queue", "barrier", "counter"]),
    ("Plugins", &["plugin", "call", "ask"]),
    ("The cluster", &["status", "cluster", "session", "backup", "restore", "doctor", "bench"]),
    ("Other programs", &["shell", "completions"]),
];

const TEMPLATE: &str = "{about-with-newline}
{usage-heading} {usage}{after-help}

Options:
{options}
";

const TAIL: &str = "\
First steps:  conclave dev                          a cluster on this machine, in .conclave
              conclave create /app/config --data v1 --parents
Exit codes:   0 done  1 refused  2 usage  3 no connection  4 outcome unknown  5 timed out
More about a command:  conclave help COMMAND
";

/// The command with its overview.
pub(crate) fn grouped(command: Command) -> Command {
    let text = overview(&command);
    command.help_template(TEMPLATE).after_help(text)
}

/// The commands that no group names.
pub(crate) fn without_a_group(command: &Command) -> Vec<String> {
    let known = |name: &str| name == "help" || GROUPS.iter().any(|(_, names)| names.contains(&name));
    shown(command).map(|sub| sub.get_name().to_owned()).filter(|name| !known(name)).collect()
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn overview(command: &Command) -> String {
    let width = shown(command).map(|sub| sub.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = |title: &str, names: &mut dyn Iterator<Item = &str>| {
        let mut rows = names.filter_map(|name| shown(command).find(|sub| sub.get_name() == name)).peekable();
        if rows.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}:");
        for sub in rows {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:width$}  {about}", sub.get_name());
        }
        let _ = writeln!(text);
    };
    for (title, names) in GROUPS {
        group(title, &mut names.iter().copied());
    }
    let rest = without_a_group(command);
    group("More", &mut rest.iter().map(String::as_str));
    text + TAIL.trim_end()
}
