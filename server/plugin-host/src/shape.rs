//! What a component looks like from outside: how deep it nests, how much code it has, and what it imports and exports.

use wasmparser::{Encoding, Parser, Payload};

use crate::{Budgets, Error};

/// What the walk through a component found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Names that the component itself imports.
    pub(crate) imports: Vec<String>,
    /// Names that the component itself exports.
    pub(crate) exports: Vec<String>,
    /// Functions of all modules.
    pub(crate) functions: usize,
    /// Bytes of their code.
    pub(crate) code_bytes: usize,
    /// Bytes of the linear memories that it begins with.
    pub(crate) memory_bytes: u64,
}

/// Bytes of a page of linear memory.
const PAGE: u64 = 65_536;

impl Shape {
    /// Walks through a component, and refuses what would cost too much to compile.
    pub(crate) fn of(component: &[u8], budgets: &Budgets) -> Result<Self, Error> {
        at_most("bytes", component.len(), budgets.component_bytes)?;
        let (mut depth, mut modules) = (1, 0);
        let mut shape = Self::default();
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 1 => {
                    let what = "it is a core module; wit-component makes a component of it (conclave plugin build)";
                    return Err(Error::Malformed(what.to_owned()));
                }
                Payload::ModuleSection { .. } => {
                    modules += 1;
                    depth += 1;
                }
                Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        shape.imports.push(import.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        shape.exports.push(export.map_err(malformed)?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let bytes = memory.map_err(malformed)?.initial.saturating_mul(PAGE);
                        shape.memory_bytes = shape.memory_bytes.saturating_add(bytes);
                    }
                }
                Payload::CodeSectionStart { count, .. } => shape.functions += count as usize,
                Payload::CodeSectionEntry(body) => shape.function(&body, budgets)?,
                _ => {}
            }
            at_most("levels of nesting", depth, budgets.nesting)?;
            at_most("core modules", modules, budgets.modules)?;
            at_most("functions", shape.functions, budgets.functions)?;
        }
        Ok(shape)
    }

    fn function(&mut self, body: &wasmparser::FunctionBody<'_>, budgets: &Budgets) -> Result<(), Error> {
        let range = body.range();
        let bytes = range.end.saturating_sub(range.start);
        self.code_bytes += bytes;
        at_most("bytes in one function", bytes, budgets.function_bytes)?;
        let mut locals = 0_usize;
        for local in body.get_locals_reader().map_err(malformed)? {
            let (count, _) = local.map_err(malformed)?;
            locals = locals.saturating_add(count as usize);
            at_most("local variables in one function", locals, budgets.locals)?;
        }
        Ok(())
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> Error {
    Error::Malformed(error.to_string())
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), Error> {
    if actual > limit { Err(Error::Large { what, actual, limit }) } else { Ok(()) }
}
