//! What a sender and its interfaces are called, as JSON.

use super::Page;
use crate::batch::{InterfaceText, Names, Sender};
use crate::proto::InterfaceSource;
use serde_json::{Value, json};

/// Interfaces that `/status` shows of all senders.
pub(super) const OF_ALL: usize = 4_000;
/// Interfaces that it shows of one.
pub(super) const OF_EACH: usize = 32;
/// Interfaces that are shown where one exporter is asked for.
pub(super) const OF_ONE: usize = 100_000;

/// Adds to a sender's JSON what is known of it. Texts that nobody has told are empty.
pub(super) fn add(json: &mut Value, sender: &Sender, page: &mut Page<'_>) {
    let Value::Object(fields) = json else { return };
    let text = page.names.sender(sender).unwrap_or_default();
    let (interfaces, count) = page.names.interfaces(sender, page.of_each.min(page.interfaces));
    page.interfaces -= interfaces.len();
    fields.insert("name".to_owned(), text.name.as_str().into());
    fields.insert("site".to_owned(), text.site.as_str().into());
    fields.insert("labels".to_owned(), json!(text.labels));
    fields.insert("agent".to_owned(), sender.agent.map(|agent| agent.to_string()).into());
    fields.insert("device".to_owned(), page.names.device(sender).to_string().into());
    fields.insert("interfaces_not_shown".to_owned(), (count - interfaces.len()).into());
    fields.insert("interfaces".to_owned(), interfaces.iter().map(interface).collect());
}

fn interface((index, text): &(u32, InterfaceText)) -> Value {
    json!({
        "index": index,
        "name": *text.name,
        "description": *text.description,
        "speed": text.speed,
        "source": source(text.source),
        "age": text.age,
    })
}

/// The word for a source.
fn source(of: InterfaceSource) -> &'static str {
    match of {
        InterfaceSource::Unknown => "unknown",
        InterfaceSource::Static => "static",
        InterfaceSource::Options => "options",
        InterfaceSource::Snmp => "snmp",
        InterfaceSource::Netlink => "netlink",
        InterfaceSource::LastKnown => "last_known",
    }
}
