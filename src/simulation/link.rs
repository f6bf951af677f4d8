//! One connection between a proxy and the collector: two queues of messages, each in order, with delays. A
//! message that carries an ack may come twice.

use crate::proto::{ClientMessage, ServerMessage};
use std::collections::VecDeque;
use std::time::Instant;

/// Messages that a stream takes before its sender has to wait.
const ROOM: usize = 6;

/// See the module.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// The proxy at its end.
    pub edge: usize,
    /// From the proxy, with the time of arrival.
    pub up: VecDeque<(Instant, ClientMessage)>,
    /// To the proxy.
    pub down: VecDeque<(Instant, ServerMessage)>,
    /// Nothing arrives before that.
    pub silent_until: Option<Instant>,
    /// The proxy will send no more, but what it sent still arrives.
    pub edge_done: bool,
    /// The collector will send no more, but what it sent still arrives.
    pub far_done: bool,
}

impl Link {
    /// A new one.
    pub fn new(number: u64, edge: usize) -> Self {
        let (up, down) = (VecDeque::new(), VecDeque::new());
        Self { number, edge, up, down, silent_until: None, edge_done: false, far_done: false }
    }

    /// Whether the proxy may send another message.
    pub fn has_room(&self) -> bool {
        self.up.len() < ROOM
    }

    /// The next message from the proxy, if it has arrived.
    pub fn arrived_up(&mut self, now: Instant) -> Option<ClientMessage> {
        if self.silent_until.is_some_and(|until| now < until) {
            return None;
        }
        self.up.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }

    /// The next message from the collector, if it has arrived.
    pub fn arrived_down(&mut self, now: Instant) -> Option<ServerMessage> {
        if self.silent_until.is_some_and(|until| now < until) {
            return None;
        }
        self.down.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}
