//! The first transaction: the root, and the plugins that every new cluster has.

use bytes::Bytes;
use conclave_protocol::{ChangeKind, Path, Stat};

use crate::op::call::Plugins;
use crate::plan::Install;
use crate::row::{Plugin, Znode};
use crate::view::Tx;
use crate::{Table, ZnodeId, key};

/// Bytes of a component in one row.
const CHUNK: usize = 256 << 10;

pub(crate) fn genesis(tx: &mut Tx, installs: &[Install], plugins: &mut Plugins) {
    let stat = Stat {
        created: tx.zxid(),
        modified: tx.zxid(),
        children_modified: tx.zxid(),
        created_ms: tx.now_ms(),
        modified_ms: tx.now_ms(),
        ..Stat::default()
    };
    let root = Znode { stat, next_sequence: 0, acl: 0, parent: ZnodeId::ROOT };
    tx.put_row(Table::Znode, &key::znode(ZnodeId::ROOT), &root);
    tx.state.next_id = ZnodeId::ROOT.0 + 1;
    tx.state.znodes = 1;
    tx.change(ChangeKind::Created, Path::root(), 0);
    for install in installs {
        let mut chunks = 0;
        for (chunk, number) in install.component.chunks(CHUNK).zip(0..) {
            tx.put(Table::Blob, &key::blob(&install.digest, number), install.component.slice_ref(chunk));
            chunks = number + 1;
        }
        let row = Plugin {
            digest: install.digest,
            component_bytes: install.component.len() as u64,
            chunks,
            settings: Bytes::new(),
        };
        tx.put_row(Table::Plugin, install.name.as_bytes(), &row);
        plugins.install(install.digest, &install.component);
    }
}
