//! Where the cluster is and who we are to it: given by the program, by `CONCLAVE_*`, or by a `.conclave` directory.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The directory that is looked for.
const DIRECTORY: &str = ".conclave";
/// The file in it.
const FILE: &str = "client.toml";
/// The least session timeout that any cluster can be configured for; what this one takes, it says itself.
const SESSION_TIMEOUT_MIN_MS: u64 = 500;
/// The greatest one.
const SESSION_TIMEOUT_MAX_MS: u64 = 86_400_000;
/// The file's keys, for suggestions; the same as [`File`]'s fields.
const KEYS: [&str; 8] = [
    "endpoints",
    "cluster",
    "certificate",
    "key",
    "ca",
    "session_timeout_ms",
    "request_timeout_ms",
    "connect_timeout_ms",
];

/// What is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing says where the cluster is.
    #[error(
        "no cluster is configured: looked for {}. Start one with `conclave dev`, or set CONCLAVE_DIR to a .conclave directory",
        looked.join(", ")
    )]
    NotFound {
        /// What was looked for, in order.
        looked: Vec<String>,
    },
    /// A file cannot be read.
    #[error("{}: {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key that there is not.
    #[error("{}: there is no key `{key}`{}", path.display(), match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; there are {}", KEYS.join(", ")),
    })]
    UnknownKey {
        /// Of which file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that is nearest to it, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value is missing.
    #[error("{what} is not set ({at})")]
    Missing {
        /// Which value.
        what: &'static str,
        /// Where it can be set.
        at: String,
    },
    /// A value is out of range or of the wrong form.
    #[error("{what}: {why}")]
    Bad {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Where [`Options`] come from, for people to see. `Display` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The program made them.
    Program,
    /// A directory that was named.
    Given(PathBuf),
    /// The directory that `CONCLAVE_DIR` names.
    Variable(PathBuf),
    /// A directory found here or above.
    Found(PathBuf),
    /// `CONCLAVE_*` alone.
    Environment,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("the program"),
            Self::Given(dir) => write!(f, "{} (given)", dir.display()),
            Self::Variable(dir) => write!(f, "{} (CONCLAVE_DIR)", dir.display()),
            Self::Found(dir) => write!(f, "{} (found upward)", dir.display()),
            Self::Environment => f.write_str("CONCLAVE_* variables"),
        }
    }
}

/// How to reach a cluster. See the [crate's page](crate) for how they are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) endpoints: Vec<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) session_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) pipelined: bool,
    source: Source,
    overrides: Vec<&'static str>,
}

/// `client.toml`. Paths are relative to the file's directory.
#[derive(Default, Deserialize)]
struct File {
    endpoints: Option<Vec<String>>,
    cluster: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    session_timeout_ms: Option<u64>,
    request_timeout_ms: Option<u64>,
    connect_timeout_ms: Option<u64>,
}

impl Options {
    /// Options of a program that knows everything itself: members' addresses (`host:port`), and three PEM files: the
    /// client's certificate, its key, and the authority that members' certificates are issued by.
    pub fn new(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        ca: impl Into<PathBuf>,
    ) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cluster: None,
            certificate: certificate.into(),
            key: key.into(),
            ca: ca.into(),
            session_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            pipelined: false,
            source: Source::Program,
            overrides: Vec::new(),
        }
    }

    /// What the environment says: `CONCLAVE_DIR`, else a `.conclave` directory here or above, as git looks for its own;
    /// `CONCLAVE_ENDPOINTS` (comma-separated), `CONCLAVE_CERTIFICATE`, `CONCLAVE_KEY` and `CONCLAVE_CA` come before what
    /// the directory says, and all four together need none.
    ///
    /// # Errors
    /// [`ConfigError`]; when there is nothing, it says what was looked for.
    pub fn load() -> Result<Self, ConfigError> {
        Self::find(None)
    }

    /// As [`Options::load`], with a directory that comes before all others when it is named: a flag's value.
    ///
    /// # Errors
    /// As [`Options::load`].
    pub fn find(dir: Option<&Path>) -> Result<Self, ConfigError> {
        let here = std::env::current_dir()
            .map_err(|error| ConfigError::Bad { what: "current directory", why: error.to_string() })?;
        Self::search(dir, std::env::var_os::<&'static str>, &here)
    }

    /// What the `client.toml` of a `.conclave` directory says.
    ///
    /// # Errors
    /// [`ConfigError`] when it is not there, cannot be read, or says something wrong.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let dir = dir.as_ref();
        Draft::read(dir)?.finish(Source::Given(dir.to_owned()))
    }

    fn search(
        given: Option<&Path>,
        variable: impl Fn(&'static str) -> Option<OsString>,
        here: &Path,
    ) -> Result<Self, ConfigError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let named = given
            .map(|dir| Source::Given(dir.to_owned()))
            .or_else(|| variable("CONCLAVE_DIR").map(|dir| Source::Variable(here.join(dir))))
            .or_else(|| {
                let holds = |dir: &&Path| dir.join(DIRECTORY).join(FILE).is_file();
                here.ancestors().find(holds).map(|dir| Source::Found(dir.join(DIRECTORY)))
            });
        let mut draft = match &named {
            Some(Source::Given(dir) | Source::Variable(dir) | Source::Found(dir)) => Draft::read(dir)?,
            _ => Draft::default(),
        };
        draft.overlay(variable, here)?;
        match named {
            Some(source) => draft.finish(source),
            None if !draft.overrides.is_empty() => draft.finish(Source::Environment),
            None => Err(ConfigError::NotFound {
                looked: vec![
                    "CONCLAVE_DIR".to_owned(),
                    "CONCLAVE_ENDPOINTS with CONCLAVE_CERTIFICATE, CONCLAVE_KEY and CONCLAVE_CA".to_owned(),
                    format!("{DIRECTORY}/{FILE} in {} and above", here.display()),
                ],
            }),
        }
    }

    /// The addresses of members to try, `host:port`.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The cluster's id, when one is demanded.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// The client's certificate, a PEM file.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Where these options come from.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// The variables whose values came before what the source says.
    #[must_use]
    pub fn overrides(&self) -> &[&'static str] {
        &self.overrides
    }

    /// The time that a request has when it does not say.
    #[must_use]
    pub const fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Demands that the cluster is this one: others are not spoken to.
    #[must_use]
    pub fn with_cluster(mut self, id: impl Into<String>) -> Self {
        self.cluster = Some(id.into());
        self
    }

    /// The members' addresses to try, instead of those that were found.
    #[must_use]
    pub fn with_endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// The session timeout that is asked for: 0.5 s to a day, default 10 s. The cluster has bounds of its own (by default
    /// 2 s and 5 min) and answers with the nearest that it allows.
    #[must_use]
    pub const fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// The time that a request has when it does not say: default 10 s.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The time that connecting to one member may take: default 5 s.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Every write goes through the client's session, which the first one opens: writes are carried out in the order
    /// that they were issued in, many at a time, each exactly once.
    #[must_use]
    pub const fn pipelined(mut self) -> Self {
        self.pipelined = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::Missing {
                what: "endpoints",
                at: "client.toml, or CONCLAVE_ENDPOINTS".to_owned(),
            });
        }
        for endpoint in &self.endpoints {
            let port = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
                return Err(ConfigError::Bad { what: "endpoints", why: format!("{endpoint:?} is not host:port") });
            }
        }
        let (least, most) = (SESSION_TIMEOUT_MIN_MS, SESSION_TIMEOUT_MAX_MS);
        if !(u128::from(least)..=u128::from(most)).contains(&self.session_timeout.as_millis()) {
            let why = format!("{} is not between {least} and {most}", self.session_timeout.as_millis());
            return Err(ConfigError::Bad { what: "session_timeout_ms", why });
        }
        for (what, value) in
            [("request_timeout_ms", self.request_timeout), ("connect_timeout_ms", self.connect_timeout)]
        {
            if value.is_zero() {
                return Err(ConfigError::Bad { what, why: "it cannot be 0".to_owned() });
            }
        }
        Ok(())
    }
}

