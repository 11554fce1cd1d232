//! The world's imports: every call of the guest is counted, checked, and answered by the transaction.

use conclave_core::view::Stop;
use conclave_protocol as protocol;
use conclave_protocol::Path;
use conclave_protocol::plugin::Access;
use wasmtime::Result;

use crate::bindings::conclave::plugin::{context, tree, types};
use crate::run::Run;

/// Bytes that one call of `random` gives at most.
const RANDOM_BYTES: u32 = 65_536;
/// Characters of a logged line.
const LOG_CHARACTERS: usize = 1_024;

type Refusable<T> = Result<std::result::Result<T, types::Refusal>>;

impl types::Host for Run {}

impl tree::Host for Run {
    fn get(&mut self, path: String) -> Refusable<Option<types::Znode>> {
        self.enter()?;
        let got = self.path(Access::Read, &path).and_then(|path| self.tx.get(&path));
        let bytes = got.as_ref().map_or(0, |znode| znode.as_ref().map_or(0, |(data, _)| data.len()));
        self.read(bytes)?;
        self.answer(got.map(|got| got.map(|(data, stat)| types::Znode { data: data.to_vec(), stat: stat.into() })))
    }

    fn exists(&mut self, path: String) -> Refusable<Option<types::Stat>> {
        self.enter()?;
        let stat = self.path(Access::Read, &path).and_then(|path| self.tx.stat(&path));
        self.answer(stat.map(|stat| stat.map(Into::into)))
    }

    fn children(
        &mut self,
        path: String,
        prefix: String,
        after: Option<String>,
        limit: u32,
        data: bool,
    ) -> Refusable<types::Page> {
        self.enter()?;
        let detail = if data { protocol::Detail::Data } else { protocol::Detail::Stats };
        let page = self.path(Access::Read, &path).and_then(|path| {
            let page = self.tx.children(&path, &prefix, after.as_deref(), limit, detail)?;
            Ok(self.readable(&path, page))
        });
        if let Ok(page) = &page {
            let bytes = |entry: &protocol::Entry| entry.name.len() + entry.data.as_ref().map_or(0, |data| data.len());
            self.read(page.children.iter().map(bytes).sum())?;
        }
        self.answer(
            page.map(|page| types::Page {
                children: page.children.into_iter().map(Into::into).collect(),
                more: page.more,
            }),
        )
    }

    fn create(&mut self, path: String, data: Vec<u8>, options: types::CreateOptions) -> Refusable<types::Created> {
        self.enter()?;
        let types::CreateOptions { ephemeral, sequential, container, ttl_ms, parents, or_set } = options;
        let kind = protocol::Kind { ephemeral, sequential, container, ttl_ms };
        let create = |path| protocol::Create { kind, parents, or_set, ..protocol::Create::new(path, data) };
        let created = self
            .may_create(&path, parents, or_set)
            .and_then(|path| self.tx.create(&create(path)))
            .map(|(path, stat)| types::Created { path: self.root.told(&path).to_string(), stat: stat.into() });
        self.written()?;
        self.answer(created)
    }

    fn set(&mut self, path: String, data: Vec<u8>, if_version: Option<u64>) -> Refusable<types::Stat> {
        self.enter()?;
        let stat = self
            .path(Access::Write, &path)
            .and_then(|path| self.tx.set(&protocol::Set { path, data: data.into(), if_version }))
            .map(Into::into);
        self.written()?;
        self.answer(stat)
    }

    fn delete(&mut self, path: String, if_version: Option<u64>) -> Refusable<()> {
        self.enter()?;
        let deleted = self.remove(&path, if_version, false).map(drop);
        self.written()?;
        self.answer(deleted)
    }

    fn delete_tree(&mut self, path: String) -> Refusable<u64> {
        self.enter()?;
        let deleted = self.remove(&path, None, true);
        self.written()?;
        self.answer(deleted)
    }
}

impl Run {
    fn remove(&mut self, path: &str, if_version: Option<u64>, recursive: bool) -> std::result::Result<u64, Stop> {
        let path = self.path(Access::Delete, path)?;
        self.tx.delete(&protocol::Delete { path, if_version, recursive })
    }

