//! Reads a batch: payload to columns to records. The rules are those of `proto/flowproxy/v1/batch.proto`.