/// Options that are being put together, and which variables came before.
#[derive(Default)]
struct Draft {
    file: File,
    overrides: Vec<&'static str>,
}

impl Draft {
    fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let fail = |why: String| ConfigError::File { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey { path, key: key.clone(), nearest: nearest(key) });
        }
        let mut file: File = table.try_into().map_err(|error: toml::de::Error| fail(error.to_string()))?;
        for relative in [&mut file.certificate, &mut file.key, &mut file.ca].into_iter().flatten() {
            *relative = dir.join(&relative);
        }
        Ok(Self { file, overrides: Vec::new() })
    }

    fn overlay(&mut self, variable: impl Fn(&'static str) -> Option<OsString>, here: &Path) -> Result<(), ConfigError> {
        if let Some(value) = variable("CONCLAVE_ENDPOINTS") {
            let bad = |_| ConfigError::Bad { what: "CONCLAVE_ENDPOINTS", why: "it is not UTF-8".to_owned() };
            let value = value.into_string().map_err(bad)?;
            let list = value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect();
            self.file.endpoints = Some(list);
            self.overrides.push("CONCLAVE_ENDPOINTS");
        }
        for (name, field) in [
            ("CONCLAVE_CERTIFICATE", &mut self.file.certificate),
            ("CONCLAVE_KEY", &mut self.file.key),
            ("CONCLAVE_CA", &mut self.file.ca),
        ] {
            if let Some(value) = variable(name) {
                *field = Some(here.join(value));
                self.overrides.push(name);
            }
        }
        Ok(())
    }

    fn finish(self, source: Source) -> Result<Options, ConfigError> {
        let File { endpoints, cluster, certificate, key, ca, .. } = self.file;
        let missing = |what, variable: &str| ConfigError::Missing { what, at: format!("{source}; or {variable}") };
        let mut options = Options::new(
            endpoints.ok_or_else(|| missing("endpoints", "CONCLAVE_ENDPOINTS"))?,
            certificate.ok_or_else(|| missing("certificate", "CONCLAVE_CERTIFICATE"))?,
            key.ok_or_else(|| missing("key", "CONCLAVE_KEY"))?,
            ca.ok_or_else(|| missing("ca", "CONCLAVE_CA"))?,
        );
        options.cluster = cluster;
        for (value, field) in [
            (self.file.session_timeout_ms, &mut options.session_timeout),
            (self.file.request_timeout_ms, &mut options.request_timeout),
            (self.file.connect_timeout_ms, &mut options.connect_timeout),
        ] {
            if let Some(ms) = value {
                *field = Duration::from_millis(ms);
            }
        }
        options.source = source;
        options.overrides = self.overrides;
        options.check()?;
        Ok(options)
    }
}

/// The key that was probably meant: at most a third of it is wrong.
fn nearest(key: &str) -> Option<&'static str> {
    let near = KEYS.into_iter().map(|known| (strsim::levenshtein(key, known), known)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

#[cfg(test)]
mod tests;
