//! Sends what the spool holds to the collector, over one gRPC stream in TLS.

mod backoff;
mod connect;
mod metrics;
mod rate;
pub mod session;

pub use metrics::{Metrics, Traffic};