    /// The path to create, if the plugin may create it, and every missing parent where parents are wanted too.
    fn may_create(&mut self, named: &str, parents: bool, or_set: bool) -> std::result::Result<Path, Stop> {
        let path = self.path(Access::Create, named)?;
        if or_set {
            self.may(Access::Write, &path)?;
        }
        let mut above = path.parent().filter(|_| parents);
        while let Some(parent) = above {
            // One that can't be looked at counts as missing: then nothing is created that was not allowed.
            match self.tx.stat(&parent) {
                Ok(Some(_)) => break,
                Err(fault @ Stop::Fault(_)) => return Err(fault),
                Ok(None) | Err(Stop::Refused(_)) => {}
            }
            self.may(Access::Create, &parent)?;
            above = parent.parent();
        }
        Ok(path)
    }

    /// A page without what is known of children that the plugin may not read: of these there are only the names.
    fn readable(&self, parent: &Path, mut page: protocol::Page) -> protocol::Page {
        for child in &mut page.children {
            let is_readable = parent.join(&child.name).is_ok_and(|path| self.is_allowed(Access::Read, &path));
            if !is_readable {
                (child.stat, child.data) = (None, None);
            }
        }
        page
    }
}

impl context::Host for Run {
    fn now_ms(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(self.tx.now_ms())
    }

    fn zxid(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(self.tx.zxid().0)
    }

    fn caller(&mut self) -> Result<Option<context::Identity>> {
        self.enter()?;
        let principal = self.tx.principal();
        if principal.is_empty() {
            return Ok(None);
        }
        let session = self.tx.session().map(|session| session.0);
        Ok(Some(context::Identity { principal: principal.to_owned(), session }))
    }

    fn ticket(&mut self) -> Result<Option<u64>> {
        self.enter()?;
        Ok(self.ticket)
    }

    fn settings(&mut self) -> Result<Vec<u8>> {
        self.enter()?;
        self.read(self.settings.len())?;
        Ok(self.settings.to_vec())
    }

    fn random(&mut self, bytes: u32) -> Result<Vec<u8>> {
        self.enter()?;
        self.read(bytes as usize)?;
        if bytes > RANDOM_BYTES {
            return Err(crate::Exceeded::CallBytes.into());
        }
        let mut random = Vec::with_capacity(bytes as usize + 8);
        while random.len() < bytes as usize {
            random.extend_from_slice(&next_random(&mut self.seed).to_le_bytes());
        }
        random.truncate(bytes as usize);
        Ok(random)
    }

    fn log(&mut self, level: context::Level, line: String) -> Result<()> {
        self.enter()?;
        if !self.may_log() {
            return Ok(());
        }
        let plugin = self.plugin.as_str();
        let line: String = line.chars().take(LOG_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let level = match level {
            context::Level::Debug => {
                tracing::debug!(target: "plugin", plugin, "{line}");
                "debug"
            }
            context::Level::Info => {
                tracing::info!(target: "plugin", plugin, "{line}");
                "info"
            }
            context::Level::Warn => {
                tracing::warn!(target: "plugin", plugin, "{line}");
                "warn"
            }
            context::Level::Error => {
                tracing::error!(target: "plugin", plugin, "{line}");
                "error"
            }
        };
        self.keep(level, line);
        Ok(())
    }
}

impl From<protocol::Stat> for types::Stat {
    fn from(stat: protocol::Stat) -> Self {
        Self {
            created: stat.created.0,
            modified: stat.modified.0,
            children_modified: stat.children_modified.0,
            version: stat.version,
            children_version: stat.children_version,
            created_ms: stat.created_ms,
            modified_ms: stat.modified_ms,
            children_modified_ms: stat.children_modified_ms,
            owner: stat.owner.map(|owner| owner.0),
            data_bytes: stat.data_bytes,
            children: stat.children,
            acl_version: stat.acl_version,
            container: stat.container,
            ttl_ms: stat.ttl_ms,
        }
    }
}

impl From<protocol::Entry> for types::Child {
    fn from(entry: protocol::Entry) -> Self {
        // The world's children always have their stats, and so they are always asked for.
        let stat = entry.stat.unwrap_or_default().into();
        Self { name: entry.name, stat, data: entry.data.map(|data| data.to_vec()) }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is good, zxids one after the other included.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_is_the_published_sequence() {
        // The first outputs for the seed 1234567, from the algorithm's reference implementation.
        let mut seed = 1_234_567;
        let numbers: Vec<u64> = (0..3).map(|_| next_random(&mut seed)).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
