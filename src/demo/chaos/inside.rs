//! What runs in the demo's processes beside a proxy or a collector: an ear for the demo.
//!
//! | if the demo says | then |
//! |---|---|
//! | `stall` | the [`Gate`], a sink of the collector, takes nothing |
//! | `flow` | it takes everything |
//! | nothing any more: it has ended | the process ends in order, as by SIGTERM |

use crate::batch::Kind;
use crate::collector::sinks::{Sink, SinkError, Taken};
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Said to a collector.
pub const STALL: &str = "stall";
/// Said to a collector.
pub const FLOW: &str = "flow";

/// A sink that keeps nothing, and takes nothing while the demo wants it so.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    fn hear(&self, line: &str) {
        match line {
            STALL => self.0.store(true, Ordering::Relaxed),
            FLOW => self.0.store(false, Ordering::Relaxed),
            _ => {}
        }
    }
}

impl Sink for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Records
    }

    fn write(&mut self, _: &[Taken]) -> Result<u64, SinkError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(SinkError { sink: "gate", text: "stalled by the demo".to_owned() });
        }
        Ok(0)
    }
}

/// Listens to the demo, on stdin, for as long as the process lives.
///
/// # Errors
/// When there is no thread for it.
pub fn listen() -> io::Result<Gate> {
    let gate = Gate::default();
    let hears = gate.clone();
    let work = move || {
        io::stdin().lines().map_while(Result::ok).for_each(|line| hears.hear(&line));
        // Whatever became of the demo, nobody else would end this process.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    std::thread::Builder::new().name("ear".to_owned()).spawn(work)?;
    Ok(gate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_does_as_it_is_told() {
        let mut gate = Gate::default();
        assert_eq!(gate.write(&[]).unwrap(), 0);
        gate.hear(STALL);
        assert!(gate.write(&[]).unwrap_err().to_string().contains("stalled"));
        gate.hear("what?");
        assert!(gate.write(&[]).is_err());
        gate.hear(FLOW);
        assert!(gate.write(&[]).is_ok());
    }
}
