//! What things of a domain are called, as its options records tell: by the numbers that stand for them in records.

use super::{DomainState, Outcome, Told};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Interfaces of one domain; names, rates and samplers are counted apart.
pub(super) const MOST_INTERFACES: usize = 8_192;
const MOST_APPLICATIONS: usize = 8_192;
const MOST_VRFS: usize = 4_096;
const MOST_SAMPLERS: usize = 256;
/// Bytes of a name or description; what is longer is cut.
pub(super) const MOST_TEXT: usize = 256;
/// Bytes of an application's id: a classification engine's number, and a selector of up to 16 bytes behind it.
const MOST_ID: usize = 20;

/// What is told counts like fields of templates, some 20 bytes each.
const NAME_COST: usize = 6;
const TEXT_BYTES_OF_COST: usize = 16;

/// By how much the time of a start that is worked out from two clocks may differ, in milliseconds.
pub(super) const BOOT_SLACK: u64 = 60_000;

/// An applicationId as it stands in records (RFC 6759 4): the classification engine's number, and its selector.
pub type ApplicationId = Box<[u8]>;

/// What something is called; empty if that was not told.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// interfaceName (82), applicationName (96), VRFname (236), samplerName (84).
    pub name: Arc<str>,
    /// interfaceDescription (83), applicationDescription (94).
    pub description: Arc<str>,
    /// When it was last told, by [`Arrival::elapsed`](crate::wire::Arrival::elapsed) and 1 more; 0: before the last
    /// start. It is neither kept nor compared.
    pub told: u64,
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        (&self.name, &self.description) == (&other.name, &other.description)
    }
}

impl Eq for Text {}

impl Text {
    /// One that was told before the last start.
    pub fn kept(name: &str, description: &str) -> Text {
        Text { name: name.into(), description: description.into(), told: 0 }
    }

    fn cost(&self) -> usize {
        NAME_COST + (self.name.len() + self.description.len()).div_ceil(TEXT_BYTES_OF_COST)
    }

    fn is_sound(&self) -> bool {
        let texts = [&self.name, &self.description];
        texts.iter().all(|text| text.len() <= MOST_TEXT) && texts.iter().any(|text| !text.is_empty())
    }
}

/// What bounds the names of a domain beside the caps of its tables.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct Room {
    /// What is not named yet is refused a name once the state's cost has come to this.
    pub(in crate::wire) most_cost: usize,
    /// The moment, as in [`Text::told`].
    pub(in crate::wire) now: u64,
}

impl DomainState {
    pub(super) fn names_cost(&self) -> usize {
        self.names().map(Text::cost).sum()
    }

    /// How many things it has named.
    pub(super) fn names_len(&self) -> usize {
        self.interfaces.len() + self.applications.len() + self.vrfs.len() + self.sampler_names.len()
    }

    /// It has named something.
    pub fn has_names(&self) -> bool {
        self.names_len() > 0
    }

    fn names(&self) -> impl Iterator<Item = &Text> {
        let others = self.vrfs.values().chain(self.sampler_names.values());
        self.interfaces.values().chain(self.applications.values()).chain(others)
    }

    /// Takes out what no record could have told.
    pub(super) fn check_names(&mut self) {
        super::check(&mut self.interfaces, MOST_INTERFACES, Text::is_sound);
        self.applications.retain(|id, _| (1..=MOST_ID).contains(&id.len()));
        super::check(&mut self.applications, MOST_APPLICATIONS, Text::is_sound);
        super::check(&mut self.vrfs, MOST_VRFS, Text::is_sound);
        super::check(&mut self.sampler_names, MOST_SAMPLERS, Text::is_sound);
    }

