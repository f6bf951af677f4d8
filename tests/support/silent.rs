//! A collector of the test's own that takes everything and acks nothing. Its HTTP/2 lives: it answers a PING as ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flowproxy::proto::client_message::Message as Client;
use flowproxy::proto::forward_server::{Forward, ForwardServer};
use flowproxy::proto::server_message::Message as Server;
use flowproxy::proto::{Batch, ClientMessage, Open, Opened, ServerMessage, Welcome, Window};
use flowproxy::tls::{self, Files, ServerConfig};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::rig::Rig;

/// Where the store is not known that a proxy has delivered to, this is it.
const STORE: &[u8] = b"of a silent one.";

/// What it has seen.
#[derive(Default)]
struct Seen {
    streams: AtomicUsize,
    batches: Mutex<Vec<Batch>>,
    opens: Mutex<Vec<Open>>,
}

/// See the module. Dropping it ends its connections.
pub struct Silent {
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

impl Silent {
    /// Serves in the place of the rig's collector, with that one's certificate, and lets so much be in flight.
    pub fn start(rig: &Rig, window: Window) -> Self {
        let file = |name: &str| rig.path(&format!("certs/{name}"));
        let files = Files { ca: file("ca.pem"), cert: file("collector.pem"), key: file("collector.key") };
        let config = tls::load_server(&files).expect("the collector's certificate");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, seen) = (runtime.expect("a runtime"), Arc::<Seen>::default());
        let listener =
            runtime.block_on(TcpListener::bind(rig.collector_address())).expect("the collector's port");
        let (ready, connections) = mpsc::channel(4);
        runtime.spawn(accept(listener, config, ready));
        let service = ForwardServer::new(Answers { seen: seen.clone(), window });
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(ReceiverStream::new(connections)));
        Self { seen, runtime: Some(runtime) }
    }

    /// Streams that have begun so far.
    pub fn streams(&self) -> usize {
        self.seen.streams.load(Ordering::Relaxed)
    }

    /// Batches that have come so far.
    pub fn batches(&self) -> usize {
        self.seen.batches.lock().expect("batches").len()
    }

    /// Those of the lane with this number on its connection.
    pub fn batches_of(&self, lane: u32) -> usize {
        self.seen.batches.lock().expect("batches").iter().filter(|batch| batch.lane == lane).count()
    }

    /// Lanes that were opened, in their order.
    pub fn opens(&self) -> Vec<Open> {
        self.seen.opens.lock().expect("lanes").clone()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Takes connections, and passes on what is in them.
async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    ready: mpsc::Sender<std::io::Result<DuplexStream>>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (config, ready) = (config.clone(), ready.clone());
        tokio::spawn(async move {
            let Ok(mut accepted) = tls::accept(config, socket).await else { return };
            let (mut inside, outside) = tokio::io::duplex(64 << 10);
            let _ = ready.send(Ok(outside)).await;
            let _ = tokio::io::copy_bidirectional(&mut accepted.stream, &mut inside).await;
        });
    }
}

#[derive(Clone)]
struct Answers {
    seen: Arc<Seen>,
    window: Window,
}

impl Answers {
    /// To what a proxy must hear of before it sends.
    fn to(&self, message: ClientMessage) -> Option<Server> {
        let window = Some(self.window);
        match message.message? {
            // Its own store, whichever it is.
            Client::Hello(hello) => {
                let known = !hello.mark_store_id.is_empty();
                let mark_store_id = if known { hello.mark_store_id } else { STORE.into() };
                let welcome = Welcome { version: 1, mark_store_id, window, ..Welcome::default() };
                Some(Server::Welcome(welcome))
            }
            Client::Open(open) => {
                let Open { lane, acked_seq, .. } = open;
                self.seen.opens.lock().expect("lanes").push(open);
                let opened =
                    Opened { lane, known: true, committed_seq: acked_seq, window, ..Opened::default() };
                Some(Server::Opened(opened))
            }
            Client::Batch(batch) => {
                self.seen.batches.lock().expect("batches").push(batch);
                None
            }
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl Forward for Answers {
    type StreamStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<ClientMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.seen.streams.fetch_add(1, Ordering::Relaxed);
        let (answer, answers) = mpsc::channel(16);
        let (this, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                if let Some(message) = this.to(message) {
                    let _ = answer.send(Ok(ServerMessage { message: Some(message) })).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
