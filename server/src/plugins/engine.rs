//! What a member needs of what runs plugins; and the one place where that is made.

use std::path::Path;
use std::sync::Arc;

use conclave_core::plugin::Runner;
use conclave_plugin_host::{Budgets, Error, Host};
use conclave_protocol::plugin::{ComponentDigest, LogLine, PluginStats};

use crate::config::Plugins;

/// The directory of compiled components, in the data directory.
const CACHE: &str = "cache";

/// Runs plugins, and keeps what is known of their runs.
pub(crate) trait Engine: Runner {
    /// Forgets all components but those that are wanted, on the disk too.
    fn retain(&self, wanted: &dyn Fn(ComponentDigest) -> bool);

    /// What is known of the runs of a plugin, or of all that ran.
    fn stats(&self, plugin: Option<&str>) -> Vec<PluginStats>;

    /// The lines of a plugin's log with greater numbers.
    fn log_after(&self, plugin: &str, number: u64) -> Vec<LogLine>;

    /// Forgets what is known of a plugin's runs: it was removed.
    fn forget(&self, plugin: &str);
}

impl Engine for Host {
    fn retain(&self, wanted: &dyn Fn(ComponentDigest) -> bool) {
        Self::retain(self, |digest| wanted(*digest));
    }

    fn stats(&self, plugin: Option<&str>) -> Vec<PluginStats> {
        Self::stats(self, plugin)
    }

    fn log_after(&self, plugin: &str, number: u64) -> Vec<LogLine> {
        Self::log_after(self, plugin, number)
    }

    fn forget(&self, plugin: &str) {
        Self::forget(self, plugin);
    }
}

/// The plugin host of a member with this data directory; with a folder, compiled components are kept there, for others too.
///
/// # Errors
/// When this machine can't run it.
pub(crate) fn host(config: &Plugins, data: &Path, shared: Option<&Path>) -> Result<Arc<dyn Engine>, Error> {
    let host = Host::new(budgets(config))?;
    if !config.cache {
        return Ok(Arc::new(host));
    }
    let cached = match shared {
        Some(folder) => host.clone().with_shared_cache(folder),
        None => host.clone().with_cache(&data.join(CACHE)),
    };
    match cached {
        Ok(host) => Ok(Arc::new(host)),
        // It saves a start some seconds, and nothing else.
        Err(error) => {
            tracing::warn!(%error, "compiled components are not kept on the disk");
            Ok(Arc::new(host))
        }
    }
}

fn budgets(config: &Plugins) -> Budgets {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Budgets {
        fuel: config.fuel,
        time: Some(std::time::Duration::from_millis(config.time_ms)),
        memory_bytes: bytes(config.memory_bytes),
        host_calls: config.host_calls,
        rows: config.rows,
        written_bytes: config.written_bytes,
        read_bytes: config.read_bytes,
        component_bytes: bytes(config.component_bytes),
        compile: std::time::Duration::from_millis(config.compile_ms),
        ..Budgets::default()
    }
}
