//! Installing plugins, and what is done to them afterwards.

use std::collections::BTreeSet;

use conclave_protocol::plugin::{
    Action, ComponentDigest, Install, Manage, Need, Next, PluginInfo, PluginState, Upload, Version,
};
use conclave_protocol::{Path, Refusal, Value, limits};

use super::park;
use crate::authority::administers;
use crate::row::{Plugin, Uploaded};
use crate::tree;
use crate::tx::{within, within_u64};
use crate::view::{Base, Stop, Tx};
use crate::{Fault, Table, key, query};

/// Versions that are kept besides the present and the previous one, for calls that parked with them.
const OLDER: usize = 8;

/// Refuses whoever does not administer the cluster.
fn administered(tx: &Tx, action: &str) -> Result<(), Stop> {
    if administers(tx, tx.principal())? {
        return Ok(());
    }
    let principal = tx.principal().to_owned();
    let action = format!("{action} without administering");
    Err(Refusal::NotAllowed { principal, action, path: Path::root() }.into())
}

/// Stores a chunk of a component.
pub(crate) fn upload(tx: &mut Tx, upload: &Upload) -> Result<Value, Stop> {
    administered(tx, "upload a component")?;
    let Upload { digest, chunk, bytes } = upload;
    within("bytes of a component's chunk", limits::COMPONENT_CHUNK, bytes.len())?;
    let most = limits::COMPONENT_BYTES.div_ceil(limits::COMPONENT_CHUNK) as u64;
    within_u64("chunks of the component", most, u64::from(*chunk) + 1)?;
    if bytes.is_empty() {
        return Err(Refusal::BadRequest { why: "a chunk of a component can't be empty".to_owned() }.into());
    }
    let key = key::blob(digest, *chunk);
    let before = tx.row(Table::Blob, &key)?;
    if before.as_ref() == Some(bytes) {
        return Ok(Value::Uploaded);
    }
    if before.is_some() && is_used(tx, digest)? {
        let why = format!("chunk {chunk} of component {digest} is in use, and is another");
        return Err(Refusal::BadRequest { why }.into());
    }
    let known: Option<Uploaded> = tx.typed(Table::Upload, &digest.0)?;
    let until_ms = tx.now_ms().saturating_add(limits::UPLOAD_KEPT_MS);
    let mut row = known.unwrap_or(Uploaded { bytes: 0, until_ms });
    let replaced = before.map_or(0, |before| before.len() as u64);
    let all = tx.state.uploaded + bytes.len() as u64 - replaced;
    within_u64("bytes of components that are uploaded and not installed", limits::UPLOAD_BYTES as u64, all)?;
    tx.room(bytes.len() + 1_024)?;
    if known.is_none() {
        tx.put_row(Table::Expiry, &key::expiry(row.until_ms, &key::upload(digest)), &0_u64);
    }
    tx.state.uploaded = all;
    row.bytes = row.bytes + bytes.len() as u64 - replaced;
    tx.put_row(Table::Upload, &digest.0, &row);
    tx.put(Table::Blob, &key, bytes.clone());
    Ok(Value::Uploaded)
}

/// An upload's time is over.
pub(crate) fn upload_is_over(tx: &mut Tx, expiry: &[u8], of: &[u8]) -> Result<(), Fault> {
    tx.remove(Table::Expiry, expiry);
    let broken = || Fault::Row { table: Table::Expiry, why: "it is for no component".to_owned() };
    let digest = ComponentDigest(*of.first_chunk::<32>().ok_or_else(broken)?);
    if let Some(row) = tx.typed::<Uploaded>(Table::Upload, &digest.0)? {
        tx.state.uploaded = tx.state.uploaded.saturating_sub(row.bytes);
        tx.remove(Table::Upload, &digest.0);
        drop_unused(tx, &digest)?;
    }
    Ok(())
}

