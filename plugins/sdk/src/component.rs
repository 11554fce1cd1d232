//! Inside a component: the generated bindings, behind the types that plugins see.

use crate::context::{Caller, Level};
use crate::tree::{self, Child, Create, Created, Page, Stat, Znode};
use crate::{Answer, Args, Plugin, Result};

/// What `wit-bindgen` makes of `wit/`.
#[allow(
    unsafe_code,
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::use_self,
    reason = "generated: the canonical ABI is pointers"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        default_bindings_module: "conclave_plugin::bindings",
    });
}

use bindings::conclave::plugin::{context, tree as imports, types};
use bindings::exports::conclave::plugin::procedures;

/// Exports the generated interfaces for a [`Plugin`](crate::Plugin).
#[doc(hidden)]
#[macro_export]
macro_rules! export_component {
    ($plugin:ident) => {
        #[allow(unsafe_code, missing_docs, unused_qualifications, reason = "generated: exported functions are C's")]
        mod component {
            type Component = $crate::Component<super::$plugin>;
            $crate::bindings::export_bindings!(Component with_types_in $crate::bindings);
        }
    };
}

/// A plugin as the generated interfaces want it.
pub struct Component<P>(std::marker::PhantomData<P>);

impl<P: Plugin> procedures::Guest for Component<P> {
    fn call(name: String, args: Vec<u8>) -> std::result::Result<procedures::Answer, String> {
        let args = Args::decode(&args).map_err(|error| error.to_string())?;
        match P::call(&name, &crate::Tree(Tree), &crate::Context(Context), &args) {
            Some(Ok(Answer::Done(bytes))) => Ok(procedures::Answer::Done(bytes)),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(["there is no procedure ", &name].concat()),
        }
    }
}

/// The host's tree.
pub(crate) struct Tree;

impl Tree {
    pub(crate) fn get(&self, path: &str) -> Result<Option<Znode>> {
        let znode = imports::get(path)?;
        Ok(znode.map(|znode| Znode { data: znode.data, stat: znode.stat.into() }))
    }

    pub(crate) fn exists(&self, path: &str) -> Result<Option<Stat>> {
        Ok(imports::exists(path)?.map(Into::into))
    }

    pub(crate) fn children(&self, path: &str, after: Option<&str>, limit: u32, data: bool) -> Result<Page> {
        let page = imports::children(path, after, limit, data)?;
        let child = |child: types::Child| Child { name: child.name, stat: child.stat.into(), data: child.data };
        Ok(Page { children: page.children.into_iter().map(child).collect(), more: page.more })
    }

    pub(crate) fn create(&self, path: &str, data: &[u8], how: Create) -> Result<Created> {
        let Create { ephemeral, sequential, parents } = how;
        let created = imports::create(path, data, types::CreateOptions { ephemeral, sequential, parents })?;
        Ok(Created { path: created.path, stat: created.stat.into() })
    }

    pub(crate) fn set(&self, path: &str, data: &[u8], if_version: Option<u64>) -> Result<Stat> {
        Ok(imports::set(path, data, if_version)?.into())
    }

    pub(crate) fn delete(&self, path: &str, if_version: Option<u64>) -> Result<()> {
        Ok(imports::delete(path, if_version)?)
    }
}

/// The host's context.
pub(crate) struct Context;

impl Context {
    pub(crate) fn now_ms(&self) -> u64 {
        context::now_ms()
    }

    pub(crate) fn zxid(&self) -> u64 {
        context::zxid()
    }

    pub(crate) fn caller(&self) -> Option<Caller> {
        context::caller().map(|caller| Caller { principal: caller.principal, session: caller.session })
    }

    pub(crate) fn settings(&self) -> Vec<u8> {
        context::settings()
    }

    pub(crate) fn random(&self, bytes: u32) -> Vec<u8> {
        context::random(bytes)
    }

    pub(crate) fn log(&self, level: Level, line: &str) {
        let level = match level {
            Level::Debug => context::Level::Debug,
            Level::Info => context::Level::Info,
            Level::Warn => context::Level::Warn,
            Level::Error => context::Level::Error,
        };
        context::log(level, line);
    }
}

impl From<types::Stat> for Stat {
    fn from(stat: types::Stat) -> Self {
        Self {
            created: stat.created,
            modified: stat.modified,
            children_modified: stat.children_modified,
            version: stat.version,
            children_version: stat.children_version,
            created_ms: stat.created_ms,
            modified_ms: stat.modified_ms,
            owner: stat.owner,
            data_bytes: stat.data_bytes,
            children: stat.children,
        }
    }
}

impl From<types::Refusal> for crate::Error {
    fn from(refusal: types::Refusal) -> Self {
        tree::refused(refusal.code, refusal.message)
    }
}
