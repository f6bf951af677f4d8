//! What is asked, while a batch is laid out, of whoever knows what senders and interfaces are called.

use crate::flow::Exporter;
use crate::proto::InterfaceSource;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Whom names go by. Several may stand behind one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Source address and port.
    pub exporter: Exporter,
    /// Observation domain, as in `Run::domain`.
    pub domain: u32,
    /// The agent that an sFlow datagram names; `None` for other protocols.
    pub agent: Option<IpAddr>,
}

/// What the operator, or the device itself, says of a sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderText {
    /// Its name; empty if unknown.
    pub name: String,
    /// Where it stands; empty if unknown.
    pub site: String,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
}

/// What is known of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceText {
    /// Its name (ifName); empty if unknown.
    pub name: Arc<str>,
    /// What people call it (ifAlias, ifDescr); empty if unknown.
    pub description: Arc<str>,
    /// Bits per second; 0 if unknown.
    pub speed: u64,
    /// Who said its name.
    pub source: InterfaceSource,
    /// Seconds since then.
    pub age: u32,
}

/// Where an address belongs, as files of look-ups say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressText {
    /// Number of its autonomous system; 0 if unknown.
    pub as_number: u32,
    /// ISO 3166-1 alpha-2, in capitals; zeros if unknown.
    pub country: [u8; 2],
}

/// Who knows. It answers from what is in memory and never waits.
pub trait Names {
    /// What a sender is called; `None` if nothing is known of it. Asked once for each sender of a batch.
    fn sender(&mut self, sender: &Sender) -> Option<Arc<SenderText>>;

    /// What is known of a sender's interface; `None` if nothing. Asked once for each that the batch's records name.
    fn interface(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText>;

    /// There was no room in a batch for so many of the answers.
    fn left_out(&mut self, _answers: usize) {}

    /// Whether addresses are looked up at all.
    fn has_addresses(&self) -> bool {
        false
    }

    /// Where an address belongs; `None` if that is not known.
    fn address(&mut self, _address: IpAddr) -> Option<AddressText> {
        None
    }
}

/// Nobody who knows anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn sender(&mut self, _: &Sender) -> Option<Arc<SenderText>> {
        None
    }

    fn interface(&mut self, _: &Sender, _: u32) -> Option<InterfaceText> {
        None
    }
}
