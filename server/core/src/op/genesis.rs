//! The first transaction: the root, and the plugins that every new cluster has.

use bytes::Bytes;
use conclave_protocol::plugin::{BudgetSettings, Manifest, PluginInfo, PluginState, Version};
use conclave_protocol::{ChangeKind, Path, Stat, limits};

use super::install;
use crate::authority::OPEN;
use crate::plan::Install;
use crate::row::{Plugin, Znode};
use crate::view::Tx;
use crate::{Table, ZnodeId, key};

pub(crate) fn genesis(tx: &mut Tx, installs: &[Install]) {
    let stat = Stat {
        created: tx.zxid(),
        modified: tx.zxid(),
        children_modified: tx.zxid(),
        created_ms: tx.now_ms(),
        modified_ms: tx.now_ms(),
        children_modified_ms: tx.now_ms(),
        ..Stat::default()
    };
    let root = Znode { stat, next_sequence: 0, acl: OPEN, parent: ZnodeId::ROOT, expiry_ms: 0 };
    tx.put_row(Table::Znode, &key::znode(ZnodeId::ROOT), &root);
    tx.state.next_id = ZnodeId::ROOT.0 + 1;
    tx.state.znodes = 1;
    tx.change(ChangeKind::Created, Path::root(), 0, OPEN, OPEN);
    for install in installs {
        let component = &install.component;
        // One that can't be run here is part of the cluster all the same: its own calls say why.
        let manifest = tx.plugins.runner.prepare(install.digest, component);
        let (manifest, rejected) = match manifest {
            Ok(manifest) => (manifest, None),
            Err(why) => (Manifest::default(), Some(why)),
        };
        for (chunk, number) in component.chunks(limits::COMPONENT_CHUNK).zip(0..) {
            tx.put(Table::Blob, &key::blob(&install.digest, number), component.slice_ref(chunk));
        }
        let state = if rejected.is_none() { PluginState::Active } else { PluginState::Disabled };
        let allowed = manifest.needs.clone();
        let version = Version { digest: install.digest, component_bytes: component.len() as u64, manifest, allowed };
        let info = PluginInfo {
            name: install.name.clone(),
            state,
            version,
            next: None,
            previous: None,
            settings: Bytes::new(),
            budgets: BudgetSettings::default(),
            installer: String::new(),
            activated: Some(tx.zxid()),
            parked: 0,
            rejected,
        };
        install::put(tx, &Plugin { info, older: Vec::new() });
    }
}
