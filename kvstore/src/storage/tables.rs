//! How the tables of the state machine lie on disk and in memory.
//! Invariant: what reading takes in memory does not grow with what is stored.

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, Options};

use super::machine_db::{ANSWERS, HEADS, MachineMemory, VERSIONS};

pub(super) fn table_options(name: &str, memory: MachineMemory, cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(memory.memtable_bytes);
    // Room to go on writing while a flush is under way; with the default of two, applies stall.
    options.set_max_write_buffer_number(8);
    // Young data is rewritten soon; only what has settled is worth compressing.
    options.set_compression_type(DBCompressionType::None);
    options.set_bottommost_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    // Memtables are small, so many files are merged at once: each merge rewrites what is below them too.
    options.set_level_zero_file_num_compaction_trigger(16);
    options.set_level_zero_slowdown_writes_trigger(48);
    options.set_level_zero_stop_writes_trigger(64);
    if name == HEADS {
        keep_few_runs(&mut options);
    }
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Of a large table the filter and the index are megabytes, more than the cache has room for: they are read in parts.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_pin_top_level_index_and_filter(true);
    if name == HEADS || name == VERSIONS || name == ANSWERS {
        blocks.set_bloom_filter(10.0, false);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
    }
    options.set_block_based_table_factory(&blocks);
    options
}

/// A key that is written again and again has a head in each memtable and each file until they are merged, and a walk over
/// pages passes them all. Heads are small, so that files of like size are merged early; and to step over some of them is
/// less work than to search all files for what comes behind.
fn keep_few_runs(heads: &mut Options) {
    heads.set_compaction_style(DBCompactionStyle::Universal);
    heads.set_level_zero_file_num_compaction_trigger(4);
    heads.set_max_sequential_skip_in_iterations(100);
}
