//! Plugins: what they say of themselves, what they are allowed, what they may spend, and what is known of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ChangeKind, MemberId, Path, PathPattern, SessionId, Zxid};

/// SHA-256 of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComponentDigest(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a plugin is, in its author's words: `plugin.toml`, which lies in its component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Its name, unless it is installed under another.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The world that it was built for.
    pub world: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// As whom it calls the tree.
    #[serde(default)]
    pub runs_as: RunsAs,
    /// What it needs to be allowed.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// What runs it by itself.
    #[serde(default, rename = "trigger")]
    pub triggers: Vec<Trigger>,
    /// Its procedures.
    #[serde(default, rename = "procedure")]
    pub procedures: Vec<Procedure>,
    /// Its queries.
    #[serde(default, rename = "query")]
    pub queries: Vec<Procedure>,
}

/// As whom a plugin calls the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunsAs {
    /// As whoever called it, or wrote what it was triggered by.
    #[default]
    Caller,
    /// As itself: the principal `plugin:NAME`.
    Plugin,
}

/// Operations on znodes that a plugin needs, or is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Where: the znodes themselves, also of a creation and a deletion.
    pub paths: Vec<PathPattern>,
    /// What there.
    pub ops: Vec<Access>,
}

/// What a plugin does with a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Reads its data, its stat, or lists its children.
    Read,
    /// Creates it.
    Create,
    /// Sets its data.
    Write,
    /// Deletes it.
    Delete,
}

/// What runs a plugin by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trigger {
    /// Its name, which the guest is told; the same as `on` unless it is given.
    #[serde(default)]
    pub name: String,
    /// What of.
    pub on: On,
    /// Of `before` and `after`: which kinds of changes; none: `created`, `data` and `deleted`.
    #[serde(default)]
    pub kinds: Vec<ChangeKind>,
    /// Of `before` and `after`: of which znodes.
    #[serde(default)]
    pub paths: Vec<PathPattern>,
    /// Those with lower numbers come first, whichever plugin they are of; then by the plugins' names.
    #[serde(default)]
    pub order: i32,
    /// What becomes of the transaction when the plugin fails, or can't be run because it is suspended.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Of `timer`: how often, milliseconds.
    #[serde(default)]
    pub every_ms: u64,
}

/// When a trigger runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// Before a znode changes.
    Before,
    /// After znodes changed, in the same transaction.
    After,
    /// In the transaction that ends a session.
    SessionEnd,
    /// From time to time.
    Timer,
}

/// What becomes of a transaction when a trigger of it fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Closed,
    /// It goes on as if the trigger were not there.
    Open,
}

/// A procedure or a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Procedure {
    /// The name that it is called by.
    pub name: String,
    /// Its parameters, in the order of positional arguments.
    #[serde(default)]
    pub params: Vec<Param>,
    /// It may park. Not of a query.
    #[serde(default)]
    pub parks: bool,
}

/// A parameter: `NAME: TYPE`, `NAME: TYPE = DEFAULT`, or `NAME?: TYPE` for one that may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParamKind,
    /// It need not be given.
    pub optional: bool,
    /// What it is then, as it would be written; none: null.
    pub default: Option<String>,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// The path of a znode; CBOR text.
    Path,
    /// Any text.
    Text,
    /// A 64-bit integer.
    Integer,
    /// A number, 64-bit floating point.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Bytes; of text its UTF-8.
    Bytes,
    /// A time such as `500ms`, `10s`, `2m`, `1h`; the guest gets milliseconds.
    Duration,
    /// Any JSON.
    Json,
}

/// What one run may spend. None: the host's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Units of fuel, about one an instruction.
    pub fuel: Option<u64>,
    /// Milliseconds on the processor.
    pub time_ms: Option<u64>,
    /// Bytes of linear memory.
    pub memory_bytes: Option<u64>,
    /// Calls of the host.
    pub host_calls: Option<u64>,
    /// Rows written.
    pub rows: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Bytes read.
    pub read_bytes: Option<u64>,
}