/// Installs what was uploaded, or makes it what is to follow the present version.
pub(crate) fn install(tx: &mut Tx, install: &Install) -> Result<Value, Stop> {
    administered(tx, "install a plugin")?;
    let unfit = |why: String| Stop::from(Refusal::PluginUnfit { plugin: install.name.clone(), why });
    if let Err(why) = check_name(&install.name) {
        return Err(unfit(why));
    }
    if install.shadow && !install.upgrade {
        return Err(unfit("a shadow runs beside a version that is there: it is an upgrade".to_owned()));
    }
    if let Some(settings) = &install.settings {
        within("bytes of settings", limits::SETTINGS_BYTES, settings.len())?;
    }
    let present = query::plugin(tx, &install.name)?;
    match &present {
        Some(row) if !install.upgrade => {
            let version = row.info.version.manifest.version.clone();
            return Err(Refusal::PluginExists { plugin: install.name.clone(), version }.into());
        }
        None if install.upgrade => return Err(Refusal::NoPlugin { plugin: install.name.clone() }.into()),
        _ => {}
    }
    within_u64("bytes of the component", limits::COMPONENT_BYTES as u64, install.component_bytes)?;
    let component = query::component(tx, &install.digest, install.component_bytes)?;
    let component = component
        .ok_or_else(|| unfit("a part of it was not uploaded, or its time is over: upload it again".to_owned()))?;
    let manifest = tx.plugins.runner.inspect(install.digest, &component).map_err(unfit)?;
    let asked = |need: &Need| {
        need.paths.iter().all(|path| {
            need.ops
                .iter()
                .all(|op| manifest.needs.iter().any(|need| need.ops.contains(op) && need.paths.contains(path)))
        })
    };
    if let Some(more) = install.allowed.iter().find(|need| !asked(need)) {
        let paths: Vec<&str> = more.paths.iter().map(|path| path.as_str()).collect();
        return Err(unfit(format!("it does not ask for what it is allowed on {}", paths.join(", "))));
    }
    let version = Version {
        digest: install.digest,
        component_bytes: install.component_bytes,
        manifest,
        allowed: install.allowed.clone(),
    };
    take_upload(tx, &install.digest)?;
    let mut row = match present {
        Some(row) => row,
        None => {
            within("installed plugins", limits::PLUGINS, query::plugins(tx)?.len() + 1)?;
            let info = PluginInfo {
                name: install.name.clone(),
                state: PluginState::Preparing,
                version: version.clone(),
                next: None,
                previous: None,
                settings: bytes::Bytes::new(),
                budgets: install.budgets.unwrap_or_default(),
                installer: tx.principal().to_owned(),
                activated: None,
                parked: 0,
                rejected: None,
            };
            Plugin { info, older: Vec::new() }
        }
    };
    let mut unused = BTreeSet::new();
    let info = &mut row.info;
    info.rejected = None;
    tx.principal().clone_into(&mut info.installer);
    if let Some(settings) = &install.settings {
        info.settings = settings.clone();
    }
    info.budgets = install.budgets.unwrap_or(info.budgets);
    if info.activated.is_none() {
        // It never ran: there is nothing to go on with meanwhile.
        unused.insert(std::mem::replace(&mut info.version, version).digest);
        info.state = PluginState::Preparing;
    } else {
        unused.extend(info.next.replace(Next { version, shadow: install.shadow }).map(|next| next.version.digest));
    }
    put(tx, &row);
    for digest in unused {
        drop_unused(tx, &digest)?;
    }
    Ok(Value::Managed(Box::new(row.info)))
}

/// Does something to an installed plugin.
pub(crate) fn manage(tx: &mut Tx, manage: &Manage) -> Result<Value, Stop> {
    administered(tx, "manage plugins")?;
    let name = &manage.name;
    let mut row = query::plugin(tx, name)?.ok_or_else(|| Refusal::NoPlugin { plugin: name.clone() })?;
    let bad = |why: String| Err(Stop::from(Refusal::BadRequest { why }));
    let mut unused = Vec::new();
    let info = &mut row.info;
    match &manage.what {
        Action::Disable => {
            info.state = PluginState::Disabled;
            park::end_all(tx, name, "disabled");
        }
        // Members make it ready again, if any of them is not.
        Action::Enable if info.state != PluginState::Active => info.state = PluginState::Preparing,
        Action::Enable => {}
        Action::Rollback => match info.previous.clone() {
            Some(version) => {
                unused.extend(info.next.replace(Next { version, shadow: false }).map(|next| next.version.digest));
            }
            None => return bad(format!("{name} has no previous version to go back to")),
        },
        Action::Abandon => match info.next.take() {
            Some(next) => unused.push(next.version.digest),
            None => return bad(format!("{name} has no version that waits, and no shadow")),
        },
        Action::Promote => match &mut info.next {
            Some(next) => next.shadow = false,
            None => return bad(format!("{name} has no shadow")),
        },
        Action::Settings(settings) => {
            within("bytes of settings", limits::SETTINGS_BYTES, settings.len())?;
            info.settings = settings.clone();
        }
        Action::Budgets(budgets) => info.budgets = *budgets,
        Action::Remove => {
            tx.remove(Table::Plugin, name.as_bytes());
            park::end_all(tx, name, "removed");
            for version in row.versions() {
                drop_unused(tx, &version.digest)?;
            }
            return Ok(Value::Removed);
        }
    }
    put(tx, &row);
    for digest in unused {
        drop_unused(tx, &digest)?;
    }
    Ok(Value::Managed(Box::new(row.info)))
}

