//! Why a component can never run here.

/// What is wrong with a component, or with this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is larger than is allowed, in bytes or in parts.
    #[error("the component has {actual} {what}, {limit} are allowed")]
    Large {
        /// Of what it has too many.
        what: &'static str,
        /// How many it has, or how many were counted before giving up.
        actual: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The bytes are not those that the digest names.
    #[error("the component's SHA-256 is {actual}, not {expected}")]
    Digest {
        /// What was asked for, hexadecimal.
        expected: String,
        /// Of the bytes.
        actual: String,
    },
    /// It is no component, or a damaged one.
    #[error("this is no WebAssembly component: {0}")]
    Malformed(String),
    /// It uses what plugins may not use, or is invalid.
    #[error("the component can't be compiled: {0}")]
    Compile(String),
    /// It takes too long to compile.
    #[error(
        "the component was not compiled within {seconds} s, and is given up: it has less code than is allowed, in a form that \
         takes the compiler long"
    )]
    CompileTime {
        /// How long was waited.
        seconds: u64,
    },
    /// Components that were given up are compiled still.
    #[error("{0} components that take too long to compile keep this member busy: install again when they are through")]
    CompilerBusy(usize),
    /// It imports something besides the plugin world.
    #[error("the component imports {0}; a plugin may import only {world}", world = crate::WORLD)]
    ForeignImport(String),
    /// Its manifest is missing or wrong.
    #[error("the manifest {0}")]
    Manifest(String),
    /// Its manifest promises what it does not export, or keeps silent about what it does.
    #[error("the component lies in its manifest: {0}")]
    Lies(String),
    /// The engine can't be set up on this machine.
    #[error("the plugin engine can't start: {0}")]
    Engine(String),
    /// Compiled components can't be kept.
    #[error("compiled components can't be kept in {folder}: {why}")]
    Cache {
        /// Where.
        folder: String,
        /// Why not.
        why: String,
    },
}
