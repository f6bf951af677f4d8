//! What a running process tells about itself, over plain HTTP on loopback.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus' text (OpenMetrics 1.0) |
//! | `/healthz` | 200 once sockets and stores are open, whatever the link does; else 503 with the reason |
//! | `/readyz` | 200 while work can be done; else 503 with the reason |
//! | `/status` | JSON: version, uptime, and what the role adds |
//! | `/exporters/NAME` | JSON: all that a proxy knows of exporters with that name or address; 404 if there is none |
//!
//! Only GET, no state is changed. Connections are few ([`MAX_CONNECTIONS`]) and short ([`MAX_LIFE`]); who opens more
//! waits. What the answers say is the role's ([`Subject`]).

mod client;
mod limit;
mod reload;

pub use client::{AskError, get};
pub use reload::LastReload;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 32;
/// How long a connection may live; a scraper that keeps its connection opens another.
pub const MAX_LIFE: Duration = Duration::from_secs(30);

/// What the process that is asked about can say.
pub trait Subject: Send + Sync + 'static {
    /// All metrics in Prometheus' text.
    fn metrics(&self) -> String;

    /// Why the process is not alive, if so.
    fn alive(&self) -> Result<(), String>;

    /// Why no work can be done, if so.
    fn ready(&self) -> Result<(), String>;

    /// Everything about it.
    fn status(&self) -> serde_json::Value;

    /// All that is known of the exporters that have this name or address; `None` if there is none.
    fn exporter(&self, _wanted: &str) -> Option<serde_json::Value> {
        None
    }
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has the port.
    #[error("admin.listen {0}: the port is taken; stop what listens there or choose another")]
    Taken(SocketAddr),
    /// Anything else.
    #[error("admin.listen {address}: {source}")]
    Other {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Opens the socket.
///
/// # Errors
/// When the address cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(address),
        _ => BindError::Other { address, source },
    })
}

/// Answers until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    subject: Arc<dyn Subject>,
    stop: CancellationToken,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", routing::get(metrics))
        .route("/healthz", routing::get(healthz))
        .route("/readyz", routing::get(readyz))
        .route("/status", routing::get(status))
        .route("/exporters/{wanted}", routing::get(exporter))
        .with_state(subject);
    let limited = limit::Limited::new(listener, MAX_CONNECTIONS, MAX_LIFE, stop.clone());
    tokio::select! {
        ended = async { axum::serve(limited, routes).await } => ended,
        () = stop.cancelled() => Ok(()),
    }
}

async fn metrics(State(subject): State<Arc<dyn Subject>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], subject.metrics()).into_response()
}

async fn healthz(State(subject): State<Arc<dyn Subject>>) -> Response {
    verdict(subject.alive())
}

async fn readyz(State(subject): State<Arc<dyn Subject>>) -> Response {
    verdict(subject.ready())
}

async fn status(State(subject): State<Arc<dyn Subject>>) -> Response {
    axum::Json(subject.status()).into_response()
}

async fn exporter(State(subject): State<Arc<dyn Subject>>, Path(wanted): Path<String>) -> Response {
    match subject.exporter(&wanted) {
        Some(exporter) => axum::Json(exporter).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn verdict(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
