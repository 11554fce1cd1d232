//! The engine's configuration: what guests may use, and how instances are made quickly.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{Budgets, Error};

/// Runs at a time; a planner has one, queries will have a few.
const RUNS: u32 = 16;
/// One component instance takes three core instances: the guest's, and two that wit-component adds.
const CORE_INSTANCES: u32 = 4;
/// Tables of one run: the guest's own, and the one that wit-component's adapters are called through.
pub(crate) const TABLES: u32 = 4;
/// Linear memories of one run.
pub(crate) const MEMORIES: u32 = 1;
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
        .max_memory_size(budgets.memory_bytes)
        .table_elements(budgets.table_elements)
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
