//! What the naive model answers to queries, and what a walk through it gives.

use conclave_protocol::{
    Answer, Detail, Entry, Outcome, Page, Path, Permission, Present, Query, Refusal, SessionId, SessionInfo, TreeEntry,
};

use super::tree::{Done, MemTree, Node, allows};

impl MemTree {
    /// As a member must answer.
    pub(crate) fn answer(&self, who: &str, query: &Query) -> Done<Answer> {
        let present = |node: &Node| Present { data: node.data.clone(), stat: node.stat };
        match query {
            Query::Get { path } => {
                let Present { data, stat } = present(self.needed(who, path)?);
                Ok(Answer::Znode { data, stat })
            }
            Query::Exists { path } => Ok(Answer::Exists(self.look(who, path)?.map(|node| node.stat))),
            Query::Children { path, prefix, after, limit, detail } => {
                self.needed(who, path)?;
                let children =
                    self.children_of(path.as_str()).into_iter().map(|child| self.entry(who, &child, *detail));
                let wanted = |child: &Entry| {
                    child.name.starts_with(prefix) && after.as_ref().is_none_or(|after| child.name > *after)
                };
                let (children, more) = page(children.filter(wanted).collect(), (*limit as usize).max(1));
                Ok(Answer::Page(Page { children, more }))
            }
            Query::Many { paths } => {
                let many: Done<Vec<_>> = paths.iter().map(|path| Ok(self.look(who, path)?.map(present))).collect();
                Ok(Answer::Many(many?))
            }
            Query::Count { path } => {
                self.needed(who, path)?;
                Ok(Answer::Count(self.walk(who, path.as_str()).len() as u64 - 1))
            }
            Query::Acl { path } => {
                let deepest = self.deepest(path.as_str());
                if !allows(&self.nodes[&deepest].acl, who, Permission::Admin) {
                    self.may(who, Permission::Read, &deepest, path)?;
                }
                let node = self.nodes.get(path.as_str()).ok_or(Refusal::NoZnode { path: path.clone() })?;
                Ok(Answer::Acl { acl: node.acl.clone(), stat: node.stat })
            }
            Query::Owned { session, after, limit } => self.owned_by(who, *session, *after, *limit as usize),
            Query::Sessions { after, limit } => {
                let sessions = self.sessions.iter().filter(|(id, session)| {
                    after.is_none_or(|after| **id > after) && (self.administers(who) || session.principal == who)
                });
                let sessions = sessions.map(|(id, session)| SessionInfo {
                    session: *id,
                    principal: session.principal.clone(),
                    timeout_ms: session.timeout_ms,
                    ephemerals: self.owned(*id),
                    writes: session.next - 1,
                    unacknowledged: session.replies.len() as u64,
                });
                let (sessions, more) = page(sessions.collect(), (*limit as usize).max(1));
                Ok(Answer::Sessions { sessions, more })
            }
            Query::Call(_) | Query::Plugins { .. } | Query::Calls { .. } | Query::Status => {
                Err(Refusal::BadRequest { why: String::new() })
            }
        }
    }

    fn look(&self, who: &str, path: &Path) -> Done<Option<&Node>> {
        self.may(who, Permission::Read, &self.deepest(path.as_str()), path)?;
        Ok(self.nodes.get(path.as_str()))
    }

    fn needed(&self, who: &str, path: &Path) -> Done<&Node> {
        self.look(who, path)?.ok_or(Refusal::NoZnode { path: path.clone() })
    }

    fn entry(&self, who: &str, path: &str, detail: Detail) -> Entry {
        let node = &self.nodes[path];
        let told = allows(&node.acl, who, Permission::Read);
        Entry {
            name: path.rsplit_once('/').unwrap().1.to_owned(),
            stat: (told && detail != Detail::Names).then_some(node.stat),
            data: (told && detail == Detail::Data).then(|| node.data.clone()),
        }
    }

    fn owned_by(&self, who: &str, session: SessionId, after: Option<u64>, limit: usize) -> Done<Answer> {
        let owner = self.sessions.get(&session).ok_or(Refusal::SessionOver { session })?;
        if owner.principal != who && !self.administers(who) {
            let (principal, path) = (who.to_owned(), Path::root());
            return Err(Refusal::NotAllowed { principal, action: String::new(), path });
        }
        let owned = self.nodes.iter().filter(|(_, node)| node.stat.owner == Some(session));
        let owned = owned.filter(|(_, node)| after.is_none_or(|after| node.id > after));
        let mut owned: Vec<(u64, Path)> = owned.map(|(path, node)| (node.id, Path::parse(path).unwrap())).collect();
        owned.sort();
        let (owned, more) = page(owned, limit.max(1));
        let next = owned.last().map(|(id, _)| *id).filter(|_| more);
        Ok(Answer::Owned { paths: owned.into_iter().map(|(_, path)| path).collect(), next })
    }

    /// A znode that may be read and all below it that may, as all above them; with data.
    pub(crate) fn walk(&self, who: &str, top: &str) -> Vec<TreeEntry> {
        let node = &self.nodes[top];
        let path = Path::parse(top).unwrap();
        let mut all = vec![TreeEntry { path, stat: node.stat, data: Some(node.data.clone()) }];
        for child in self.children_of(top) {
            if allows(&self.nodes[&child].acl, who, Permission::Read) {
                all.extend(self.walk(who, &child));
            }
        }
        all
    }
}

/// The first so many, and whether there are more.
fn page<T>(mut all: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = all.len() > limit;
    all.truncate(limit);
    (all, more)
}

/// An outcome without the texts that say in words what its other fields say: the scenarios compare those.
pub(crate) fn plain(outcome: Outcome) -> Outcome {
    outcome.map_err(plain_refusal)
}

/// The same of a refusal.
pub(crate) fn plain_refusal(mut refusal: Refusal) -> Refusal {
    match &mut refusal {
        Refusal::OtherKind { actual: one, wanted: other, .. }
        | Refusal::CheckFailed { actual: one, expected: other, .. } => {
            one.clear();
            other.clear();
        }
        Refusal::BadNumber { why: text, .. }
        | Refusal::BadRequest { why: text }
        | Refusal::BadPath { why: text }
        | Refusal::NoSession { what: text }
        | Refusal::Limit { what: text, .. }
        | Refusal::NotAllowed { action: text, .. } => {
            assert!(!text.is_empty());
            text.clear();
        }
        Refusal::Step { cause, .. } => **cause = plain_refusal((**cause).clone()),
        _ => {}
    }
    refusal
}
