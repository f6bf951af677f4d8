//! The tasks of TCP: one that accepts, and one for each connection.

use crate::ingest::tcp::Door;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Accepts until `stop`, and then waits for what connections still read. What they deliver to ends with it.
pub(super) async fn serve(mut door: Door, stop: CancellationToken) {
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
