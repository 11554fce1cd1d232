//! The engine's configuration: what guests may use, and how instances are made quickly.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{Budgets, Error};

/// Runs at a time: the planner's, those inside of it, and [`QUERIES`].
pub(crate) const RUNS: u32 = 32;
/// Of these, runs of queries: the rest is the planner's, whose triggers must never want for an instance.
pub(crate) const QUERIES: u32 = 24;
/// Core instances of one component. What wit-component makes of Rust takes three; runtimes of other languages, with what
/// stands in for WASI in them, take a few more.
const CORE_INSTANCES: u32 = 16;
/// Tables of one run: the guest's own, and the one that wit-component's adapters are called through.
pub(crate) const TABLES: u32 = 4;
/// Linear memories of one run.
pub(crate) const MEMORIES: u32 = 1;
/// Bytes of linear memory that a run can be allowed at most. A slot of the pool is 4 GiB of addresses anyway, so that
/// accesses need no check of their bounds: this costs nothing until it is used, and raised budgets need no second engine.
pub(crate) const MEMORY_MAX: usize = 256 << 20;
/// Elements of a table that a run can be allowed at most: a JavaScript engine has about 10,000 functions in one.
pub(crate) const TABLE_MAX: usize = 65_536;
/// Of a returned instance's memory stays resident, reset page by page: half the price of a call.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;

pub(crate) fn engine(budgets: &Budgets) -> Result<Engine, Error> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(RUNS)
        .total_core_instances(RUNS * CORE_INSTANCES)
        .total_memories(RUNS * MEMORIES)
        .total_tables(RUNS * TABLES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memory_size(MEMORY_MAX)
        .table_elements(TABLE_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false)
        .gc_support(false)
        .shared_memory(false)
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .epoch_interruption(budgets.time.is_some())
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(|error| Error::Engine(format!("{error:#}")))
}
