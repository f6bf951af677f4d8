//! What connections hand to the shard's thread, bounded by bytes.
//!
//! The thread waits without a runtime, so the queue is one of the standard library; room in it is a semaphore of
//! bytes, for which tasks queue in order: no sender keeps the others out.

use crate::flow::Exporter;
use crate::places::Place;
use crate::wire::{self, Fault};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a delivery counts beside its bytes.
const DELIVERY_COST: usize = 256;

/// One connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// Something from a connection. The last that comes of each is [`Content::End`].
#[derive(Debug)]
pub struct Delivery {
    /// Which connection.
    pub session: SessionId,
    /// Who is at its other end.
    pub exporter: Exporter,
    /// What it is.
    pub content: Content,
}

/// What a connection delivers.
#[derive(Debug)]
pub enum Content {
    /// Whole messages.
    Messages(Messages),
    /// What follows is no message.
    Broken {
        /// Why not.
        fault: Fault,
        /// How it begins, where a message has its version.
        start: [u8; 2],
    },
    /// The connection is closed. Its place is free once this is dropped.
    End(Option<Place>),
}

/// IPFIX messages back to back, each whole.
#[derive(Debug)]
pub struct Messages {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Messages {
    /// The messages, in the order received.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let length = wire::message_length(rest).ok()??;
            let (message, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(message)
        })
    }
}

/// A queue in which `max_bytes` may wait.
pub fn queue(max_bytes: usize) -> (Outbox, Inbox) {
    let (sender, receiver) = channel();
    let room = Arc::new(Semaphore::new(max_bytes));
    (Outbox { sender, room }, Inbox { receiver })
}

/// Where connections put what they have. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: Sender<Delivery>,
    room: Arc<Semaphore>,
}

impl Outbox {
    /// Waits for room and puts whole messages in; an error says that nobody takes them any more.
    pub(super) async fn messages(
        &self,
        session: SessionId,
        exporter: Exporter,
        bytes: &[u8],
    ) -> Result<(), Closed> {
        let cost = u32::try_from(bytes.len() + DELIVERY_COST).map_err(|_| Closed)?;
        let room = Arc::clone(&self.room).acquire_many_owned(cost).await.map_err(|_| Closed)?;
        let messages = Messages { bytes: bytes.to_vec(), _room: room };
        self.put(Delivery { session, exporter, content: Content::Messages(messages) })
    }

    /// Puts something in that takes no room: of each connection there are few such.
    pub(super) fn put(&self, delivery: Delivery) -> Result<(), Closed> {
        self.sender.send(delivery).map_err(|_| Closed)
    }
}

/// Nobody takes deliveries any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What there is to take.
#[derive(Debug)]
pub enum Received {
    /// The next delivery.
    Delivery(Delivery),
    /// None yet.
    Nothing,
    /// None, and none will come: door and connections are gone.
    Over,
}

/// Where the shard takes it.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Delivery>,
}

impl Inbox {
    /// What is there now.
    pub fn take(&self) -> Received {
        match self.receiver.try_recv() {
            Ok(delivery) => Received::Delivery(delivery),
            Err(TryRecvError::Empty) => Received::Nothing,
            Err(TryRecvError::Disconnected) => Received::Over,
        }
    }

    /// Waits for the next, `longest` at most.
    pub fn wait(&self, longest: Duration) -> Received {
        match self.receiver.recv_timeout(longest) {
            Ok(delivery) => Received::Delivery(delivery),
            Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Over,
        }
    }
}
