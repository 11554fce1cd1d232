//! Looks a component over before it is compiled: its size, its nesting, how much code it has. (Pitfall 24.)

use wasmparser::{Encoding, Parser, Payload};

use crate::{Budgets, Error};

/// Refuses what would cost too much to compile.
pub(crate) fn check(component: &[u8], budgets: &Budgets) -> Result<(), Error> {
    at_most("bytes", component.len(), budgets.component_bytes)?;
    let (mut depth, mut modules, mut functions) = (1, 0, 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| Error::Malformed(error.to_string()))? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 1 => {
                return Err(Error::Malformed("it is a core module".to_owned()));
            }
            Payload::ModuleSection { .. } => {
                modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CodeSectionStart { count, .. } => functions += count as usize,
            _ => {}
        }
        at_most("levels of nesting", depth, budgets.nesting)?;
        at_most("core modules", modules, budgets.modules)?;
        at_most("functions", functions, budgets.functions as usize)?;
    }
    Ok(())
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), Error> {
    if actual > limit { Err(Error::Large { what, actual, limit }) } else { Ok(()) }
}
