//! Whether the rows of all tables fit together.

use std::collections::HashMap;

use conclave_core::digest::Digest;
use conclave_core::row::{self, Kept, Owned, Session, State, Znode};
use conclave_core::{Fault, Table, ZnodeId, key};
use conclave_protocol::Path;

use super::{Report, Severity};
use crate::Snapshot;

/// What is kept of a znode until all tables are read.
struct Seen {
    parent: u64,
    owner: Option<u64>,
    data_bytes: u64,
    children: u64,
    /// Rows that name it.
    named: u64,
    /// Rows that give it to a session.
    owned: u64,
}

#[derive(Default)]
struct Tree {
    znodes: HashMap<u64, Seen>,
    /// Session → how many znodes its row says that it owns, and how many it does.
    sessions: HashMap<u64, (u64, u64)>,
    state: State,
    /// What the history's first row says that is kept, if there is one; and the bytes that are.
    history: Option<Kept>,
    history_bytes: u64,
}

/// Reads every row once.
pub(super) fn check(snapshot: &Snapshot, report: &mut Report) -> Result<(), Fault> {
    let local = snapshot.local()?;
    let mut tree = Tree::default();
    let mut digest = Digest::default();
    for table in Table::ALL {
        snapshot.each_checked(table, |key, row| {
            match row {
                Ok((hash, value)) => {
                    report.rows += 1;
                    if table.is_digested() {
                        digest.add(hash);
                    }
                    if let Err(fault) = tree.row(table, key, value, report) {
                        report.add_one("rows that can't be read", || fault.to_string());
                    }
                }
                Err(fault) => report.add_one("damaged rows", || fault.to_string()),
            }
            Ok::<_, Fault>(())
        })?;
    }
    if digest.0 != local.digest {
        let what = format!("the rows come to the digest {digest}, kept is {:032x}", local.digest);
        report.add(Severity::Error, what);
    }
    tree.finish(report);
    report.znodes = tree.znodes.len() as u64;
    report.zxid = Some(tree.state.zxid);
    report.local = Some(local);
    Ok(())
}

