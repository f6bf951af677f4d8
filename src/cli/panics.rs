//! Where panics are told: in the log, at a limited rate, where the system's own hook writes as often as it is called.

use crate::lines::limited;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// From now on panics of this process are log lines.
pub(super) fn log() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // Empty unless RUST_BACKTRACE asks for it.
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        limited!(error, thread, place, trace, "Panic, a fault of flowproxy's: {}", text(info.payload()));
    }));
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it says nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_read() {
        assert_eq!(text(&"plain"), "plain");
        assert_eq!(text(&"with facts".to_owned()), "with facts");
        assert_eq!(text(&7_u8), "it says nothing");
    }
}
