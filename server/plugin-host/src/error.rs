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
    /// It imports something besides the plugin world.
    #[error("the component imports {0}; a plugin may import only {world}", world = crate::WORLD)]
    ForeignImport(String),
    /// Its manifest is missing or wrong.
    #[error("the manifest {0}")]
    Manifest(String),
    /// Its manifest promises what it does not export.
    #[error("the manifest names {what}, and the component exports no {interface}")]
    Export {
        /// What the manifest names.
        what: &'static str,
        /// The interface that is missing, or is of another form.
        interface: &'static str,
    },
    /// The engine can't be set up on this machine.
    #[error("the plugin engine can't start: {0}")]
    Engine(String),
}