/// Enough members are ready: what waits becomes what runs. False when that has changed meanwhile.
pub(crate) fn activate(tx: &mut Tx, name: &str, digest: ComponentDigest) -> Result<bool, Fault> {
    let Some(mut row) = query::plugin(tx, name)? else { return Ok(false) };
    let info = &mut row.info;
    let mut unused = Vec::new();
    match info.next.take_if(|next| next.version.digest == digest && !next.shadow) {
        Some(next) => {
            let before = std::mem::replace(&mut info.version, next.version);
            let previous = info.previous.replace(before);
            if let Some(previous) = previous.filter(|previous| previous.digest != digest) {
                unused = keep_while_parked(tx, name, &mut row.older, previous)?;
            }
        }
        None if info.state == PluginState::Preparing && info.version.digest == digest => {}
        None => return Ok(false),
    }
    let info = &mut row.info;
    // A version that follows a disabled one does not enable it.
    if !matches!(info.state, PluginState::Disabled) {
        info.state = PluginState::Active;
    }
    info.activated = Some(tx.zxid());
    info.rejected = None;
    put(tx, &row);
    for digest in unused {
        drop_unused(tx, &digest)?;
    }
    Ok(true)
}

/// A version that no longer runs is kept for the calls that began with it; without any, it goes, as do those before it.
fn keep_while_parked(
    tx: &Tx,
    name: &str,
    older: &mut Vec<Version>,
    version: Version,
) -> Result<Vec<ComponentDigest>, Fault> {
    let parked: Option<u64> = tx.typed(Table::Calls, &key::calls_of(name))?;
    older.push(version);
    let gone = if parked.is_none() { older.len() } else { older.len().saturating_sub(OLDER) };
    Ok(older.drain(..gone).map(|version| version.digest).collect())
}

/// A member can't run what was to become active. False when that has changed meanwhile.
pub(crate) fn reject(tx: &mut Tx, name: &str, digest: ComponentDigest, why: &str) -> Result<bool, Fault> {
    let Some(mut row) = query::plugin(tx, name)? else { return Ok(false) };
    let info = &mut row.info;
    match info.next.take_if(|next| next.version.digest == digest) {
        Some(_) => {}
        None if info.state == PluginState::Preparing && info.version.digest == digest => {
            info.state = PluginState::Disabled;
        }
        None => return Ok(false),
    }
    info.rejected = Some(why.to_owned());
    put(tx, &row);
    drop_unused(tx, &digest)?;
    Ok(true)
}

/// It failed too often. False when it does not run anyway.
pub(crate) fn suspend(tx: &mut Tx, name: &str, why: &str) -> Result<bool, Fault> {
    let Some(mut row) = query::plugin(tx, name)? else { return Ok(false) };
    if row.info.state != PluginState::Active {
        return Ok(false);
    }
    row.info.state = PluginState::Suspended { why: why.to_owned(), at_ms: tx.now_ms() };
    put(tx, &row);
    park::end_all(tx, name, &format!("suspended: {why}"));
    Ok(true)
}

/// Writes an installed plugin's row.
pub(crate) fn put(tx: &mut Tx, row: &Plugin) {
    tx.put_row(Table::Plugin, row.info.name.as_bytes(), row);
}

fn is_used(tx: &Tx, digest: &ComponentDigest) -> Result<bool, Fault> {
    Ok(query::plugins(tx)?.iter().any(|(_, row)| row.versions().any(|version| version.digest == *digest)))
}

/// An upload becomes part of a plugin: it is not forgotten any more.
fn take_upload(tx: &mut Tx, digest: &ComponentDigest) -> Result<(), Fault> {
    if let Some(row) = tx.typed::<Uploaded>(Table::Upload, &digest.0)? {
        tx.state.uploaded = tx.state.uploaded.saturating_sub(row.bytes);
        tx.remove(Table::Upload, &digest.0);
        tx.remove(Table::Expiry, &key::expiry(row.until_ms, &key::upload(digest)));
    }
    Ok(())
}

/// Removes a component that no plugin has, and nobody is uploading.
fn drop_unused(tx: &mut Tx, digest: &ComponentDigest) -> Result<(), Fault> {
    if is_used(tx, digest)? || tx.row(Table::Upload, &digest.0)?.is_some() {
        return Ok(());
    }
    for (key, _) in tree::rows(tx, Table::Blob, &digest.0)? {
        tx.remove(Table::Blob, &key);
    }
    Ok(())
}

/// Whether a plugin can have this name.
fn check_name(name: &str) -> Result<(), String> {
    /// As a name in a path, and in a principal.
    const BYTES: usize = 64;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > BYTES || !name.bytes().all(allowed) {
        return Err(format!("its name {name:?} is not 1 to {BYTES} of a-z, 0-9, - and _"));
    }
    Ok(())
}
