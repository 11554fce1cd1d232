//! What a transaction means to whom: filters, access lists, present data. One way for what happens now and for the past.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use conclave_core::row::Recorded;
use conclave_core::view::Base;
use conclave_core::{Fault, may_see, query};
use conclave_protocol::{Change, Path, Present, Zxid};

use crate::outbox::{Body, EVENT_BYTES};
use crate::watches::{ConnectionId, Match, Watcher, Watches};

/// Tells of transactions out of one applied state, which holds all of them: what it has read of access lists and data is
/// not read again. For a batch of transactions, no longer.
pub(crate) struct Telling<'a> {
    base: &'a dyn Base,
    /// Who may be told of changes with these access lists.
    sight: HashMap<Arc<str>, HashMap<(u32, u32), bool>>,
    /// What znodes hold.
    present: HashMap<Path, Known>,
    present_bytes: usize,
}

/// What is known of a znode.
#[derive(Default)]
struct Known {
    /// Its data, once anybody may read it.
    data: Option<Bytes>,
    /// What these principals may read of it.
    by: HashMap<Arc<str>, Option<Present>>,
}

/// Of a list of changes those that somebody may see.
#[derive(Clone)]
enum Seen {
    All,
    Some(Arc<[u32]>),
}

/// What an event is made of: those for whom all of it is the same share the event.
#[derive(PartialEq, Eq, Hash)]
struct Made {
    /// Where the list of changes lies, which is held meanwhile.
    indices: *const u32,
    once: bool,
    data: bool,
    /// For whom, where that matters.
    principal: Option<Arc<str>>,
}

impl<'a> Telling<'a> {
    /// Out of this state.
    pub(crate) fn new(base: &'a dyn Base) -> Self {
        Self { base, sight: HashMap::new(), present: HashMap::new(), present_bytes: 0 }
    }

    /// Tells each watch that is to be told of the transaction, and whose owner may see any of it; without an event when
    /// that would be too large. One-shot watches among them are removed.
    ///
    /// # Errors
    /// A fault of this member.
    pub(crate) fn tell(
        &mut self,
        watches: &mut Watches,
        zxid: Zxid,
        changes: &[Recorded],
        owner: impl Fn(ConnectionId) -> Option<Arc<str>>,
        mut tell: impl FnMut(Watcher, Option<Arc<Body>>),
    ) -> Result<(), Fault> {
        let mut seen: HashMap<(*const u32, Arc<str>), Seen> = HashMap::new();
        let mut made: HashMap<Made, Option<Arc<Body>>> = HashMap::new();
        let matching = watches.matching(zxid, changes);
        for Match { watcher, indices, once, data } in &matching {
            let Some(principal) = owner(watcher.0) else { continue };
            let at = indices.as_ptr();
            let key = (at, Arc::clone(&principal));
            let sees = match seen.get(&key) {
                Some(sees) => sees.clone(),
                None => {
                    let sees = self.sees(&principal, indices, changes)?;
                    seen.insert(key, sees.clone());
                    sees
                }
            };
            let (indices, is_all) = match &sees {
                Seen::All => (indices, true),
                Seen::Some(some) if some.is_empty() => continue,
                Seen::Some(some) => (some, false),
            };
            let of = (!is_all || *data).then(|| Arc::clone(&principal));
            let key = Made { indices: at, once: *once, data: *data, principal: of };
            let body = match made.get(&key) {
                Some(body) => body.clone(),
                None => {
                    let told = if *once { &indices[..1] } else { &indices[..] };
                    let told = told.iter().map(|index| changes[*index as usize].change.clone()).collect();
                    let body = self.body(&principal, zxid, told, *data)?;
                    made.insert(key, body.clone());
                    body
                }
            };
            if *once {
                watches.remove(*watcher);
            }
            tell(*watcher, body);
        }
        Ok(())
    }

    /// Which of these changes the principal may see.
    fn sees(&mut self, principal: &Arc<str>, indices: &[u32], changes: &[Recorded]) -> Result<Seen, Fault> {
        let known = self.sight.entry(Arc::clone(principal)).or_default();
        let mut some = Vec::with_capacity(indices.len());
        for index in indices {
            let recorded = &changes[*index as usize];
            let lists = (recorded.acl, recorded.beside);
            let may = match known.get(&lists) {
                Some(may) => *may,
                None => {
                    let may = may_see(self.base, principal, recorded)?;
                    known.insert(lists, may);
                    may
                }
            };
            if may {
                some.push(*index);
            }
        }
        Ok(if some.len() == indices.len() { Seen::All } else { Seen::Some(some.into()) })
    }

    fn body(
        &mut self,
        principal: &Arc<str>,
        zxid: Zxid,
        changes: Vec<Change>,
        data: bool,
    ) -> Result<Option<Arc<Body>>, Fault> {
        let mut present = Vec::new();
        if data {
            let mut bytes = 0;
            for change in &changes {
                let there = self.present(principal, &change.path)?;
                bytes += there.as_ref().map_or(0, |there| there.data.len());
                if bytes > EVENT_BYTES {
                    return Ok(None);
                }
                present.push(there);
            }
        }
        Ok(Body::new(zxid, changes, present).map(Arc::new))
    }

    /// What a znode holds, as far as the principal may read it. Everybody's data are the same bytes.
    fn present(&mut self, principal: &Arc<str>, path: &Path) -> Result<Option<Present>, Fault> {
        if let Some(present) = self.present.get(path).and_then(|known| known.by.get(principal)) {
            return Ok(present.clone());
        }
        let mut present = query::present(self.base, principal, path)?;
        self.present_bytes += present.as_ref().map_or(0, |present| present.data.len());
        if self.present_bytes > 2 * EVENT_BYTES {
            // What was told holds its own; a long batch must not hold all of it.
            self.present.clear();
            self.present_bytes = 0;
        }
        let known = self.present.entry(path.clone()).or_default();
        if let Some(mine) = &mut present {
            mine.data = known.data.get_or_insert(mine.data.clone()).clone();
        }
        known.by.insert(Arc::clone(principal), present.clone());
        Ok(present)
    }
}
