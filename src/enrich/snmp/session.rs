//! Questions to one device with one credential, and what silence means.

use super::credential::{Credential, Level};
use super::error::Error;
use super::metrics::Metrics;
use async_snmp::{Client, Oid, Retry, Value, VarBind, WalkOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// A device that can be asked.
pub(super) struct Session {
    client: Client,
    is_user: bool,
    metrics: Metrics,
}

impl Session {
    /// A socket for it, and the keys. Nothing is sent yet.
    ///
    /// # Errors
    /// The system gives no socket; the credential makes no keys.
    pub(super) async fn open(
        credential: &Arc<Credential>,
        device: IpAddr,
        (level, retries): (Level, u32),
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let making = Arc::clone(credential);
        let auth = tokio::task::spawn_blocking(move || making.auth(level)).await;
        let auth = auth.map_err(|error| Error::Local(error.to_string()))??;
        let (settings, is_user) = (&credential.settings, credential.is_user());
        let retry = Retry::fixed(retries, Duration::ZERO).unwrap_or_else(|_| Retry::none());
        let client = Client::builder(SocketAddr::new(device, settings.port), auth)
            .request_timeout(settings.timeout)
            .retry(retry)
            .connect()
            .await
            .map_err(|cause| Error::of(&cause, is_user))?;
        Ok(Self { client, is_user, metrics: metrics.clone() })
    }

    /// The values of objects, in that order; `None` for those that the device does not have or show.
    ///
    /// # Errors
    /// As the device, or silence, has it.
    pub(super) async fn get(&self, objects: &[&[u32]]) -> Result<Vec<Option<Value>>, Error> {
        let objects: Vec<_> = objects.iter().map(|object| Oid::from_slice(object)).collect();
        self.metrics.requests.inc();
        let answer = self.client.get_many(&objects).await.map_err(|cause| Error::of(&cause, self.is_user))?;
        let value = |object: &Oid| {
            let found = answer.varbinds.iter().find(|bound| bound.oid == *object)?;
            (!found.value.is_exception() && found.value != Value::Null).then(|| found.value.clone())
        };
        Ok(objects.iter().map(value).collect())
    }

    /// Walks a column, `repetitions` rows with each request, and gives each row's index and value to `each` until that
    /// says no. Rows whose index is not one number are passed over.
    ///
    /// # Errors
    /// As the device, or silence, has it.
    pub(super) async fn column(
        &self,
        column: &[u32],
        repetitions: u32,
        mut each: impl FnMut(u32, &Value) -> bool,
    ) -> Result<(), Error> {
        let of = |cause: Box<async_snmp::Error>| Error::of(&cause, self.is_user);
        let options = WalkOptions { max_repetitions: repetitions, ..WalkOptions::default() };
        let mut walk = self.client.walk_with(Oid::from_slice(column), options).map_err(of)?;
        let mut rows = 0;
        while let Some(row) = walk.next().await {
            let VarBind { oid, value, .. } = row.map_err(of)?;
            if rows % u64::from(repetitions) == 0 {
                self.metrics.requests.inc();
            }
            rows += 1;
            let Some([index]) = oid.arcs().get(column.len()..) else { continue };
            if !each(*index, &value) {
                break;
            }
        }
        Ok(())
    }
}

/// What is behind silence: asks whether anything is there at all, and what of a user is taken. Other failures stay as they are.
pub(super) async fn explain(
    failed: Error,
    credential: &Arc<Credential>,
    device: IpAddr,
    metrics: &Metrics,
) -> Error {
    if !matches!(failed, Error::NoAnswer | Error::NoAnswerToUser) {
        return failed;
    }
    let settings = &credential.settings;
    metrics.requests.inc();
    match discover(SocketAddr::new(device, settings.port), settings.timeout).await {
        Ok(false) => failed,
        Err(error) => Error::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("the host says that nothing listens at port {} (ICMP)", settings.port)
            }
            _ => error.to_string(),
        }),
        Ok(true) if !credential.is_user() => Error::WrongCommunity,
        Ok(true) => refusal(credential, device, metrics).await,
    }
}

/// Why a device that is there does not answer a user. Agents report it, but not in a form that the library takes for a
/// report; so it is asked with less: the name alone, then signed, but not encrypted.
async fn refusal(credential: &Arc<Credential>, device: IpAddr, metrics: &Metrics) -> Error {
    let ask = async |level| {
        let session = Session::open(credential, device, (level, 0), metrics).await?;
        session.get(&[super::reading::SYS_UP_TIME]).await
    };
    // Whatever it says to less than it wants, it has taken that.
    let is_taken = |answer: &Result<_, Error>| {
        matches!(answer, Ok(_) | Err(Error::NotAllowed(_) | Error::Status(_) | Error::SecurityLevel))
    };
    match ask(Level::Named).await {
        Err(Error::UnknownUser) => return Error::UnknownUser,
        answer if !is_taken(&answer) => return Error::SilentToUser,
        _ if !credential.is_encrypted() => return Error::WrongAuthentication,
        _ => {}
    }
    if is_taken(&ask(Level::Signed).await) { Error::WrongPrivacy } else { Error::WrongAuthentication }
}

/// The request with which every conversation of SNMPv3 begins (RFC 3414, 4): without user, engine and secret. Agents
/// answer it with a report, whoever asks.
const DISCOVERY: [u8; 64] = [
    0x30, 0x3e, // message
    0x02, 0x01, 0x03, // version 3
    0x30, 0x11, // header: id, largest message 65507, flags: reportable, security model USM
    0x02, 0x04, 0x2f, 0x1a, 0x77, 0x05, 0x02, 0x03, 0x00, 0xff, 0xe3, 0x04, 0x01, 0x04, 0x02, 0x01, 0x03,
    0x04, 0x10, // security: engine, boots, time, user, signature and salt, all empty
    0x30, 0x0e, 0x04, 0x00, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00, 0x04, 0x00, 0x30,
    0x14, // context: engine and name, both empty
    0x04, 0x00, 0x04, 0x00, // then a get of nothing: id, error, index
    0xa0, 0x0e, 0x02, 0x04, 0x2f, 0x1a, 0x77, 0x05, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00, 0x30, 0x00,
];

/// Whether anything answers SNMPv3's discovery there.
///
/// # Errors
/// What ICMP says; the system gives no socket.
async fn discover(agent: SocketAddr, timeout: Duration) -> io::Result<bool> {
    let any: IpAddr =
        if agent.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only a connected socket is told of ICMP.
    socket.connect(agent).await?;
    for _ in 0..2 {
        socket.send(&DISCOVERY).await?;
        let mut answer = [0; 1_500];
        if let Ok(received) = tokio::time::timeout(timeout, socket.recv(&mut answer)).await {
            return received.map(|_| true);
        }
    }
    Ok(false)
}
