//! Who holds a lock and who waits for it, in one look.

use conclave_plugin::{Child, Context, Path, Result, Tree};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, Who};

/// What `show` is called with.
#[derive(Deserialize)]
pub(crate) struct Show {
    path: Path,
}

/// What `show` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct View {
    /// Who holds it alone.
    pub holder: Option<Entry>,
    /// Who shares it, or holds permits.
    pub shared: Vec<Entry>,
    /// Who waits, the next one first.
    pub line: Vec<Entry>,
}

/// A holder, or a place in line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its znode.
    pub path: Path,
    /// Of its creation; of a holder, the fence.
    pub zxid: u64,
    /// Since when, cluster time in milliseconds.
    pub since_ms: u64,
    /// Its session; none when somebody made it by hand.
    pub session: Option<u64>,
    /// Who it is, as it says.
    #[serde(flatten)]
    pub who: Who,
}

/// Reads all of it.
pub(crate) fn show(tree: &Tree, _: &Context, args: Show) -> Result<View> {
    let layout = Layout::new(&args.path)?;
    let holder = tree.get(&layout.holder)?.map(|znode| {
        let (path, data) = (layout.holder.clone(), znode.data);
        entry(Child { path, stat: znode.stat, data })
    });
    let shared = tree.children(&layout.shared).with_data().all()?.into_iter().map(entry).collect();
    let mut line = layout.places(tree)?;
    for place in &mut line {
        place.data = tree.get(&place.path)?.map(|znode| znode.data).unwrap_or_default();
    }
    Ok(View { holder, shared, line: line.into_iter().map(entry).collect() })
}

fn entry(child: Child) -> Entry {
    let Child { path, stat, data } = child;
    Entry { path, zxid: stat.created, since_ms: stat.created_ms, session: stat.owner, who: Who::decode(&data) }
}
