//! (module shard)
