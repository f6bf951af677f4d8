//! What the last SIGHUP came to: a config that is refused must not be a line in a log that nobody reads.

use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// The last reload's time and fault. Starts with none.
#[derive(Debug, Default)]
pub struct LastReload(Mutex<Option<(u64, Option<String>)>>);

impl LastReload {
    /// Notes one; `at_ms` in milliseconds since 1970.
    pub fn note(&self, at_ms: u64, fault: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at_ms, fault));
    }

    /// For `/status`: null, or when it was and what was wrong.
    pub fn to_json(&self) -> Value {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Value::Null,
            Some((at, fault)) => json!({ "at": at, "fault": fault }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_reload_takes_the_fault_away() {
        let last = LastReload::default();
        assert!(last.to_json().is_null());
        last.note(5, Some("no".to_owned()));
        assert_eq!(last.to_json(), json!({ "at": 5, "fault": "no" }));
        last.note(6, None);
        assert_eq!(last.to_json(), json!({ "at": 6, "fault": null }));
    }
}
