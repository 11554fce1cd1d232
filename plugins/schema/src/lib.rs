//! Refuses data that does not fit its JSON Schema. See the README for its settings.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_arch = "wasm32")]
mod random;
#[cfg(test)]
mod tests;

use conclave_plugin::{Before, Change, Context, Path, Result, Tree, Value, Verdict};
use serde::Deserialize;

/// Errors of one check that are told, at most.
const TOLD: usize = 3;

/// Characters of an error that are told: it names the value, which may be large.
const TOLD_CHARACTERS: usize = 200;

/// The plugin.
pub struct Schema;

conclave_plugin::export!(Schema: before);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    schemas: Vec<Rule>,
}

/// A schema, and what has to fit it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rule {
    /// A pattern of paths.
    paths: String,
    /// The schema itself.
    #[serde(default)]
    schema: Option<Value>,
    /// Or the znode in whose data it lies.
    #[serde(default)]
    schema_at: Option<Path>,
    /// Empty data is checked too; otherwise it passes, as znodes that are made as somebody's parents have none.
    #[serde(default)]
    required: bool,
}

impl Before for Schema {
    fn check(&self, tree: &Tree, context: &Context, change: &Change) -> Verdict {
        check(tree, context, change).map(|()| Verdict::Allow).into()
    }
}

fn check(tree: &Tree, context: &Context, change: &Change) -> Result<()> {
    let settings: Settings = context.settings()?;
    let data = change.data.as_deref().unwrap_or_default();
    for rule in &settings.schemas {
        if rule.schema_at.as_ref() == Some(&change.path) && !data.is_empty() {
            let schema = parsed(&change.path, data)?;
            compile(&change.path, &schema)?;
        }
        if !change.path.matches(&rule.paths) || (data.is_empty() && !rule.required) {
            continue;
        }
        let schema = match (&rule.schema, &rule.schema_at) {
            (Some(schema), None) => schema.clone(),
            (None, Some(at)) => match tree.get(at)? {
                Some(znode) => parsed(at, &znode.data)?,
                None => {
                    return Err(format!("{}: its schema should lie in {at}, which does not exist", change.path).into());
                }
            },
            _ => return Err(format!("the settings: {} has to have either schema or schema-at", rule.paths).into()),
        };
        validate(&change.path, &compile(&rule.paths, &schema)?, &parsed(&change.path, data)?)?;
    }
    Ok(())
}

fn validate(path: &Path, schema: &jsonschema::Validator, data: &Value) -> Result<()> {
    let mut errors = schema.iter_errors(data);
    let told: Vec<String> = errors.by_ref().take(TOLD).map(|error| words(&error)).collect();
    match (told.len(), errors.count()) {
        (0, _) => Ok(()),
        (_, 0) => Err(format!("{path} does not fit its schema: {}", told.join("; ")).into()),
        (_, more) => Err(format!("{path} does not fit its schema: {}; and {more} more", told.join("; ")).into()),
    }
}

fn words(error: &jsonschema::ValidationError<'_>) -> String {
    let text = error.to_string();
    let mut words: String = text.chars().take(TOLD_CHARACTERS).collect();
    if words.len() < text.len() {
        words.push_str("...");
    }
    match error.instance_path().to_string().as_str() {
        "" => words,
        at => format!("at {at}: {words}"),
    }
}

fn compile(of: &str, schema: &Value) -> Result<jsonschema::Validator> {
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema).map_err(|error| format!("the schema of {of} is none: {}", words(&error)).into())
}

fn parsed(path: &Path, data: &[u8]) -> Result<Value> {
    serde_json::from_slice(data).map_err(|error| format!("{path}: its data is no JSON: {error}").into())
}
