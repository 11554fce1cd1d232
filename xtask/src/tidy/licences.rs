//! Licences of all that we build from, against the list in deny.toml: a cheap stand-in where cargo-deny is not at hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::metadata::Metadata;
use super::{Finding, Result};

/// The list of deny.toml.
///
/// # Errors
/// When it can't be read.
pub(super) fn allowed(root: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(root.join("deny.toml")).map_err(|error| format!("deny.toml: {error}"))?;
    let table: toml::Table = text.parse().map_err(|error| format!("deny.toml: {error}"))?;
    let list = table.get("licenses").and_then(|licences| licences.get("allow")).and_then(toml::Value::as_array);
    let list = list.ok_or("deny.toml: no list `allow` in [licenses]")?;
    Ok(list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
}

/// Every package whose licence is not on the list.
pub(super) fn check(metadata: &Metadata, allowed: &BTreeSet<String>) -> Vec<Finding> {
    let refused = metadata.packages.iter().filter_map(|package| match package.licence.as_deref() {
        Some(licence) if is_allowed(licence, allowed) => None,
        licence => Some((package, licence.unwrap_or("none"))),
    });
    refused
        .map(|(package, licence)| Finding::of("deny.toml", format!("{} has the licence {licence}", package.name)))
        .collect()
}

/// Whether an SPDX expression can be met with what is allowed: one side of each OR, both of each AND.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // The slash is the old way to write OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    any(&mut rest, allowed) == Some(true) && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_met = all(rest, allowed)?;
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        is_met |= all(rest, allowed)?;
    }
    Some(is_met)
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_met = one(rest, allowed)?;
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        is_met &= one(rest, allowed)?;
    }
    Some(is_met)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let is_met = any(rest, allowed)?;
            *rest = rest.strip_prefix(&[")"])?;
            Some(is_met)
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, after @ ..] => {
            *rest = after;
            Some(allowed.contains(*licence))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(expression: &str) -> bool {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned);
        is_allowed(expression, &BTreeSet::from(allowed))
    }

    #[test]
    fn one_side_of_or_and_both_of_and() {
        assert!(ok("MIT") && ok("GPL-3.0 OR MIT") && ok("MIT/GPL-3.0") && ok("MIT AND ISC"));
        assert!(ok("(MIT OR GPL-3.0) AND ISC") && ok("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
        assert!(!ok("GPL-3.0") && !ok("MIT AND GPL-3.0") && !ok("(GPL-3.0 OR BSD) AND MIT"));
        assert!(!ok("ISC WITH LLVM-exception"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert!(!ok("") && !ok("(MIT") && !ok("MIT )") && !ok("MIT OR") && !ok("MIT ISC"));
    }
}
