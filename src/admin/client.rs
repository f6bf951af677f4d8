//! Asking another process's admin port.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// The most that is taken of an answer, in bytes.
const MOST_BYTES: usize = 64 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("nothing answers at {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody does, but does not answer as an admin port does.
    #[error("what answers at {address} is no admin port of flowproxy: {why}")]
    Strange {
        /// Where.
        address: String,
        /// What came instead.
        why: String,
    },
    /// There is no such page.
    #[error("{address} has nothing at {path}")]
    Missing {
        /// Where.
        address: String,
        /// What was asked for.
        path: String,
    },
    /// The answer took too long.
    #[error("no answer from {address} within {} s", PATIENCE.as_secs())]
    Late {
        /// Where.
        address: String,
    },
}

/// What the admin port at `address` (host and port) says at `path`.
///
/// # Errors
/// When nobody answers in time, or not with 200.
pub async fn get(address: &str, path: &str) -> Result<Bytes, AskError> {
    let late = |_| AskError::Late { address: address.to_owned() };
    tokio::time::timeout(PATIENCE, exchange(address, path)).await.map_err(late)?
}

async fn exchange(address: &str, path: &str) -> Result<Bytes, AskError> {
    let strange = |why: String| AskError::Strange { address: address.to_owned(), why };
    let unreachable = |source| AskError::Unreachable { address: address.to_owned(), source };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(error.to_string()))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address)
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| strange(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| strange(error.to_string()))?;
        if response.status() == http::StatusCode::NOT_FOUND {
            return Err(AskError::Missing { address: address.to_owned(), path: path.to_owned() });
        }
        if response.status() != http::StatusCode::OK {
            return Err(strange(format!("{path} is {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| strange(error.to_string()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It ends when all has come; what has is still to be looked at.
        _ = &mut connection => answer.await,
    }
}
