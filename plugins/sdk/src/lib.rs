//! The guest's side of a plugin: the tree, the context, arguments, and the macro that makes a crate a component.
//!
//! ```
//! use conclave_plugin::{Args, Context, Result, Tree};
//!
//! /// Procedures of this plugin.
//! pub struct Greeter;
//!
//! fn greet(tree: &Tree, _: &Context, args: &Args) -> Result<String> {
//!     let path = args.text(0, "path")?;
//!     let znode = tree.get(path)?.ok_or("nobody is there")?;
//!     Ok(format!("hello {}", znode.text()?))
//! }
//!
//! conclave_plugin::export!(Greeter: procedures(greet));
//! # fn main() {}
//! ```
//!
//! The same code is compiled to a component for the cluster, and natively for tests: there [`TestTree`] is the tree.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod args;
#[cfg(target_arch = "wasm32")]
mod component;
mod context;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod testing;
mod tree;

pub use answer::Answer;
pub use args::Args;
pub use context::{Caller, Context, Level};
pub use error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
pub use testing::TestTree;
pub use tree::{Child, Create, Created, Page, Stat, Tree, Znode};

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use component::{Component, bindings};

/// What [`export!`] makes of a type: something that can be called by name.
pub trait Plugin {
    /// Runs the procedure of this name; none when there is none.
    fn call(name: &str, tree: &Tree, context: &Context, args: &Args) -> Option<Result<Answer>>;
}

/// Makes a unit struct a plugin, with these functions as its procedures, and the crate a component.
///
/// A procedure is a `fn(&Tree, &Context, &Args) -> Result<T>`, where `T` becomes an [`Answer`].
#[macro_export]
macro_rules! export {
    ($plugin:ident: procedures($($procedure:ident),+ $(,)?)) => {
        impl $crate::Plugin for $plugin {
            fn call(
                name: &str,
                tree: &$crate::Tree,
                context: &$crate::Context,
                args: &$crate::Args,
            ) -> Option<$crate::Result<$crate::Answer>> {
                match name {
                    $(stringify!($procedure) => Some($procedure(tree, context, args).map(Into::into)),)+
                    _ => None,
                }
            }
        }

        #[cfg(target_arch = "wasm32")]
        $crate::export_component!($plugin);
    };
}
