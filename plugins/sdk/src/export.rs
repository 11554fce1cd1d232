//! What a plugin crate exports, and the macro that says so.

use serde::de::DeserializeOwned;

use crate::answer::Reply;
use crate::trigger::{Change, Ended, Verdict};
use crate::{Answer, Context, Result, Tree, cbor};

/// What [`export!`](crate::export) makes of a type.
pub trait Plugin {
    /// Its manifest's text; empty in a component, where it lies in a section of its own.
    const MANIFEST: &'static str;

    /// What it exports.
    fn exports() -> Exports;
}

/// A procedure or a query: arguments in, an answer out, both CBOR.
pub type Procedure = fn(&Tree, &Context, &[u8]) -> Result<Answer<Vec<u8>>>;

/// What a plugin exports, each interface if it does.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
#[allow(clippy::type_complexity, reason = "a name for each of these would be looked up once")]
pub struct Exports {
    /// Procedures by name, `-` as `_`.
    pub procedures: Option<fn(&str) -> Option<Procedure>>,
    /// Queries by name.
    pub queries: Option<fn(&str) -> Option<Procedure>>,
    /// See [`Before`](crate::Before).
    pub before: Option<fn(&Tree, &Context, &Change) -> Verdict>,
    /// See [`After`](crate::After).
    pub after: Option<fn(&Tree, &Context, &[Change]) -> Result<()>>,
    /// See [`SessionEnd`](crate::SessionEnd).
    pub session_end: Option<fn(&Tree, &Context, &Ended) -> Result<()>>,
    /// See [`Timer`](crate::Timer).
    pub timer: Option<fn(&Tree, &Context) -> Result<()>>,
}

/// For a procedure without parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct NoArgs {}

/// Runs a procedure.
///
/// # Errors
/// What it returns; arguments that are not those of the function.
pub fn procedure<A: DeserializeOwned, R: Reply>(
    run: fn(&Tree, &Context, A) -> Result<R>,
    tree: &Tree,
    context: &Context,
    args: &[u8],
) -> Result<Answer<Vec<u8>>> {
    if !R::PARKS
        && let Some(resumed) = context.resumed()
    {
        // It knows nothing of being run again: doing it twice would be worse than doing nothing.
        return match &resumed.done {
            Some(done) => Ok(Answer::Done(done.clone())),
            None => cbor::encode(&()).map(Answer::Done),
        };
    }
    run(tree, context, cbor::decode(args, "the arguments")?)?.answer()
}

/// Runs a query.
///
/// # Errors
/// As [`procedure`].
pub fn query<A: DeserializeOwned, R: serde::Serialize>(
    run: fn(&Tree, &Context, A) -> Result<R>,
    tree: &Tree,
    context: &Context,
    args: &[u8],
) -> Result<Answer<Vec<u8>>> {
    cbor::encode(&run(tree, context, cbor::decode(args, "the arguments")?)?).map(Answer::Done)
}

/// Makes a unit struct a plugin, and the crate a component that exports what is named here and nothing else.
///
/// ```text
/// conclave_plugin::export!(Gate: before, after, session_end, timer, procedures(take, put), queries(list));
/// ```
///
/// `before`, `after`, `session_end` and `timer` want the trait of that kind on the struct. Procedures and queries are functions
/// `fn(&Tree, &Context, A) -> Result<R>` with `A: Deserialize` and `R: Serialize`, or `R = Answer<T>` with `T: Serialize` for one
/// that parks, or gives back when it is cancelled. A `-` in a name of the manifest is a `_` here. The manifest is `plugin.toml`
/// beside the crate's `Cargo.toml`; `manifest(TEXT)`, first of all, gives another one to the tests.
#[macro_export]
macro_rules! export {
    ($plugin:ident: manifest($manifest:expr), $($interface:ident $(($($name:ident),+ $(,)?))?),+ $(,)?) => {
        impl $crate::Plugin for $plugin {
            const MANIFEST: &'static str = $manifest;

            fn exports() -> $crate::Exports {
                let mut exports = $crate::Exports::default();
                $($crate::export_interface!(exports, $plugin, $interface $(($($name),+))?);)+
                exports
            }
        }

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, missing_docs, unused_qualifications, reason = "generated: exported functions are C's")]
        mod component {
            type Component = $crate::Component<super::$plugin>;
            $($crate::$interface::export!(Component with_types_in $crate::$interface);)+
        }
    };
    ($plugin:ident: $($interface:ident $(($($name:ident),+ $(,)?))?),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        $crate::export!($plugin: manifest(""), $($interface $(($($name),+))?),+);
        #[cfg(not(target_arch = "wasm32"))]
        $crate::export!(
            $plugin: manifest(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.toml"))),
            $($interface $(($($name),+))?),+
        );
    };
}

/// One interface of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_interface {
    ($exports:ident, $plugin:ident, procedures($($name:ident),+)) => {
        $exports.procedures = Some(|name| match name {
            $(stringify!($name) => {
                Some(|tree, context, args| $crate::procedure($name, tree, context, args))
            })+
            _ => None,
        });
    };
    ($exports:ident, $plugin:ident, queries($($name:ident),+)) => {
        $exports.queries = Some(|name| match name {
            $(stringify!($name) => Some(|tree, context, args| $crate::query($name, tree, context, args)),)+
            _ => None,
        });
    };
    ($exports:ident, $plugin:ident, before) => {
        $exports.before = Some(|tree, context, change| $crate::Before::check(&$plugin, tree, context, change));
    };
    ($exports:ident, $plugin:ident, after) => {
        $exports.after = Some(|tree, context, changes| $crate::After::react(&$plugin, tree, context, changes));
    };
    ($exports:ident, $plugin:ident, session_end) => {
        $exports.session_end = Some(|tree, context, ended| $crate::SessionEnd::ended(&$plugin, tree, context, ended));
    };
    ($exports:ident, $plugin:ident, timer) => {
        $exports.timer = Some(|tree, context| $crate::Timer::tick(&$plugin, tree, context));
    };
}
