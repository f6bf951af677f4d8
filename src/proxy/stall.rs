//! Tells of a spool that takes nothing, while it does so: in the log and in a metric. Readiness asks the spool itself.

use crate::spool::{self, Spool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// What a stall is called.
pub(super) const TEXT: &str = "the spool's disk has not answered for 5 s";

/// Watches until `end` is cancelled.
pub(super) async fn watch(spool: Spool, metrics: spool::Metrics, end: CancellationToken) {
    let mut told = false;
    while tokio::time::timeout(TICK, end.cancelled()).await.is_err() {
        let stalled = spool.is_stalled();
        metrics.stalled.set(i64::from(stalled || !spool.writable()));
        match (std::mem::replace(&mut told, stalled), stalled) {
            (false, true) => tracing::error!(
                "No batch can be written: {TEXT}. Flow is taken into memory, and dropped once that is full"
            ),
            (true, false) => tracing::info!("The spool's disk answers again"),
            _ => {}
        }
    }
}
