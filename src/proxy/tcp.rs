//! The shard of TCP, and its tasks: one that accepts, and one for each connection.

use super::crew::Crew;
use crate::ingest::tcp::{Door, Metrics, QUEUE_BYTES, queue};
use crate::shard::{self, ExporterView};
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Starts both, if there is anything to listen at.
pub(super) fn start(
    crew: &mut Crew,
    listeners: Vec<TcpListener>,
    context: &shard::Context,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> io::Result<Option<ExporterView>> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let exporters = ExporterView::default();
    let context = shard::Context { exporters: exporters.clone(), ..context.clone() };
    let admission = Arc::clone(&context.admission);
    let allows = Arc::new(move |address| admission.load().allows(address));
    let (outbox, inbox) = queue(QUEUE_BYTES);
    crew.thread("shard-tcp", move || shard::run_tcp(inbox, context))?;
    crew.task(super::TCP, serve(Door::new(listeners, allows, outbox, metrics.clone()), stop.clone()));
    Ok(Some(exporters))
}

/// Accepts until `stop`, and then waits for what connections still read. What they deliver to ends with it.
async fn serve(mut door: Door, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            connection = door.next() => drop(connections.spawn(connection.run(stop.clone()))),
        }
    }
    // What their exporters have sent, the kernel has acknowledged.
    while let Some(connection) = door.waiting() {
        connections.spawn(connection.run(stop.clone()));
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}