    /// Takes over the names that a record told.
    pub(super) fn name(&mut self, told: &Told<'_>, cost: &mut usize, room: Room) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(index) = told.interface {
            let texts = (told.name, told.description);
            outcome.add(put(&mut self.interfaces, MOST_INTERFACES, index, texts, cost, room));
        }
        if (1..=MOST_ID).contains(&told.application.len()) {
            let texts = (told.application_name, told.application_description);
            if !(texts.0.is_empty() && texts.1.is_empty()) {
                let id = ApplicationId::from(told.application);
                outcome.add(put(&mut self.applications, MOST_APPLICATIONS, id, texts, cost, room));
            }
        }
        if let Some(id) = told.vrf {
            outcome.add(put(&mut self.vrfs, MOST_VRFS, id, (told.vrf_name, &[]), cost, room));
        }
        if let Some(id) = told.sampler {
            outcome.add(put(
                &mut self.sampler_names,
                MOST_SAMPLERS,
                id,
                (told.sampler_name, &[]),
                cost,
                room,
            ));
        }
        outcome
    }

    /// The exporter has started anew: what numbers stood for before `now` they may not stand for any more. Tells
    /// whether anything was forgotten.
    pub(in crate::wire) fn restarted(&mut self, now: u64, cost: &mut usize) -> bool {
        let before = self.names_len();
        forget_before(&mut self.interfaces, now, cost);
        forget_before(&mut self.vrfs, now, cost);
        self.named_boot = 0;
        self.names_len() != before
    }

    /// A header says when the exporter started, in milliseconds since 1970. Is that another start than the one after
    /// which it told the names that are known?
    pub(in crate::wire) fn is_before(&self, boot: u64) -> bool {
        self.named_boot != 0 && boot > self.named_boot.saturating_add(BOOT_SLACK)
    }

    /// Names are told by an exporter that started then, as its header says.
    pub(in crate::wire) fn named_after(&mut self, boot: u64) {
        if boot.abs_diff(self.named_boot) > BOOT_SLACK / 10 {
            self.named_boot = boot;
        }
    }
}

fn forget_before<K: Ord>(texts: &mut BTreeMap<K, Text>, now: u64, cost: &mut usize) {
    texts.retain(|_, text| {
        let is_kept = text.told >= now;
        *cost -= if is_kept { 0 } else { text.cost().min(*cost) };
        is_kept
    });
}

fn put<K: Ord>(
    texts: &mut BTreeMap<K, Text>,
    most: usize,
    key: K,
    (name, description): (&[u8], &[u8]),
    cost: &mut usize,
    room: Room,
) -> Outcome {
    let (name, description) = (text(name), text(description));
    if name.is_empty() && description.is_empty() {
        return Outcome::default();
    }
    let is_full = texts.len() >= most || *cost >= room.most_cost;
    if is_full && !texts.contains_key(&key) {
        return Outcome { refused: true, ..Outcome::default() };
    }
    let mut renamed = false;
    let known = texts.entry(key).or_insert_with(|| {
        *cost += NAME_COST;
        Text::default()
    });
    let before = known.cost();
    if !name.is_empty() && !known.name.is_empty() && *known.name != *name {
        // It is another thing now, and what the one before was called besides says nothing of it.
        (known.description, renamed) = (Arc::default(), true);
    }
    let mut changed = renamed;
    for (known, told) in [(&mut known.name, name), (&mut known.description, description)] {
        if !told.is_empty() && **known != *told {
            *known = told.into();
            changed = true;
        }
    }
    known.told = room.now;
    *cost = *cost + known.cost() - before;
    Outcome { changed, named: true, renamed: u32::from(renamed), ..Outcome::default() }
}

/// Text up to its first NUL, without the blanks that it is filled up with, cut to [`MOST_TEXT`] bytes.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end.min(MOST_TEXT)).unwrap_or_default().trim_ascii_end();
    let text = String::from_utf8_lossy(bytes);
    // What is not UTF-8 is replaced by three bytes.
    match text.len() {
        ..=MOST_TEXT => text,
        _ => text.get(..text.floor_char_boundary(MOST_TEXT)).unwrap_or_default().to_owned().into(),
    }
}
