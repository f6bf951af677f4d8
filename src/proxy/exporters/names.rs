//! What a sender, its interfaces, applications, VRFs and samplers are called, as JSON.

use super::Page;
use crate::batch::{InterfaceText, Names, Sender};
use crate::proto::InterfaceSource;
use serde_json::{Value, json};

/// Interfaces that `/status` shows of all senders, and other names in their place.
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
    let told = page.names.book().options(&sender.exporter);
    let own = told.iter().find(|told| told.domain == sender.domain);
    let mut others = Vec::new();
    if let Some(told) = own {
        let applications =
            told.applications.iter().map(|(id, text)| ("application", application(id), &*text.name));
        let vrfs = told.vrfs.iter().map(|(id, text)| ("vrf", id.to_string(), &*text.name));
        let samplers = told.samplers.iter().map(|(id, text)| ("sampler", id.to_string(), &*text.name));
        others.extend(applications.chain(vrfs).chain(samplers));
    }
    let count = others.len();
    others.truncate(page.of_each.min(page.interfaces));
    page.interfaces -= others.len();
    let other = |(kind, id, name): &(&str, String, &str)| json!({ "kind": kind, "id": id, "name": name });
    fields.insert("other_names_not_shown".to_owned(), (count - others.len()).into());
    fields.insert("other_names".to_owned(), others.iter().map(other).collect());
}

/// An application's id (RFC 6759): the engine that classified it, and its number there.
fn application(id: &[u8]) -> String {
    let Some((engine, number)) = id.split_first() else { return String::new() };
    match number.len() {
        0..=8 => {
            format!("{engine}:{}", number.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
        }
        _ => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
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
