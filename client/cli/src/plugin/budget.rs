//! Budgets as the command line has them: `NAME=NUMBER`.

use conclave_client::plugin::BudgetSettings;

use crate::failure::Failure;

/// Every budget: its name, and where it lies.
pub(super) fn named(budgets: &mut BudgetSettings) -> [(&'static str, &mut Option<u64>); 7] {
    let BudgetSettings { fuel, time_ms, memory_bytes, host_calls, rows, written_bytes, read_bytes } = budgets;
    [
        ("fuel", fuel),
        ("time_ms", time_ms),
        ("memory_bytes", memory_bytes),
        ("host_calls", host_calls),
        ("rows", rows),
        ("written_bytes", written_bytes),
        ("read_bytes", read_bytes),
    ]
}

/// The budgets with these changes.
pub(crate) fn change(mut budgets: BudgetSettings, changes: &[String]) -> Result<BudgetSettings, Failure> {
    for text in changes {
        let wrong = |why: &str| Failure::Usage(format!("--budget {text}: {why}"));
        let (name, number) = text.split_once('=').ok_or_else(|| wrong("write NAME=NUMBER, such as time_ms=50"))?;
        let number = match number {
            "default" => None,
            number => Some(number.parse().map_err(|_| wrong("it is no number, nor `default`"))?),
        };
        let mut all = named(&mut budgets);
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, budget)) => **budget = number,
            None => {
                let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
                return Err(wrong(&format!("{name:?} is none of {}", names.join(", "))));
            }
        }
    }
    Ok(budgets)
}