impl Tree {
    /// Tables come in the order of their numbers: znodes first, sessions before what they own.
    fn row(&mut self, table: Table, key: &[u8], value: &[u8], report: &mut Report) -> Result<(), Fault> {
        match table {
            Table::Znode => {
                let Znode { stat, parent, .. } = row::decode(table, value)?;
                let (owner, data_bytes, children) = (stat.owner.map(|id| id.0), stat.data_bytes, stat.children);
                let seen = Seen { parent: parent.0, owner, data_bytes, children, named: 0, owned: 0 };
                self.znodes.insert(first(table, key)?, seen);
            }
            Table::Data => self.data(first(table, key)?, value.len() as u64, report),
            Table::Child => {
                let child: ZnodeId = row::decode(table, value)?;
                self.child(first(table, key)?, child.0, report);
            }
            Table::Session => {
                let session: Session = row::decode(table, value)?;
                self.sessions.insert(first(table, key)?, (session.owned, 0));
            }
            Table::Reply => {
                let session = first(table, key)?;
                if !self.sessions.contains_key(&session) {
                    report.add_one("replies without a session", || {
                        format!("a reply is kept for session {session}, which does not exist")
                    });
                }
            }
            Table::Owned => {
                let Owned { path } = row::decode(table, value)?;
                self.owned(first(table, key)?, second(table, key)?, &path, report);
            }
            Table::Change if key == key::KEPT => self.history = Some(row::decode(table, value)?),
            Table::Change => {
                if let Some(kept) = self.history {
                    self.change(kept, first(table, key)?, value.len() as u64, report);
                }
            }
            Table::State if key == key::STATE => self.state = row::decode(table, value)?,
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, id: u64, bytes: u64, report: &mut Report) {
        match self.znodes.get_mut(&id) {
            None => report.add_one("data without a znode", || format!("znode {id} has data and no row")),
            Some(znode) => {
                let said = std::mem::take(&mut znode.data_bytes);
                if said != bytes {
                    report.add_one("data of another length", || {
                        format!("znode {id} has {bytes} bytes of data, its stat says {said}")
                    });
                }
            }
        }
    }

    fn child(&mut self, parent: u64, child: u64, report: &mut Report) {
        match self.znodes.get_mut(&parent) {
            None => report.add_one("children without a parent", || {
                format!("znode {child} is named as a child of znode {parent}, which has no row")
            }),
            Some(znode) => znode.children = znode.children.wrapping_sub(1),
        }
        match self.znodes.get_mut(&child) {
            None => report.add_one("names without a znode", || {
                format!("znode {parent} names a child, znode {child}, which has no row")
            }),
            Some(znode) if znode.parent != parent => {
                let said = znode.parent;
                report.add_one("children of another parent", || {
                    format!("znode {child} is named by znode {parent}, its row says that its parent is {said}")
                });
            }
            Some(znode) => znode.named += 1,
        }
    }

    fn owned(&mut self, session: u64, znode: u64, path: &Path, report: &mut Report) {
        match self.sessions.get_mut(&session) {
            None => report.add_one("ephemeral znodes of no session", || {
                format!("{path} belongs to session {session}, which does not exist")
            }),
            Some((_, owned)) => *owned += 1,
        }
        match self.znodes.get_mut(&znode) {
            Some(seen) if seen.owner == Some(session) => seen.owned += 1,
            Some(_) => report.add_one("ephemeral znodes of another session", || {
                format!("{path} is on the list of session {session}, and is not its own")
            }),
            None => report.add_one("owned znodes that are gone", || {
                format!("{path}, znode {znode}, is on the list of session {session} and has no row")
            }),
        }
    }

    fn change(&mut self, kept: Kept, zxid: u64, bytes: u64, report: &mut Report) {
        self.history_bytes += bytes;
        if zxid <= kept.lost.0 {
            report.add_one("changes that should be gone", || {
                format!("the changes of transaction {zxid} are kept, and those up to {} should not be", kept.lost)
            });
        }
    }

    /// What can only be told when all rows were read.
    fn finish(&self, report: &mut Report) {
        let mut ids: Vec<_> = self.znodes.keys().copied().collect();
        ids.sort_unstable();
        for id in &ids {
            let znode = &self.znodes[id];
            // What the data's row said was taken away when it was read.
            if znode.data_bytes > 0 {
                report.add_one("data that is gone", || format!("znode {id} should have {} bytes", znode.data_bytes));
            }
            if znode.children != 0 {
                report.add_one("wrong counts of children", || format!("znode {id} has not as many as its stat says"));
            }
            let names = u64::from(*id != ZnodeId::ROOT.0);
            if znode.named != names {
                report.add_one("znodes without a name", || format!("znode {id} is named {} times", znode.named));
            }
            if znode.owned != u64::from(znode.owner.is_some()) {
                report.add_one("ephemeral znodes on no list", || {
                    format!("ephemeral znode {id} is {} times on its session's list", znode.owned)
                });
            }
        }
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable();
        for (session, (said, owned)) in sessions {
            if said != owned {
                report.add_one("wrong counts of owned znodes", || {
                    format!("session {session} owns {owned} ephemeral znodes, its row says {said}")
                });
            }
        }
        if let Some(kept) = self.history.filter(|kept| kept.bytes != self.history_bytes) {
            let what = format!("the history has {} bytes, its first row says {}", self.history_bytes, kept.bytes);
            report.add(Severity::Error, what);
        }
        let count = ids.len() as u64;
        if self.state.znodes != count {
            report.add(Severity::Error, format!("there are {count} znodes, the state says {}", self.state.znodes));
        }
        if let Some(last) = ids.last().filter(|last| **last >= self.state.next_id) {
            let what = format!("znode {last} exists, and {} is the next id to be given", self.state.next_id);
            report.add(Severity::Error, what);
        }
    }
}

/// The number that a key begins with.
fn first(table: Table, key: &[u8]) -> Result<u64, Fault> {
    number(table, key.get(..8))
}

/// The number after that.
fn second(table: Table, key: &[u8]) -> Result<u64, Fault> {
    number(table, key.get(8..16))
}

fn number(table: Table, bytes: Option<&[u8]>) -> Result<u64, Fault> {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    bytes.ok_or_else(|| Fault::Row { table, why: "its key is too short".to_owned() })
}
