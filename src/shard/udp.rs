//! What a shard reads from UDP: its sockets, with one decoder for all exporters that they bring.

use super::intake::Intake;
use super::keeping::{self, Keeping};
use super::moment::Moment;
use super::naming::Naming;
use super::{Clock, Context, Source, State};
use crate::ingest::{BATCH, Receiver, Sockets, Use};
use crate::keeper::{Row, Sender};
use crate::metrics::Ingest;
use crate::wire::Decoder;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long it goes on emptying the sockets once it should end.
const LAST_READS: Duration = Duration::from_secs(1);

pub(super) struct Udp {
    sockets: Sockets,
    rest: Duration,
    receiver: Receiver,
    decoder: Decoder,
    keeping: Keeping,
    naming: Naming,
    stop: Arc<AtomicBool>,
}

impl Udp {
    pub(super) fn new(sockets: Sockets, context: &Context, keeper: Sender, kept: &[Row]) -> Udp {
        let mut decoder = Decoder::new(context.wire.clone());
        decoder.note_names();
        let keeping = keeping::restore(&mut decoder, kept, keeper, &context.metrics);
        // What was kept is known before the first record comes.
        let mut naming = Naming::new(context.names.clone());
        let start = Moment { unix_ms: super::unix_ms(), elapsed_ms: 0 };
        naming.hand_over_all(&mut decoder, start);
        Udp {
            rest: sockets.rest(),
            receiver: Receiver::new(),
            decoder,
            keeping,
            naming,
            stop: Arc::clone(&context.stop),
            sockets,
        }
    }
}

impl Source for Udp {
    const CAN_WAIT: bool = false;

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One call on each socket; the most datagrams that one of them gave.
    fn read(&mut self, clock: &Clock, intake: &mut Intake) -> usize {
        let mut most = 0;
        for listener in &self.sockets.listeners {
            let taken = match self.receiver.receive(listener) {
                Ok(taken) => taken,
                Err(error) => {
                    // Nothing is lost by it: the kernel keeps what it has, and the next call tries again.
                    tracing::debug!(%error, local = %listener.local, "receive failed");
                    0
                }
            };
            if taken == 0 {
                continue;
            }
            most = most.max(taken);
            let now: Moment = clock.now();
            for datagram in self.receiver.datagrams() {
                let decoder = match listener.usage {
                    Use::Flow => Some(&mut self.decoder),
                    Use::Raw => None,
                };
                intake.datagram(&datagram, listener.local.port(), now, decoder);
            }
            intake.flush_counts();
        }
        most
    }

    fn pause(&mut self, taken: usize, longest: Duration) {
        if taken == 0 {
            if let Err(error) = self.sockets.wait(longest) {
                tracing::warn!(%error, "waiting for datagrams failed");
                std::thread::sleep(longest);
            }
        } else if taken < BATCH {
            // A short read says that the reader is faster than the senders: resting a moment makes the next one
            // longer, and calls fewer.
            std::thread::sleep(self.rest);
        }
    }

    fn tick(&mut self, clock: &Clock, intake: &mut Intake, metrics: &Ingest) {
        intake.tick(&mut self.decoder, clock.now());
        self.keeping.hand_over(&mut self.decoder);
        if intake.settle_names() {
            self.naming.hand_over(&mut self.decoder, clock.now());
        }
        for listener in &mut self.sockets.listeners {
            let dropped = listener.newly_dropped();
            if dropped > 0 {
                metrics.datagrams_dropped_by_kernel.inc_by(dropped);
                tracing::warn!(dropped, local = %listener.local, "the kernel dropped datagrams at a full receive buffer");
            }
        }
    }

    fn end(&mut self, clock: &Clock, intake: &mut Intake) {
        let until = Instant::now() + LAST_READS;
        while self.read(clock, intake) > 0 && Instant::now() < until {}
        intake.end(&mut self.decoder);
        self.keeping.hand_over_all(&mut self.decoder);
    }

    fn decoders(&self) -> impl Iterator<Item = &Decoder> {
        std::iter::once(&self.decoder)
    }

    fn state(&self) -> State {
        State::default() + &self.decoder
    }
}