/// One component of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its digest.
    pub digest: ComponentDigest,
    /// Bytes of it.
    pub component_bytes: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// What it is allowed.
    pub allowed: Vec<Need>,
}

/// Whether a plugin runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// It was installed, and is not active on enough members yet.
    Preparing,
    /// It runs.
    Active,
    /// Somebody disabled it.
    Disabled,
    /// It failed too often.
    Suspended {
        /// How.
        why: String,
        /// When, cluster time in milliseconds.
        at_ms: u64,
    },
}

/// What is known of an installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// The name that it is installed under.
    pub name: String,
    /// Whether it runs.
    pub state: PluginState,
    /// What runs; what is to run, while it was never active.
    pub version: Version,
    /// What is to run instead, once enough members are ready; or runs beside it as a shadow.
    pub next: Option<Next>,
    /// What ran before: what `rollback` returns to.
    pub previous: Option<Version>,
    /// Its settings.
    pub settings: Bytes,
    /// Its budgets, where they are not the defaults.
    pub budgets: BudgetSettings,
    /// Who installed it.
    pub installer: String,
    /// The transaction that made the present version active; none if none is.
    pub activated: Option<Zxid>,
    /// How many calls of it are parked.
    pub parked: u64,
    /// Why the last version that was to become active did not.
    pub rejected: Option<String>,
}

/// A version that is to become active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// It.
    pub version: Version,
    /// It runs beside the present one, on the same input; what it would have done is compared and dropped.
    pub shadow: bool,
}

/// Puts a chunk of a component where it can be installed from. What is not installed within ten minutes is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Of the whole component.
    pub digest: ComponentDigest,
    /// Which chunk, from 0, each of [`limits::COMPONENT_CHUNK`](crate::limits::COMPONENT_CHUNK) bytes but the last.
    pub chunk: u32,
    /// It.
    pub bytes: Bytes,
}

/// Installs an uploaded component, or puts it in the place of the version that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// The name to call it by.
    pub name: String,
    /// The component.
    pub digest: ComponentDigest,
    /// Its bytes.
    pub component_bytes: u64,
    /// What it is allowed: within what its manifest needs.
    pub allowed: Vec<Need>,
    /// Its settings; none: those that it has, or none.
    pub settings: Option<Bytes>,
    /// Its budgets; none: those that it has, or the defaults.
    pub budgets: Option<BudgetSettings>,
    /// A plugin of that name must be there (and is upgraded), or must not.
    pub upgrade: bool,
    /// Run it as a shadow of the present version; with `upgrade`.
    pub shadow: bool,
}

/// What is done to an installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manage {
    /// Its name.
    pub name: String,
    /// What.
    pub what: Action,
}

/// What is done to a plugin; see [`Manage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It runs no more; its parked calls end.
    Disable,
    /// It runs again.
    Enable,
    /// Its previous version runs again.
    Rollback,
    /// The version that waits, or runs as a shadow, is given up.
    Abandon,
    /// The shadow becomes what runs.
    Promote,
    /// It goes, with its components.
    Remove,
    /// Other settings.
    Settings(Bytes),
    /// Other budgets.
    Budgets(BudgetSettings),
}

/// A parked call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedCall {
    /// Of which plugin.
    pub plugin: String,
    /// Which procedure.
    pub procedure: String,
    /// Its ticket: the zxid of its first run.
    pub ticket: Zxid,
    /// Whose it is.
    pub session: SessionId,
    /// Its sequence there.
    pub sequence: u64,
    /// Whose session that is.
    pub principal: String,
    /// What it waits for, in words, each with its path.
    pub waits_for: Vec<Awaited>,
    /// When it parked first, cluster time in milliseconds.
    pub since_ms: u64,
    /// When it is run again anyway.
    pub until_ms: Option<u64>,
}

/// A condition of a parked call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Which znode.
    pub path: Path,
    /// What of it, in words.
    pub test: String,
}

