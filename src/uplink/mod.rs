//! Sends what the spool holds to the collector, over one gRPC stream in TLS.

mod backoff;
mod rate;
pub mod session;