/// What the members know of a plugin's runs since they started; they keep it in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStats {
    /// The plugin.
    pub plugin: String,
    /// Which member's these are.
    pub member: Option<MemberId>,
    /// Runs: of procedures, queries and triggers.
    pub runs: u64,
    /// Those that ended with the plugin's own refusal.
    pub refusals: u64,
    /// Those that trapped or exceeded a budget.
    pub failures: u64,
    /// Fuel of a run: median, 99th percentile, greatest.
    pub fuel: [u64; 3],
    /// Microseconds of a run: median, 99th percentile, greatest.
    pub time_us: [u64; 3],
    /// Runs of the shadow, and those of them that differed.
    pub shadow: [u64; 2],
    /// The first lines of the last differences.
    pub differences: Vec<String>,
}

/// A line of a plugin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number on that member.
    pub number: u64,
    /// When, cluster time in milliseconds.
    pub at_ms: u64,
    /// In which transaction.
    pub zxid: Zxid,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// It.
    pub line: String,
}

impl Manifest {
    /// The procedure of this name.
    #[must_use]
    pub fn procedure(&self, name: &str) -> Option<&Procedure> {
        self.procedures.iter().find(|procedure| procedure.name == name)
    }

    /// The query of this name.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&Procedure> {
        self.queries.iter().find(|query| query.name == name)
    }
}

impl Trigger {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match (self.name.as_str(), self.on) {
            ("", On::Before) => "before",
            ("", On::After) => "after",
            ("", On::SessionEnd) => "session-end",
            ("", On::Timer) => "timer",
            (name, _) => name,
        }
    }

    /// Whether changes of this kind run it.
    #[must_use]
    pub fn is_of(&self, kind: ChangeKind) -> bool {
        if self.kinds.is_empty() { kind != ChangeKind::Acl } else { self.kinds.contains(&kind) }
    }
}

impl Need {
    /// Whether it covers this.
    #[must_use]
    pub fn covers(&self, access: Access, path: &Path) -> bool {
        self.ops.contains(&access) && self.paths.iter().any(|pattern| pattern.matches(path))
    }
}

impl PluginState {
    /// Its name: stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Suspended { .. } => "suspended",
        }
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Write => "write",
            Self::Delete => "delete",
        })
    }
}

impl ParamKind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Path, "path"),
        (Self::Text, "text"),
        (Self::Integer, "integer"),
        (Self::Number, "number"),
        (Self::Boolean, "boolean"),
        (Self::Bytes, "bytes"),
        (Self::Duration, "duration"),
        (Self::Json, "json"),
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl std::str::FromStr for Param {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("the parameter {text:?} {why}: write NAME: TYPE, NAME?: TYPE or NAME: TYPE = DEFAULT");
        let (name, rest) = text.split_once(':').ok_or_else(|| wrong("has no type"))?;
        let (kind, default) = match rest.split_once('=') {
            Some((kind, default)) => (kind.trim(), Some(default.trim().to_owned())),
            None => (rest.trim(), None),
        };
        let (name, may_miss) = match name.trim().strip_suffix('?') {
            Some(name) => (name.trim_end(), true),
            None => (name.trim(), false),
        };
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(wrong("has no name of a-z, 0-9, - and _"));
        }
        let kind = ParamKind::ALL.iter().find(|(_, name)| *name == kind).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| {
            let names: Vec<&str> = ParamKind::ALL.iter().map(|(_, name)| *name).collect();
            wrong(&format!("has a type that is none of {}", names.join(", ")))
        })?;
        Ok(Self { name: name.to_owned(), kind, optional: may_miss || default.is_some(), default })
    }
}

impl TryFrom<String> for Param {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Param> for String {
    fn from(param: Param) -> Self {
        param.to_string()
    }
}

impl std::fmt::Display for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, kind, optional, default } = self;
        match default {
            Some(default) => write!(f, "{name}: {} = {default}", kind.name()),
            None if *optional => write!(f, "{name}?: {}", kind.name()),
            None => write!(f, "{name}: {}", kind.name()),
        }
    }
}
